"""Picture files at the border: what is read, what is refused and how, where results go."""

from __future__ import annotations

import json
import os
import struct
import sys
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calling import call
from PIL import Image

from invsolve.cli import dry_run, files, formats
from invsolve.errors import ExitCode, InputError, OutputError
from invsolve.pretrained.loading import load_prior

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray) -> Path:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[10:13, 5:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def inpaint(folder: Path, prior: Path, *more: object) -> list[object]:
    return ["inpaint", folder / "photo.png", "--mask", folder / "mask.png", "--model", prior, "--steps", 2, *more]


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG file that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def tiff(**tags: int) -> bytes:
    """A grey TIFF file of 4 x 4 pixels, with other values for some of its tags."""
    numbers = {
        "width": 256,
        "height": 257,
        "bits": 258,
        "compression": 259,
        "photometric": 262,
        "offset": 273,
        "rows": 278,
    }
    values = {"width": 4, "height": 4, "bits": 8, "compression": 1, "photometric": 1, "offset": 8, "rows": 4} | tags
    entries = b"".join(struct.pack("<HHII", numbers[name], 4, 1, values[name]) for name in numbers)
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + struct.pack("<H", len(numbers)) + entries + bytes(4)


DAMAGED = {
    "zero.png": png(0, 4),
    "short.png": png(8, 8, b"\0"),
    "zero.tif": tiff(width=0),
    "zstd.tif": tiff(compression=50000),
    "bits.tif": tiff(bits=99),
    "huge.tif": tiff(width=2**31, height=2**31),
    "huge.png": png(2**31 - 1, 2**31 - 1),
    "text.png": b"no picture at all",
    "vector.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit\n",
    "empty.png": b"",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_is_one_line(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    with pytest.raises(InputError) as refused:
        files.read_photo(path)
    assert name in refused.value.message and "\n" not in str(refused.value) and refused.value.hint
    assert not list(recwarn)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("option", ["picture", "--mask", "--truth"])
def test_a_pipe_is_refused_rather_than_waited_for(
    option: str, folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    os.mkfifo(folder / "pipe.png")
    arguments = inpaint(folder, small_prior, "--truth", folder / "photo.png")
    arguments[1 if option == "picture" else arguments.index(option) + 1] = folder / "pipe.png"
    assert call(monkeypatch, *arguments) == ExitCode.BAD_INPUT
    assert "pipe.png is a pipe" in capfd.readouterr().err


def test_damaged_metadata_is_no_concern(folder: Path, photo: np.ndarray) -> None:
    Image.fromarray(photo).save(folder / "exif.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert files.read_picture(folder / "exif.jpg").shape == photo.shape


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(files, "available_memory", lambda: 1e4)
    with pytest.raises(InputError, match=r"40 x 48 pixels: about 0 MB of memory, 0 MB are free"):
        files.read_photo(folder / "photo.png")
    monkeypatch.undo()
    assert 2**24 < files.available_memory() < 2**50


@pytest.mark.parametrize("given", ["out", "a/b/c", "out/result.png"])
def test_the_folder_of_the_results_is_made(given: str, folder: Path, small_prior: Path, monkeypatch: Patch) -> None:
    assert call(monkeypatch, *inpaint(folder, small_prior, "-q", "-o", folder / given)) == 0
    made = folder / given if given.endswith(".png") else folder / given / "photo.inpaint.png"
    assert made.is_file()


def test_a_name_that_is_too_long_is_found_before_the_work(
    folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    name = "n" * 250 + ".png"
    (folder / "photo.png").rename(folder / name)
    arguments = inpaint(folder, small_prior)
    arguments[1] = folder / name
    assert call(monkeypatch, *arguments) == ExitCode.OUTPUT
    assert "longer than 255 bytes" in capfd.readouterr().err


def test_a_jpeg_has_a_largest_side(folder: Path) -> None:
    formats.check_format(Path("a.png"), 70_000, 1)
    with pytest.raises(OutputError, match="65500 pixels on a side, the picture 70000"):
        formats.check_format(Path("a.jpg"), 1, 70_000)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_a_long_command_line_is_cut(ending: str, tmp_path: Path, photo: np.ndarray, monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "argv", ["invsolve", "inpaint", "x" * 100_000])
    path = tmp_path / f"a{ending}"
    path.write_bytes(files.encode_picture(photo, path, files.provenance(task="inpaint")))
    with Image.open(path) as image:
        image.load()
        kept = json.loads(image.info["invsolve"] if ending == ".png" else image.info["comment"])
    assert kept["command"].startswith("invsolve inpaint xxx") and len(kept["command"]) < 5000


def test_long_work_is_announced_with_what_is_quicker(
    folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    monkeypatch.setattr(dry_run, "LONG", 0.0)
    assert call(monkeypatch, *inpaint(folder, small_prior, "--samples", 2, "--steps", 30)) == 0
    said = capfd.readouterr().err
    assert "(60 network calls)" in said and "quicker: --samples 1 or --steps 15" in said
    assert [dry_run.duration(s) for s in (5, 90, 840, 50_400)] == ["5 s", "2 min", "14 min", "14.0 h"]


def test_the_estimate_of_time_is_of_the_right_size(photo: np.ndarray, small_prior: Path, monkeypatch: Patch) -> None:
    """Work is counted in pixels: as many as a run shows the network."""
    from invsolve.tasks.inpainting import inpainting_task

    seen = 0
    prior = load_prior(small_prior, "cpu")
    original = prior.denoise

    def count(x: object, sigma: object) -> object:
        nonlocal seen
        seen += x[:, 0].numel()  # type: ignore[index]
        return original(x, sigma)  # type: ignore[arg-type]

    monkeypatch.setattr(prior, "denoise", count)
    missing = np.zeros((120, 150), bool)
    missing[40:80, 50:90] = missing[5, 5] = True
    task = inpainting_task(np.full((120, 150, 3), 0.5), missing)
    for ways in ({"samples": 1}, {"samples": 2}):
        seen = 0
        task.solve(prior, steps=3, **ways)
        wanted = replace(task.options, **ways)
        assert seen == pytest.approx(task.work_of(wanted) * wanted.samples * 3, rel=0.05)
    assert task.work_of(wanted) > 1.5 * task.work


def test_every_command_makes_the_folder_that_it_is_given(tmp_path: Path) -> None:
    from invsolve.cli.ct_results import plan_paths
    from invsolve.cli.sample import grid_paths

    out = tmp_path / "new"
    assert files.output_path(out, Path("a/photo.jpg"), "inpaint") == out / "photo.inpaint.png"
    assert plan_paths(out, Path("a/scan.b.npy"), "fbp", 1)["npy"] == out / "scan.b.ct.npy"
    assert plan_paths(out / "x.tiff", Path("a/scan.npy"), "fbp", 1)["tif"] == out / "x.tiff"
    assert grid_paths(out, "sample.png", 1) == [out / "sample.png", out / "sample.sample-0.png"]
    for refused in (
        lambda: plan_paths(out / "x.jpg", Path("s.npy"), "fbp", 1),
        lambda: grid_paths(out / "x.txt", "s.png", 1),
    ):
        with pytest.raises(OutputError, match="does not end in"):
            refused()
