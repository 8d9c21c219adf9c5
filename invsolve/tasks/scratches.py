"""Scratches: thin lines, brighter or darker than both sides, that go on for a while.

A ridge filter answers to every hair and blade of grass. What tells a scratch is its length: at each of many orientations, how
far a line stands out from *both* its sides is averaged along it, so that texture averages out. A scratch does so in every
colour channel, because what shines through it is grey; and it does so more than all else around it, where grass stands beside
grass. Its pieces are joined where the average along the line goes on.
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

LOW, HIGH = 0.018, 0.043
"""How far a line stands out on average, over the full range and beyond what is usual around it: from HIGH on it is one, and
goes on while it is above LOW."""

USUAL, USUAL_GREY = 1.0, 1.4
"""How many times the mean of all lines around a line is taken off. In a grey picture, where no channel can contradict another,
more of them are the picture's own."""

NEIGHBOURHOOD = 61
"""Side of the square over which that mean is."""

OUTSTANDING = 0.03
"""How far a pixel of a line differs from the median around it."""

AROUND = 13
"""Side of the square whose median is what lies around a pixel: the widest scratch, of 5 pixels, fills less than half of it."""

SHORTEST = 75
"""Pixels of the longest extent of a scratch; in a small picture :data:`ACROSS` of its shorter side."""

ACROSS = 0.8

GROWN = 1
"""Pixels around a line that it shades."""


def find_scratches(picture: UnitPicture) -> Missing:
    """Thin bright or dark lines of a photograph, (H, W), True on a line.

    A proposal to look at: it also finds wires, horizon lines and folds that belong to the picture.

    Parameters
    ----------
    picture : (H, W) grey or (H, W, 3) RGB, floats in [0, 1].
    """
    channels = [picture] if picture.ndim == 2 else list(np.moveaxis(picture, 2, 0))
    colours = any((channel != channels[0]).any() for channel in channels[1:])
    grey = np.mean(channels, axis=0)
    bright, dark = line_strength(channels if colours else [grey])
    usual = ndimage.uniform_filter(np.maximum(bright, dark).clip(0), NEIGHBOURHOOD) * (USUAL if colours else USUAL_GREY)
    differs = grey - ndimage.median_filter(grey, AROUND)
    found, shortest = np.zeros(grey.shape, dtype=bool), min(SHORTEST, ACROSS * min(grey.shape))
    for sign, strength in ((1, bright), (-1, dark)):
        numbered = label(apply_hysteresis_threshold(strength - usual, LOW, HIGH), connectivity=2)
        numbered[sign * differs <= OUTSTANDING] = 0  # the gaps that this leaves in a line do not end it
        long = [region.label for region in regionprops(numbered) if region.axis_major_length > shortest]
        found |= np.isin(numbered, long)
    return ndimage.binary_dilation(found, iterations=GROWN) if found.any() else found


def line_strength(channels: list[Plane]) -> tuple[Plane, Plane]:
    """How far the best line through each pixel is brighter, and how far it is darker, than both its sides, on average; in the
    channel (H, W) where that is least."""
    smooth = [ndimage.gaussian_filter(channel.astype(np.float32), 0.7) for channel in channels]
    bright, dark = (np.full(channels[0].shape, -1, np.float32) for _ in range(2))
    for angle in np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS:
        sides = [_beyond_sides(channel, angle) for channel in smooth]
        np.maximum(bright, np.min([np.minimum(*both) for both in sides], axis=0), out=bright)
        np.maximum(dark, np.min([-np.maximum(*both) for both in sides], axis=0), out=dark)
    return bright, dark


def _beyond_sides(smooth: Plane, angle: float) -> tuple[Plane, Plane]:
    """How far the line at this angle through each pixel is above its one side, and above its other, on average along it."""
    across = SIDES * np.array([math.cos(angle), -math.sin(angle)])
    above = (smooth - ndimage.shift(smooth, across, order=1, mode="nearest")).clip(-CAP, CAP)
    one = oaconvolve(above, _line(angle), mode="same")
    # The line is above its other side by what that side, seen from there, is below the line.
    return one, -ndimage.shift(one, -across, order=1, mode="nearest")


def _line(angle: float) -> Plane:
    """A line through the middle of a square, of sum 1."""
    along = np.arange(LENGTH) - LENGTH // 2
    kernel = np.zeros((LENGTH, LENGTH), np.float32)
    rows, columns = (np.round(LENGTH // 2 + along * turn).astype(int) for turn in (math.sin(angle), math.cos(angle)))
    kernel[rows, columns] = 1
    return kernel / kernel.sum()
