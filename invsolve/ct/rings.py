"""Rings: detector bins that measure steadily too much or too little, found and taken out of the sinogram."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

Array = npt.NDArray[Any]
Bins = npt.NDArray[np.bool_]

RINGS = ("off", "auto", "median")
"""Ways: none; the bins that are off beyond chance; every bin by what it seems to be off."""

SIDE = 4
"""Bins to either side with whose median a bin is compared. Wider ones blur slices of few views; and where a shadow is steeper than
a bin is off, the bin is the median itself and stays, which spares the slice's edges."""

SURE = 3.5
"""Standard errors by which a bin must be off before it counts as one that is."""

STEADY = 0.8
"""Standard deviations over the views by which it must be off as well: of many views chance is small, but the slice's own edges
leave something at bins where they pass often."""

LEAST = 3e-4
"""Share of the largest line integral below which a ring is too faint to be seen."""

ALIKE = 0.25
"""Share of a bin's excess by which that of its mirror image may differ, for both to be of a round slice."""

LEAST_VIEWS = 16
"""Fewer do not tell a bin from the slice."""


class Rings(NamedTuple):
    """What every bin measures too much, and which bins are taken for wrong."""

    excess: Array  # (S, detectors), in the sinogram's units, 0 where ``wrong`` is False
    wrong: Bins  # (S, detectors)


def find_rings(stack: Array, seen: Bins, axis: float, way: str = "auto") -> Rings:
    """How much each bin measures too much, from line integrals (S, views, detectors).

    A bin with a wrong gain is off by the same amount in every view, and its back-projection is a ring. So each view is compared
    with its own median along the detector, and what is left of a bin is its median over the views (the sums over all views of
    Boin & Haibel, Opt. Express 14, 12071, 2006, and Ketcham, Proc. SPIE 6318, 2006, made robust by medians, so that edges of
    the slice that pass a bin do not count). "auto" takes it for a ring where it is beyond chance, by its spread over the views,
    and where the bin on the other side of the axis is not off alike: that is what a round slice around the axis does.

    Parameters
    ----------
    seen : same shape, False for rays that hold no measurement.
    axis : the rotation axis, in bins from 0.
    way : "auto", or "median" for all bins without a test.
    """
    slices, views, bins = stack.shape
    excess, wrong = np.zeros((slices, bins)), np.zeros((slices, bins), dtype=bool)
    if views < LEAST_VIEWS or bins <= 2 * SIDE:
        return Rings(excess, wrong)
    for number, (view, known) in enumerate(zip(stack.astype(np.float64), seen, strict=True)):
        usable = known.sum(axis=0) >= LEAST_VIEWS
        over = np.where(known, view - median_filter(view, (1, 2 * SIDE + 1), mode="nearest"), np.nan)
        off = np.where(usable, _median(over, usable), 0.0)
        if way == "auto":
            spread = 1.4826 * _median(np.abs(over - off), usable)  # the standard deviation over the views
            spread = np.maximum(spread, median_filter(spread, 2 * SIDE + 1))  # a bin's own may be small by chance
            error = 1.2533 * spread / np.sqrt(np.maximum(known.sum(axis=0), 1))  # of a median
            least = np.maximum(SURE * error, np.maximum(STEADY * spread, LEAST * np.abs(view).max()))
            found = np.abs(off) > least
            wrong[number] = found & ~_mirrored(off, error, axis)
        else:
            wrong[number] = off != 0
        excess[number] = np.where(wrong[number], off, 0.0)
    return Rings(excess, wrong)


def _median(values: Array, usable: Bins) -> Array:
    """Over the views of the usable bins, NaN left out; 0 elsewhere."""
    out = np.zeros(values.shape[-1])
    out[usable] = np.nanmedian(values[:, usable], axis=0)
    return out


def _mirrored(off: Array, error: Array, axis: float) -> Bins:
    """Whether the bin opposite of the axis is off alike, within chance; a mirror image that falls between two bins has two."""
    bins, twin = np.arange(len(off)), 2 * axis - np.arange(len(off))
    alike = np.zeros(len(off), dtype=bool)
    for other in (np.floor(twin).astype(int), np.ceil(twin).astype(int)):
        there = (other >= 0) & (other < len(off))
        at = np.clip(other, 0, len(off) - 1)
        close = np.abs(off - off[at]) <= np.maximum(2 * np.hypot(error, error[at]), ALIKE * np.abs(off))
        alike |= there & close & (np.abs(bins - other) > 1)
    return alike
