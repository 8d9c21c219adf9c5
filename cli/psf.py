"""How a picture was blurred, as commands are told: a file, a Gaussian or a motion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import typer

from invsolve.cli.ct_files import ENDINGS, read_array
from invsolve.cli.files import luma, read_picture
from invsolve.cli.limits import finite
from invsolve.errors import InputError, UsageError
from invsolve.pictures import to_unit

LARGEST_BLUR = 1000.0
"""Pixels of the standard deviation or the motion."""

PSF = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What the blur makes of a point of light, centred: a grey picture (bright = more light), or a 2-D array "
        "(.npy, .npz, .tif).",
        rich_help_panel="Problem",
    ),
]
Sigma = Annotated[
    float | None,
    typer.Option(
        callback=finite, metavar="PIXELS", help="A Gaussian blur of this standard deviation.", rich_help_panel="Problem"
    ),
]
Motion = Annotated[
    str | None,
    typer.Option(
        metavar="LENGTH,ANGLE",
        help="A straight motion of so many pixels; degrees counter-clockwise from left to right, 0 if left out.",
        rich_help_panel="Problem",
    ),
]


class Spread(NamedTuple):
    """A PSF and what it is called."""

    psf: npt.NDArray[np.floating]  # (h, w)
    name: str
    options: str  # that say it again


def read_spread(psf: Path | None, sigma: float | None, motion: str | None) -> Spread:
    """The PSF of the one option that was given.

    Raises
    ------
    UsageError : none or several were given, or numbers make no sense.
    InputError : the file is no PSF.
    """
    given = [name for name, value in (("--psf", psf), ("--sigma", sigma), ("--motion", motion)) if value is not None]
    if len(given) != 1:
        raise UsageError(
            f"{' and '.join(given)} together" if given else "no blur given",
            hint="wanted one of --psf FILE, --sigma PIXELS and --motion LENGTH,ANGLE",
        )
    if psf is not None:
        return Spread(_read(psf), f"PSF of {psf.name}", f"--psf {psf}")
    from invsolve.forward_models import gaussian_psf, motion_psf  # loads torch

    if sigma is not None:
        if not 0 < sigma <= LARGEST_BLUR:
            raise UsageError(f"--sigma {sigma:g}", hint=f"wanted more than 0 and at most {LARGEST_BLUR:g} pixels")
        return Spread(gaussian_psf(sigma).numpy(), f"Gaussian of {sigma:g} pixels", f"--sigma {sigma:g}")
    length, angle = _length_and_angle(motion or "")
    name = f"motion of {length:g} pixels at {angle:g} degrees"
    return Spread(motion_psf(length, angle).numpy(), name, f"--motion {length:g},{angle:g}")


def _length_and_angle(text: str) -> tuple[float, float]:
    parts = text.split(",")
    try:
        length, angle = (float(part) for part in (parts if len(parts) == 2 else [*parts, "0"]))
    except ValueError:
        length = angle = float("nan")
    if not (0 < length <= LARGEST_BLUR and abs(angle) <= 360):
        raise UsageError(
            f"--motion {text}", hint=f"wanted LENGTH,ANGLE such as 15,30: up to {LARGEST_BLUR:g} pixels, 360 degrees"
        )
    return length, angle


def _read(path: Path) -> npt.NDArray[np.floating]:
    array = read_array(path, "PSF") if path.suffix.lower() in ENDINGS else to_unit(luma(read_picture(path, "PSF")))
    if array.ndim != 2:
        raise InputError(f"{path} has {array.ndim} dimensions, shape {array.shape}", hint="wanted one PSF (H, W)")
    if array.min() < 0 or not array.any():
        raise InputError(
            f"{path} has {'negative values' if array.min() < 0 else 'nothing but zeros'}",
            hint="wanted a PSF: how bright a point of light is around its place, and black elsewhere",
        )
    return array
