"""Ten kinds of bad input and more for each command that restores or simulates: one line, a way out, the documented exit code.

Every kind is a whole command in this process, in a folder whose files must afterwards be what they were. More kinds of the
commands that solve stand in their own tests; benchmarks/hostile.py goes through hundreds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from calling import call
from PIL import Image

from invsolve.errors import ExitCode

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links")
INPUT, USAGE, MODEL, OUTPUT = ExitCode.BAD_INPUT, ExitCode.USAGE, ExitCode.MODEL, ExitCode.OUTPUT
Kinds = dict[str, tuple[ExitCode, str]]
"""What is given, to its exit code and what the error says."""

NO_FILES: Kinds = {
    "absent.png": (INPUT, "no such file"),
    "empty.png": (INPUT, "0 bytes"),
    "text.png": (INPUT, "not a picture"),
    "cut.png": (INPUT, "truncated"),
    "fifo.png": (INPUT, "a pipe or a device"),
    "/dev/zero": (INPUT, "a pipe or a device"),
    "loop.png": (INPUT, "links"),
    "nan.tif": (INPUT, "NaN"),
}
"""For every command that reads a picture."""

NO_PICTURES: Kinds = NO_FILES | {"signed.tif": (INPUT, "int32"), "bright.tif": (INPUT, "floats from")}
"""For those that take pictures only; numbers of any size are slices."""

NO_SLICES: Kinds = NO_FILES | {
    "nan.npy": (INPUT, "NaN"),
    "infinite.npy": (INPUT, "infinite"),
    "huge.npy": (INPUT, "values up to 1e+300"),
    "complex.npy": (INPUT, "complex128"),
    "volume.npy": (INPUT, "3 dimensions"),
    "nothing.npy": (INPUT, "shape (0, 5)"),
    "objects.npy": (INPUT, "Python objects"),
    "words.npy": (INPUT, "<U1"),
    "text.npy": (INPUT, "damaged"),
}
NOWHERE: Kinds = {
    "photo.png -o text.png": (OUTPUT, "cannot make the folder text.png"),
    "photo.png -o text.png/deep": (OUTPUT, "cannot make the folder text.png/deep"),
    "photo.png photo.png": (USAGE, "extra argument"),
}
"""Of the commands whose results are several files in a folder."""

SIMULATIONS: dict[str, Kinds] = {
    "inpaint": NO_PICTURES | NOWHERE | {
        "photo.png --pixels 1.5": (USAGE, "--pixels"), "photo.png --lines nan": (USAGE, "--lines"),
        "photo.png --noise -1": (USAGE, "--noise"), "kept.png": (OUTPUT, "exists"),
    },
    "colorize": NO_PICTURES | NOWHERE | {"kept.png": (OUTPUT, "exists"), "": (USAGE, "PICTURE")},
    "superres": NO_PICTURES | NOWHERE | {
        "photo.png -x 1": (USAGE, "factor"), "photo.png -x 2.5": (USAGE, "factor"), "photo.png --kernel x": (USAGE, "kernel"),
        "dot.png": (INPUT, "1 x 1"), "kept.png": (OUTPUT, "exists"),
    },
    "deblur": {f"{file} --sigma 1": answer for file, answer in NO_PICTURES.items()} | {
        "photo.png": (USAGE, "no blur given"), "photo.png --sigma nan": (USAGE, "finite"),
        "photo.png --sigma 1 --motion 3,4": (USAGE, "together"), "photo.png --sigma 40": (INPUT, "321 x 321"),
        "photo.png --motion far": (USAGE, "far"), "photo.png --psf text.png": (INPUT, "not a picture"),
        "photo.png --psf nan.npy": (INPUT, "NaN"), "photo.png --psf zeros.npy": (INPUT, "zeros"),
        "photo.png --psf fifo.png": (INPUT, "pipe"), "photo.png --psf complex.npy": (INPUT, "complex"),
        "photo.png --sigma 1 --noise nan": (USAGE, "--noise"), "kept.png --sigma 1": (OUTPUT, "exists"),
    },
    "denoise": NO_PICTURES | NOWHERE | {
        "photo.png --sigma nan": (USAGE, "--sigma"), "photo.png --sigma -1": (USAGE, "--sigma"),
        "photo.png --seed 1e30": (USAGE, "--seed"), "kept.png": (OUTPUT, "exists"),
    },
    "dejpeg": NO_PICTURES | {
        "photo.png -Q 0": (USAGE, "quality"), "photo.png -Q 1e9": (USAGE, "quality"),
        "photo.png --sampling 4:1:0": (USAGE, "sampling"), "photo.png -o photo.png": (OUTPUT, ".jpg"),
        "photo.png -o text.png/x.jpg": (OUTPUT, "cannot make the folder"), "web.jpg -o web.jpg": (OUTPUT, "exists"),
    },
    "stroke": NO_PICTURES | {
        "photo.png --colours 1": (USAGE, "colours"), "photo.png --brush nan": (USAGE, "brush"),
        "photo.png -o photo.png": (OUTPUT, "exists"), "photo.png -o x.gif": (OUTPUT, ".png"),
        "photo.png -o text.png/x.png": (OUTPUT, "cannot make the folder"),
    },
    "mri": {f"{file} --centre 4": answer for file, answer in NO_SLICES.items()} | {
        "zeros.npy --centre 4": (INPUT, "from 0 to 0"), "negative.npy --centre 4": (INPUT, "from -2 to -1"),
        "slice.npy": (INPUT, "24 of 20 positions"), "slice.npy --centre 4 --coils 0": (USAGE, "coils"),
        "slice.npy --centre 4 --noise nan": (USAGE, "--noise"), "slice.npy --acceleration inf": (USAGE, "acceleration"),
        "slice.npy --pattern spiral": (USAGE, "spiral"), "kept.npy --centre 4": (OUTPUT, "exists"),
    },
    "ct": NO_SLICES | {
        "slice.npy --views 0": (USAGE, "views"), "slice.npy --views 100000000": (USAGE, "--views"),
        "slice.npy --i0 1e5 --noise 1": (USAGE, "--i0"), "slice.npy --i0 nan": (USAGE, "--i0"),
        "slice.npy --i0 0": (USAGE, "--i0"), "slice.npy --i0 1e300": (USAGE, "--i0"),
        "slice.npy --noise inf": (USAGE, "--noise inf"), "slice.npy --pixel-size -1": (USAGE, "--pixel-size"),
        "slice.npy --mu-water inf": (USAGE, "--mu-water"), "slice.npy --geometry text.png": (INPUT, "geometry"),
        "kept.npy": (OUTPUT, "exists"),
    },
}  # fmt: skip

FBP = "scan.npy --method fbp --metal"
COMMANDS: dict[str, Kinds] = {
    "superres": NO_PICTURES | {
        "photo.png -x 2 -o photo.png": (OUTPUT, "exists"), "photo.png -x 2 --truth nan.tif": (INPUT, "NaN"),
        "photo.png -x 2 --truth photo.png": (INPUT, "wanted (96, 80, 3)"),
        "photo.png -o text.png/x.png": (OUTPUT, "cannot make the folder"),
    },
    "deblur": {f"{file} --sigma 1": answer for file, answer in NO_PICTURES.items()} | {
        "photo.png --psf fifo.png": (INPUT, "pipe"), "photo.png --psf complex.npy": (INPUT, "complex"),
        "photo.png --sigma 1 -o photo.png": (OUTPUT, "exists"),
    },
    "denoise": {f"{file} --sigma 0.1": answer for file, answer in NO_PICTURES.items()} | {
        "photo.png --sigma 0.1 -o photo.png": (OUTPUT, "exists"),
        "photo.png --sigma 0.1 --output=": (USAGE, "an empty word after --output"),
        "photo.png --sigma 0.1 --samples 2 --calibration absent.json --dry-run": (INPUT, "no such file"),
        "photo.png --sigma 0.1 --samples 2 --calibration shipped --dry-run": (USAGE, "no calibration is shipped"),
    },
    "dejpeg": NO_PICTURES | {"photo.png": (INPUT, "is not a JPEG file"), "web.jpg -o photo.png": (OUTPUT, "exists")},
    "stroke": NO_PICTURES | {
        "photo.png --mask fifo.png": (INPUT, "pipe"), "photo.png --mask nan.tif": (INPUT, "NaN"),
        "photo.png -o photo.png": (OUTPUT, "exists"),
    },
    "mri": {
        "absent.npy": (INPUT, "no such file"), "empty.png": (INPUT, "0 bytes"), "text.npy": (INPUT, "is no .npy file"),
        "objects.npy": (INPUT, "Python objects"), "words.npy": (INPUT, "no numbers"), "nothing.npy": (INPUT, "no numbers"),
        "slice.npy": (INPUT, "float64"), "fifo.png": (INPUT, "pipe"), "spoiled.npy": (INPUT, "NaN"),
        "kspace.npy --mask absent.npy": (INPUT, "no such file"), "kspace.npy --mask nan.npy": (INPUT, "NaN"),
        "kspace.npy --mask zeros.npy": (INPUT, "0 x 0"), "kspace.npy --mask volume.npy": (INPUT, "shape (3, 8, 8)"),
        "kspace.npy --sensitivities kspace.npy": (INPUT, "sensitivities (20, 20)"),
        "kspace.npy --noise nan": (USAGE, "--noise"), "kspace.npy --noise inf": (INPUT, "inf"),
        "kspace.npy --noise 1e300": (INPUT, "noise 1e+300"), "kspace.npy --slice -1": (USAGE, "slice -1"),
        "kspace.npy --truth complex.npy": (INPUT, "--truth"), "kspace.npy --truth nan.npy": (INPUT, "NaN"),
        "kspace.npy --truth zeros.npy": (INPUT, "above 0"), "kspace.npy -o kspace.npy": (OUTPUT, "exists"),
        "kspace.npy -o text.png/x.npy": (OUTPUT, "cannot make the folder"),
    },
    "ct": {
        f"{FBP} -5": (USAGE, "--metal -5"), f"{FBP} inf": (USAGE, "--metal inf"), f"{FBP} absent.npy": (INPUT, "no such file"),
        f"{FBP} empty.png": (INPUT, "0 bytes"), f"{FBP} photo.png": (INPUT, "not a metal mask"),
        f"{FBP} nan.npy": (INPUT, "NaN"), f"{FBP} complex.npy": (INPUT, "complex"), f"{FBP} words.npy": (INPUT, "<U1"),
        f"{FBP} objects.npy": (INPUT, "Python objects"), f"{FBP} nothing.npy": (INPUT, "shape (0, 5)"),
        f"{FBP} slice.npy": (INPUT, "--metal slice.npy has shape (20, 20)"), f"{FBP} rays.npy": (INPUT, "leaves no ray"),
        f"{FBP} fifo.png": (INPUT, "pipe"), f"{FBP} loop.png": (INPUT, "links"), f"{FBP} .": (INPUT, "is a folder"),
        f"{FBP} one.npy -o one.npy --force": (OUTPUT, "a file that is read"),
        f"{FBP} one.npy -o one.tif --force": (OUTPUT, "a file that is read"),
    },
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("photo.png", "kept.png", "web.jpg"):
        Image.fromarray(photo).save(name)
    Image.fromarray(photo[:1, :1]).save("dot.png")
    Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:-500])
    for name in ("empty.png", *(f"kept.{part}.png" for part in ("damaged", "grey", "small", "blurred", "noisy"))):
        Path(name).touch()
    for name in ("text.png", "text.npy", "kept.kspace.npy", "kept.sinogram.npy"):
        Path(name).write_text("precious")
    tifffile.imwrite("nan.tif", np.where(photo > 200, np.nan, photo / 255).astype(np.float32), photometric="rgb")
    tifffile.imwrite("bright.tif", photo.astype(np.float32), photometric="rgb")
    tifffile.imwrite("signed.tif", photo[..., 0].astype(np.int32))
    os.mkfifo("fifo.png")
    Path("loop.png").symlink_to("loop.png")
    y, x = np.mgrid[:20, :20] / 10 - 1
    body = (x**2 + y**2 < 0.6).astype(float)
    kspace = np.fft.fftshift(np.fft.fft2(body)).astype(np.complex64)
    arrays = {
        "slice": body, "kept": body, "zeros": 0 * body, "negative": body - 2, "huge": 1e300 * body, "complex": 1j * body,
        "nan": np.where(x > 0.8, np.nan, body), "infinite": np.where(x > 0.8, np.inf, body), "volume": np.ones((3, 8, 8)),
        "nothing": np.zeros((0, 5)), "words": np.array([["a", "b"]]), "objects": np.array([1, None], dtype=object),
        "kspace": kspace, "spoiled": np.where(x > 0.8, np.nan, kspace), "rays": np.ones((9, 40)), "one": np.eye(9, 40),
        "scan": np.tile(np.exp(-np.linspace(-2, 2, 40) ** 2), (9, 1)),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(f"{name}.npy", array, allow_pickle=True)
    return folder


def state(folder: Path) -> dict[str, bytes | str]:
    return {
        path.name: str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "no file"
        for path in folder.iterdir()
    }


def complaints(
    given: Sequence[str], code: ExitCode, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> list[str]:
    """What is wrong with the answer."""
    before = state(Path())
    capfd.readouterr()
    found = call(monkeypatch, *given)
    out, err = capfd.readouterr()
    errors, hints = ([x for x in err.splitlines() if x.startswith(start)] for start in ("error: ", "hint: "))
    wrong = {
        f"exit code {found}": found != code,
        "something on stdout": bool(out),
        f"{len(errors)} errors, {len(hints)} hints": (len(errors), len(hints)) != (1, 1),
        f"no {said!r}": said not in "".join(errors),
        "not what it was: the folder": state(Path()) != before,
    }
    return [f"{' '.join(given)}: {what} [{err.strip()}]" for what, is_so in wrong.items() if is_so]


def all_complaints(
    command: Sequence[str], kinds: Kinds, more: Sequence[str], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> list[str]:  # fmt: skip
    assert len(kinds) >= 10
    found = []
    for line, (code, said) in kinds.items():
        found += complaints((*command, *line.split(), *more), code, said, monkeypatch, capfd)
    return found


@pytest.mark.parametrize("given", [("denoise", ""), ("denoise", "photo.png", "-o", ""), ("train", "", "-o", "x")])
def test_an_empty_word_is_no_folder(
    given: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a path it would be the one that the shell is in, and all pictures below it."""
    assert not complaints(given, USAGE, "an empty word", monkeypatch, capfd)


@pytest.mark.parametrize("name", SIMULATIONS)
def test_simulate(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert not all_complaints(("simulate", name), SIMULATIONS[name], (), monkeypatch, capfd)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_solve(
    name: str, folder: Path, small_prior: Path, ct_prior: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    prior = ct_prior if name in ("ct", "mri") else small_prior
    more = () if name == "ct" else ("--model", str(prior), "--steps", "2")
    assert not all_complaints((name,), COMMANDS[name], more, monkeypatch, capfd)
