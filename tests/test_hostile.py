"""Files and options that nobody should give: each is answered in a line with a way out, and nothing is overwritten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from calling import call
from PIL import Image

from invsolve.cli.ct_files import read_array
from invsolve.cli.files import read_photo
from invsolve.errors import ExitCode, InputError, first_line

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


def grey(side: int = 16) -> np.ndarray:
    y, x = np.mgrid[:side, : side + 3]
    return (128 + 100 * np.sin(x / 5) * np.cos(y / 7)).astype(np.uint8)


# -- files that the fuzz benchmark found ----------------------------------------------------------------------------
def lying(path: Path, tag: int, value: int) -> Path:
    """The same TIFF with another value of a tag."""
    content = bytearray(path.read_bytes())
    at = int.from_bytes(content[4:8], "little")
    for entry in range(int.from_bytes(content[at : at + 2], "little")):
        place = at + 2 + 12 * entry
        if int.from_bytes(content[place : place + 2], "little") == tag:
            content[place + 8 : place + 12] = value.to_bytes(4, "little")
            if int.from_bytes(content[place + 2 : place + 4], "little") == 3:
                content[place + 2 : place + 4] = (4).to_bytes(2, "little")
    path.write_bytes(bytes(content))
    return path


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_a_header_that_promises_more_than_the_file_holds_is_refused_before_memory_is_taken(
    kind: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    def allocate(*_: object, **__: object) -> None:
        raise AssertionError("memory was asked for")

    pixels = np.full((16, 16, 3), 0.5) * (1 if kind == "float32" else np.iinfo(kind).max)
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(kind), photometric="rgb")
    path = lying(tmp_path / "a.tif", 257, 10**6)  # ImageLength
    monkeypatch.setattr(Image.core, "new", allocate)
    monkeypatch.setattr(Image.core, "fill", allocate)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", allocate)
    with pytest.raises(InputError, match="bytes cannot hold|damaged or truncated"):
        read_photo(path)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", allocate)
    monkeypatch.setattr(tifffile.TiffFile, "asarray", allocate)
    with pytest.raises(InputError, match="bytes cannot hold|damaged or truncated"):
        read_array(path, "sinogram")


def test_large_pictures_of_one_colour_are_still_read(tmp_path: Path) -> None:
    """What compresses best is not taken for a lie."""
    image = Image.new("L", (3000, 2500))
    for name, options in (
        ("a.png", {}), ("a.gif", {}), ("a.jpg", {"quality": 1}), ("b.jpg", {"quality": 1, "progressive": True}),
        ("a.tif", {"compression": "tiff_lzw"}), ("b.tif", {"compression": "tiff_adobe_deflate"}),
        ("c.tif", {"compression": "packbits"}), ("a.bmp", {}), ("a.webp", {"lossless": True}), ("a.jp2", {}), ("a.pgm", {}),
    ):  # fmt: skip
        image.save(tmp_path / name, **options)
        assert read_photo(tmp_path / name).pixels.shape[:2] == (2500, 3000), name
    image.convert("1").save(tmp_path / "d.tif", compression="group4")
    assert read_photo(tmp_path / "d.tif").pixels.shape[:2] == (2500, 3000)
    tifffile.imwrite(tmp_path / "e.tif", np.zeros((500, 4000), np.float32), compression="zlib")
    assert read_array(tmp_path / "e.tif", "sinogram").shape == (500, 4000)


def test_what_libraries_say_of_a_damaged_tiff_is_not_written_past_the_error(tmp_path: Path, capfd: Capture) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(
        tmp_path / "a.tif", compression="tiff_lzw"
    )
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for place in range(200, 260):
        content[place] ^= 0xA5
    (tmp_path / "a.tif").write_bytes(bytes(content))
    with Image.open(tmp_path / "a.tif") as image, suppress(OSError):
        image.load()
    assert capfd.readouterr().err  # the file is one of which libtiff speaks
    with suppress(InputError):
        read_photo(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", grey().astype(np.uint16))
    path = lying(tmp_path / "b.tif", 277, 4097)  # SamplesPerPixel, of which Pillow's log speaks
    with pytest.raises(InputError):
        read_photo(path)
    assert capfd.readouterr().err == ""


def test_a_librarys_message_is_cut() -> None:
    assert len(first_line(ValueError("x" * 10_000))) < 400


# -- outputs --------------------------------------------------------------------------------------------------------
@pytest.fixture
def scan(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    x = np.linspace(-1, 1, 40)
    np.save(folder / "scan.npy", np.tile(10 * np.exp(-4 * x**2), (20, 1)).astype(np.float32))
    return folder


@pytest.mark.parametrize("output", ["scan.tif", "scan.png", "scan.nii.gz", "scan.dcm"])
def test_ct_does_not_write_over_its_input_under_another_ending(
    output: str, scan: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    pytest.importorskip("pydicom" if output.endswith("dcm") else "nibabel" if "nii" in output else "numpy")
    before = (scan / "scan.npy").read_bytes()
    given = ("ct", scan / "scan.npy", "--method", "fbp", "--pixel-size", 1.5, "-o", scan / output, "--force")
    assert call(monkeypatch, *given) == ExitCode.OUTPUT
    said = capfd.readouterr().err
    assert "scan.npy, which is a file that is read" in said
    assert "-o" in said.split("hint:")[1]
    assert (scan / "scan.npy").read_bytes() == before
    assert [path.name for path in scan.iterdir()] == ["scan.npy"]


def test_ct_writes_over_its_input_where_that_is_what_is_asked_for(scan: Path, monkeypatch: Patch) -> None:
    given = ("ct", scan / "scan.npy", "--method", "fbp", "-o", scan / "scan.npy")
    assert call(monkeypatch, *given) == ExitCode.OUTPUT
    assert call(monkeypatch, *given, "--force") == ExitCode.OK
    assert np.load(scan / "scan.npy").shape != (20, 40)


def test_a_result_does_not_take_the_place_of_the_mask_or_the_truth(
    tmp_path: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    Image.fromarray(np.stack([grey()] * 3, axis=2)).save(tmp_path / "a.png")
    Image.fromarray(np.where(grey() > 200, 255, 0).astype(np.uint8)).save(tmp_path / "r.std.png")
    mask = (tmp_path / "r.std.png").read_bytes()
    given = ("inpaint", tmp_path / "a.png", "--mask", tmp_path / "r.std.png", "-o", tmp_path / "r.png", "--force")
    assert call(monkeypatch, *given, "--model", small_prior, "-n", 2, "--steps", 2) == ExitCode.OUTPUT
    assert "r.std.png, which is a file that is read" in capfd.readouterr().err
    assert (tmp_path / "r.std.png").read_bytes() == mask


# -- folders, and Ctrl-C --------------------------------------------------------------------------------------------
def test_quality_in_a_folder_run(tmp_path: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture) -> None:
    source = tmp_path / "in"
    source.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    for name in ("a", "b"):
        Image.fromarray(noise).save(source / f"{name}.png")
    given = ("denoise", source, "--sigma", 0.02, "--samples", 1, "--steps", 2, "--model", small_prior)
    assert call(monkeypatch, *given, "-o", tmp_path / "x", "--quality", 30) == ExitCode.USAGE
    assert "--format jpg" in capfd.readouterr().err
    assert not (tmp_path / "x").exists()
    sizes = {}
    for quality in (30, 95):
        out = tmp_path / str(quality)
        assert call(monkeypatch, *given, "-o", out, "--quality", quality, "--format", "jpg") == ExitCode.OK
        sizes[quality] = [(out / f"{name}.denoise.jpg").stat().st_size for name in ("a", "b")]
    assert all(small < 0.6 * large for small, large in zip(sizes[30], sizes[95], strict=True))


def test_dejpeg_of_a_folder_has_a_quality_of_its_own(
    tmp_path: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(np.stack([grey()] * 3, axis=2)).save(source / "a.png")
    given = ("dejpeg", source, "--quality", 30, "--samples", 1, "--steps", 2, "--model", small_prior)
    assert call(monkeypatch, *given, "-o", tmp_path / "x") == ExitCode.OK


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_before_the_command_line_is_loaded(tmp_path: Path) -> None:
    """``invsolve.cli`` takes long to load here."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'invsolve.cli':\n"
        "            print('loading', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "invsolve", "sample"], text=True, env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (ExitCode.INTERRUPTED, "interrupted\n")
