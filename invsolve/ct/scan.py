"""What a sinogram means: from a file's numbers and what is known of the scan to line integrals, noise and geometry.

Nothing is read, written or said here: what was assumed is told in the ``notes`` of the :class:`Scan`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from invsolve.ct.bad_bins import LEAST_VIEWS, bad_bins, parse_bins
from invsolve.ct.description import ORDERS, Description, assumed_geometry, attenuating, axis_order, given_geometry
from invsolve.ct.flat_field import filled
from invsolve.ct.noise import LEAST_NOISE, estimate_noise
from invsolve.ct.rings import RINGS, find_rings
from invsolve.ct.rotation_axis import AGREE, WHOLE, disagreement, find_axis
from invsolve.ct.sinogram import (
    UNITS,
    Units,
    constant_mass,
    from_counts,
    normalize,
)
from invsolve.errors import InputError, UsageError
from invsolve.forward_models import Geometry, even_subset

Array = npt.NDArray[Any]
TELLING = 0.05
"""Share of the bins from which on rings that are not removed are warned of."""

LARGEST = 1e12
"""Beyond this no line integral and no photon count lies, and squares of float32 overflow soon."""


@dataclass(frozen=True)
class Scan:
    """A sinogram as the solver wants it.

    Parameters
    ----------
    sinogram : (slices, views, detectors), line integrals of n in pixel lengths.
    geometry : the scan.
    noise : standard deviation of the line integrals in their units: a number, 0 where unknown or none; or one for each ray,
        infinite where nothing was measured, from photon counts and where rays are missing.
    stacked : whether there was an axis of slices.
    i0 : photons per ray without an object, where the sinogram came as counts.
    notes : sentences on what was assumed, for a person.
    order : the file's last two axes, of :data:`ORDERS`.
    chosen : which of the file's views are used.
    """

    sinogram: Array
    geometry: Geometry
    noise: float | Array
    stacked: bool
    i0: float | None = None
    notes: tuple[str, ...] = ()
    order: str = ORDERS[0]
    chosen: tuple[int, ...] = ()


def interpret(measured: Array, known: Description) -> Scan:
    """From a file's numbers (views, detectors), (detectors, views) or a stack of them to a scan.

    Raises
    ------
    InputError : the numbers are of no sinogram, or do not fit what is known.
    UsageError : what is known contradicts itself, or more must be.
    """
    _check(measured, known)
    stack = measured if measured.ndim == 3 else measured[None]
    seen = np.ones(stack.shape, dtype=bool) if known.measured is None else known.measured.reshape(stack.shape)
    order = axis_order(stack, known)
    if order == "detectors,views":
        stack, seen = (np.ascontiguousarray(np.swapaxes(one, -1, -2)) for one in (stack, seen))
    geometry, told = given_geometry(stack, known, order) if known.geometry else assumed_geometry(stack, known, order)
    notes = [told]
    stack, seen, more = without_bad_bins(stack, seen, known)
    notes += more
    if known.center is not None:
        at, more = axis_bin(stack, geometry, known)
        geometry = replace(geometry, center=at)
        notes += more
    elif not known.geometry:
        notes += axis_doubt(stack, geometry, known)
    raw = stack
    stack, ringing, more = without_rings(stack, seen, known, geometry.axis_bin)
    notes += more
    chosen = list(range(geometry.views))
    if known.views is not None:
        chosen = even_subset(geometry.views, known.views)
        if known.views < geometry.views:
            notes.append(f"using {known.views} of {geometry.views} views, evenly spaced")
        raw, stack, seen = raw[:, chosen], stack[:, chosen], seen[:, chosen]
        geometry = geometry.subset(known.views)
    known = replace(known, pixel_size=known.pixel_size or _pixel_size(known))
    angles = geometry.angles if geometry.kind == "parallel" else None
    sinogram, noise, more = line_integrals(stack, known, angles, seen, raw, ringing)
    notes += more
    return Scan(sinogram, geometry, noise, measured.ndim == 3, known.i0, tuple(notes), order, tuple(chosen))


def _check(measured: Array, known: Description) -> None:
    if measured.ndim not in (2, 3):
        raise InputError(
            f"the sinogram has {measured.ndim} dimensions, shape {measured.shape}",
            hint="wanted (views, detectors), or (slices, views, detectors)",
        )
    if measured.size == 0:
        raise InputError(f"the sinogram holds no values, shape {measured.shape}", hint="wanted (views, detectors)")
    if known.units not in UNITS:
        raise UsageError(f"--units {known.units!r}", hint=f"wanted {', '.join(UNITS)}")
    if known.rings not in RINGS:
        raise UsageError(f"--rings {known.rings!r}", hint=f"wanted {', '.join(RINGS)}")
    if known.axis not in ("auto", *ORDERS):
        raise UsageError(f"--axis {known.axis!r}", hint="wanted views,detectors, detectors,views or auto")
    for name, value in (("--pixel-size", known.pixel_size), ("--mu-water", known.mu_water), ("--i0", known.i0)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} {value}", hint="wanted a positive number")
    if known.i0 is not None and known.units != "counts":
        raise UsageError("--i0 without photon counts", hint="add --units counts, or leave --i0 out")
    if known.noise != "auto" and not 0 <= known.noise <= LARGEST:
        raise UsageError(f"--noise {known.noise}", hint="wanted a number >= 0, in the file's units")


# -- which bins, which centre ---------------------------------------------------------------------------------------
def without_bad_bins(
    stack: Array, seen: npt.NDArray[np.bool_], known: Description
) -> tuple[Array, npt.NDArray[np.bool_], list[str]]:
    """Rays of bad bins are not ``seen`` and interpolated; and what was done."""
    bins, notes = np.zeros(stack.shape[-1], dtype=bool), []
    if known.bad_bins == "auto":
        bins = bad_bins(attenuating(stack, known))
    elif known.bad_bins != "none":
        bins = parse_bins(known.bad_bins, stack.shape[-1])
    if bins.all():
        raise InputError("no detector bin measures anything", hint="give --bad-bins none")
    if bins.any():
        seen = seen & ~bins
        found = ", ".join(map(str, np.flatnonzero(bins)[:8])) + (", ..." if bins.sum() > 8 else "")
        how = " found" if known.bad_bins == "auto" else ""
        notes.append(f"bad detector bins{how}: {found}; their rays count as missing (--bad-bins)")
    if not seen.all():
        stack = np.stack([filled(*pair).values for pair in zip(stack, seen, strict=True)])
    return stack, seen, notes


def without_rings(
    stack: Array, seen: npt.NDArray[np.bool_], known: Description, axis: float
) -> tuple[Array, float, list[str]]:
    """The bins that measure steadily too much or too little corrected, where asked for; by how much bins were off before, the
    root mean square over all, 0 where nothing tells; and what was done, or could be."""
    found = find_rings(attenuating(stack, known), seen, axis, "auto" if known.rings == "off" else known.rings)
    share = float(found.wrong.mean())
    if known.rings == "off":
        if share <= TELLING:
            return stack, 0.0, []
        told = f"warning: {share:.0%} of the bins are off in all views, which makes rings (--rings auto)"
        return stack, float(found.excess.std()), [told]
    largest = float(np.abs(found.excess).max()) / (float(np.abs(attenuating(stack, known)).max()) or 1.0)
    notes = [f"rings: {share:.0%} of the bins corrected, by up to {largest:.2%} of the largest line integral (--rings)"]
    excess = found.excess[:, None]
    changed = stack * np.exp(excess) if known.units == "counts" else stack - excess
    return changed.astype(stack.dtype), float(found.excess.std()), notes


def axis_bin(stack: Array, geometry: Geometry, known: Description) -> tuple[float, list[str]]:
    """The bin of the rotation axis, given or found, and how.

    Raises
    ------
    InputError : it lies off the detector, or the data do not tell it.
    UsageError : a fan's is to be found.
    """
    notes = []
    if isinstance(known.center, str):
        found, others = find_axis(attenuating(stack, known), geometry, known.center)
        at = found.bin
        notes.append(f"centre of rotation at bin {'; '.join(map(str, [found, *others]))}")
        if disagreement(found, others):
            notes.append("warning: the ways to find the centre disagree; the right one has the least chi-squared")
    else:
        at = geometry.axis_bin if known.center is None else known.center
        notes.append(f"centre of rotation at bin {at:.2f}")
    if not 0 <= at <= geometry.detectors - 1:
        raise InputError(
            f"--center {at:g} is off the detector", hint=f"wanted a bin from 0 to {geometry.detectors - 1}"
        )
    return at, notes


def axis_doubt(stack: Array, geometry: Geometry, known: Description) -> list[str]:
    """A warning where nobody said where the axis is, and two ways to find it agree that it is not in the middle."""
    shadows = attenuating(stack, known)
    if geometry.views < LEAST_VIEWS or not constant_mass(shadows) < WHOLE:
        return []
    try:
        found, others = find_axis(shadows, geometry)
    except InputError:
        return []
    at = geometry.axis_bin
    if not others or disagreement(found, others) or abs(found.bin - at) <= AGREE + 2 * found.spread:
        return []
    told = f"taken at bin {at:.2f}, the middle of the detector, but the views put it at bin {found.bin:.2f}"
    return [f"warning: the rotation axis is {told} (--center auto)"]


# -- which units, which noise ---------------------------------------------------------------------------------------
FINEST = 1e-6
"""A noise that is less than this share of the largest value is lost in single precision, and its square divides by zero."""


def _pixel_size(known: Description) -> float | None:
    return known.geometry.pixel_size if known.geometry else None


def line_integrals(
    stack: Array,
    known: Description,
    angles: tuple[float, ...] | None,
    seen: npt.NDArray[np.bool_],
    raw: Array,
    ringing: float = 0.0,
) -> tuple[Array, float | Array, list[str]]:
    """Line integrals of n in pixel lengths, the standard deviation of their noise, and what was assumed of both.

    ``angles`` are those of parallel views, and rays that were not ``seen`` have infinite noise. Noise is looked for in ``raw``,
    before bins were corrected, which leaves it white no more. By ``ringing`` bins were off: about as much of it remains after the
    correction, wide bands above all, and a prior that took that for the slice would make much of it, so it counts as noise.
    """
    units: Units = next(one for one in UNITS if one == known.units)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        normal = normalize(stack, units, pixel_size=known.pixel_size, mu_water=known.mu_water, i0=known.i0)
    largest = np.abs(normal.sinogram).max()
    if not largest <= LARGEST:
        raise InputError(
            f"the sinogram has values up to {largest:.3g}", hint=f"wanted line integrals, or counts, below {LARGEST:g}"
        )
    if units == "pixel":
        told = "units: line integrals of n in pixel lengths, HU = 2000 n - 1000 (--units for others)"
    else:
        told = f"units: {units}, water {known.mu_water:g} per mm, pixels of {known.pixel_size:g} mm"
    off = ringing / normal.scale
    if normal.i0 is not None:
        integrals, counted = from_counts(normal.sinogram, normal.i0, normal.scale)
        return (
            integrals,
            of_rays(np.hypot(counted, off), seen),
            [told, f"noise: photon counts, I0 = {normal.i0:g}{_and_bins(ringing)}"],
        )
    if known.noise != "auto":
        given, notes = known.noise / normal.scale, [told]
        if 0 < given < FINEST * largest:
            given, notes = 0.0, [told, f"noise: {known.noise:g} is below single precision, and counts as none"]
        return normal.sinogram, per_ray(given, normal.sinogram, seen), notes
    scans = [normal.sinogram, raw / normal.scale] if ringing else [normal.sinogram]
    level = max(estimate_noise(scan, angles, seen) for scan in scans)
    found = f"{level * normal.scale:.3g} (in the file's units), estimated where the scan is quietest"
    noise: float | Array
    if level and known.counted:
        counted = of_few_photons(level, normal.sinogram * normal.scale, seen)
        found += f", and up to {counted[seen].max() * normal.scale:.3g} where few photons came through"
        noise = of_rays(np.hypot(counted, off), seen)
    else:
        noise = per_ray(math.hypot(level, off), normal.sinogram, seen)
    notes = [told, f"noise: {found if level else 'none found'}{_and_bins(ringing)}; --noise to set it"]
    return normal.sinogram, noise, notes


AIR = 0.05
"""Share of the rays that the quietest part of a scan has."""

FAINTEST = 100.0
"""A ray is said to be at most so many times noisier than the quietest: what is below the detector's own noise tells no more."""


def of_few_photons(level: float, attenuation: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """The noise of every ray, where that of the quietest is ``level``: the logarithm of N photons has 1 / sqrt(N), and N falls as
    exp(-attenuation) (Beer's law), so that noise rises as its root."""
    air = float(np.quantile(attenuation[seen], AIR))
    return level * np.minimum(np.exp(np.clip(attenuation - air, 0, 2 * math.log(FAINTEST)) / 2), FAINTEST)


def _and_bins(ringing: float) -> str:
    return f", and {ringing:.3g} for what the bins are off" if ringing else ""


def per_ray(level: float, sinogram: Array, seen: npt.NDArray[np.bool_]) -> float | Array:
    """One noise level as it is, or one for each ray, infinite for those not ``seen``: they then have no weight. Exact rays
    get a noise too small to matter, since weights are relative to it."""
    if seen.all():
        return level
    least = LEAST_NOISE * float(np.abs(sinogram).max())
    return of_rays(level or least or 1.0, seen)


def of_rays(noise: float | Array, seen: npt.NDArray[np.bool_]) -> Array:
    """The noise of every ray, infinite for those not ``seen``."""
    return np.where(seen, noise, np.inf).astype(np.float32)
