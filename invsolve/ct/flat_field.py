"""From what a detector counted to line integrals: flat and dark field, logarithm, and the rays that hold no measurement."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Seen = npt.NDArray[np.bool_]


class Transmission(NamedTuple):
    """Line integrals, and which of them were measured."""

    values: Array  # (views, detectors) float32, interpolated where not measured
    measured: Seen  # same shape


def line_integrals(counts: Array, flats: Array, darks: Array | None) -> Transmission:
    """``-ln((I - D) / (F - D))`` with the means of flat and dark fields (Beer's law).

    Rays are not measured where a number is not finite, the flat field has no light, or nothing came through.

    Parameters
    ----------
    counts : (views, detectors).
    flats, darks : (frames, detectors); None for no dark current.
    """
    with np.errstate(all="ignore"):
        dark = np.zeros(counts.shape[-1]) if darks is None else darks.mean(axis=0, dtype=np.float64)
        light = flats.mean(axis=0, dtype=np.float64) - dark
        share = (counts - dark) / np.where(light > 0, light, np.nan)
        measured = np.isfinite(share) & (share > 0)
        values = -np.log(np.where(measured, share, 1.0))
    return filled(values, measured)


def filled(values: Array, measured: Seen) -> Transmission:
    """Rays that were not measured, interpolated along the detector: what filtered back-projection needs. They weigh nothing
    where a method weighs rays."""
    out = np.array(values, dtype=np.float32)
    bins = np.arange(out.shape[-1])
    for view, seen in zip(out, measured, strict=True):
        if seen.any() and not seen.all():
            view[~seen] = np.interp(bins[~seen], bins[seen], view[seen])
        elif not seen.any():
            view[:] = 0
    return Transmission(out, np.array(measured, dtype=bool))
