"""Which parts of a picture the holes need: boxes with enough around them, and at how many resolutions.

The boxes are found by cutting the picture, from edge to edge of a box, as long as that saves work (guillotine cuts): what
lies between holes is left out, and a long scratch becomes a row of boxes instead of one that is mostly empty. Which boxes
there are depends on the mask alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from invsolve.pictures import Missing

CONTEXT = 48
"""Known pixels kept around a hole."""


WIDE_HOLE = 8.0
"""Holes that reach further than this from any known pixel are first filled at half the resolution."""

RESOLUTIONS = 6
"""The coarsest one is then 1/32: a hole 500 pixels across is narrow there."""

COARSEST_CONTEXT = 6
"""Pixels kept around a hole at the coarsest resolution."""

LARGEST_BOX = 2**20
"""Pixels from which on a box is cut even where that saves no work, so that it can be held in memory."""

BOX_WORK = 2500
"""What a box costs whatever its size, in pixels: the fixed part of a network call."""

LEAST_SAVING = 0.05
"""Share of the work that a cut must save."""


class Region(NamedTuple):
    """A box around holes that can be filled without the rest of the picture."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    @property
    def pixels(self) -> int:
        return self.shape[0] * self.shape[1]

    def within(self, other: Region) -> tuple[slice, slice]:
        """Where it lies in ``other``, which holds it."""
        rows = slice(self.top - other.top, self.bottom - other.top)
        return rows, slice(self.left - other.left, self.right - other.left)

    def grown(self, margin: int, shape: tuple[int, ...]) -> Region:
        """With ``margin`` pixels more on each side, as far as a picture of ``shape`` has them."""
        bottom, right = min(shape[0], self.bottom + margin), min(shape[1], self.right + margin)
        return Region(max(0, self.top - margin), max(0, self.left - margin), bottom, right)


class Box(NamedTuple):
    """What is filled at once: the missing pixels of ``core``, seen with what is around them."""

    region: Region
    core: Region


def hole_boxes(missing: Missing, context: int = CONTEXT, largest: int = LARGEST_BOX) -> list[Box]:
    """Boxes that cover every hole with ``context`` pixels around it, for as little work as cutting can do.

    Every missing pixel lies in one core; regions may overlap. Holes are cut only where they are narrow, up to twice
    :data:`WIDE_HOLE` across, so a box can be larger than ``largest`` pixels where a hole is.
    """
    found = _holes(missing, Region(0, 0, *missing.shape))
    if found is None:
        return []
    cores = _cut(missing, wide_parts(missing), found, context, largest)[1]
    return [Box(core.grown(context, missing.shape), core) for core in sorted(cores)]


def wide_parts(missing: Missing) -> Missing:
    """The pixels of holes where a square of twice :data:`WIDE_HOLE` and one fits into the hole."""
    size = 2 * int(WIDE_HOLE) + 1
    eroded = ndimage.minimum_filter(missing, size, mode="nearest")
    return np.asarray(ndimage.maximum_filter(eroded, size, mode="nearest"), dtype=bool)


def _work(
    height: npt.NDArray[np.int64] | int, width: npt.NDArray[np.int64] | int, context: int
) -> npt.NDArray[np.int64]:
    """Pixels that boxes around holes of this extent take."""
    return np.asarray((height + 2 * context) * (width + 2 * context) + BOX_WORK)


def _holes(missing: Missing, box: Region) -> Region | None:
    """The smallest box around what is missing in ``box``; None where nothing is."""
    part = missing[box.slices]
    rows = np.flatnonzero(part.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(part[rows[0] : rows[-1] + 1].any(axis=0))
    top, left = box.top + int(rows[0]), box.left + int(columns[0])
    return Region(top, left, box.top + int(rows[-1]) + 1, box.left + int(columns[-1]) + 1)


def _cut(missing: Missing, wide: Missing, box: Region, context: int, largest: int) -> tuple[int, list[Region]]:
    """The least work for a box that was shrunk to its holes, and the boxes of it."""
    whole = int(_work(*box.shape, context))
    too_large = whole > largest
    if not too_large and whole <= 2 * int(_work(1, 1, context)):  # two boxes would be no less
        return whole, [box]
    cut = _best_cut(missing[box.slices], wide[box.slices], context)
    if cut is None:
        return whole, [box]
    axis, place = cut
    halves = (
        (box._replace(bottom=box.top + place), box._replace(top=box.top + place))
        if axis == 0
        else (box._replace(right=box.left + place), box._replace(left=box.left + place))
    )
    parts = [_cut(missing, wide, found, context, largest) for half in halves if (found := _holes(missing, half))]
    work = sum(part for part, _ in parts)
    if work > (1 - LEAST_SAVING) * whole and not too_large:
        return whole, [box]
    return work, [found for _, cores in parts for found in cores]


def _best_cut(missing: Missing, wide: Missing, context: int) -> tuple[int, int] | None:
    """The axis (0 between rows) and the place of the cut that leaves least work, near the middle where it is all the same."""
    best: tuple[float, int, int] | None = None
    for axis in (0, 1):
        part, deep = (missing, wide) if axis == 0 else (missing.T, wide.T)
        if len(part) < 2:
            continue
        work = _work_after(part, context).astype(float)
        middle = np.abs(np.arange(1, len(part)) / len(part) - 0.5)
        work += 0.1 * middle * work.min()
        work[(deep[1:] & deep[:-1]).any(axis=1)] = math.inf
        place = int(work.argmin())
        if work[place] < (math.inf if best is None else best[0]):
            best = (float(work[place]), axis, place + 1)
    return None if best is None else best[1:]


def _work_after(part: Missing, context: int) -> npt.NDArray[np.int64]:
    """Work of the two boxes that a cut before row 1, 2, ... leaves of ``part`` (h, w), whose first and last row have holes."""
    height, width = part.shape
    there = part.any(axis=1)
    first = np.where(there, part.argmax(axis=1), width)
    last = np.where(there, width - part[:, ::-1].argmax(axis=1), 0)
    rows = np.arange(height)
    end = np.maximum.accumulate(np.where(there, rows + 1, 0))[:-1]
    above = _work(end, (np.maximum.accumulate(last) - np.minimum.accumulate(first))[:-1], context)
    start = np.minimum.accumulate(np.where(there, rows, height)[::-1])[::-1][1:]
    across = (np.maximum.accumulate(last[::-1]) - np.minimum.accumulate(first[::-1]))[::-1][1:]
    return np.asarray(above + _work(height - start, across, context))


def resolutions(missing: Missing) -> int:
    """1 for narrow holes, one more for each doubling of the deepest hole beyond WIDE_HOLE, at most :data:`RESOLUTIONS`."""
    depth = float(ndimage.distance_transform_edt(missing).max())
    return min(RESOLUTIONS, 1 + max(0, math.ceil(math.log2(max(depth, 1.0) / WIDE_HOLE))))


def context_of(scales: int) -> int:
    """Pixels kept around a hole that is filled at so many resolutions: at the coarsest some must be left of them."""
    return max(CONTEXT, COARSEST_CONTEXT * 2 ** (scales - 1))
