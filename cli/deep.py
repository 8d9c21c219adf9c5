"""Pictures of more than 8 bits a channel, read without loss: 16-bit PNG and TIFF, and TIFF of floats in [0, 1]."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image, ImageFile, ImageOps

from invsolve.cli.codecs import TIFF_RUN
from invsolve.errors import InputError
from invsolve.pictures import Pixels

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WANTED = "convert it to 8 or 16 bits, grey or RGB, in a PNG or TIFF file"

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # values of the TIFF tag PhotometricInterpretation
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION, PLANES, ICC_PROFILE = 258, 262, 274, 284, 34675  # TIFF tags
SEPARATE = 2  # a value of PLANES, the tag PlanarConfiguration: one colour after the other
ASSOCIATED, UNASSOCIATED = 1, 2  # values of ExtraSamples: opacity that has darkened the colours, and that has not
DEFLATE = (8, 32946)
FLOATING_POINT = 3  # a value of the tag Predictor

CheckSize = Callable[[int, int], None]
"""Raises where a picture of this width and height is too large."""


class Deep(NamedTuple):
    """What a file holds."""

    pixels: Pixels  # (H, W) or (H, W, 2 to 4), uint16 or floats, upright; 2 and 4 channels have opacity as the last
    icc_profile: bytes | None
    exif: bytes | None = None


def is_tiff(path: Path) -> bool:
    """Whether a file starts as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in TIFF_STARTS


def raw_mode(image: ImageFile.ImageFile) -> str:
    """How the pixels lie in the file, as Pillow calls it: it reads 16-bit colour as 8-bit, and only this still tells."""
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def bits(image: ImageFile.ImageFile) -> int:
    """Bits of a channel in a file that was opened and not yet read."""
    if image.format == "TIFF":
        stated = image.tag_v2.get(BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        return int(max(stated)) if isinstance(stated, tuple) else int(stated)
    if image.format == "PPM" and image.tile:
        arguments = image.tile[0][3]
        most = arguments[1] if isinstance(arguments, tuple) and len(arguments) == 2 else 255
        return 16 if ";16" in raw_mode(image) or int(most) > 255 else 8
    return 16 if ";16" in raw_mode(image) or image.mode.startswith("I") else 32 if image.mode == "F" else 8


def read_deep(path: Path, image: ImageFile.ImageFile, check_size: CheckSize) -> Deep:
    """The pixels of a file that has more than 8 bits.

    Parameters
    ----------
    image : the file, opened and not yet read.

    Raises
    ------
    InputError : of another kind than 16-bit grey or RGB and floats.
    """
    raw, kind = raw_mode(image), image.format
    if kind == "TIFF" and image.tag_v2.get(PLANES) == SEPARATE:  # type: ignore[attr-defined]
        return read_tiff(path, check_size)  # Pillow takes two bytes of such a plane for two pixels
    if kind == "PNG" and raw == "LA;16B":
        four = np.asarray(_read_as(path, image, "RGBA"))  # the four bytes of grey and opacity, each a channel
        return Deep(_joined(four[..., 0::2], four[..., 1::2]), image.info.get("icc_profile"))
    if kind in ("PNG", "TIFF") and raw in {f"{mode};16{order}" for mode in ("RGB", "RGBA") for order in "BLN"}:
        high, low = (np.asarray(_read_as(path, image, f"{image.mode};16{order}")) for order in "BL")
        swapped = raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")
        pixels = _joined(low, high) if swapped else _joined(high, low)
        return Deep(_with_key(pixels, image), image.info.get("icc_profile"))
    if kind in ("PNG", "TIFF") and raw in ("I;16", "I;16B", "I;16L", "I;16N"):
        pixels = np.asarray(_read_as(path, image, raw)).astype(np.uint16)
        if kind == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # type: ignore[attr-defined]
            pixels = 65535 - pixels
        return Deep(_with_key(pixels, image), image.info.get("icc_profile"))
    if kind == "TIFF" and raw in ("F;32F", "F;32BF"):
        return Deep(_in_unit(path, np.asarray(_read_as(path, image, raw))), image.info.get("icc_profile"))
    if kind == "TIFF":
        return read_tiff(path, check_size)
    depth = f"{bits(image)} bits per channel" if kind in ("PNG", "PPM", "TIFF") else f"pixel mode {image.mode}"
    raise InputError(f"{path} has {depth}", hint=WANTED)


def _read_as(path: Path, like: Image.Image, raw: str) -> Image.Image:
    """The file, upright, its bytes taken as ``raw`` instead of what the file says.

    Of two bytes a channel Pillow keeps one, the first or the second as the mode's byte order says: read once for each, the file
    gives both, whatever its compression.
    """
    with Image.open(path, formats=(str(like.format),)) as image:
        image.tile = [_with_raw_mode(tile, raw) for tile in image.tile]
        image.load()
        return ImageOps.exif_transpose(image)


def _with_raw_mode(tile: Any, raw: str) -> Any:
    """A tile as Pillow describes it (decoder, place, offset, arguments), whose bytes are taken as ``raw``."""
    arguments = (raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def _joined(high: Pixels, low: Pixels) -> Pixels:
    """Two bytes as one number."""
    return high.astype(np.uint16) << 8 | low


def _with_key(pixels: Pixels, image: Image.Image) -> Pixels:
    """With opacity, where a PNG calls one colour transparent."""
    key = image.info.get("transparency")
    if key is None or isinstance(key, bytes) or pixels.shape[2:] == (4,):
        return pixels
    keyed = (pixels.reshape(*pixels.shape[:2], -1) == np.asarray(key)).all(axis=2)
    return np.dstack([pixels, np.where(keyed, 0, 65535).astype(np.uint16)])


def read_tiff(path: Path, check_size: CheckSize) -> Deep:
    """The first page of a TIFF that Pillow does not read: colours as floats, planes one after the other, opacity of grey.

    Raises
    ------
    InputError : compressed otherwise than by Deflate, more bytes than it says, or of another kind than grey or RGB.
    """
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        check_size(int(page.imagewidth), int(page.imagelength))
        check_held(path, page)
        kind = f"{page.dtype} values, {page.samplesperpixel} a pixel"
        known = page.dtype is not None and (page.dtype.kind == "f" or page.dtype == np.uint16)
        if not known or page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel > 4:
            raise InputError(f"{path} has {kind}", hint=WANTED)
        if int(page.photometric) not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            raise InputError(f"{path} is a TIFF of colours {page.photometric.name}", hint=WANTED)
        if ASSOCIATED in map(int, page.extrasamples):
            raise InputError(f"{path} has opacity that darkens the colours", hint="save it with straight opacity")
        _check_segments(path, page)
        pixels: Pixels = np.asarray(page.asarray())
        extra = tuple(int(sample) for sample in page.extrasamples)
        orientation = page.tags.valueof(ORIENTATION, 1)
        profile = page.tags.valueof(ICC_PROFILE)
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, 2)
    pixels = _in_unit(path, pixels.astype(pixels.dtype.newbyteorder("=")))
    colours = 3 if int(page.photometric) == RGB else 1
    if int(page.photometric) == WHITE_IS_ZERO:
        pixels = (65535 if pixels.dtype == np.uint16 else 1) - pixels
    if pixels.ndim == 3:
        kept = colours + (extra[:1] == (UNASSOCIATED,))
        pixels = pixels[..., 0] if kept == 1 else pixels[..., :kept]
    return Deep(upright(pixels, orientation), bytes(profile) if profile else None)


def check_held(path: Path, part: Any) -> None:
    """Raise where a page or a series of a TIFF, as tifffile has it, is larger than the file can hold: before memory is asked
    for it."""
    size, most = path.stat().st_size, TIFF_RUN.get(int(part.keyframe.compression))
    if most is not None and int(part.nbytes) > max(1, most // 8) * size:
        raise InputError(
            f"{path} is damaged or truncated: {size} bytes cannot hold shape {part.shape}",
            hint="copy it again from the original",
        )


def _check_segments(path: Path, page: Any) -> None:
    """Raise where a segment of a TIFF unpacks to more than it says: the library would give it all the memory there is."""
    if int(page.compression) == 1:
        return
    if int(page.compression) not in DEFLATE:
        raise InputError(
            f"{path} is compressed by {page.compression.name}", hint="save it uncompressed or with Deflate"
        )
    if int(page.predictor) == FLOATING_POINT:
        raise InputError(
            f"{path} is compressed with a predictor of floats", hint="save it without one, or uncompressed"
        )
    said = math.prod(page.chunks) * page.dtype.itemsize
    with path.open("rb") as file:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(offset)
            if len(zlib.decompressobj().decompress(file.read(count), said + 1)) > said:
                raise InputError(f"{path} holds more pixels than it says", hint="copy it again from the original")


def _in_unit(path: Path, pixels: Pixels) -> Pixels:
    """Grey levels as they are; floats after checking that they lie in [0, 1]."""
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            bad = int((~np.isfinite(pixels)).sum())
            raise InputError(f"{path} has {bad} values that are NaN or infinite", hint="repair or mask them first")
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            raise InputError(f"{path} holds floats from {low:g} to {high:g}", hint="scale them to [0, 1]")
    return pixels


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """(H, W[, C]) turned and mirrored as the tag Orientation (TIFF 6.0, 1 to 8) asks for."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels)
