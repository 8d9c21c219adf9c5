"""A sinogram file and the options of ``invsolve ct`` as a scan; what is assumed is said."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from invsolve.cli.console import say
from invsolve.cli.ct_files import read_array
from invsolve.errors import InputError, UsageError, first_line
from invsolve.files import regular_file

if TYPE_CHECKING:
    from invsolve.ct.scan import AngleRange, Scan

Array = npt.NDArray[Any]


def interpret(
    measured: Array, reference: Array | None, *, views: int | None, angles: str | None, geometry_file: Path | None,
    size: int | None, pixel_size: float | None, center: str | None, axis: str, units: str, mu_water: float,
    i0: float | None, noise: str, file_angles: tuple[float, ...] | None = None,
) -> Scan:  # fmt: skip
    """The scan that the options describe; see :class:`invsolve.ct.scan.Description` for them.

    ``file_angles`` are those beside the numbers in their file, where none were given.
    """
    from invsolve.ct import scan
    from invsolve.forward_models.geometry import Geometry

    known = scan.Description(
        geometry=Geometry.read(geometry_file) if geometry_file else None,
        angles=parse_angles(angles) if angles else file_angles,
        size=size,
        truth_width=None if reference is None else reference.shape[-1],
        pixel_size=pixel_size,
        center=None if center is None else parse_number("--center", center, "a bin number, or auto"),
        axis=axis,
        units=units,
        mu_water=mu_water,
        i0=i0,
        noise=parse_number("--noise", noise, "a number >= 0 in the file's units, or auto"),
        views=views,
    )
    found = scan.interpret(measured, known)
    for note in found.notes:
        say(note)
    return found


def parse_number(option: str, text: str, wanted: str) -> float | Literal["auto"]:
    """A number, or ``auto``."""
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{option} {text!r}", hint=f"wanted {wanted}")
    return value


def parse_angles(text: str) -> AngleRange | tuple[float, ...]:
    """``0:180``, or a file of degrees, one a line or ``.npy``.

    Raises
    ------
    InputError : the file cannot be read.
    UsageError : neither a range nor a file.
    """
    from invsolve.ct.scan import AngleRange

    path = Path(text)
    if ":" in text and not path.exists():
        try:
            first, last = (float(part) for part in text.split(":"))
        except ValueError:
            first = last = math.nan
        if not math.isfinite(last - first):
            raise UsageError(f"--angles {text!r}", hint="wanted FIRST:LAST in degrees, or a file")
        return AngleRange(first, last)
    regular_file(path, "list of angles")
    values = read_array(path, "list of angles") if path.suffix.lower() == ".npy" else _text_numbers(path)
    return tuple(values.ravel().tolist())


def _text_numbers(path: Path) -> Array:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file with comments only; it has no angles
            return np.loadtxt(path, ndmin=1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the angles in {path}: {first_line(error)}", hint="wanted one number per line"
        ) from None


def truth_in_hu(reference: Array, expected: tuple[int, ...], stacked: bool) -> Array:
    """The true slices (slices, H, W) in HU."""
    shaped = reference if stacked else reference[None]
    if shaped.shape != expected:
        raise InputError(
            f"--truth has shape {reference.shape}, the result {expected if stacked else expected[1:]}",
            hint="give the same slice, or set --size",
        )
    if reference.min() >= -0.5 and reference.max() <= 4:
        say("--truth looks like n, not HU: taken as HU = 2000 n - 1000")
        return 2000 * shaped - 1000
    return shaped
