"""Picture files written by their name's ending: PNG, JPEG, TIFF and WebP, of 8 or 16 bits or real numbers."""

from __future__ import annotations

import io
import struct
import zlib
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from invsolve.errors import OutputError, UsageError
from invsolve.pictures import Pixels, to_pixels, to_unit

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WebP"}
"""What is written, by ending; the first is the default."""

ENDINGS = tuple(FORMATS)

PICTURES = frozenset(
    [*ENDINGS, ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".heic", ".heif", ".avif"]
)
"""Endings of the files that are taken from a folder."""

ARRAYS = frozenset({".npy", ".npz", ".h5"})
"""Endings of files that hold numbers."""

KSPACES = frozenset({".npy", ".h5"})
"""What ``mri`` takes from a folder."""

LARGEST_SIDE = {"JPEG": 65_500, "WebP": 16_383}
"""Pixels on a side that a file can have."""

JPEG_QUALITY = 95
"""Unless asked for otherwise."""

JPEG_EXIF = 65_533 - len(b"Exif\0\0")
"""Bytes of EXIF that a JPEG file can have."""

XMP = 700
"""The TIFF tag of an XMP packet."""


class Encoding(NamedTuple):
    """How a picture is written, beside its pixels."""

    icc_profile: bytes | None = None  # what the numbers mean as colours
    exif: bytes | None = None  # as in a JPEG, from "Exif" on
    quality: int | None = None  # 1 to 100, of JPEG and lossy WebP; none is JPEG_QUALITY, and lossless WebP


def format_of(path: Path) -> str:
    """``PNG``, ``JPEG``, ``TIFF`` or ``WebP``, by the ending."""
    return FORMATS[path.suffix.lower()]


def is_lossy(path: Path, quality: int | None = None) -> bool:
    """Whether a file of this name changes the pixels that are written into it."""
    return format_of(path) == "JPEG" or (format_of(path) == "WebP" and quality is not None)


def kept_type(path: Path, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which a file of this name holds pixels of ``dtype``."""
    if dtype.kind == "f" and format_of(path) == "PNG":
        return np.dtype(np.uint16)
    return dtype if format_of(path) in ("PNG", "TIFF") else np.dtype(np.uint8)


def default_endings(dtype: np.dtype[Any]) -> tuple[str, ...]:
    """All endings, first that of a result that has no name yet: a PNG, or a TIFF where a PNG cannot hold the pixels."""
    first = ".png" if dtype.kind == "u" else ".tif"
    return (first, *(ending for ending in ENDINGS if ending != first))


def check_format(path: Path, width: int, height: int, quality: int | None = None) -> None:
    """Before the work: whether a file of this name can hold so many pixels, and has a quality, where one is asked for.

    Raises
    ------
    OutputError : too many pixels on a side.
    UsageError : a quality for a format that loses nothing.
    """
    name = format_of(path)
    if quality is not None and name not in ("JPEG", "WebP"):
        raise UsageError(
            f"--quality {quality}, but {name} files lose nothing",
            hint="name a .jpg or .webp file with -o, or give --format jpg",
        )
    if max(width, height) > LARGEST_SIDE.get(name, max(width, height)):
        raise OutputError(
            f"{path.name}: a {name} has at most {LARGEST_SIDE[name]} pixels on a side, the picture {max(width, height)}",
            hint="name a .png file",
        )


def encode(array: Pixels, path: Path, text: str, encoding: Encoding) -> bytes:
    """The bytes of a picture file by the path's ending.

    Parameters
    ----------
    array : (H, W) or (H, W, 1 to 4), grey or RGB, each with or without opacity as last channel: uint8, uint16, or floats
        in [0, 1]. PNG holds floats as 16 bits, JPEG and WebP all as 8, TIFF each as it is.
    text : a line of JSON, as a text chunk of a PNG, the comment of a JPEG and the XMP description of TIFF and WebP.

    Raises
    ------
    OutputError : the format cannot hold so many pixels.
    """
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    check_format(path, array.shape[1], array.shape[0])
    return encode_as(format_of(path), array, text, encoding)


def encode_as(kind: str, array: Pixels, text: str, encoding: Encoding) -> bytes:
    """As :func:`encode`, in one of the ``FORMATS``."""
    return {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff, "WebP": _webp}[kind](array, text, encoding)


def eight_bits(array: Pixels) -> Pixels:
    """The same picture in 8 bits."""
    return array if array.dtype == np.uint8 else to_pixels(to_unit(array))


def _jpeg(array: Pixels, text: str, encoding: Encoding) -> bytes:
    buffer, image = io.BytesIO(), Image.fromarray(eight_bits(array))
    if image.mode in ("LA", "RGBA"):  # JPEG has no transparency
        image = image.convert(image.mode[:-1])
    exif = encoding.exif if encoding.exif and len(encoding.exif) <= JPEG_EXIF else b""
    image.save(
        buffer, "JPEG", quality=encoding.quality or JPEG_QUALITY, subsampling=0, comment=text.encode(),
        icc_profile=encoding.icc_profile, exif=exif,
    )  # fmt: skip
    return buffer.getvalue()


def _webp(array: Pixels, text: str, encoding: Encoding) -> bytes:
    buffer, image = io.BytesIO(), Image.fromarray(eight_bits(array))
    lossless = encoding.quality is None
    image.convert({"L": "RGB", "LA": "RGBA"}.get(image.mode, image.mode)).save(
        buffer, "WEBP", lossless=lossless, exact=lossless, quality=80 if lossless else encoding.quality,
        icc_profile=encoding.icc_profile or b"", exif=encoding.exif or b"", xmp=xmp_packet(text),
    )  # fmt: skip
    return buffer.getvalue()


def _png(array: Pixels, text: str, encoding: Encoding) -> bytes:
    if array.dtype != np.uint8:
        return _deep_png(array if array.dtype == np.uint16 else to_pixels(to_unit(array), np.uint16), text, encoding)
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_itxt("invsolve", text)
    Image.fromarray(array).save(
        buffer, "PNG", pnginfo=info, icc_profile=encoding.icc_profile, exif=encoding.exif or b""
    )
    return buffer.getvalue()


def _deep_png(array: Pixels, text: str, encoding: Encoding) -> bytes:
    """A PNG of 16 bits a channel, which Pillow writes of grey only (W3C, Portable Network Graphics, third edition).

    Each row is written as its difference from the one above (filter type 2), byte by byte.
    """
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
    rows = np.ascontiguousarray(array.astype(">u2")).view(np.uint8).reshape(height, -1)
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.uint8))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0))]
    if encoding.icc_profile:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(encoding.icc_profile)))
    if encoding.exif:
        chunks.append((b"eXIf", encoding.exif.removeprefix(b"Exif\0\0")))
    chunks.append((b"iTXt", b"invsolve\0\0\0\0\0" + text.encode()))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _tiff(array: Pixels, text: str, encoding: Encoding) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    if encoding.exif:
        exif.load(encoding.exif)
        for tag, value in exif.items():
            if isinstance(value, str) and not value.isascii():  # Pillow reads Latin-1, and would write question marks
                exif[tag] = value.encode("latin-1", "replace")
    if array.dtype != np.uint8:
        return _deep_tiff(array, text, encoding, exif)
    exif[XMP] = xmp_packet(text)
    Image.fromarray(array).save(
        buffer,
        "TIFF",
        compression=None if encoding.exif else "tiff_adobe_deflate",  # libtiff writes no EXIF blocks
        exif=exif,
        icc_profile=encoding.icc_profile,
    )
    return buffer.getvalue()


def _deep_tiff(array: Pixels, text: str, encoding: Encoding, exif: Image.Exif) -> bytes:
    """A TIFF of 16 bits or floats, which Pillow writes of grey only; of the EXIF those fields that are lines of text."""
    tags: list[tuple[int, Any, int, Any, bool]] = [
        (tag, "s", 0, value, True) for tag, value in sorted(exif.items()) if isinstance(value, str | bytes)
    ]
    packet = xmp_packet(text)
    channels = 1 if array.ndim == 2 else array.shape[2]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, array, photometric="rgb" if channels > 2 else "minisblack", compression="zlib", metadata=None,
        planarconfig="contig" if channels > 1 else None, extrasamples=["unassalpha"] if channels in (2, 4) else None,
        iccprofile=encoding.icc_profile, software=False, extratags=[*tags, (XMP, "B", len(packet), packet, True)],
    )  # fmt: skip
    return buffer.getvalue()


def xmp_packet(text: str) -> bytes:
    """``text`` as the description in an XMP packet (ISO 16684-1)."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
        f'<rdf:li xml:lang="x-default">{escape(text, quote=False)}</rdf:li></rdf:Alt></dc:description></rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()
