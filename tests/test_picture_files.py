"""Picture files as people have them: what is read, what of it comes back, and in which file."""

from __future__ import annotations

import io
import json
import re
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from xml.sax.saxutils import unescape

import cv2
import numpy as np
import pytest
import tifffile
from calling import call
from PIL import Image, ImageOps, features

from invsolve.cli import codecs, formats, metadata
from invsolve.cli.files import read_photo
from invsolve.cli.formats import Encoding
from invsolve.cli.masks import read_mask
from invsolve.errors import ExitCode, InputError, OutputError, UsageError
from invsolve.pictures import to_pixels
from invsolve.tasks.tints import is_toned

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

ROOT = Path(__file__).resolve().parents[1]
FACTS = '{"command": "invsolve inpaint <a> & \\"b\\""}'


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


def deep_file(path: Path, pixels: np.ndarray, **options: object) -> None:
    """16 bits or floats as other programs write them."""
    if path.suffix == ".png":
        order = {2: ..., 3: (..., [2, 1, 0])}[pixels.ndim] if pixels.shape[2:] != (4,) else (..., [2, 1, 0, 3])
        path.write_bytes(cv2.imencode(".png", pixels[order])[1].tobytes())
        return
    laid = np.moveaxis(pixels, 2, 0) if options.get("planarconfig") == "separate" else pixels
    tifffile.imwrite(path, laid, photometric="rgb" if pixels.shape[2:] in ((3,), (4,)) else "minisblack", **options)


OPACITY = {"extrasamples": ["unassalpha"]}
DEEP: dict[str, tuple[type, int, dict[str, object]]] = {
    "grey.png": (np.uint16, 1, {}),
    "rgb.png": (np.uint16, 3, {}),
    "rgba.png": (np.uint16, 4, {}),
    "grey.tif": (np.uint16, 1, {}),
    "grey-big-endian.tif": (np.uint16, 1, {"byteorder": ">"}),
    "rgb.tif": (np.uint16, 3, {}),
    "rgb-big-endian.tif": (np.uint16, 3, {"byteorder": ">"}),
    "rgb-deflate.tif": (np.uint16, 3, {"compression": "zlib", "byteorder": ">"}),
    "rgb-predictor.tif": (np.uint16, 3, {"compression": "zlib", "predictor": 2}),
    "rgb-tiled.tif": (np.uint16, 3, {"tile": (16, 16)}),
    "rgb-planes.tif": (np.uint16, 3, {"planarconfig": "separate"}),
    "rgb-planes-deflate.tif": (np.uint16, 3, {"planarconfig": "separate", "compression": "zlib", "predictor": 2}),
    "float-planes.tif": (np.float32, 3, {"planarconfig": "separate", "compression": "zlib", "rowsperstrip": 5}),
    "rgba.tif": (np.uint16, 4, OPACITY),
    "grey-opacity.tif": (np.uint16, 2, {"planarconfig": "contig", **OPACITY}),
    "float-grey.tif": (np.float32, 1, {}),
    "float-grey-big-endian.tif": (np.float32, 1, {"byteorder": ">"}),
    "float-rgb.tif": (np.float32, 3, {}),
    "float-deflate.tif": (np.float32, 3, {"compression": "zlib"}),
    "float-rgba.tif": (np.float32, 4, OPACITY),
    "half.tif": (np.float16, 3, {}),
    "double-grey.tif": (np.float64, 1, {}),
    "double.tif": (np.float64, 3, {"byteorder": ">"}),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_files_are_read_without_loss(name: str, tmp_path: Path) -> None:
    dtype, channels, options = DEEP[name]
    pixels = values(23, 17, channels, dtype)
    deep_file(tmp_path / name, pixels, **options)
    photo = read_photo(tmp_path / name)
    assert photo.pixels.dtype == dtype and photo.pixels.dtype.isnative
    np.testing.assert_array_equal(photo.with_alpha(photo.pixels), pixels)
    if dtype == np.uint16:
        np.testing.assert_array_equal(to_pixels(photo.unit, np.uint16), photo.pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_what_is_written_deep_is_read_back(ending: str, channels: int, tmp_path: Path) -> None:
    pixels, path = values(12, 9, channels, np.uint16), tmp_path / f"a{ending}"
    path.write_bytes(formats.encode(pixels, path, FACTS, Encoding()))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.with_alpha(photo.pixels), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_files_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    """As Pillow turns them: of 16 bits it does itself, of floats in colour we do."""
    tag = [(274, "H", 1, orientation, True)]
    for dtype in (np.uint16, np.float32):
        pixels = values(7, 5, 3, dtype)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=tag)
        exif = Image.Exif()
        exif[274] = orientation
        rows, columns = np.mgrid[:7, :5]
        shown = Image.fromarray((5 * rows + columns).astype(np.uint8))
        shown.info["exif"] = exif.tobytes()
        wanted = pixels.reshape(35, 3)[np.asarray(ImageOps.exif_transpose(shown))]
        np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, wanted)


def test_one_colour_of_a_deep_png_is_transparent(tmp_path: Path) -> None:
    """The chunk tRNS names a grey level or a colour of 16 bits."""
    for channels in (1, 3):
        pixels = values(6, 5, channels, np.uint16)
        pixels[2, 3] = pixels[0, 1]
        key = np.atleast_1d(pixels[2, 3]).astype(">u2").tobytes()
        data, at = formats.encode(pixels, Path("a.png"), FACTS, Encoding()), 33  # after the header
        chunk = len(key).to_bytes(4, "big") + b"tRNS" + key + zlib.crc32(b"tRNS" + key).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(data[:at] + chunk + data[at:])
        photo = read_photo(tmp_path / "a.png")
        assert photo.alpha is not None
        assert sorted(map(tuple, np.argwhere(photo.alpha == 0).tolist())) == [(0, 1), (2, 3)]
        np.testing.assert_array_equal(photo.pixels, pixels)


def bomb(path: Path) -> None:
    """A float TIFF whose one strip unpacks to 64 MB instead of 300 bytes."""
    tifffile.imwrite(path, np.zeros((5, 5, 3), np.float32), photometric="rgb", compression="zlib")
    packed = zlib.compress(bytes(2**26), 9)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        page.tags["StripByteCounts"].overwrite(len(packed))
        page.tags["StripOffsets"].overwrite(path.stat().st_size)
    path.write_bytes(path.read_bytes() + packed)


def refused_deep(path: Path, kind: str) -> None:
    floats = np.full((5, 5, 3), 0.5, np.float32)
    if kind == "NaN":
        floats[1, 1] = np.nan
        tifffile.imwrite(path, floats, photometric="rgb")
    elif kind == "cmyk":
        tifffile.imwrite(path, np.zeros((5, 5, 4), np.uint16), photometric="separated")
    elif kind == "premultiplied":
        tifffile.imwrite(path, np.zeros((5, 5, 4), np.uint16), photometric="rgb", extrasamples=["assocalpha"])
    elif kind == "ppm":
        path.write_bytes(b"P6\n5 5\n65535\n" + bytes(150))
    elif kind == "predictor":
        other = [(65000, "H", 1, 3, True)]  # a tag of no meaning, which becomes Predictor
        tifffile.imwrite(path, floats, photometric="rgb", compression="zlib", extratags=other)
        path.write_bytes(path.read_bytes().replace(struct.pack("<HHI", 65000, 3, 1), struct.pack("<HHI", 317, 3, 1)))
    elif kind == "short":
        tifffile.imwrite(path, floats, photometric="rgb")
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "huge":
        tifffile.imwrite(path, floats, photometric="rgb")
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.pages[0].tags["ImageWidth"].overwrite(2**31)
            tiff.pages[0].tags["ImageLength"].overwrite(2**31 - 1)
    else:
        bomb(path)


REFUSED = {
    "NaN": "3 values that are NaN",
    "cmyk": "colours SEPARATED",
    "premultiplied": "opacity that darkens",
    "ppm": "16 bits per channel",
    "predictor": "predictor of floats",
    "short": "damaged",
    "huge": "GB of memory",
    "bomb": "more pixels than it says",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_deep_files_that_are_refused(kind: str, tmp_path: Path) -> None:
    refused_deep(tmp_path / "a.tif", kind)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=REFUSED[kind]) as refused:
            read_photo(tmp_path / "a.tif")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    assert refused.value.hint and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "out"), [("rgb.png", "out.png"), ("rgba.tif", "out.png"), ("grey.tif", "out.tif"), ("float-rgb.tif", None)]
)
def test_inpaint_keeps_deep_pixels(
    name: str, out: str | None, tmp_path: Path, small_prior: Path, monkeypatch: Patch
) -> None:
    dtype, channels, options = DEEP[name]
    pixels = values(16, 16, channels, dtype)
    deep_file(tmp_path / name, pixels, **options)
    result = tmp_path / (out or "float-rgb.inpaint.tif")
    more = [] if out is None else ["-o", result]
    assert call(monkeypatch, *inpaint(tmp_path / name, small_prior, *more, "--truth", tmp_path / name)) == 0
    photo = read_photo(result)
    found = photo.with_alpha(photo.pixels)
    assert found.dtype == dtype
    known = np.ones((16, 16), bool)
    known[:2, :9] = False
    np.testing.assert_array_equal(found[known], pixels[known])
    filled = found[~known][..., :3] * (255 / (65535 if dtype == np.uint16 else 1))
    assert np.abs(filled - np.rint(filled)).max() > 0.05  # not eight bits made wide


@pytest.mark.parametrize(
    "command", [["colorize"], ["superres", "-x", 2], ["deblur", "--sigma", 1], ["denoise", "--sigma", 0.1]]
)
def test_every_command_takes_sixteen_bits(
    command: list[object], tmp_path: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    deep_file(tmp_path / "a.png", values(16, 16, 3, np.uint16))
    out = tmp_path / "out.png"
    name, *options = command
    arguments = [name, tmp_path / "a.png", *options, "--model", small_prior, "--steps", 2, "-f", "-o"]
    assert call(monkeypatch, *arguments, out) == 0
    assert read_photo(out).pixels.dtype == np.uint16
    if name == "denoise":
        assert call(monkeypatch, *arguments, tmp_path / "out.webp") == 0
        assert "WebP has 8 bits a channel, the input 16: name a .png file" in capfd.readouterr().err


def exif_with(**more: object) -> Image.Exif:
    """What a camera writes."""
    exif = Image.Exif()
    exif.update({271: "Camera", 274: 6, 315: "Zo\xeb", 33432: "(c) somebody"})
    exif[0x8769] = {36867: "2001:02:03 04:05:06", 37386: 50.0, 40962: 20, 40963: 16}
    exif[0x8825] = {1: "N", 2: (50.0, 1.0, 2.0)}
    return exif


EXIF_FILES = ["a.jpg", "a.png", "a.webp", "a.tif"]


@pytest.mark.parametrize("out", ["out.png", "out.jpg", "out.tif", "out.webp"])
@pytest.mark.parametrize("name", EXIF_FILES)
def test_exif_comes_back_upright(name: str, out: str, tmp_path: Path, photo: np.ndarray) -> None:
    Image.fromarray(photo).save(tmp_path / name, exif=exif_with().tobytes())
    read = read_photo(tmp_path / name)
    assert read.pixels.shape == (photo.shape[1], photo.shape[0], 3)
    exif = reopened(formats.encode(read.pixels, Path(out), FACTS, Encoding(exif=read.exif))).getexif()
    assert exif.get(274, 1) == 1
    assert (exif[271], exif[33432]) == ("Camera", "(c) somebody")
    if name != "a.tif":  # Pillow, which wrote that file, has made a question mark of it
        assert exif[315] == reopened((tmp_path / name).read_bytes()).getexif()[315]
    assert exif.get_ifd(0x8769)[36867] == "2001:02:03 04:05:06"
    assert exif.get_ifd(0x8825)[1] == "N"


def test_exif_of_deep_pictures(tmp_path: Path) -> None:
    pixels = values(6, 5, 3, np.uint16)
    exif = exif_with().tobytes()
    (tmp_path / "a.png").write_bytes(formats.encode(pixels, Path("a.png"), FACTS, Encoding(exif=exif)))
    read = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(read.pixels, np.rot90(pixels, -1))
    png = reopened(formats.encode(read.pixels, Path("a.png"), FACTS, Encoding(exif=read.exif))).getexif()
    assert (png[271], png[274], png.get_ifd(0x8769)[36867]) == ("Camera", 1, "2001:02:03 04:05:06")
    tif = reopened(formats.encode(read.pixels, Path("a.tif"), FACTS, Encoding(exif=read.exif))).getexif()
    assert tif[271] == "Camera"


def test_the_thumbnail_is_blanked_and_the_size_set() -> None:
    """By hand: a directory with orientation and a block that states the width, then one with a thumbnail of 4 bytes."""
    for order, start in (("<", b"II*\0"), (">", b"MM\0*")):
        pack = lambda form, *numbers: struct.pack(order + form, *numbers)  # noqa: B023
        first = pack("H", 2) + pack("HHIHH", 274, 3, 1, 6, 0) + pack("HHII", 0x8769, 4, 1, 38) + pack("I", 56)
        block = pack("H", 1) + pack("HHII", 0xA002, 4, 1, 20) + pack("I", 0)
        second = pack("H", 2) + pack("HHII", 0x201, 4, 1, 86) + pack("HHII", 0x202, 4, 1, 4) + pack("I", 0)
        exif = start + pack("I", 8) + first + block + second + b"JPEG"
        assert len(exif) == 90
        changed = metadata.resized_exif(b"Exif\0\0" + metadata.upright_exif(exif), 80, 60)
        read = Image.Exif()
        read.load(changed)
        assert read[274] == 1 and read.get_ifd(0x8769) == {0xA002: 80} and read.get_ifd(1) == {}
        assert changed is not None and changed.endswith(bytes(4)) and len(changed) == 96


def lab_profile() -> bytes:
    """A colour profile of CMYK (ICC.1, lut8Type): paper is white, each ink takes its part of the lightness, no hue."""
    grid = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    light = np.clip(255 * (1 - grid @ (0.1, 0.2, 0.05, 0.65)), 0, 255)
    table = np.stack([light, np.full(16, 128), np.full(16, 128)], axis=1).astype(np.uint8).tobytes()
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + 4 * ramp + table + 3 * ramp
    lut += bytes(-len(lut) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    text += bytes(-len(text) % 4)
    at, entries, body = 128 + 4 + 12 * 3, b"", b""
    for name, data in ((b"desc", text), (b"wtpt", white), (b"A2B0", lut)):
        entries += name + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2001, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + struct.pack(">I", 3) + entries + body


@pytest.mark.parametrize("kind", ["profile", "none", "damaged"])
def test_cmyk_becomes_srgb_and_says_how(kind: str, tmp_path: Path, capfd: Capture) -> None:
    inks = Image.new("CMYK", (8, 8), (0, 0, 0, 128))
    profile = {"profile": lab_profile(), "none": None, "damaged": b"no profile"}[kind]
    inks.save(tmp_path / "a.tif", icc_profile=profile)
    photo = read_photo(tmp_path / "a.tif")
    said = capfd.readouterr().err
    assert said == f"a.tif is CMYK: turned into sRGB {CMYK[kind]}\n"
    assert photo.pixels.shape == (8, 8, 3) and photo.icc_profile is None
    # Of the profile L* = 100 (1 - 0.65 * 128 / 255) = 67.4, which is the sRGB grey 164; by rule it is 255 - 128.
    assert np.abs(photo.pixels.astype(int) - (164 if kind == "profile" else 127)).max() <= 1


CMYK = {
    "profile": "through its colour profile",
    "none": "by rule, for it has no colour profile",
    "damaged": "by rule, for its colour profile is damaged",
}


def save_odd(path: Path, kind: str, grey: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """A file of an odd kind; returns the pixels, with opacity where it has any, that are to be read."""
    clear = np.where(np.arange(grey.size).reshape(grey.shape) % 3 == 0, 0, 255).astype(np.uint8)
    image = Image.fromarray(rgb)
    if kind == "palette.png":
        image = image.quantize(16)
        image.save(path)
        return np.asarray(image.convert("RGB"))
    if kind == "palette with opacity.png":
        image = image.quantize(4)
        image.save(path, transparency=bytes([0, 128, 255, 255]))
        return np.asarray(Image.open(path).convert("RGBA"))
    if kind in ("one bit.png", "one bit.tif"):
        Image.fromarray(grey > 127).save(path)
        return np.where(grey > 127, 255, 0).astype(np.uint8)
    if kind == "grey with opacity.png":
        Image.fromarray(np.dstack([grey, clear])).save(path)
        return np.dstack([grey, clear])
    if kind in ("rgba.webp", "rgba.tif"):
        Image.fromarray(np.dstack([rgb, clear])).save(
            path, **({"lossless": True, "exact": True} if "webp" in kind else {})
        )
        return np.dstack([rgb, clear])
    if kind == "key colour.png":
        image.save(path, transparency=tuple(map(int, rgb[0, 0])))
        return np.dstack([rgb, np.where((rgb == rgb[0, 0]).all(axis=2), 0, 255).astype(np.uint8)])
    if kind == "lzw.tif":
        image.save(path, compression="tiff_lzw")
    elif kind in ("pages.tif", "frames.gif", "frames.png", "frames.webp"):
        if kind == "frames.gif":
            image = image.quantize(64)
            rgb = np.asarray(image.convert("RGB"))
        more = {"lossless": True} if "webp" in kind else {}
        image.save(path, save_all=True, append_images=[Image.new("RGB", image.size, "red")], **more)
    elif kind == "lossless.jp2":
        image.save(path, irreversible=False)
    elif kind == "lossless.avif":
        image.save(path, quality=100, subsampling="4:4:4")
        return np.asarray(Image.open(path))
    else:
        image.save(path)
    return rgb


ODD = {
    "palette.png": "",
    "palette with opacity.png": "",
    "one bit.png": "",
    "one bit.tif": "",
    "grey with opacity.png": "",
    "key colour.png": "",
    "rgba.webp": "",
    "rgba.tif": "",
    "lzw.tif": "",
    "plain.bmp": "",
    "plain.ppm": "",
    "pages.tif": "has several pages: the first is taken",
    "frames.gif": "has several frames: the first is taken",
    "frames.png": "has several frames: the first is taken",
    "frames.webp": "has several frames: the first is taken",
    "lossless.jp2": "",
    "lossless.avif": "",
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_read_as_they_are_and_come_back(
    kind: str, tmp_path: Path, photo: np.ndarray, capfd: Capture
) -> None:
    if kind.endswith("avif") and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    wanted = save_odd(tmp_path / kind, kind, photo[..., 0], photo)
    read = read_photo(tmp_path / kind)
    assert capfd.readouterr().err == (f"{kind} {ODD[kind]}\n" if ODD[kind] else "")
    found = read.with_alpha(read.pixels)
    np.testing.assert_array_equal(found, wanted)
    for ending in (".png", ".tif", ".webp"):
        path = tmp_path / f"again{ending}"
        path.write_bytes(formats.encode(found, path, FACTS, Encoding(read.icc_profile, read.exif)))
        again = read_photo(path)
        both = again.with_alpha(again.pixels)
        grey_as_colour = ending == ".webp" and read.pixels.ndim == 2  # WebP has no grey
        np.testing.assert_array_equal(
            both[..., [0, -1] if both.ndim > 2 and both.shape[2] == 4 else 0] if grey_as_colour else both, found
        )


def test_depth_that_is_lost_is_said(tmp_path: Path) -> None:
    """Of AVIF by the flags in its configuration, of JPEG 2000 by its first marker."""
    for name, content, depth in (
        ("AVIF", b"av1C\x81\x08\x0c\x00", 8),
        ("AVIF", b"av1C\x81\x08\x4c\x00", 10),
        ("AVIF", b"av1C\x81\x48\x6c\x00", 12),
        ("AVIF", b"av1C", 8),
        ("JPEG2000", b"\xff\x4f\xff\x51" + bytes(38) + b"\x07\0", 8),
        ("JPEG2000", b"\xff\x4f\xff\x51" + bytes(38) + b"\x0f\0", 16),
    ):
        image = Image.new("RGB", (4, 4))
        image.format = name
        (tmp_path / "a").write_bytes(b"before" + content)
        assert codecs.stated_bits(tmp_path / "a", image) == depth
    Image.fromarray(values(5, 5, 1, np.uint16)).save(tmp_path / "a.jp2")
    with Image.open(tmp_path / "a.jp2") as real:
        assert codecs.stated_bits(tmp_path / "a.jp2", real) == 16
    with pytest.raises(InputError, match="pixel mode I;16"):
        read_photo(tmp_path / "a.jp2")


def test_heic_files_are_read(tmp_path: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(photo)).save(tmp_path / "a.heic", quality=100)
    read = read_photo(tmp_path / "a.heic")
    assert np.abs(read.pixels.astype(int) - photo).mean() < 5
    assert call(monkeypatch, *inpaint(tmp_path / "a.heic", small_prior)) == 0
    with Image.open(tmp_path / "a.inpaint.png") as image:
        np.testing.assert_array_equal(np.asarray(image)[2:], read.pixels[2:])


def test_a_heic_file_without_what_reads_it_is_one_line(tmp_path: Path, monkeypatch: Patch, capfd: Capture) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(99))
    assert call(monkeypatch, "denoise", tmp_path / "a.heic") == ExitCode.MODEL
    error, hint = capfd.readouterr().err.splitlines()
    assert error.endswith("a.heic is a HEIC file") and hint == "hint: pip install 'invsolve[heic]' for what reads them"


@pytest.mark.parametrize("brand", ["heic", "avif"])
def test_a_damaged_file_of_that_kind_is_one_line(brand: str, tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    (tmp_path / "a").write_bytes(
        b"\0\0\0\x1cftyp" + brand.encode() + b"\0\0\0\0mif1" + brand.encode() + b"miaf" + bytes(99)
    )
    with pytest.raises(InputError, match="damaged|not a picture") as refused:
        read_photo(tmp_path / "a")
    assert "\n" not in str(refused.value)


def toned(grey: np.ndarray, kind: str) -> np.ndarray:
    """(H, W, 3) in 8 bits, of grey in [0, 1]."""
    if kind == "sepia":
        rgb = grey[..., None] * (1.07, 0.98, 0.8) + (0.05, 0.03, 0)
    elif kind == "blue shadows, warm lights":
        rgb = np.stack([grey**1.2, grey, 0.15 + 0.75 * grey], axis=-1)
    else:
        rgb = np.repeat(grey[..., None], 3, axis=2)
    return to_pixels(rgb)


@pytest.mark.parametrize("kind", ["sepia", "blue shadows, warm lights", "grey", "colours"])
@pytest.mark.parametrize("quality", [None, 60])
def test_a_toned_picture_is_told_from_one_in_colours(kind: str, quality: int | None) -> None:
    astronaut = np.asarray(Image.open(ROOT / "examples" / "astronaut.png").convert("RGB"))
    pixels = astronaut if kind == "colours" else toned(astronaut.mean(axis=2) / 255, kind)
    if quality:
        stored = formats.encode(pixels, Path("a.jpg"), FACTS, Encoding(quality=quality))
        pixels = np.asarray(reopened(stored))
    assert is_toned(pixels / 255) == (kind not in ("grey", "colours"))


def test_colorize_says_that_a_picture_is_toned(
    tmp_path: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    Image.fromarray(toned(photo[..., 0] / 255, "sepia")).save(tmp_path / "old.png")
    Image.fromarray(photo).save(tmp_path / "new.png")
    Image.fromarray(photo[..., :1].repeat(3, axis=2)).save(tmp_path / "grey.png")
    for name, expected in (("old.png", "is toned, as sepia is"), ("new.png", "has colours"), ("grey.png", "")):
        assert call(monkeypatch, "colorize", tmp_path / name, "--model", small_prior, "--steps", 2) == 0
        said = [line for line in capfd.readouterr().err.splitlines() if "coloured anew" in line]
        assert said == ([f"{name} {expected}: taken as its grey, and coloured anew"] if expected else [])


def test_masks_and_simulations_take_sixteen_bits(tmp_path: Path, monkeypatch: Patch, capfd: Capture) -> None:
    deep_file(tmp_path / "a.png", values(16, 16, 3, np.uint16))
    soft = np.zeros((16, 16), np.uint16)
    soft[3], soft[4] = 32767, 32768
    deep_file(tmp_path / "soft.png", soft)
    assert np.flatnonzero(read_mask(tmp_path / "soft.png").any(axis=1)).tolist() == [4]
    assert np.flatnonzero(read_mask(tmp_path / "soft.png", threshold=0).any(axis=1)).tolist() == [3, 4]
    for name, result in (("inpaint", "damaged"), ("colorize", "grey"), ("superres", "small"), ("denoise", "noisy")):
        assert call(monkeypatch, "simulate", name, tmp_path / "a.png") == 0, capfd.readouterr().err
        assert (tmp_path / f"a.{result}.png").is_file()
    whole, grey = read_photo(tmp_path / "a.png"), read_photo(tmp_path / "a.grey.png")
    assert np.abs(grey.unit - whole.unit @ np.float32((0.299, 0.587, 0.114))).max() <= 0.51 / 65535
