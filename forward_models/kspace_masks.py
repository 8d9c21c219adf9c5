"""Which part of k-space is measured: Cartesian masks with a fully measured centre, (H, W) bool, frequency 0 at (H // 2, W // 2).

Masks of lines leave out columns: the readout runs down the rows and is always measured in full, the phase encodes are
the columns. A Poisson-disc mask leaves out single positions, as a 3-D scan with two phase-encoding axes does.
The acceleration R counts the centre: about one in R positions is measured in all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invsolve.errors import InputError


def equispaced_mask(shape: Sequence[int], acceleration: float, centre: int, offset: int = 0) -> Tensor:
    """Columns at even distances, and the ``centre`` middle ones (GRAPPA's pattern; Griswold et al. 2002).

    Parameters
    ----------
    shape : (H, W).
    acceleration : columns over measured columns, as closely as even distances allow.
    centre : number of middle columns that are measured in any case.
    offset : shift of the even columns.

    Raises
    ------
    InputError : an acceleration below 1, or a centre that alone holds more than 1 / acceleration of the columns.
    """
    width = shape[1]
    wanted, middle = _budget(width, acceleration, centre), _middle(width, centre)
    outside = max(1, wanted - centre)
    spacing = (width - centre) / outside
    columns = ((torch.arange(width, dtype=torch.float64) + offset) / spacing).floor()
    chosen = middle | (torch.diff(columns, prepend=columns[:1] - 1) > 0)
    return chosen.expand(shape[0], -1).clone()


def random_mask(shape: Sequence[int], acceleration: float, centre: int, generator: torch.Generator) -> Tensor:
    """The ``centre`` middle columns, and others drawn without replacement (that of fastMRI; Zbontar et al. 2018).

    Parameters and errors as of :func:`equispaced_mask`; the number of columns is ``round(W / acceleration)`` exactly.
    """
    width = shape[1]
    wanted, middle = _budget(width, acceleration, centre), _middle(width, centre)
    others = (~middle).nonzero()[:, 0]
    drawn = others[torch.randperm(len(others), generator=generator)[: wanted - centre]]
    middle[drawn] = True
    return middle.expand(shape[0], -1).clone()


def poisson_disc_mask(
    shape: Sequence[int], acceleration: float, centre: int, generator: torch.Generator, slope: float = 1.0
) -> Tensor:
    """A ``centre`` x ``centre`` square, and positions of which no two are near: no holes and no clumps.

    Dart throwing (Cook 1986) over all positions in random order: one stays if none is within the radius
    ``r0 (1 + slope |k| / 0.5)`` of it, k in cycles per pixel; r0 is bisected until the acceleration is met to 2 %, or as
    closely as it can be.

    Parameters and errors as of :func:`equispaced_mask`.
    """
    height, width = shape
    wanted = _budget(height * width, acceleration, centre * abs(centre))
    square = _middle(height, centre)[:, None] & _middle(width, centre)
    order = torch.randperm(height * width, generator=generator)
    low, high = 0.0, float(max(shape))
    best = square
    for _ in range(20):
        radius = 0.5 * (low + high)
        found = _darts(shape, order, radius, slope) | square
        count = int(found.sum())
        if abs(count - wanted) < abs(int(best.sum()) - wanted):
            best = found
        if abs(count - wanted) <= 0.02 * wanted:
            break
        low, high = (radius, high) if count > wanted else (low, radius)
    return best


def _darts(shape: Sequence[int], order: Tensor, radius: float, slope: float) -> Tensor:
    """Positions thrown in ``order`` that keep their distance, (H, W) bool."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width].astype(float)
    distance = np.hypot((rows - height // 2) / height, (columns - width // 2) / width)
    radii = radius * (1 + slope * distance / 0.5)
    free, kept = np.ones((height, width), dtype=bool), np.zeros((height, width), dtype=bool)
    for position in order.tolist():
        i, j = divmod(position, width)
        if not free[i, j]:
            continue
        kept[i, j] = True
        reach = int(radii[i, j])
        top, left = max(0, i - reach), max(0, j - reach)
        around = (slice(top, i + reach + 1), slice(left, j + reach + 1))
        free[around] &= np.hypot(rows[around] - i, columns[around] - j) > radii[i, j]
    return torch.from_numpy(kept)


def calibration_centre(measured: Tensor) -> tuple[int, int]:
    """Height and width of the largest fully measured block about frequency 0, for a mask (H, W).

    Grown evenly on both axes, then on each alone; (0, 0) where frequency 0 itself is not measured.
    """
    known = measured != 0
    height, width = known.shape

    def full(half_height: int, half_width: int) -> bool:
        rows = slice(max(0, height // 2 - half_height), height // 2 + half_height + 1)
        columns = slice(max(0, width // 2 - half_width), width // 2 + half_width + 1)
        return bool(known[rows, columns].all())

    if not full(0, 0):
        return 0, 0
    a = b = 0
    while (2 * a < height or 2 * b < width) and full(a + 1, b + 1):
        a, b = a + 1, b + 1
    while 2 * a < height and full(a + 1, b):
        a += 1
    while 2 * b < width and full(a, b + 1):
        b += 1
    return min(2 * a + 1, height), min(2 * b + 1, width)


def _middle(size: int, centre: int) -> Tensor:
    start = size // 2 - centre // 2
    index = torch.arange(size)
    return (index >= start) & (index < start + centre)


def _budget(size: int, acceleration: float, centre: int) -> int:
    """How many positions are measured in all."""
    wanted = round(size / acceleration) if acceleration >= 1 else 0
    if not 0 <= centre <= wanted or wanted == 0:
        raise InputError(
            f"acceleration {acceleration:g} with {centre} of {size} positions in the centre",
            hint="wanted an acceleration of at least 1, and a centre of at most 1 / acceleration of all positions",
        )
    return wanted
