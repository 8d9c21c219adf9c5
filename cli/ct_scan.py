"""What a sinogram file means: from its numbers and the options of ``invsolve ct`` to a scan; what is assumed is said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from invsolve.cli.console import say
from invsolve.cli.ct_files import read_array
from invsolve.errors import InputError, UsageError

Array = npt.NDArray[Any]


class Scan(NamedTuple):
    """A sinogram as the solver wants it."""

    sinogram: Array  # (slices, views, detectors): line integrals of n in pixels, or counts
    geometry: Any
    i0: float | None
    scale: float
    noise: float
    stacked: bool  # the file held a stack


def interpret(
    measured: Array,
    reference: Array | None,
    *,
    views: int | None,
    angles: str | None,
    geometry_file: Path | None,
    size: int | None,
    pixel_size: float | None,
    center: str | None,
    axis: str,
    units: str,
    mu_water: float,
    i0: float | None,
    noise: str,
) -> Scan:
    """From the file's numbers and the options to a scan; everything that is assumed is said."""
    from dataclasses import replace

    from invsolve.ct.sinogram import UNITS, estimate_noise, find_axes, find_center, normalize, slice_size
    from invsolve.forward_models.geometry import Geometry, even_angles, even_subset

    if measured.ndim not in (2, 3):
        raise InputError(
            f"the sinogram has {measured.ndim} dimensions, shape {measured.shape}",
            hint="wanted (views, detectors), or (slices, views, detectors)",
        )
    if units not in UNITS:
        raise UsageError(f"--units {units!r}", hint=f"wanted {', '.join(UNITS)}")
    for name, value in (("--pixel-size", pixel_size), ("--mu-water", mu_water), ("--i0", i0)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} {value}", hint="wanted a positive number")
    if i0 is not None and units != "counts":
        raise UsageError("--i0 without photon counts", hint="add --units counts, or leave --i0 out")
    scan_file = Geometry.read(geometry_file) if geometry_file else None
    stacked = measured.ndim == 3
    stack = measured if stacked else measured[None]
    order = find_axes(attenuating(stack, units, i0)) if axis == "auto" and scan_file is None else axis
    if order not in ("auto", "views,detectors", "detectors,views"):
        raise UsageError(f"--axis {axis!r}", hint="wanted views,detectors, detectors,views or auto")
    skimage_order = order == "detectors,views"
    if skimage_order:
        stack = np.ascontiguousarray(np.swapaxes(stack, -1, -2))
    if scan_file is not None:
        found = scan_file
        if stack.shape[-2:] != found.sinogram_shape:
            raise InputError(
                f"the sinogram has shape {stack.shape[-2:]}, {geometry_file} says (views, detectors) = "
                f"{found.sinogram_shape}",
                hint="correct one of them, or give --axis detectors,views",
            )
        pixel_size = found.pixel_size if pixel_size is None else pixel_size
    else:
        known = parse_angles(angles, stack.shape[-2]) if angles else even_angles(stack.shape[-2])
        if len(known) != stack.shape[-2]:
            other = "; with --axis " + ("views,detectors" if skimage_order else "detectors,views")
            raise InputError(
                f"{len(known)} angles for a sinogram with {stack.shape[-2]} views",
                hint="give one angle per view" + (other if len(known) == stack.shape[-1] else ""),
            )
        check_axes(stack, units, i0, axis)
        width = size or (reference.shape[-1] if reference is not None else slice_size(attenuating(stack, units, i0)))
        # scikit-image turns the picture about pixel (n // 2, n // 2), which falls on bin detectors // 2.
        own: dict[str, Any] = (
            {"center": float(stack.shape[-1] // 2), "axis_pixel": (width // 2, width // 2)} if skimage_order else {}
        )
        found = Geometry(
            known, stack.shape[-1], (width, width), detector_spacing=pixel_size or 1.0, pixel_size=pixel_size or 1.0,
            **own,
        )  # fmt: skip
        span = "180 degrees, " if not angles else ""
        say(
            f"assumed: parallel beam, {len(known)} views over {span}{known[0]:g} to {known[-1]:g} counter-clockwise, "
            f"axes ({order}), {found.detectors} bins as wide as a pixel, slice {width} x {width}"
            + ("" if not skimage_order else ", as scikit-image's radon")
        )
    if size is not None and scan_file is not None:
        found = replace(found, shape=(size, size), axis_pixel=None)
    if center is not None:
        at = find_center(attenuating(stack, units, i0), found.angles) if center == "auto" else parse_center(center)
        if not 0 <= at <= found.detectors - 1:
            raise InputError(
                f"--center {at:g} is off the detector",
                hint=f"wanted a bin from 0 to {found.detectors - 1}",
            )
        found = replace(found, center=at)
        say(f"centre of rotation at bin {at:.2f}")
    if views is not None:
        chosen = even_subset(found.views, views)
        if views < found.views:
            say(f"using {views} of {found.views} views, evenly spaced")
        stack, found = stack[:, chosen], found.subset(views)
    normal = normalize(stack, units, pixel_size=pixel_size, mu_water=mu_water, i0=i0)
    if units == "pixel":
        say("units: line integrals of n in pixel lengths, HU = 2000 n - 1000 (--units for others)")
    else:
        say(f"units: {units}, water {mu_water:g} per mm, pixels of {pixel_size:g} mm")
    return Scan(normal.sinogram, found, normal.i0, normal.scale, noise_level(noise, normal, estimate_noise), stacked)


def attenuating(stack: Array, units: str, i0: float | None) -> Array:
    """Something proportional to line integrals, whatever the units: for looking at, before they are settled."""
    if units != "counts":
        return stack
    return -np.log(np.clip(stack, 1, None) / (i0 or stack.max()))


def check_axes(stack: Array, units: str, i0: float | None, axis: str) -> None:
    """Raise InputError where the given axis order contradicts the data."""
    from invsolve.ct.sinogram import find_axes

    if axis != "auto" and find_axes(attenuating(stack, units, i0)) == "detectors,views":
        other = "detectors,views" if axis == "views,detectors" else "views,detectors"
        raise InputError(f"--axis {axis} does not fit the data: every column has the same sum, not every row",
                         hint=f"give --axis {other}, or auto")  # fmt: skip


def parse_center(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--center {text!r}", hint="wanted a bin number, or auto") from None


def parse_angles(text: str, views: int) -> tuple[float, ...]:
    """``0:180`` (evenly, the end excluded) or a file of degrees.

    Raises
    ------
    InputError : the file cannot be read, or its angles look like radians.
    """
    if ":" in text and not Path(text).exists():
        try:
            first, last = (float(part) for part in text.split(":"))
        except ValueError:
            raise UsageError(f"--angles {text!r}", hint="wanted FIRST:LAST in degrees, or a file") from None
        values = np.linspace(first, last, views, endpoint=False)
    else:
        path = Path(text)
        try:
            values = read_array(path, "list of angles") if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
        except FileNotFoundError:
            raise InputError(f"no such file: {path}", hint="give FIRST:LAST in degrees, or a file") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the angles in {path}: {error}", hint="wanted one number per line") from None
        values = values.ravel()
    if len(values) >= 4 and np.ptp(values) <= 2 * np.pi + 0.01:
        raise InputError(
            f"the angles span {np.ptp(values):.3g} degrees: they look like radians",
            hint="convert them to degrees, or say angle_unit in a --geometry file",
        )
    return tuple(float(v) for v in values)


def noise_level(text: str, normal: Any, estimate: Any) -> float:
    """Noise in the inner units: given, or estimated and said."""
    if normal.i0 is not None:
        say(f"noise: photon counts, I0 = {normal.i0:g}")
        return 0.0
    if text != "auto":
        try:
            value = float(text)
        except ValueError:
            raise UsageError(f"--noise {text!r}", hint="wanted a number in the file's units, or auto") from None
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"--noise {text!r}", hint="wanted a number >= 0")
        return value / normal.scale
    value = float(estimate(normal.sinogram))
    found = f"{value * normal.scale:.3g} (in the file's units)" if value else "none found"
    say(f"noise: {found}, estimated along the detector; --noise to set it")
    return value


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
