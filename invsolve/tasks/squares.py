"""Holes in squares of one size, for a prior that knows nothing else: each square around as many holes as it takes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from invsolve.errors import InputError
from invsolve.tasks.regions import Region

EVERYWHERE = np.ones((3, 3), dtype=bool)
"""Pixels that touch at a corner belong to one hole."""


class Square(NamedTuple):
    """A square of a picture, and which of its missing pixels it is there for."""

    region: Region
    own: npt.NDArray[np.bool_]  # (side, side)


def squares(missing: npt.NDArray[np.bool_], side: int) -> list[Square]:
    """Squares of ``side`` pixels in which every hole of ``missing`` (H, W) lies whole, each with its own holes in the middle.

    Squares may overlap; every missing pixel is one square's own.

    Raises
    ------
    InputError : the picture is smaller than a square, or a hole is no smaller.
    """
    height, width = missing.shape
    if min(height, width) < side:
        raise InputError(
            f"the picture is {width} x {height}, smaller than squares of {side} x {side}", hint="fit it by resize"
        )
    labels, count = ndimage.label(missing, structure=EVERYWHERE)
    found = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in ndimage.find_objects(labels)]
    boxes, left = np.array(found), np.arange(count)
    result = []
    while len(left):
        # The topmost hole with known pixels above it, and all others that lie in the same square.
        margin = max(0, side - (boxes[left[0], 2] - boxes[left[0], 0])) // 4
        around = _square(boxes[left[0]], side, missing.shape, top=boxes[left[0], 0] - margin)
        within = np.concatenate([boxes[left, :2] >= around[:2], boxes[left, 2:] <= around[2:]], axis=1)
        inside = np.all(within, axis=1)
        if not inside[0]:
            raise _too_large(boxes[left[0]], side)
        own = left[inside]
        together = np.concatenate([boxes[own, :2].min(axis=0), boxes[own, 2:].max(axis=0)])
        region = _square(together, side, missing.shape)
        if missing[region.slices].all():
            raise _too_large(boxes[own[0]], side)
        result.append(Square(region, np.isin(labels[region.slices], own + 1)))
        left = left[~inside]
    return result


def _square(box: npt.NDArray[np.int_], side: int, shape: tuple[int, ...], top: int | None = None) -> Region:
    """The square in a picture of ``shape`` with ``box`` in its middle, or from row ``top`` on; moved in from the edges."""
    wanted = (int(box[0] + box[2] - side) // 2 if top is None else top, int(box[1] + box[3] - side) // 2)
    first, second = (min(max(0, start), length - side) for start, length in zip(wanted, shape, strict=True))
    return Region(int(first), int(second), int(first) + side, int(second) + side)


def _too_large(box: npt.NDArray[np.int_], side: int) -> InputError:
    return InputError(
        f"a hole of {box[3] - box[1]} x {box[2] - box[0]} pixels does not fit a square of {side} x {side}",
        hint="fit by resize or tile, or use a prior of any size such as photos",
    )
