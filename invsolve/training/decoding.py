"""Picture files for training: decoded, or refused with a line that names the file."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from invsolve.errors import InputError, first_line
from invsolve.files import regular_file

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

EIGHT_BIT = frozenset({"1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})

MOST_PIXELS = 2 * (2**30 // 12)
"""Where Pillow refuses a picture as a decompression bomb, whatever limit the process has set."""


def folder_pictures(folder: Path, channels: int) -> list[npt.NDArray[np.uint8]]:
    """Every picture in ``folder`` and below, sorted by path, (H, W, channels) each; errors as :func:`decode`."""
    return [decode_file(path, channels) for path in picture_paths(folder)]


def picture_paths(folder: Path) -> list[Path]:
    """The files in ``folder`` and below that end like a picture, sorted; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise InputError(
            f"cannot look into {error.filename}: {error.strerror}", hint="make it readable, or move it out of the way"
        ) from None

    return sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    )


def decode_file(path: Path, channels: int) -> npt.NDArray[np.uint8]:
    """A picture file as (H, W, channels), grey for 1, RGB for 3; errors as :func:`decode`."""
    regular_file(path, "picture")
    return decode(path, str(path), channels)


def decode(source: Path | io.BytesIO, name: str, channels: int) -> npt.NDArray[np.uint8]:
    """A picture as (H, W, channels), grey for 1, RGB for 3.

    Raises
    ------
    InputError : damaged, no picture, deeper than 8 bits, of too many pixels or none; ``name`` says which it is.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about metadata that nobody needs and sizes, judged below
            with Image.open(source) as image:
                unfit = _unfit(image)
                pixels = None if unfit else np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # whatever Pillow's decoders make of damaged bytes
        raise InputError(
            f"cannot read {name}: {first_line(error)}", hint="remove it from the data or repair it"
        ) from error
    if pixels is None:
        raise InputError(f"{name} {unfit}", hint="convert it to an 8-bit picture of moderate size, or remove it")
    return pixels.reshape(*pixels.shape[:2], channels)


def _unfit(image: Image.Image) -> str:
    """What is wrong with a picture whose pixels have not been decoded yet; empty if nothing."""
    # Pillow reads 16-bit colour as 8-bit without a word; only the decoder's raw mode still tells.
    if any(";16" in str(tile) for tile in getattr(image, "tile", [])):
        return "has 16 bits per channel"
    if image.mode not in EIGHT_BIT:
        return f"has pixel mode {image.mode}"
    if not 0 < image.width * image.height <= MOST_PIXELS:
        return f"has {image.width} x {image.height} pixels"
    return ""
