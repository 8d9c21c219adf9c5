"""Which parts of a picture the holes need: boxes with enough around them, and at how many resolutions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

CONTEXT = 48
"""Known pixels kept around a hole."""


WIDE_HOLE = 8.0
"""Holes that reach further than this from any known pixel are first filled at half the resolution."""


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
    def pixels(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def overlaps(self, other: Region) -> bool:
        return (
            self.top < other.bottom and other.top < self.bottom and self.left < other.right and other.left < self.right
        )

    def union(self, other: Region) -> Region:
        return Region(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


def hole_regions(missing: npt.NDArray[np.bool_], context: int = CONTEXT) -> list[Region]:
    """Boxes that cover every hole with ``context`` known pixels around it; overlapping boxes are merged."""
    height, width = missing.shape
    labels, count = ndimage.label(ndimage.maximum_filter(missing, size=context + 1))
    boxes: list[Region] = []
    for rows, columns in ndimage.find_objects(np.where(missing, labels, 0), max_label=count):
        box = Region(
            max(0, rows.start - context),
            max(0, columns.start - context),
            min(height, rows.stop + context),
            min(width, columns.stop + context),
        )
        while touching := [other for other in boxes if box.overlaps(other)]:
            boxes = [other for other in boxes if other not in touching]
            for other in touching:
                box = box.union(other)
        boxes.append(box)
    return boxes


def resolutions(missing: npt.NDArray[np.bool_]) -> int:
    """1 for narrow holes, one more for each doubling of the deepest hole beyond WIDE_HOLE, 4 at most."""
    depth = float(ndimage.distance_transform_edt(missing).max())
    return 1 + min(3, max(0, math.ceil(math.log2(max(depth, 1.0) / WIDE_HOLE))))
