"""Picture files as people have them: what is read, what of it comes back, and in which file."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from xml.sax.saxutils import unescape

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from invsolve.cli import formats
from invsolve.cli.formats import Encoding
from invsolve.cli.main import main
from invsolve.errors import ExitCode, OutputError, UsageError

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

FACTS = '{"command": "invsolve inpaint <a> & \\"b\\""}'


def call(monkeypatch: Patch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["invsolve", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def inpaint(picture: Path, prior: Path, *more: object) -> list[object]:
    """The first rows are missing."""
    return ["inpaint", picture, "--box", "0,0,9,2", "--model", prior, "--steps", 2, *more]


def reopened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def values(height: int, width: int, channels: int, dtype: type) -> np.ndarray:
    """Random numbers of the whole range."""
    rng = np.random.default_rng(0)
    shape = (height, width, channels) if channels > 1 else (height, width)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def text_in(image: Image.Image) -> str:
    """The provenance in a file, wherever its format has it."""
    if image.format == "PNG":
        return str(image.info["invsolve"])
    if image.format == "JPEG":
        return image.info["comment"].decode()
    packet = image.info["xmp"].decode()
    return unescape(re.search(r'x-default">(.*)</rdf:li>', packet)[1])  # type: ignore[index]


@pytest.mark.parametrize("ending", formats.ENDINGS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_ending_is_written_and_says_what_made_it(ending: str, channels: int, photo: np.ndarray) -> None:
    pixels = values(11, 7, channels, np.uint8) if ending not in (".jpg", ".jpeg") else photo
    image = reopened(formats.encode(pixels, Path(f"a{ending}"), FACTS, Encoding()))
    assert image.format == formats.FORMATS[ending].upper()
    assert text_in(image) == FACTS
    if ending not in (".jpg", ".jpeg"):
        modes = ("L", "LA", "RGB", "RGBA")
        np.testing.assert_array_equal(np.asarray(image.convert(modes[channels - 1])), pixels)


def test_quality_makes_files_smaller(photo: np.ndarray) -> None:
    for ending in (".jpg", ".webp"):
        sizes = [len(formats.encode(photo, Path(f"a{ending}"), FACTS, Encoding(quality=q))) for q in (5, 50, 100)]
        assert sizes == sorted(set(sizes))
    assert formats.is_lossy(Path("a.webp"), 100) and not formats.is_lossy(Path("a.webp"))


@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_pictures_are_written_without_loss_where_the_format_can(dtype: type, channels: int) -> None:
    pixels = values(9, 6, channels, dtype)
    tif = tifffile.imread(io.BytesIO(formats.encode(pixels, Path("a.tif"), FACTS, Encoding())))
    assert tif.dtype == dtype
    np.testing.assert_array_equal(tif, pixels)
    png = formats.encode(pixels, Path("a.png"), FACTS, Encoding())
    levels = pixels if dtype == np.uint16 else np.rint(pixels.astype(np.float32) * 65535).astype(np.uint16)
    assert text_in(reopened(png)) == FACTS
    if channels != 2:  # OpenCV turns grey with opacity into four channels
        read = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
        np.testing.assert_array_equal(np.atleast_3d(read)[..., order], np.atleast_3d(levels))
    eight = np.asarray(reopened(formats.encode(pixels, Path("a.webp"), FACTS, Encoding())).convert("RGBA"))
    assert np.abs(eight[..., 0] / 255 - levels.reshape(9, 6, -1)[..., 0] / 65535).max() <= 0.51 / 255


def test_what_a_format_cannot_hold_is_found_before_the_work() -> None:
    with pytest.raises(OutputError, match="WebP has at most 16383 pixels on a side, the picture 20000"):
        formats.check_format(Path("a.webp"), 20_000, 3)
    with pytest.raises(UsageError, match="--quality 50, but TIFF files lose nothing"):
        formats.check_format(Path("a.tif"), 3, 3, 50)
    formats.check_format(Path("a.TIF"), 100_000, 3)


@pytest.mark.parametrize("ending", [".tif", ".webp", ".jpg"])
def test_a_command_writes_what_its_output_is_called(
    ending: str, tmp_path: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    out = tmp_path / f"out{ending}"
    assert call(monkeypatch, *inpaint(tmp_path / "photo.png", small_prior, "-o", out, "-n", 2)) == 0
    with Image.open(out) as image:
        assert json.loads(text_in(image))["task"] == "inpaint"
        kept = np.asarray(image)[2:]
    assert np.array_equal(kept, photo[2:]) == (ending != ".jpg")
    assert ("name a .png file" in capfd.readouterr().err) == (ending == ".jpg")
    assert {path.name for path in tmp_path.glob(f"out*{ending}")} == {
        f"out{part}{ending}" for part in ("", ".sample-1", ".mean", ".std")
    }


def test_quality_of_a_png_is_refused(tmp_path: Path, photo: np.ndarray, monkeypatch: Patch, capfd: Capture) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert call(monkeypatch, *inpaint(tmp_path / "photo.png", tmp_path, "--quality", 50)) == ExitCode.USAGE
    assert "--quality 50, but PNG files lose nothing" in capfd.readouterr().err
