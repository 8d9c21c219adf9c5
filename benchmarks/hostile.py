"""Whole commands on hostile input: each works, or is refused in one line with a way out and a documented exit code.

    python benchmarks/hostile.py
    python benchmarks/hostile.py pictures scans --all

Pictures of one pixel, of other depths, colours and kinds, damaged, empty and none at all, through every picture command and as
masks; arrays that are no sinogram, k-space, slice or PSF; options that make no sense; outputs onto inputs, folders, links, pipes
and devices; names that are long, odd or empty. Small priors that know nothing, two levels. Counted as answered badly: an
exception, another exit code than the documented ones, not exactly one error and one hint, a file that was there and is no more
what it was, a file left behind by what was refused. All in one process and a temporary folder.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import tifffile
from fuzz_files import pixels, saved, sinogram
from hostile_more import QUICK, Case, Prepare, machines, options, texts
from PIL import Image

from invsolve.errors import ExitCode

RGB = pixels()
GREY = RGB[..., 0]


def written(name: str, content: bytes | np.ndarray | Image.Image, **options: object) -> Prepare:
    def prepare(folder: Path) -> None:
        if isinstance(content, Image.Image):
            content.save(folder / name, **options)
        elif isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif name.endswith(".npy"):
            np.save(folder / name, content, allow_pickle=True)
        else:
            tifffile.imwrite(folder / name, content, **options)

    return prepare


def picture_files() -> dict[str, tuple[str, Prepare]]:
    """By what they are: their name, and what makes them."""
    image, frames = (
        Image.fromarray(RGB),
        [Image.fromarray(RGB[::step]).resize((27, 24)).quantize(16) for step in (1, -1)],
    )
    huge = bytearray(saved("PNG"))
    huge[16:24] = (100_000).to_bytes(4, "big") * 2
    clear = Image.fromarray(np.dstack([RGB, np.zeros_like(GREY)]))
    unit = (GREY / 255).astype(np.float32)
    found: dict[str, tuple[str, bytes | np.ndarray | Image.Image, dict[str, object]]] = {
        "1 x 1": ("a.png", image.crop((0, 0, 1, 1)), {}), "1 x 1 grey": ("a.png", Image.fromarray(GREY[:1, :1]), {}),
        "200 x 1": ("a.png", image.resize((200, 1)), {}), "1 x 200": ("a.png", image.resize((1, 200)), {}),
        "2 x 2": ("a.png", image.resize((2, 2)), {}), "5 x 3": ("a.png", image.resize((5, 3)), {}),
        "grey and alpha": ("a.png", image.convert("LA"), {}), "transparent": ("a.png", clear, {}),
        "palette, transparent": ("a.png", image.quantize(16), {"transparency": 3}),
        "16 bits grey": ("a.png", Image.fromarray(GREY.astype(np.uint16) * 256), {}),
        "16 bits": ("a.tif", RGB.astype(np.uint16) * 256, {"photometric": "rgb"}),
        "CMYK": ("a.jpg", image.convert("CMYK"), {}), "YCbCr": ("a.jpg", image.convert("YCbCr"), {}),
        "LAB": ("a.tif", image.convert("LAB"), {}), "1 bit": ("a.png", image.convert("1"), {}),
        "animated": ("a.gif", frames[0], {"save_all": True, "append_images": frames[1:]}),
        "floats": ("a.tif", unit, {}), "doubles": ("a.tif", unit.astype(np.float64), {}),
        "NaN": ("a.tif", np.where(GREY > 200, np.nan, unit).astype(np.float32), {}),
        "floats to 255": ("a.tif", 255 * unit, {}), "negative": ("a.tif", -unit, {}),
        "32-bit whole numbers": ("a.tif", GREY.astype(np.int32), {}), "pages": ("a.tif", np.stack([GREY] * 3), {}),
        "black": ("a.png", Image.fromarray(0 * RGB), {}), "white": ("a.png", Image.fromarray(0 * RGB + 255), {}),
        "one grey": ("a.png", Image.fromarray(0 * GREY + 7), {}), "empty": ("a.png", b"", {}),
        "a text": ("a.png", b"hello", {}), "SVG": ("a.svg", b"<svg/>", {}), "PDF": ("a.pdf", b"%PDF-1.4", {}),
        "header of 100 000 x 100 000": ("a.png", with_sums(bytes(huge)), {}), "cut": ("a.png", saved("PNG")[:60], {}),
        "broken profile": ("a.png", image, {"icc_profile": b"junk"}), "broken EXIF": ("a.jpg", image, {"exif": b"Exif\0\0x"}),
    }  # fmt: skip
    files = {what: (name, written(name, content, **options)) for what, (name, content, options) in found.items()}
    return files | {"a folder": ("a.png", lambda d: (d / "a.png").mkdir()), "nothing": ("a.png", lambda d: None)}


def with_sums(png: bytes) -> bytes:
    from fuzz import with_checksums

    return with_checksums(png)


def arrays() -> dict[str, np.ndarray]:
    lines = 10 * sinogram()
    nan, infinite = lines.copy(), lines.copy()
    nan[3, 4], infinite[3, 4] = np.nan, np.inf
    return {
        "NaN": nan, "infinite": infinite, "negative": -lines, "beyond all": lines * np.float32(1e30), "(0,)": np.zeros(0),
        "(0, 5)": np.zeros((0, 5)), "(5, 0)": np.zeros((5, 0)), "one dimension": lines[0], "four": lines[None, None],
        "a number": np.array(3.0), "whole numbers": lines.astype(int), "bool": lines > 5, "bytes": lines.astype(np.uint8),
        "complex": lines.astype(complex), "objects": np.array([1, None], dtype=object), "words": np.array([["a", "b"]]),
        "fields": np.zeros((4, 4), [("a", float)]), "times": np.zeros((4, 4), "M8[s]"), "constant": 0 * lines + 3,
        "zeros": 0 * lines, "turned": lines.T, "one view": lines[:1], "one bin": lines[:, :1], "two bins": lines[:, :2],
        "eight bins": lines[:, :8], "(1, 1)": lines[:1, :1], "no slices": np.zeros((0, 20, 40)), "two slices": np.stack([lines] * 2),
        "half": lines.astype(np.float16), "big-endian": lines.astype(">f4"), "tiny": lines * np.float32(1e-30),
        "noise": np.random.default_rng(0).normal(size=(20, 40)),
    }  # fmt: skip


def pictures(priors: dict[str, str]) -> Iterator[Case]:
    model = ("--model", priors["picture"], *QUICK)
    for what, (name, prepare) in picture_files().items():
        for command in (
            ("inpaint", name, "--box", "0,0,1,1", *model), ("colorize", name, *model), ("superres", name, "-x", "2", *model),
            ("deblur", name, "--sigma", "1", *model), ("denoise", name, "--sigma", "0.1", *model), ("denoise", name, *model),
            ("dejpeg", name, *model), ("evaluate", name, "--truth", name), ("simulate", "inpaint", name),
            ("simulate", "denoise", name, "--sigma", "0.1"), ("simulate", "superres", name, "-x", "2"),
            ("simulate", "deblur", name, "--sigma", "1"), ("simulate", "dejpeg", name), ("simulate", "colorize", name),
        ):  # fmt: skip
            yield Case(f"{what}: {' '.join(command[:2])}", prepare, command)


def masks(priors: dict[str, str]) -> Iterator[Case]:
    model = ("--model", priors["picture"], *QUICK)
    for what, (name, prepare) in picture_files().items():
        for more in ((), ("--invert-mask",), ("--mask-threshold", "0")):

            def both(folder: Path, prepare: Prepare = prepare) -> None:
                prepare(folder)
                Image.fromarray(RGB).save(folder / "p.png")

            yield Case(f"mask {what} {more}", both, ("inpaint", "p.png", "--mask", name, *more, *model))
    for text in (
        "--mask alpha", "--mask p.png", "--mask /dev/zero", "--mask-color #zz", "--mask-color red", "--box a", "--box 1,2,3",
        "--box 0,0,0,0", "--box -1,0,2,2", "--box 0,0,27,24", "--box 0,0,99999999999999999999,1", "--grow 5", "",
    ):  # fmt: skip
        yield Case(
            f"inpaint {text}", written("p.png", Image.fromarray(RGB)), ("inpaint", "p.png", *text.split(), *model)
        )
    for text in (
        "--steps 0", "--samples 0", "--samples 1000000000", "--memory 1KB", "--memory x", "--seed -1", "--rule nope", "--fit x",
        "--sampler nope", "--schedule nope", "--model nope", "--model p.png", "--device tpu", "--calibration p.png", "--interval",
        "--truth nope.png", "--report p.png", "--diagnostics d.jpg", "--config p.png", "--shard 0/3", "--quality 0", "--format bmp",
    ):  # fmt: skip
        given = ("inpaint", "p.png", "--box", "0,0,2,2", *model, *text.split())
        yield Case(f"inpaint {text}", written("p.png", Image.fromarray(RGB)), given)


def scans(priors: dict[str, str]) -> Iterator[Case]:
    model = ("--model", priors["slice"], *QUICK)
    for what, array in arrays().items():

        def both(folder: Path, array: np.ndarray = array) -> None:
            np.save(folder / "a.npy", array, allow_pickle=True)
            np.save(folder / "s.npy", 10 * sinogram())
            np.save(folder / "k.npy", sinogram().astype(np.complex64))
            Image.fromarray(RGB).save(folder / "p.png")

        for command in (
            ("ct", "a.npy", "--method", "fbp"), ("ct", "a.npy", "--method", "tv"), ("ct", "a.npy", *model),
            ("ct", "a.npy", "--method", "fbp", "--rings", "auto"), ("ct", "s.npy", "--method", "fbp", "--truth", "a.npy"),
            ("ct", "s.npy", "--method", "fbp", "--angles", "a.npy"), ("mri", "a.npy", *model), ("mri", "k.npy", "--mask", "a.npy", *model),
            ("simulate", "ct", "a.npy", "--views", "7"), ("evaluate", "a.npy", "--truth", "a.npy"),
            ("evaluate", "s.npy", "--truth", "a.npy"),
            ("deblur", "p.png", "--psf", "a.npy", "--model", priors["picture"], *QUICK),
        ):  # fmt: skip
            yield Case(f"{what}: {' '.join(command[:4])}", both, command)
    for text in (
        "--views 0", "--views 1000", "--angles abc", "--angles 0:0", "--angles 0:1e300", "--angles nan:180", "--angles 0:1:2",
        "--center -1", "--center nan", "--center abc", "--pixel-size 0", "--pixel-size nan", "--pixel-size 1e-300", "--units foo",
        "--units counts", "--units counts --i0 0 --pixel-size 1", "--units attenuation", "--i0 5", "--mu-water 0", "--noise -1",
        "--noise nan", "--noise 1e300", "--window a", "--window 40,0", "--window 40,inf", "--size 1", "--size 100000", "--slice 0",
        "--geometry s.npy", "--geometry nope", "--truth s.npy", "--axis x", "--axis detectors,views", "--bad-bins all",
        "--bad-bins 0:40", "--bad-bins 99", "--rings x", "--workers 0", "--baselines", "--interval", "--diagnostics d.png",
        "-o x.dcm", "-o x.jpg", "-o s.npy", "-o s.tif --force", "-o s.dcm --pixel-size 1 --force", "-o /dev/null", "-o s.npy/x.npy",
    ):  # fmt: skip
        yield Case(f"ct {text}", written("s.npy", 10 * sinogram()), ("ct", "s.npy", "--method", "fbp", *text.split()))


def outputs(priors: dict[str, str]) -> Iterator[Case]:
    model = ("--sigma", "0.1", "--model", priors["picture"], *QUICK)
    links = {"l.png": "p.png", "dangling.png": "nowhere/x.png", "loop.png": "loop.png"}

    def crowd(folder: Path) -> None:
        for name in ("p.png", "e.png"):
            (folder / name).write_bytes(saved("PNG"))
        for name, target in links.items():
            (folder / name).symlink_to(target)
        for name in ("sub", "dir.png"):
            (folder / name).mkdir()
        os.mkfifo(folder / "fifo.png")

    for name in (
        "p.png", "e.png", *links, "sub", "dir.png", "fifo.png", "p.png/x.png", "x.xyz", ".png", "/dev/null", "/dev/full",
        "/proc/x.png", f"{'a' * 251}.png", f"{'a' * 252}.png", "a\nb.png", "-x.png", "sub/../q.png", "new/deep/q.png", "x.png/",
        "", "-", "~/q.png", "é漢.png", "\x07.png", "a*?.png",
    ):  # fmt: skip
        for force in ((), ("--force",)):
            may = ("p.png", "e.png", *links) if force else ()
            yield Case(f"-o {name!r} {force}", crowd, ("denoise", "p.png", *model, "-o", name, *force), may)
    for name in ("a b.png", "a\nb.png", "é漢.png", "-x.png", f"{'a' * 240}.png", f"{'a' * 251}.png", ".png", "[a].png", "$(x).png",
                 "\x1b[31mred.png", "noending"):  # fmt: skip
        for given in (name, f"./{name}"):
            yield Case(f"input {given!r}", written(name, saved("PNG")), ("denoise", *model, given))
    for text in ("nope.png", "*.png", "p.png e.png", "p.png e.png -o e.png", "sub -o o/", "/dev/zero", "fifo.png", "loop.png", "dangling.png",
                 "p.png -o o/ --shard 3/2"):  # fmt: skip
        yield Case(f"inputs {text}", crowd, ("denoise", *model, *text.split()))


GROUPS = {
    "pictures": pictures,
    "masks": masks,
    "scans": scans,
    "outputs": outputs,
    "options": options,
    "texts": texts,
    "machines": machines,
}


@contextmanager
def captured() -> Iterator[tuple[io.BufferedRandom, io.BufferedRandom]]:
    """What is written to stdout and stderr meanwhile."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = os.dup(1), os.dup(2)
        for file, number in ((out, 1), (err, 2)):
            os.dup2(file.fileno(), number)
        try:
            yield out, err
        finally:
            for old, number in zip(kept, (1, 2), strict=True):
                (sys.stdout if number == 1 else sys.stderr).flush()
                os.dup2(old, number)
                os.close(old)


def state(folder: Path) -> dict[str, str]:
    """What is in a folder, by name: a file's hash, a link's target."""

    def fact(path: Path) -> str:
        if path.is_symlink():
            return f"link to {path.readlink()}"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"

    return {str(path.relative_to(folder)): fact(path) for path in sorted(folder.rglob("*"))}


@functools.lru_cache(maxsize=1)
def kept_program() -> Callable[..., object]:
    import typer.main

    from invsolve.cli.app import app

    return typer.main.get_command(app)


def program(changes: bool) -> Callable[..., object]:
    """All commands, put together once, which takes longer than most cases do; ``--show-config`` ``changes`` them."""
    if changes:
        kept_program.cache_clear()
    return kept_program()


def answer(case: Case, folder: Path) -> tuple[int | None, list[str], list[str]]:
    """Exit code, what is wrong with the answer, and the lines of it."""
    from invsolve.cli.main import main as command

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    case.prepare(folder)
    before, code, wrong = state(folder), None, []
    os.chdir(folder)
    sys.argv = ["invsolve", *case.command]
    with captured() as (_, err):
        try:
            with case.around(), patch("invsolve.cli.app.app", program("--show-config" in case.command)):
                command()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException as error:  # noqa: BLE001 - that is what is looked for
            wrong.append(f"{type(error).__name__}: {error}")
        sys.stderr.flush()
        err.seek(0)
        lines = err.read().decode(errors="replace").splitlines()
    os.chdir(folder.parent)
    after = state(folder)
    counts = [sum(line.startswith(start) for line in lines) for start in ("error: ", "hint: ")]
    if code not in [*map(int, ExitCode), None] or any("this is a bug" in line or "Traceback" in line for line in lines):
        wrong.append(f"exit code {code}, an exception")
    if code and counts != [1, 1] and not (case.silent or code == ExitCode.SOME_FAILED):
        wrong.append(f"{counts[0]} errors and {counts[1]} hints")
    if code == 0 and counts[0]:
        wrong.append("an error, and exit code 0")
    if lost := [name for name in before if after.get(name) != before[name] and name not in case.may]:
        wrong.append(f"no more what they were: {lost}")
    if code and (left := [name for name in sorted(set(after) - set(before)) if not name.startswith(case.may or "/")]):
        wrong.append(f"left behind: {left[:3]}")
    return code, wrong, [line for line in lines if line.startswith(("error", "hint"))]


def small_priors(folder: Path) -> dict[str, str]:
    """Two that know nothing."""
    import torch

    from invsolve.models.network import EDMDenoiser, NetworkConfig
    from invsolve.pretrained import Card, save_prior

    torch.manual_seed(0)
    errors = [(0.005, 2.4e-5), (0.1, 5e-3), (1.0, 5e-2), (20.0, 0.07)]
    small = NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,))
    slices = NetworkConfig(channels=1, stem=2, widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,))
    for name, config, units in (("picture", small, "RGB in [0, 1]"), ("slice", slices, "CT number n")):
        save_prior(folder / name, EDMDenoiser(config), Card(name, {}, units, 0.005, 20.0, errors, ""))
    return {name: str(folder / name) for name in ("picture", "slice")}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; default all")
    parser.add_argument("--all", action="store_true", help="a line for every case")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th case")
    chosen = parser.parse_args(arguments)
    bad = total = 0
    kept = os.environ.copy(), Path.cwd(), sys.argv
    with tempfile.TemporaryDirectory() as work:
        os.environ |= {"INVSOLVE_HOME": work, "NO_COLOR": "1", "COLUMNS": "200"}
        try:
            priors = small_priors(Path(work))
            for group in chosen.groups or GROUPS:
                started, worked, refused, wrongly = time.monotonic(), 0, 0, 0
                for case in list(GROUPS[group](priors))[:: chosen.every]:
                    code, wrong, lines = answer(case, Path(work) / "case")
                    worked, refused, wrongly = worked + (code == 0), refused + bool(code), wrongly + bool(wrong)
                    if wrong or chosen.all:
                        print(f"  {case.name}: {code} {'; '.join(wrong)} {lines}"[:400].replace("\n", " "), flush=True)
                seconds = time.monotonic() - started
                print(
                    f"{group}: {worked} work, {refused} refused, {wrongly} answered badly ({seconds:.0f} s)", flush=True
                )
                total, bad = total + worked + refused, bad + wrongly
        finally:
            os.chdir(kept[1])
            os.environ.clear()
            os.environ.update(kept[0])
            sys.argv = kept[2]
    print(f"all: {total} cases, {bad} answered badly")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
