"""Which decoder a picture file is given to, and what it would lose without a word."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, features

from invsolve.errors import InputError, ModelError

ALWAYS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000")
"""What Pillow may decode; it knows more, some by running other programs."""

HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
AVIF = frozenset({b"avif", b"avis"})
"""Brands of files of the ISO base media format (ISO/IEC 14496-12), to which both kinds belong."""

START = 65_536
"""Bytes of a file in which its headers lie."""

ANIMATED = ("PNG", "TIFF", "WEBP", "GIF", "AVIF")
"""Of several pictures the first is taken; a HEIC file names its main one, and a JPEG's others are previews."""

LONGEST_RUN = {"raw": 8, "zip": 8 * 1032, "gif": 4096, "jpeg": 1024}
"""Pixels that a byte of a file can stand for at most, by Pillow's decoder: 8 of one bit a byte as they are, times 1032 deflated
(RFC 1951: 258 bytes for two bits), one string of LZW's table for a code, one bit for an empty block of JPEG."""

TIFF_RUN = {1: 8, 5: 8 * 4096, 8: 8 * 1032, 32773: 8 * 64, 32946: 8 * 1032}
"""The same by the tag Compression (259): none, LZW, Deflate, PackBits. Of others nothing is said: an empty row of a fax is one bit."""


def check_content(path: Path, image: Image.Image) -> None:
    """Of a file that was opened, and not yet read: that it is long enough for its pixels, before memory is asked for them.

    Raises
    ------
    InputError : its header promises more than it can hold.
    """
    tiles = getattr(image, "tile", None)
    most = LONGEST_RUN.get(str(tiles[0][0])) if tiles else None
    if image.format == "TIFF":
        most = TIFF_RUN.get(int(image.tag_v2.get(259, 1)))  # type: ignore[attr-defined]
    if most is not None and image.width * image.height > most * path.stat().st_size:
        raise InputError(
            f"{path} is damaged or truncated: {path.stat().st_size} bytes cannot hold {image.width} x {image.height} pixels",
            hint="copy it again from the original",
        )


def decoders(path: Path) -> tuple[str, ...]:
    """Pillow's names of the decoders that may read a file.

    Raises
    ------
    ModelError : it is a HEIC or AVIF file, and what reads those is not installed.
    """
    brands = brands_of(path)
    if brands & AVIF:
        if not features.check("avif"):
            raise ModelError(f"{path} is an AVIF file", hint="Pillow reads them from 11.3 on: pip install -U pillow")
        return ("AVIF",)
    if brands & HEIC:
        try:
            import pillow_heif
        except ImportError:
            raise ModelError(
                f"{path} is a HEIC file", hint="pip install 'invsolve[heic]' for what reads them"
            ) from None
        pillow_heif.register_heif_opener()
        return ("HEIF",)
    return ALWAYS


def brands_of(path: Path) -> frozenset[bytes]:
    """The brands in a file's first box, if that is an ``ftyp``."""
    with path.open("rb") as file:
        start = file.read(256)
    if start[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(start[:4], "big"), len(start))
    return frozenset({start[8:12], *(start[at : at + 4] for at in range(16, end - 3, 4))})


def notes(path: Path, image: Image.Image) -> list[str]:
    """What of a file that was opened, and not yet read, does not come along, in lines."""
    found = []
    if image.format in ANIMATED and getattr(image, "is_animated", False):
        found.append(f"{path.name} has several {'pages' if image.format == 'TIFF' else 'frames'}: the first is taken")
    depth = stated_bits(path, image)
    if depth > 8:
        found.append(f"{path.name} has {depth} bits a channel: read as 8")
    return found


def stated_bits(path: Path, image: Image.Image) -> int:
    """Bits a channel of a file of a kind that is read as 8 bits whatever it has; 8 of all others."""
    if image.format == "HEIF":
        return int(image.info.get("bit_depth", 8))
    if image.format not in ("AVIF", "JPEG2000"):
        return 8
    with path.open("rb") as file:
        start = file.read(START)
    # AV1 Codec ISO Media File Format, section 2.3: after the box's name two bytes, then the flags of the depth.
    if image.format == "AVIF":
        at = start.find(b"av1C")
        flags = start[at + 6] if 0 <= at < len(start) - 6 else 0
        return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    # ITU-T T.800, A.5.1: the markers SOC and SIZ, 38 bytes on the depth of the first channel, less one, and its sign.
    at = start.find(b"\xff\x4f\xff\x51")
    return (start[at + 42] & 0x7F) + 1 if 0 <= at < len(start) - 42 else 8
