"""Detector bins that measure nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from invsolve.errors import UsageError

Array = npt.NDArray[Any]

SIDE = 5
"""Bins to either side with which one is compared."""

DEAD, RESTLESS = 0.1, 6.0
"""Changes from view to view, as a share of the neighbours', below which a bin is dead, and above which it is no detector."""

LEAST_VIEWS = 16
"""Fewer say little of a bin."""


def bad_bins(stack: Array) -> npt.NDArray[np.bool_]:
    """Which bins of (S, views, detectors) measured nothing, (detectors,).

    A bin's values change from view to view as its neighbours' do, by the slice that turns and by noise. Those of a dead or
    stuck bin change far less than those of the neighbours on both sides, a broken one's far more (after the unresponsive and
    fluctuating stripes of Vo, Atwood & Drakopoulos, Opt. Express 26, 28396, 2018).
    """
    views, bins = stack.shape[-2:]
    if views < LEAST_VIEWS or bins < 4 * SIDE:
        return np.zeros(bins, dtype=bool)
    change = np.abs(np.diff(stack.astype(np.float64), axis=1)).mean(axis=(0, 1))
    padded = np.pad(change, SIDE, mode="reflect")
    beside = np.lib.stride_tricks.sliding_window_view(padded, SIDE)  # beside[i]: the bins i - SIDE to i - 1
    left, right = np.median(beside[:bins], axis=1), np.median(beside[SIDE + 1 :], axis=1)
    most = np.maximum(left, right)
    return (change < DEAD * np.minimum(left, right)) | ((change > RESTLESS * most) & (most > 0))


def parse_bins(text: str, bins: int) -> npt.NDArray[np.bool_]:
    """``3,17,40:44`` as a mask (detectors,); ranges without their end.

    Raises
    ------
    UsageError : it is no such list.
    """
    out = np.zeros(bins, dtype=bool)
    for part in text.split(","):
        first, _, last = part.strip().partition(":")
        if not (first.isdecimal() and (last.isdecimal() or ":" not in part)):
            raise UsageError(f"--bad-bins {text!r}", hint="wanted auto, none, or bins such as 3,17,40:44")
        start, stop = int(first), int(last) if last else int(first) + 1
        if not start < stop <= bins:
            raise UsageError(f"--bad-bins {part.strip()}", hint=f"wanted bins from 0 to {bins - 1}")
        out[start:stop] = True
    return out
