"""What is known of a scan beside its numbers, and the order of its axes and the geometry that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from invsolve.ct.sinogram import find_axes, slice_size
from invsolve.ct.units import MU_WATER
from invsolve.errors import InputError
from invsolve.forward_models import Geometry

Array = npt.NDArray[Any]
ORDERS = ("views,detectors", "detectors,views")

LARGEST_ANGLE = 1e6
"""Degrees; a scan that turns on and on has some thousand, and of much larger numbers the fraction of a turn is lost."""


class AngleRange(NamedTuple):
    """Views evenly from ``first`` to ``last`` degrees, the end excluded."""

    first: float
    last: float


@dataclass(frozen=True)
class Description:
    """What is known of a scan beside its numbers. What is None or "auto" is found from the data, or assumed.

    Parameters
    ----------
    geometry : the whole scan; then ``angles`` do not count.
    angles : degrees, one per view, or their range; default 0 to 180.
    size : side of the slice in pixels.
    truth_width : width of a true slice that the result will be compared with: the size, if none is given.
    pixel_size : side of a pixel and of a bin in mm.
    center : bin of the rotation axis from 0, or a way to find it: "auto" for the centre of mass, "correlation" of opposite
        views, or "entropy" of the slice (all of parallel beams); see :mod:`invsolve.ct.rotation_axis`.
    axis : "views,detectors", "detectors,views" or "auto".
    units, mu_water, i0 : see :func:`invsolve.ct.sinogram.normalize`.
    noise : standard deviation in the sinogram's own units, or "auto".
    views : use an even subset of so many views.
    measured : in the shape of the numbers, False for rays that hold no measurement; default all of them do.
    bad_bins : detector bins that measured nothing: "auto" looks for them, "none", or a list such as "3,17,40:44".
    rings : whether bins that measure steadily too much or too little are corrected, of :data:`invsolve.ct.rings.RINGS`.
    counted : whether the numbers are logarithms of photon counts, whose noise grows with what is in the way.
    """

    geometry: Geometry | None = None
    angles: AngleRange | tuple[float, ...] | None = None
    size: int | None = None
    truth_width: int | None = None
    pixel_size: float | None = None
    center: float | str | None = None
    axis: str = "auto"
    units: str = "pixel"
    mu_water: float = MU_WATER
    i0: float | None = None
    noise: float | Literal["auto"] = "auto"
    views: int | None = None
    measured: npt.NDArray[np.bool_] | None = None
    bad_bins: str = "auto"
    rings: str = "off"
    counted: bool = False


# -- which axes -----------------------------------------------------------------------------------------------------
def attenuating(stack: Array, known: Description) -> Array:
    """Something proportional to line integrals, whatever the units: for looking at, before they are settled."""
    if known.units != "counts":
        return stack
    return -np.log(np.clip(stack, 1, None) / (known.i0 or max(1, stack.max())))


def axis_order(stack: Array, known: Description) -> str:
    """Which axis is which, by the data unless it is given; with a geometry (views, detectors) unless it is given.

    Raises
    ------
    InputError : a given order contradicts the data.
    """
    if known.geometry is not None:
        return "views,detectors" if known.axis == "auto" else known.axis
    if known.axis == "auto":
        return find_axes(attenuating(stack, known))
    given = stack if known.axis == "views,detectors" else np.swapaxes(stack, -1, -2)
    if find_axes(attenuating(given, known)) == "detectors,views":
        other = ORDERS[1 - ORDERS.index(known.axis)]
        raise InputError(
            f"--axis {known.axis} does not fit the data: every column has the same sum, not every row",
            hint=f"give --axis {other}, or auto",
        )
    return known.axis


# -- which geometry -------------------------------------------------------------------------------------------------
def given_geometry(stack: Array, known: Description, order: str) -> tuple[Geometry, str]:
    """The geometry that came with the scan, and what it says."""
    assert known.geometry is not None
    found = known.geometry
    if stack.shape[-2:] != found.sinogram_shape:
        raise InputError(
            f"the sinogram has shape {stack.shape[-2:]}, the geometry says (views, detectors) = {found.sinogram_shape}",
            hint="correct one of them, or give --axis detectors,views",
        )
    if known.size is not None:
        found = replace(found, shape=(known.size, known.size), axis_pixel=None)
    return found, (
        f"given: {found.kind} beam, {_views(found)} counter-clockwise, axes ({order}), {found.detectors} bins of "
        f"{found.detector_spacing:g} mm, slice {found.shape[1]} x {found.shape[0]}"
    )


def assumed_geometry(stack: Array, known: Description, order: str) -> tuple[Geometry, str]:
    """A parallel scan with bins as wide as pixels, and what was assumed of it."""
    views, detectors = stack.shape[-2:]
    angles = view_angles(AngleRange(0.0, 180.0) if known.angles is None else known.angles, views)
    if len(angles) != views:
        other = ORDERS[1 - ORDERS.index(order)]
        raise InputError(
            f"{len(angles)} angles for a sinogram with {views} views",
            hint="give one angle per view" + (f"; with --axis {other}" if len(angles) == detectors else ""),
        )
    width = known.size or known.truth_width or slice_size(attenuating(stack, known))
    spacing = known.pixel_size or 1.0
    found = Geometry(angles, detectors, (width, width), detector_spacing=spacing, pixel_size=spacing)
    skimage = order == "detectors,views"
    if skimage:  # which turns the picture about pixel (n // 2, n // 2), and that falls on bin detectors // 2
        found = replace(found, center=float(detectors // 2), axis_pixel=(width // 2, width // 2))
    return found, (
        f"assumed: parallel beam, {_views(found, 'over 180 degrees, ' if known.angles is None else '')} counter-clockwise, "
        f"axes ({order}), {detectors} bins as wide as a pixel, slice {width} x {width}"
        + (", as scikit-image's radon" if skimage else "")
    )


def _views(geometry: Geometry, span: str = "") -> str:
    return f"{geometry.views} views {span}{geometry.angles[0]:g} to {geometry.angles[-1]:g}"


def view_angles(given: AngleRange | tuple[float, ...], views: int) -> tuple[float, ...]:
    """One angle per view in degrees.

    Raises
    ------
    InputError : they look like radians, are all the same, or are no angles.
    """
    if isinstance(given, AngleRange):
        span = given.last - given.first
        angles = tuple(given.first + span * i / views for i in range(views))
    else:
        angles = given
    if any(abs(angle) > LARGEST_ANGLE for angle in angles):
        raise InputError(
            f"the angles go from {min(angles):.4g} to {max(angles):.4g} degrees",
            hint=f"wanted angles within {LARGEST_ANGLE:g} degrees",
        )
    if len(angles) >= 4 and np.ptp(angles) == 0:
        raise InputError(f"all {len(angles)} angles are {angles[0]:g} degrees", hint="give one angle per view")
    if len(angles) >= 4 and np.ptp(angles) <= 2 * np.pi + 0.01:
        raise InputError(
            f"the angles span {np.ptp(angles):.3g} degrees: they look like radians",
            hint="convert them to degrees, or say angle_unit in a --geometry file",
        )
    return angles
