"""Which pixels of a photograph are missing: from a mask's file, its transparency, a colour painted over the damage, or boxes."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from PIL import ImageColor

from invsolve.cli.console import say
from invsolve.cli.files import Photo, luma, read_photo
from invsolve.cli.formats import eight_bits
from invsolve.errors import InputError, UsageError
from invsolve.pictures import full_range

Missing = npt.NDArray[np.bool_]

ALPHA = "alpha"
MOST_GROWN = 100
PAINTED_GROWS = 2
"""Pixels around a painted colour that a soft brush has mixed with the picture."""

MOST_RUN = 8
"""Pixels that a colour runs at most: as wide as the blocks in which a JPEG keeps colours."""

BEYOND = 4
"""Pixels from there on with which its surroundings are compared."""

TINTED = 0.02
"""Share of the painted colour, in the mean of all pixels at one distance from it, from which on they are mixed with it."""

COLOUR_TOLERANCE = 32
"""Levels, in the channel that differs most, by which a JPEG moves a painted colour."""

MOST_BETWEEN = 0.5
"""Share of a mask's pixels that are grey; the soft edges of one are few."""

NEARLY_BLACK = 0.05
"""Share of white: a mask no brighter than that was meant to count 0 and 1."""

_PROBLEM = "Problem"

MaskFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|DIR|alpha",
        rich_help_panel=_PROBLEM,
        show_default=False,
        help="White = missing; same size as the picture; a folder has one of the same stem for each picture. alpha: where the "
        "picture is transparent. All that is given adds up.",
    ),
]
InvertMask = Annotated[bool, typer.Option("--invert-mask", help="Black = missing.", rich_help_panel=_PROBLEM)]
MaskThreshold = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        metavar="SHARE",
        rich_help_panel=_PROBLEM,
        help="Of a soft mask: from this brightness (or transparency) on, a pixel is missing.",
    ),
]
MaskColour = Annotated[
    str | None,
    typer.Option(
        "--mask-color",
        "--mask-colour",
        metavar="COLOUR",
        rich_help_panel=_PROBLEM,
        show_default=False,
        help="What was painted over the damage, such as '#ff00ff' or magenta: pixels within 32 levels of it are missing.",
    ),
]
Boxes = Annotated[
    list[str] | None,
    typer.Option(
        "--box",
        metavar="X,Y,W,H",
        rich_help_panel=_PROBLEM,
        show_default=False,
        help="A missing rectangle, from its upper left corner, in pixels; may be repeated.",
    ),
]
Grow = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MOST_GROWN,
        metavar="N",
        rich_help_panel=_PROBLEM,
        show_default=False,
        help="Take N more pixels around what is missing; default with --mask-color as many as the paint has run into, 2 to 9, "
        "otherwise 0.",
    ),
]


@dataclass(frozen=True)
class MaskSources:
    """Where a mask comes from, as the command line says it; what is given adds up."""

    mask: str | None = None
    invert: bool = False
    threshold: float = 0.5
    colour: str | None = None
    boxes: tuple[str, ...] = ()
    grow: int | None = None

    @property
    def about(self) -> str:
        """All of it, for the provenance."""
        given = [self.mask, self.colour, *(f"box {box}" for box in self.boxes)]
        return ", ".join(part for part in given if part is not None)

    def read(self, photo: Photo) -> Missing:
        """(H, W), True where a pixel of ``photo`` is missing.

        Raises
        ------
        UsageError : nothing is given, or a colour or a box that is none.
        InputError : a file that is no mask of this picture, no transparency, or a box outside.
        """
        shape = photo.pixels.shape[:2]
        missing = np.zeros(shape, dtype=bool)
        if not (self.mask or self.colour or self.boxes):
            raise UsageError(
                "nothing says what is missing",
                hint="give --mask FILE, --mask alpha, --mask-color '#ff00ff' or --box X,Y,W,H",
            )
        if self.invert and (self.mask is None or self.mask == ALPHA):
            raise UsageError("--invert-mask without a mask's file", hint="give --mask FILE as well")
        if self.mask == ALPHA:
            missing |= transparent(photo, self.threshold)
        elif self.mask is not None:
            given = read_mask(Path(self.mask), invert=self.invert, threshold=self.threshold)
            if given.shape != shape:
                raise InputError(
                    f"the mask is {given.shape[1]} x {given.shape[0]} pixels, the picture {shape[1]} x {shape[0]}",
                    hint="give a mask of the picture's size",
                )
            missing |= given
        if self.colour is not None:
            paint = painted(photo, self.colour)
            missing |= grown(paint, run_out(photo, paint) if self.grow is None else 0)
        for box in self.boxes:
            missing |= inside(box, shape)
        return grown(missing, self.grow or 0)


def read_mask(path: Path, *, invert: bool = False, threshold: float = 0.5) -> Missing:
    """(H, W), True where missing: at least ``threshold`` as bright as white, or darker than that with ``invert``."""
    grey = luma(read_photo(path, "mask").pixels)
    white = full_range(grey.dtype)
    between = float(((grey > 0.1 * white) & (grey < 0.9 * white)).mean())
    if between > MOST_BETWEEN:
        say(f"warning: {between:.0%} of {path} is neither black nor white, as in a photograph: is it the mask?")
    least = max(1, math.ceil(white * threshold)) if white > 1 else max(1 / 255, threshold)
    bright = grey >= least
    if not bright.any() and 0 < grey.max() <= NEARLY_BLACK * white:
        raise InputError(
            f"{path} marks nothing: its brightest pixel is {grey.max():g} of {white}",
            hint=f"--mask-threshold 0 takes all that is not black; or multiply it by {round(white / float(grey.max()))}",
        )
    return ~bright if invert else bright


def transparent(photo: Photo, threshold: float) -> Missing:
    """Where a picture is at least ``threshold`` transparent; 0 takes every pixel that is so at all."""
    if photo.alpha is None:
        raise InputError(
            "--mask alpha, but the picture has no transparency", hint="erase the damage to transparent, or give a mask"
        )
    opaque = full_range(photo.alpha.dtype)
    return photo.alpha <= opaque * (1 - threshold) if threshold else photo.alpha < opaque


def painted(photo: Photo, colour: str) -> Missing:
    """Where a picture has this colour, to ``COLOUR_TOLERANCE``."""
    bare = len(colour) in (3, 6) and set(colour.lower()) <= set("0123456789abcdef")  # as copied out of a paint program
    named: tuple[int, ...] = ()
    with suppress(ValueError):
        named = ImageColor.getrgb(f"#{colour}" if bare else colour)
    if len(named) != 3 or max(named) > 255:
        raise UsageError(f"--mask-color {colour!r}", hint="wanted a colour such as '#ff00ff' or magenta")
    wanted = np.array(named, dtype=np.int16)
    levels = eight_bits(photo.pixels)
    pixels = levels if levels.ndim == 3 else levels[..., None]
    found = (np.abs(pixels.astype(np.int16) - wanted) <= COLOUR_TOLERANCE).all(axis=2)
    if not found.any():
        raise InputError(
            f"no pixel of the picture is {colour}, within {COLOUR_TOLERANCE} levels of 255 in every channel",
            hint="paint the damage in that colour, without transparency",
        )
    return found


def run_out(photo: Photo, paint: Missing) -> int:
    """How many pixels around ``paint`` are mixed with its colour: by a soft brush, or because a JPEG keeps colours at half the
    resolution. More than :data:`PAINTED_GROWS` are said."""
    from scipy import ndimage

    levels = eight_bits(photo.pixels)
    if levels.ndim == 2:
        levels = levels[..., None]
    away = ndimage.distance_transform_edt(~paint)

    def mean(least: float, most: float) -> npt.NDArray[np.float64] | None:
        ring = levels[(away > least) & (away <= most)]
        return ring.mean(axis=0) if len(ring) else None

    beyond = mean(MOST_RUN, MOST_RUN + BEYOND)
    if beyond is None:
        return PAINTED_GROWS
    towards = levels[paint].mean(axis=0) - beyond
    pixels = 1
    while pixels <= MOST_RUN and (ring := mean(pixels - 1, pixels)) is not None:
        if (ring - beyond) @ towards <= TINTED * (towards @ towards):
            break
        pixels += 1
    if pixels <= PAINTED_GROWS:
        return PAINTED_GROWS
    say(f"the paint has run into what is around it: {pixels} pixels of it are taken as well (--grow)")
    return pixels


def inside(box: str, shape: tuple[int, ...]) -> Missing:
    """The pixels of ``X,Y,W,H``."""
    try:
        x, y, width, height = (int(part) for part in box.split(","))
    except ValueError:
        raise UsageError(f"--box {box!r}", hint="wanted X,Y,W,H: four whole numbers of pixels") from None
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > shape[1] or y + height > shape[0]:
        raise InputError(
            f"--box {box} leaves the picture, {shape[1]} x {shape[0]} pixels", hint="give one that lies in it"
        )
    missing = np.zeros(shape, dtype=bool)
    missing[y : y + height, x : x + width] = True
    return missing


def grown(missing: Missing, pixels: int) -> Missing:
    """All pixels at most ``pixels`` away from a missing one."""
    if not pixels or not missing.any():
        return missing
    from scipy import ndimage  # takes as long to load as all commands together

    return ndimage.distance_transform_edt(~missing) <= pixels
