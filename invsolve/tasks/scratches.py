"""Scratches: thin lines, brighter or darker than both sides, that go on for a while.

A ridge filter answers to every hair and blade of grass. What tells a scratch is its length: at each of many orientations, how
far a pixel stands out from *both* sides of a line through it is averaged along that line, so that texture averages out.
Frangi et al. 1998 call the first half a ridge measure; averaging along oriented lines is that of Lopez-Molina et al. 2015.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.signal import oaconvolve
from skimage.filters import apply_hysteresis_threshold
from skimage.measure import label, regionprops

from invsolve.pictures import Missing, UnitPicture

Plane = npt.NDArray[np.floating]

ORIENTATIONS = 32
LENGTH = 45
"""Pixels along which a line is averaged."""

SIDES = 3.5
"""Distance of the sides from the line: scratches up to 5 pixels wide stand out from them."""

CAP = 0.08
"""What a pixel counts for at most: a line's few brightest pixels are no line."""

LOW, HIGH = 0.035, 0.06
"""How far a line stands out on average, over the full range: from HIGH on it is one, and goes on while it is above LOW."""

OUTSTANDING = 0.03
"""How far a pixel of a line differs from the median around it."""

AROUND = 13
"""Side of the square whose median is what lies around a pixel: the widest scratch, of 5 pixels, fills less than half of it."""

SHORTEST = 60
"""Pixels of the longest extent of a scratch."""

GROWN = 1
"""Pixels around a line that it shades."""


def find_scratches(picture: UnitPicture) -> Missing:
    """Thin bright or dark lines of a photograph, (H, W), True on a line.

    A proposal to look at: it also finds wires, horizon lines and folds that belong to the picture.

    Parameters
    ----------
    picture : (H, W) grey or (H, W, 3) RGB, floats in [0, 1].
    """
    grey = picture if picture.ndim == 2 else picture.mean(axis=2)
    around = ndimage.median_filter(grey, AROUND)
    found = np.zeros(grey.shape, dtype=bool)
    for sign, strength in zip((1, -1), line_strength(grey), strict=True):
        likely = apply_hysteresis_threshold(strength, LOW, HIGH) & (sign * (grey - around) > OUTSTANDING)
        numbered = label(likely, connectivity=2)
        long = [region.label for region in regionprops(numbered) if region.axis_major_length > SHORTEST]
        found |= np.isin(numbered, long)
    return ndimage.binary_dilation(found, iterations=GROWN) if found.any() else found


def line_strength(grey: Plane) -> tuple[Plane, Plane]:
    """How far the best line through each pixel is brighter, and how far it is darker, than both its sides, on average."""
    smooth = ndimage.gaussian_filter(grey, 0.7)
    bright, dark = np.full(grey.shape, -1.0), np.full(grey.shape, -1.0)
    for angle in np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS:
        across = SIDES * np.array([math.cos(angle), -math.sin(angle)])
        left, right = (ndimage.shift(smooth, s * across, order=1, mode="nearest") for s in (1, -1))
        line = _line(angle)
        for best, out in ((bright, smooth - np.maximum(left, right)), (dark, np.minimum(left, right) - smooth)):
            np.maximum(best, oaconvolve(out.clip(-CAP, CAP), line, mode="same"), out=best)
    return bright, dark


def _line(angle: float) -> Plane:
    """A line through the middle of a square, of sum 1."""
    along = np.arange(LENGTH) - LENGTH // 2
    kernel = np.zeros((LENGTH, LENGTH))
    rows, columns = (np.round(LENGTH // 2 + along * turn).astype(int) for turn in (math.sin(angle), math.cos(angle)))
    kernel[rows, columns] = 1
    return kernel / kernel.sum()
