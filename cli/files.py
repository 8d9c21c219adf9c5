"""Reading pictures and writing results: whole or not at all, with provenance, never over something by accident."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shlex
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from invsolve._version import __version__
from invsolve.atomic import expect_absent, make_folder
from invsolve.cli.codecs import check_content, decoders, notes
from invsolve.cli.console import quiet_stderr, say
from invsolve.cli.ct_files import quiet_libraries
from invsolve.cli.deep import WANTED, Deep, bits, is_tiff, read_deep, read_tiff
from invsolve.cli.formats import ENDINGS, Encoding, encode
from invsolve.cli.free_memory import available_memory, size_in_words
from invsolve.cli.metadata import from_cmyk, read_exif
from invsolve.errors import InputError, InvsolveError, OutputError, first_line, of_the_machine
from invsolve.files import regular_file
from invsolve.pictures import Pixels, full_range, to_pixels, to_unit

Image.MAX_IMAGE_PIXELS = None  # large scans are legitimate; what they take in memory is checked where they are read

EIGHT_BIT = frozenset({"1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"})

BYTES_PER_PIXEL = 16
"""Memory that a picture takes as it is read, in bytes per pixel; what is then done with it takes more, see ``--memory``."""

LUMA = np.array((0.299, 0.587, 0.114), np.float32)
"""Rec. 601 weights of red, green and blue: ``invsolve.colours`` has them too, but needs torch."""

LONGEST_NAME = 255
"""Bytes of a file's name on any system in use."""

LONGEST_COMMAND = 4096
"""Characters of a command line that go into a file: longer ones do not fit a JPEG's comment."""


def open_picture(path: Path, what: str = "picture") -> Image.Image:
    """Read a whole picture of 8 bits a channel, upright (EXIF orientation applied).

    Raises
    ------
    InputError : missing, empty, not a picture, truncated, deeper than 8 bits, or too large for the memory there is.
    """
    content = _read(path, what)
    if isinstance(content, Deep):
        depth = 16 if content.pixels.dtype == np.uint16 else 8 * content.pixels.itemsize
        raise InputError(
            f"{path} has {depth} bits per channel", hint="convert it to an 8-bit grey or RGB picture first"
        )
    return content


def _read(path: Path, what: str) -> Image.Image | Deep:
    """A whole picture, upright, as Pillow has it or, where that would lose something, as an array."""
    regular_file(path, what)
    check = functools.partial(check_memory, path)
    try:
        with warnings.catch_warnings(), quiet_libraries():
            warnings.simplefilter("ignore")  # damaged metadata does not matter, and anything else is an error below
            try:
                image = Image.open(path, formats=decoders(path))
            except UnidentifiedImageError:
                if is_tiff(path):
                    return read_tiff(path, check)
                raise
            with image:
                check(*image.size)
                check_content(path, image)
                for note in notes(path, image):
                    say(note)
                with quiet_stderr():
                    if bits(image) > 8:
                        return read_deep(path, image, check)._replace(exif=read_exif(image))
                    exif = read_exif(image)
                    image.load()
                    upright = ImageOps.exif_transpose(image)
                upright.info["exif"] = exif
    except InvsolveError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a picture this program can read", hint="give a PNG or JPEG file") from None
    except MemoryError:
        raise InputError(
            f"{path} does not fit into the memory there is", hint="make it smaller, or cut out the part that matters"
        ) from None
    except Exception as error:
        if of_the_machine(error):
            raise
        raise InputError(
            f"{path} is damaged or truncated: {first_line(error)}", hint="copy it again from the original"
        ) from None
    if upright.mode not in EIGHT_BIT:
        raise InputError(f"{path} has pixel mode {upright.mode}", hint=WANTED)
    return upright


def check_memory(path: Path, width: int, height: int) -> None:
    """Raise InputError where a picture has no pixels, or so many that they do not fit into the memory there is."""
    if not (width and height):
        raise InputError(f"{path} is {width} x {height} pixels", hint="give a picture that has any")
    wanted, available = width * height * BYTES_PER_PIXEL, available_memory()
    if wanted > available:
        raise InputError(
            f"{path} is {width} x {height} pixels: about {size_in_words(wanted)} of memory, {size_in_words(available)} are free",
            hint="make it smaller, or cut out the part that matters",
        )


class Photo(NamedTuple):
    """A picture file's content; pixels and transparency of 8 or 16 bits, or floats in [0, 1]."""

    pixels: Pixels  # (H, W) for grey files, (H, W, 3) for all others
    alpha: Pixels | None  # (H, W) transparency, where the file has any
    icc_profile: bytes | None  # what the numbers mean as colours, where the file says so
    exif: bytes | None = None  # what else the file says, as from read_exif

    @property
    def unit(self) -> npt.NDArray[np.float32]:
        """The pixels in [0, 1]."""
        return to_unit(self.pixels)

    def with_alpha(self, pixels: Pixels, opaque: npt.NDArray[np.bool_] | None = None) -> Pixels:
        """``pixels`` (H, W[, 3]) with this file's transparency as last channel; none of it where ``opaque``."""
        if self.alpha is None:
            return pixels
        white = self.alpha.dtype.type(full_range(self.alpha.dtype))
        return np.dstack([pixels, self.alpha if opaque is None else np.where(opaque, white, self.alpha)])


def read_photo(path: Path, what: str = "picture") -> Photo:
    """Grey stays grey, everything else becomes RGB; transparency and colour profile are kept apart."""
    image = _read(path, what)
    if isinstance(image, Deep):
        pixels = image.pixels
        if pixels.ndim == 2 or pixels.shape[2] == 3:
            return Photo(pixels, None, image.icc_profile, image.exif)
        colours = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
        return Photo(
            np.ascontiguousarray(colours), np.ascontiguousarray(pixels[..., -1]), image.icc_profile, image.exif
        )
    exif = image.info.get("exif")
    if image.mode == "CMYK":
        image, how = from_cmyk(image)
        say(f"{path.name} is CMYK: turned into sRGB {how}")
        return Photo(np.asarray(image), None, None, exif)
    grey = image.mode in ("1", "L", "LA")
    icc_profile = image.info.get("icc_profile") if image.mode in ("L", "LA", "RGB", "RGBA", "P") else None
    if "transparency" in image.info:
        image = image.convert("LA" if grey else "RGBA")
    alpha = np.asarray(image.getchannel("A")) if image.mode in ("LA", "RGBA") else None
    return Photo(np.asarray(image.convert("L" if grey else "RGB")), alpha, icc_profile, exif)


def luma(pixels: Pixels) -> Pixels:
    """(H, W) Rec. 601 grey of a file's pixels (H, W) or (H, W, 3), in their own grey levels."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).convert("L"))
    return pixels if pixels.ndim == 2 else to_pixels(to_unit(pixels) @ LUMA, pixels.dtype)


def read_picture(path: Path, what: str = "picture") -> Pixels:
    """(H, W) for grey files, (H, W, 3) for all others; transparency is dropped."""
    return read_photo(path, what).pixels


def output_path(given: Path | None, source: Path, task: str, endings: tuple[str, ...] = ENDINGS) -> Path:
    """Where the result goes: as :func:`named_output`, by default ``<stem>.<task>`` with the first of the ``endings``
    beside the source."""
    name = f"{source.stem}.{task}{endings[0]}"
    return source.with_name(name) if given is None else named_output(given, name, endings)


class Folder(type(Path())):  # type: ignore[misc]
    """A path that was given with a slash at its end."""

    @classmethod
    def parse(cls, text: str) -> Path:
        """The path, and what a name such as ``results.v2/`` says of it.

        Raises
        ------
        OutputError : a name in it is too long for any system.
        """
        for name in Path(text).parts:
            if len(os.fsencode(name)) > LONGEST_NAME:
                raise OutputError(
                    f"the name {name[:40]}... is longer than {LONGEST_NAME} bytes", hint="choose a shorter one with -o"
                )
        return cls(text) if text.endswith(("/", os.sep)) else Path(text)


def named_output(given: Path, name: str, endings: tuple[str, ...]) -> Path:
    """``given`` as a file with one of the ``endings``, or ``name`` in it: what has no ending is a folder, there or still
    to be made.

    Raises
    ------
    OutputError : it ends otherwise.
    """
    if given.is_dir() or not given.suffix or isinstance(given, Folder):
        return Path(given) / name
    if given.suffix.lower() not in endings:
        wanted = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise OutputError(f"output {given} does not end in {wanted}", hint=f"name a {endings[0]} file or a folder")
    return given


def check_writable(paths: list[Path], *, force: bool, make: bool = True) -> None:
    """Before hours of work: nothing would be overwritten, and the folders, made where they are not there, can be written.

    ``make`` : off, no folder is made, and what can be written is judged by its permissions.

    Raises
    ------
    OutputError : a file exists and ``force`` is off, a name is too long, or a folder cannot be made or written.
    """
    for path in paths:
        if len(os.fsencode(path.name)) > LONGEST_NAME:
            raise OutputError(
                f"the name {path.name[:40]}... is longer than {LONGEST_NAME} bytes", hint="choose a shorter one with -o"
            )
        if path.is_dir():
            raise OutputError(f"{path} is a folder", hint="choose another name with -o")
        if (path.exists() or path.is_symlink()) and not force:
            raise OutputError(f"{path} exists", hint="use --force to overwrite it, or -o for another name")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is a pipe or a device", hint="choose another name with -o, or - for stdout")
    expect_absent(paths, anyway=force)
    for folder in {path.parent for path in paths}:
        if not make:
            check_folder(folder)
            continue
        make_folder(folder)
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"cannot write into {folder}: {reason}", hint="choose another place with -o") from None


def check_apart(paths: Sequence[Path], reads: Sequence[Path], named: Path | None) -> None:
    """Before the work: no result takes the place of a file that is read, with ``--force`` neither. Only the first of ``reads``,
    the input, may be ``named`` as the output.

    Raises
    ------
    OutputError : one would.
    """
    for path, (number, read) in itertools.product(paths, enumerate(reads)):
        if path.exists() and read.exists() and path.samefile(read) and not (number == 0 and path == named):
            raise OutputError(
                f"a result would be called {path}, which is a file that is read", hint="choose another name with -o"
            )


def check_folder(folder: Path) -> None:
    """Raise an OutputError where a folder cannot be written or made, as far as its permissions say."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise OutputError(f"cannot write into {folder}", hint="choose another place with -o")


COMMAND: ContextVar[Sequence[str] | None] = ContextVar("COMMAND", default=None)
"""The command line that makes a picture alone, where it is one of several that are made."""


def provenance(**facts: Any) -> dict[str, Any]:
    """What made a file: command line, version and the given facts."""
    command = shlex.join(["invsolve", *(COMMAND.get() or sys.argv[1:])])
    if len(command) > LONGEST_COMMAND:
        command = command[:LONGEST_COMMAND] + " ..."
    return {"software": f"invsolve {__version__}", "command": command, **facts}


def encode_picture(array: Pixels, path: Path, facts: dict[str, Any], encoding: Encoding | None = None) -> bytes:
    """The bytes of a PNG, JPEG, TIFF or WebP file by the path's ending, with the provenance in it."""
    return encode(array, path, json.dumps(facts), encoding or Encoding())
