"""Classical methods shown beside ours: what a picture is worth without a learned prior."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from skimage.restoration import inpaint_biharmonic

from invsolve.atomic import write_files
from invsolve.colours import luma
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
