"""A sinogram file and the options of ``invsolve ct`` as a scan; what is assumed is said."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from invsolve.cli.console import say
from invsolve.cli.ct_files import read_array
from invsolve.errors import InputError, UsageError, first_line
from invsolve.files import BOTH, regular_file

if TYPE_CHECKING:
    from invsolve.ct.description import AngleRange
    from invsolve.ct.scan import Scan

Array = npt.NDArray[Any]


class Opened(NamedTuple):
    """What a sinogram's file holds and says of itself."""

    values: Array
    units: str
    measured: npt.NDArray[np.bool_] | None = None
    angles: tuple[float, ...] | None = None
    pixel_size: float | None = None
    slice: int | None = None
    counted: bool = False  # logarithms of photon counts


def read_sinogram(path: Path, number: int | None, units: str | None) -> Opened:
    """A file's numbers, of HDF5 and Zarr one slice, with what it says of the scan; says what it read.

    Raises
    ------
    InputError : it cannot be read.
    UsageError : no such slice, or units that the file contradicts.
    """
    from invsolve.ct.scan_files import chosen_slice, is_scan_file, read_scan

    if not is_scan_file(path):
        values = read_array(path, "sinogram")
        if number is not None:
            if values.ndim != 3:
                raise UsageError(f"--slice {number} of {path}, which holds one slice", hint="leave --slice out")
            number = chosen_slice(number, len(values), path)
            values = values[number]
        return Opened(values, units or "pixel", slice=number)
    found = read_scan(path, number)
    say(f"{path.name}: {found.summary}")
    if units is not None and found.units not in (None, units):
        raise UsageError(f"--units {units}, but {path} holds {found.units}", hint="leave --units out")
    return Opened(
        found.values, units or found.units or "pixel", found.measured, found.angles, found.pixel_size, found.slice,
        found.counted,
    )  # fmt: skip


def interpret(
    opened: Opened, reference: Array | None, *, views: int | None, angles: str | None, geometry_file: Path | None,
    size: int | None, pixel_size: float | None, center: str | None, axis: str, mu_water: float,
    i0: float | None, noise: str, bad_bins: str, rings: str, spoiled: npt.NDArray[np.bool_] | None = None,
) -> Scan:  # fmt: skip
    """The scan that the file and the options describe, the options first; see :class:`invsolve.ct.description.Description`.

    ``spoiled`` : in the shape of the numbers, rays that count as not measured.
    """
    from invsolve.ct import scan
    from invsolve.ct.description import Description
    from invsolve.forward_models.geometry import Geometry

    measured = opened.measured
    if spoiled is not None:
        measured = ~spoiled if measured is None else measured & ~spoiled
    known = Description(
        geometry=Geometry.read(geometry_file) if geometry_file else None,
        angles=parse_angles(angles) if angles else opened.angles,
        size=size,
        truth_width=None if reference is None else reference.shape[-1],
        pixel_size=pixel_size if pixel_size is not None or geometry_file else opened.pixel_size,
        center=None if center is None else parse_center(center),
        axis="views,detectors" if axis == "auto" and opened.measured is not None else axis,
        units=opened.units,
        mu_water=mu_water,
        i0=i0,
        noise=parse_number("--noise", noise, "a number >= 0 in the file's units, or auto"),
        views=views,
        measured=measured,
        bad_bins=bad_bins,
        rings=rings,
        counted=opened.counted,
    )
    found = scan.interpret(opened.values, known)
    for note in found.notes:
        say(note)
    return found


def parse_center(text: str) -> float | str:
    """A bin, or a way to find it."""
    from invsolve.ct.rotation_axis import WAYS

    return text if text in WAYS else parse_number("--center", text, f"a bin number, {', '.join(WAYS)}")


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


def parse_metal(text: str) -> float | Path | None:
    """The threshold in HU, the file that says which rays pass through metal, or None to leave metal alone."""
    from invsolve.ct.metal import METAL_HU

    if text in ("auto", "off"):
        return METAL_HU if text == "auto" else None
    try:
        threshold = float(text)
    except ValueError:
        return Path(text)
    if not 0 < threshold < math.inf:
        raise UsageError(f"--metal {text}", hint=f"wanted auto, off, a file, or HU above 0 such as {METAL_HU:g}")
    return threshold


def read_traces(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Which rays of a sinogram of this shape pass through metal: those above 0.5 in a file; says how many.

    Raises
    ------
    InputError : it cannot be read, is of another shape, or leaves no ray.
    """
    found = read_array(path, "metal mask") > 0.5
    if found.shape not in (shape, shape[-2:]):
        raise InputError(f"--metal {path} has shape {found.shape}, the sinogram {shape}", hint="give one value a ray")
    if found.all():
        raise InputError(f"--metal {path} leaves no ray", hint="wanted above 0.5 only where metal is in the way")
    say(f"metal: {int(found.sum())} rays of {path.name} ({found.mean():.1%}) count as not measured")
    return np.broadcast_to(found, shape)


def parse_angles(text: str) -> AngleRange | tuple[float, ...]:
    """``0:180``, or a file of degrees, one a line or ``.npy``.

    Raises
    ------
    InputError : the file cannot be read.
    UsageError : neither a range nor a file.
    """
    from invsolve.ct.description import AngleRange

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
            return np.loadtxt(path, ndmin=1, encoding=BOTH)
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
