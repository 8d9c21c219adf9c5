"""Samples of missing pixels only: what a large picture with small holes needs, however many samples there are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsolve.pictures import Missing
from invsolve.tasks.regions import Region


class MissingPixels:
    """The missing pixels of a picture, sample by sample, and which of them are still to be filled.

    Parameters
    ----------
    missing : (H, W), True where a pixel is missing.
    samples, channels : of the values.
    """

    def __init__(self, missing: Missing, samples: int, channels: int) -> None:
        self.missing, self.left = missing, missing.copy()
        self.places = np.flatnonzero(missing)  # in the picture, row by row
        self.values = torch.zeros(samples, channels, len(self.places))

    def filled(self, region: Region) -> Missing:
        """(h, w): which missing pixels of a region have their values."""
        return np.asarray(self.missing[region.slices] & ~self.left[region.slices])

    def read(self, region: Region, where: Missing) -> Tensor:
        """(n, C, k): the values of the region's missing pixels ``where`` (h, w)."""
        return self.values[..., self._places(region, where)]

    def write(self, region: Region, where: Missing, samples: Tensor) -> None:
        """Keep ``samples`` (n, C, h, w) of a region at its missing pixels ``where`` (h, w), which are filled then."""
        self.values[..., self._places(region, where)] = samples[..., torch.from_numpy(where)].to(self.values)
        self.left[region.slices][where] = False

    def _places(self, region: Region, where: Missing) -> Tensor:
        """Numbers of the pixels among all missing ones."""
        rows, columns = np.nonzero(where)
        flat = (rows + region.top) * self.missing.shape[1] + columns + region.left
        return torch.from_numpy(np.searchsorted(self.places, flat))


def scattered(
    values: npt.NDArray[np.generic], missing: Missing, picture: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic]:
    """A copy of ``picture`` (H, W[, C]) with ``values`` (K, C) at its missing pixels."""
    whole = picture.copy()
    whole[missing] = values.reshape(len(values), *picture.shape[2:]) if picture.ndim == 3 else values[:, 0]
    return whole
