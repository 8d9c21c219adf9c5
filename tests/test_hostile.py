"""Files and options that nobody should give: each is answered in a line with a way out, and nothing is overwritten."""

from __future__ import annotations

import os
import signal
import struct
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
from invsolve.errors import ExitCode, InputError, ModelError, first_line
from invsolve.pretrained.weight_files import read_checkpoint
from invsolve.training.archives import archive_pictures

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


# -- whole commands -------------------------------------------------------------------------------------------------
HOSTILE_SCANS = {
    "--angles 0:1e300": (ExitCode.BAD_INPUT, "angles go from 0 to 9.5e+299 degrees"),
    "--angles 7:7": (ExitCode.BAD_INPUT, "all 20 angles are 7 degrees"),
    "--angles huge.txt": (ExitCode.BAD_INPUT, "1e+308 degrees"),
    "--angles words.txt": (ExitCode.BAD_INPUT, "cannot read the angles"),
    "--angles few.txt": (ExitCode.BAD_INPUT, "3 angles for a sinogram with 20 views"),
    "--pixel-size 0": (ExitCode.USAGE, "--pixel-size 0"),
    "--pixel-size nan": (ExitCode.USAGE, "--pixel-size nan"),
    "--window 40,inf": (ExitCode.USAGE, "--window"),
    "--window nan,400": (ExitCode.USAGE, "--window"),
    "--center 99": (ExitCode.BAD_INPUT, "off the detector"),
    "--noise nan": (ExitCode.USAGE, "--noise"),
    "--size 100000": (ExitCode.BAD_INPUT, "GiB"),
    "--views 21": (ExitCode.BAD_INPUT, "21 views wanted of a sinogram with 20"),
    "--rings all": (ExitCode.USAGE, "--rings"),
    "--bad-bins 0:40": (ExitCode.BAD_INPUT, "no detector bin"),
    "--geometry scan.npy": (ExitCode.BAD_INPUT, "cannot read the geometry"),
    "--truth scan.npy": (ExitCode.BAD_INPUT, "--truth has shape (20, 40)"),
    "-o loop.npy": (ExitCode.OUTPUT, "loop.npy exists"),
    "-o dangling.npy": (ExitCode.OUTPUT, "dangling.npy exists"),
    "-o fifo.npy --force": (ExitCode.OUTPUT, "is a pipe or a device"),
    "-o /dev/null": (ExitCode.OUTPUT, "/dev/null"),
    "-o scan.npy/x.npy": (ExitCode.OUTPUT, "scan.npy"),
    f"-o {'a' * 252}.npy": (ExitCode.OUTPUT, "longer than 255 bytes"),
    "-o x.jpg": (ExitCode.OUTPUT, "does not end in"),
}


@pytest.mark.parametrize("options", HOSTILE_SCANS)
def test_options_of_a_scan_that_make_no_sense(options: str, scan: Path, monkeypatch: Patch, capfd: Capture) -> None:
    (scan / "huge.txt").write_text("\n".join(["1e308"] * 19 + ["-1e308"]))
    (scan / "words.txt").write_text("a b\nc")
    (scan / "few.txt").write_text("1\n2\n3\n")
    (scan / "loop.npy").symlink_to("loop.npy")
    (scan / "dangling.npy").symlink_to("nowhere/x.npy")
    os.mkfifo(scan / "fifo.npy")
    refused(("ct", "scan.npy", "--method", "fbp", *options.split()), *HOSTILE_SCANS[options], scan, monkeypatch, capfd)


def spoiled(value: float) -> np.ndarray:
    x = np.linspace(-1, 1, 40)
    out = np.tile(10 * np.exp(-4 * x**2), (20, 1)).astype(np.float32)
    out[3, 4] = value
    return out


HOSTILE_ARRAYS: dict[str, tuple[np.ndarray, str]] = {
    "NaN": (spoiled(np.nan), "1 values that are NaN or infinite"),
    "infinite": (spoiled(np.inf), "1 values that are NaN or infinite"),
    "beyond all": (spoiled(1) * np.float32(1e30), "values up to"),
    "empty": (np.zeros((0, 5)), "no array, but shape (0, 5)"),
    "of one dimension": (np.ones(7), "1 dimensions"),
    "of four": (np.ones((1, 1, 20, 40)), "4 dimensions"),
    "a number": (np.float64(3), "no array, but shape ()"),
    "complex": (np.ones((4, 4), dtype=complex), "complex128 values"),
    "Python objects": (np.array([1, None], dtype=object), "Python objects"),
    "words": (np.array([["a", "b"]]), "<U1 values"),
    "fields": (np.zeros((4, 4), dtype=[("a", float)]), "values"),
    "times": (np.zeros((4, 4), "M8[s]"), "values"),
}


@pytest.mark.parametrize("name", HOSTILE_ARRAYS)
def test_arrays_that_are_no_sinogram(name: str, scan: Path, monkeypatch: Patch, capfd: Capture) -> None:
    array, said = HOSTILE_ARRAYS[name]
    np.save(scan / "scan.npy", array, allow_pickle=True)
    refused(("ct", "scan.npy", "--method", "fbp"), ExitCode.BAD_INPUT, said, scan, monkeypatch, capfd)


def refused(
    given: tuple[str, ...], code: ExitCode, said: str, folder: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    """One line, a hint and the documented code; the folder is as it was."""

    def content() -> dict[str, bytes | str]:
        return {
            path.name: str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "other"
            for path in folder.iterdir()
        }

    before = content()
    monkeypatch.chdir(folder)
    assert call(monkeypatch, *given) == code
    lines = capfd.readouterr().err.splitlines()
    (error,) = [line for line in lines if line.startswith("error: ")]
    assert said in error
    assert sum(line.startswith("hint: ") for line in lines) == 1
    assert not any("Traceback" in line or "this is a bug" in line for line in lines)
    assert content() == before


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.float32(1), "shape (1,)"),
        (np.full(40, np.nan), "NaN or infinite"),
        (np.ones(40, dtype=complex), "complex128 values"),
        (np.ones((3, 40)), "shape (3, 40)"),
        (np.zeros(40), "0 x 0"),
    ],
)
def test_masks_of_k_space_that_are_none(
    mask: np.ndarray, said: str, tmp_path: Path, ct_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    np.save(tmp_path / "k.npy", np.random.default_rng(0).standard_normal((32, 40)).astype(np.complex64))
    np.save(tmp_path / "mask.npy", mask)
    given = ("mri", "k.npy", "--mask", "mask.npy", "--model", str(ct_prior), "--steps", "2")
    refused(given, ExitCode.BAD_INPUT, said, tmp_path, monkeypatch, capfd)


def test_a_zip_archive_of_several_disks_is_refused(tmp_path: Path) -> None:
    """Python's ``is_zipfile`` raises there, which is not what it is asked."""
    content = b"\0" * 56 + b"PK\x06\x07" + struct.pack("<LQL", 1, 0, 2) + b"PK\x05\x06" + bytes(18)
    for name, read in (("a.pt", read_checkpoint), ("a.npz", lambda path: archive_pictures(path, 3))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((ModelError, InputError)):
            read(tmp_path / name)


@pytest.mark.parametrize("kind", ["float16", "float64", ">f8"])
def test_tiff_of_other_floats_keep_their_known_pixels(
    kind: str, tmp_path: Path, small_prior: Path, monkeypatch: Patch
) -> None:
    pixels = (grey() / 255).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=">" if kind.startswith(">") else "<")
    given = ("inpaint", tmp_path / "a.tif", "--box", "0,0,3,3", "-o", tmp_path / "r.tif", "--model", small_prior)
    assert call(monkeypatch, *given, "--steps", 2, "--samples", 1) == ExitCode.OK
    made = tifffile.imread(tmp_path / "r.tif")
    assert made.dtype.itemsize == pixels.dtype.itemsize
    np.testing.assert_array_equal(made[3:], pixels[3:])
