"""What a picture file says beside its pixels: EXIF, kept for the result, and CMYK, turned into sRGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from invsolve.cli.formats import Encoding, encode_as

PREFIX = b"Exif\0\0"
ORIENTATION, EXIF_BLOCK, GPS_BLOCK = 0x0112, 0x8769, 0x8825
WIDTH, HEIGHT = 0xA002, 0xA003  # PixelXDimension and PixelYDimension
THUMBNAIL_AT, THUMBNAIL_LENGTH = 0x0201, 0x0202
SHORT = 3  # of two bytes

DESCRIPTIVE = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, *range(40091, 40096))
"""Of a TIFF file's tags those that say something of the photograph, not of how the file lies."""


def read_exif(image: Image.Image) -> bytes | None:
    """A file's EXIF for the result, from "Exif" on; none where there is none, or it is damaged.

    The orientation becomes 1, for the pixels are upright by then. The thumbnail, a picture of the input, is blanked.
    """
    try:
        found = exif_of_tiff(image) if image.format in ("TIFF", None) else image.info.get("exif")
        if not found and image.format == "PNG":  # a chunk of text, as some programs write it
            found = image.getexif().tobytes() if len(image.getexif()) else None
        if not found:
            return None
        exif = PREFIX + upright_exif(bytes(found).removeprefix(PREFIX))
        resized_exif(exif, 1, 1)
        for kind in ("PNG", "TIFF", "WebP"):  # what no file can hold is found out before the work
            encode_as(kind, np.zeros((1, 1), np.uint8), "", Encoding(exif=exif))
        encode_as("TIFF", np.zeros((1, 1), np.uint16), "", Encoding(exif=exif))
    except Exception:  # noqa: BLE001 - damaged metadata, which fails in many ways, is no reason to refuse a picture
        return None
    return exif


def exif_of_tiff(image: Image.Image) -> bytes | None:
    """A TIFF has its EXIF among the tags that describe the file."""
    tags, kept = image.getexif(), Image.Exif()
    for tag in DESCRIPTIVE:
        if tag in tags:
            kept[tag] = as_bytes(tags[tag])
    for block in (EXIF_BLOCK, GPS_BLOCK):
        if tags.get_ifd(block):
            kept[block] = dict(tags.get_ifd(block))
    return kept.tobytes() if len(kept) else None


def as_bytes(value: Any) -> Any:
    """A text of Latin-1 as its bytes: Pillow reads it so, and would write question marks for what is not ASCII."""
    return value.encode("latin-1", "replace") if isinstance(value, str) and not value.isascii() else value


def upright_exif(exif: bytes) -> bytes:
    """EXIF (a TIFF header and what follows) with the orientation 1, and without the thumbnail; all else bit for bit.

    Raises
    ------
    struct.error, ValueError : it is damaged.
    """
    data = bytearray(exif)
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        raise ValueError("no TIFF header")
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    for tag, at in _entries(data, order, first):
        if tag == ORIENTATION:
            struct.pack_into(f"{order}HIHH", data, at + 2, SHORT, 1, 1, 0)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    following = first + 2 + 12 * count
    (second,) = struct.unpack_from(f"{order}I", data, following)
    if second:
        found = {tag: struct.unpack_from(f"{order}I", data, at + 8)[0] for tag, at in _entries(data, order, second)}
        at, length = found.get(THUMBNAIL_AT, 0), found.get(THUMBNAIL_LENGTH, 0)
        if at and at + length <= len(data):
            data[at : at + length] = bytes(length)
        struct.pack_into(f"{order}I", data, following, 0)
    return bytes(data)


def resized_exif(exif: bytes | None, width: int, height: int) -> bytes | None:
    """The same EXIF for a picture of another size, where it states one."""
    if exif is None:
        return None
    data = bytearray(exif.removeprefix(PREFIX))
    order = "<" if data[:2] == b"II" else ">"
    for tag, at in _entries(data, order, struct.unpack_from(f"{order}I", data, 4)[0]):
        if tag == EXIF_BLOCK:
            for inner, place in _entries(data, order, struct.unpack_from(f"{order}I", data, at + 8)[0]):
                if inner in (WIDTH, HEIGHT):
                    side = width if inner == WIDTH else height
                    struct.pack_into(f"{order}HII", data, place + 2, 4, 1, side)
    return PREFIX + bytes(data)


def _entries(data: bytearray, order: str, start: int) -> Iterator[tuple[int, int]]:
    """Tag and place of each entry of a directory that starts there (TIFF 6.0, section 2)."""
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for number in range(count):
        at = start + 2 + 12 * number
        yield struct.unpack_from(f"{order}H", data, at)[0], at


def from_cmyk(image: Image.Image) -> tuple[Image.Image, str]:
    """A CMYK picture in sRGB, and in words how: through its own profile, or as Pillow does it where it has none of use."""
    profile = image.info.get("icc_profile")
    plain = "by rule, for it has no colour profile"
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted, "through its colour profile"
        except (ImageCms.PyCMSError, OSError, ValueError):
            plain = "by rule, for its colour profile is damaged"
    return image.convert("RGB"), plain
