"""Classical methods shown beside ours: what a picture is worth without a learned prior."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import splu
from skimage.restoration import inpaint_biharmonic

from invsolve.atomic import write_files
from invsolve.colours import BLUE, REC601, RED, luma
from invsolve.errors import InputError
from invsolve.files import read_json
from invsolve.typed import fits

Picture = npt.NDArray[np.floating]

MOST_BINS = 256
"""Of luma, which has so many levels in 8 bits, and of height."""


def biharmonic(picture: Picture, missing: npt.NDArray[np.bool_]) -> Picture:
    """scikit-image's biharmonic inpainting of (H, W[, 3]) in [0, 1]."""
    axis = -1 if picture.ndim == 3 else None
    known = np.where(missing[..., None] if picture.ndim == 3 else missing, 0, picture)
    return np.asarray(inpaint_biharmonic(known, missing, channel_axis=axis, split_into_regions=False))


LARGEST_SCRIBBLED = 2**17
"""Pixels up to which scribbles spread over the picture as it is; they spread over a smaller one of larger pictures."""


def scribbled(grey: Picture, chroma: Picture, opacity: Picture) -> Picture:
    """Colours spread from scribbles to neighbours of like intensity: Levin, Lischinski & Weiss 2004, eq. 1 and 2.

    A pixel's Cb and Cr are the mean of its eight neighbours' weighted by ``exp(-(Y_r - Y_s)^2 / s_r^2)``, with the
    constants of the authors' published program, and a scribble's where one is opaque to a half or more. One sparse system.

    Parameters
    ----------
    grey : (H, W) in [0, 1].
    chroma : (H, W, 2), Cb and Cr of the scribbles.
    opacity : (H, W) in [0, 1]; where none reaches a half, the most opaque ones count.

    Returns
    -------
    (H, W, 3) clipped to [0, 1].
    """
    step = math.ceil(math.sqrt(grey.size / LARGEST_SCRIBBLED))
    fixed = opacity >= min(0.5, float(opacity.max()))
    rows, columns = np.nonzero(fixed)
    height, width = (-(-n // step) for n in grey.shape)
    # A scribble's pixels at their places in a picture of every step-th row and column.
    places = rows // step * width + columns // step
    count = np.bincount(places, minlength=height * width)
    sums = [np.bincount(places, chroma[fixed][:, c], minlength=height * width) for c in (0, 1)]
    marked = count > 0
    system = diags_array(np.ones(height * width)) - _neighbours(grey[::step, ::step].astype(np.float64), marked)
    solved = splu(system.tocsc()).solve(np.stack(sums, axis=1) / np.maximum(count, 1)[:, None])
    planes = (
        solved.reshape(height, width, 2).repeat(step, axis=0).repeat(step, axis=1)[: grey.shape[0], : grey.shape[1]]
    )
    blue, red = BLUE * planes[..., 0], RED * planes[..., 1]
    green = -(REC601[0] * red + REC601[2] * blue) / REC601[1]
    return np.clip(grey[..., None] + np.stack([red, green, blue], axis=2), 0, 1)


def _neighbours(grey: Picture, marked: npt.NDArray[np.bool_]) -> csr_array:
    """Weights (n, n) of each pixel's eight neighbours, of sum 1; none of marked (n,) pixels, which have no say."""
    height, width = grey.shape
    padded = np.pad(grey, 1, constant_values=np.nan)
    numbers = np.pad(np.arange(height * width).reshape(height, width), 1, constant_values=-1)
    windows = [(y, x) for y in range(3) for x in range(3)]
    values = np.stack([padded[y : y + height, x : x + width].ravel() for y, x in windows])
    index = np.stack([numbers[y : y + height, x : x + width].ravel() for y, x in windows])
    others = np.arange(9) != 4
    difference = (values - values[4]) ** 2
    spread = 0.6 * np.nanvar(values, axis=0)
    # The nearest neighbour keeps a weight of a hundredth at least.
    nearest = np.where(np.isnan(difference[others]), np.inf, difference[others]).min(axis=0)
    spread = np.maximum(np.maximum(spread, -nearest / math.log(0.01)), 2e-6)
    weights = np.nan_to_num(np.exp(-difference / spread)) * others[:, None] * ~marked
    weights /= np.maximum(weights.sum(axis=0), 1e-300)
    used = weights > 0
    pixels = np.broadcast_to(np.arange(height * width), used.shape)
    return csr_array((weights[used], (pixels[used], index[used])), shape=(height * width, height * width))


class ColourTable:
    """The mean chroma of photographs by luma and height in the picture: skies are blue, meadows green.

    ``chroma`` (luma bins, height bins, 3) holds mean RGB minus luma. Gains about 0.9 dB over plain grey on photographs,
    so it, and not grey, is what colorization has to beat.
    """

    def __init__(self, chroma: Picture) -> None:
        self.chroma = chroma

    @classmethod
    def fit(cls, pictures: list[npt.NDArray[np.uint8]], luma_bins: int = 16, height_bins: int = 8) -> ColourTable:
        """Average over training pictures (H, W, 3)."""
        total = np.zeros((luma_bins * height_bins, 3))
        count = np.zeros(luma_bins * height_bins)
        for picture in pictures:
            rgb = picture.astype(np.float64) / 255
            cells = cls._cells(luma(rgb), luma_bins, height_bins).ravel()
            difference = (rgb - luma(rgb)[..., None]).reshape(-1, 3)
            count += np.bincount(cells, minlength=len(count))
            for channel in range(3):
                total[:, channel] += np.bincount(cells, difference[:, channel], minlength=len(count))
        return cls((total / np.maximum(count, 1)[:, None]).reshape(luma_bins, height_bins, 3))

    @staticmethod
    def _cells(grey: Picture, luma_bins: int, height_bins: int) -> npt.NDArray[np.intp]:
        rows = (np.arange(len(grey)) * height_bins // len(grey))[:, None]
        levels = np.clip((grey * luma_bins).astype(np.intp), 0, luma_bins - 1)
        return levels * height_bins + rows

    def colorize(self, grey: Picture) -> Picture:
        """(H, W) in [0, 1] -> (H, W, 3), clipped to [0, 1]."""
        bins = self.chroma.shape[:2]
        chroma = self.chroma.reshape(-1, 3)[self._cells(grey, *bins)]
        return np.clip(grey[..., None] + chroma, 0, 1)

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_files({path: (json.dumps(np.round(self.chroma, 4).tolist()) + "\n").encode()})

    @classmethod
    def load(cls, path: Path) -> ColourTable:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError : no such file, or not a table of chromas.
        """
        rows = read_json(path, "colour table")
        wanted = "wanted (luma bins, height bins, 3) numbers from -1 to 1"
        if not fits(rows, list[list[tuple[float, float, float]]]):
            raise InputError(f"{path} is not a colour table", hint=wanted)
        heights = {len(row) for row in rows}
        if not 1 <= len(rows) <= MOST_BINS or len(heights) != 1 or not 1 <= min(heights) <= MOST_BINS:
            raise InputError(f"{path} has rows of {sorted(heights)[:9]} cells in {len(rows)} bins", hint=wanted)
        chroma = np.asarray(rows, np.float64)
        if np.abs(chroma).max() > 1:
            raise InputError(f"{path} has chromas up to {np.abs(chroma).max():.3g}", hint=wanted)
        return cls(chroma)
