"""Reading pictures and writing results: whole or not at all, with provenance, never over something by accident."""

from __future__ import annotations

import io
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from invsolve._version import __version__
from invsolve.errors import InputError, OutputError

Picture = npt.NDArray[np.uint8]

Image.MAX_IMAGE_PIXELS = None  # large scans are legitimate; memory is checked where it is needed

EIGHT_BIT = frozenset({"1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"})


def open_picture(path: Path, what: str = "picture") -> Image.Image:
    """Read a whole picture, upright (EXIF orientation applied).

    Raises
    ------
    InputError : missing, empty, not a picture, truncated, or deeper than 8 bits.
    """
    if not path.exists():
        raise InputError(f"no such file: {path}", hint=f"check the path of the {what}")
    if path.is_dir():
        raise InputError(f"{path} is a folder", hint=f"give one {what}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)", hint="copy it again from the original")
    try:
        with Image.open(path) as image:
            # Pillow reads 16-bit colour as 8-bit without a word; only the decoder's raw mode still tells.
            deep = any(";16" in str(tile) for tile in getattr(image, "tile", []))
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a picture this program can read", hint="give a PNG or JPEG file") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is damaged or truncated: {error}", hint="copy it again from the original") from None
    if deep or upright.mode not in EIGHT_BIT:
        kind = "16 bits per channel" if deep else f"pixel mode {upright.mode}"
        raise InputError(f"{path} has {kind}", hint="convert it to an 8-bit grey or RGB picture first")
    return upright


class Photo(NamedTuple):
    """A picture file's content."""

    pixels: Picture  # (H, W) for grey files, (H, W, 3) for all others
    alpha: Picture | None  # (H, W) transparency, where the file has any
    icc_profile: bytes | None  # what the numbers mean as colours, where the file says so

    def with_alpha(self, pixels: Picture, opaque: npt.NDArray[np.bool_] | None = None) -> Picture:
        """``pixels`` (H, W[, 3]) with this file's transparency as last channel; none of it where ``opaque``."""
        if self.alpha is None:
            return pixels
        return np.dstack([pixels, self.alpha if opaque is None else np.where(opaque, np.uint8(255), self.alpha)])


def read_photo(path: Path, what: str = "picture") -> Photo:
    """Grey stays grey, everything else becomes RGB; transparency and colour profile are kept apart."""
    image = open_picture(path, what)
    grey = image.mode in ("1", "L", "LA")
    icc_profile = image.info.get("icc_profile") if image.mode in ("L", "LA", "RGB", "RGBA", "P") else None
    if "transparency" in image.info:
        image = image.convert("LA" if grey else "RGBA")
    alpha = np.asarray(image.getchannel("A")) if image.mode in ("LA", "RGBA") else None
    return Photo(np.asarray(image.convert("L" if grey else "RGB")), alpha, icc_profile)


def read_picture(path: Path, what: str = "picture") -> Picture:
    """(H, W) for grey files, (H, W, 3) for all others; transparency is dropped."""
    return read_photo(path, what).pixels


def read_mask(path: Path, *, invert: bool = False) -> npt.NDArray[np.bool_]:
    """(H, W), True where missing: brighter than middle grey, or darker with ``invert``."""
    grey = np.asarray(open_picture(path, "mask").convert("L"))
    return (grey < 128) if invert else (grey >= 128)


def output_path(given: Path | None, source: Path, task: str) -> Path:
    """Where the result goes: ``given`` (a file, or a folder for the default name), else ``<stem>.<task>.png`` beside
    the source."""
    name = f"{source.stem}.{task}.png"
    if given is None:
        return source.with_name(name)
    if given.is_dir():
        return given / name
    if given.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OutputError(f"output {given} does not end in .png or .jpg", hint="name a .png file or an existing folder")
    return given


def check_writable(paths: list[Path], *, force: bool) -> None:
    """Before hours of work: nothing would be overwritten, and the folders can be written.

    Raises
    ------
    OutputError : a file exists and ``force`` is off, or a folder is missing or not writable.
    """
    for path in paths:
        if path.exists() and not force:
            raise OutputError(f"{path} exists", hint="use --force to overwrite it, or -o for another name")
    for folder in {path.parent for path in paths}:
        if not folder.is_dir():
            raise OutputError(f"no such folder: {folder}", hint="create it first")
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"cannot write into {folder}: {reason}", hint="choose another place with -o") from None


def make_folder(folder: Path) -> None:
    """Create a folder for results, if it is not there yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot make the folder {folder}: {reason}", hint="choose another place") from None


def provenance(**facts: Any) -> dict[str, Any]:
    """What made a file: command line, version and the given facts."""
    command = shlex.join(["invsolve", *sys.argv[1:]])
    return {"software": f"invsolve {__version__}", "command": command, **facts}


def encode_picture(array: Picture, path: Path, facts: dict[str, Any], icc_profile: bytes | None = None) -> bytes:
    """PNG or JPEG bytes by the path's ending, with the provenance in a text chunk or comment."""
    buffer, image, text = io.BytesIO(), Image.fromarray(array), json.dumps(facts)
    if path.suffix.lower() == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("invsolve", text)
        image.save(buffer, "PNG", pnginfo=info, icc_profile=icc_profile)
    else:
        if image.mode in ("LA", "RGBA"):  # JPEG has no transparency
            image = image.convert(image.mode[:-1])
        image.save(buffer, "JPEG", quality=95, subsampling=0, comment=text.encode(), icc_profile=icc_profile)
    return buffer.getvalue()
