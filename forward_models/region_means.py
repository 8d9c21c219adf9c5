"""Averages over parts of a picture: what is known of the whole and of no pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator


class RegionMeans(LinearOperator):
    """y[c, k] = the mean of channel c over region k: (C, H, W) -> (C, regions).

    Regions do not overlap, so A A' is diagonal with 1 over their numbers of pixels, the norm is one over the root of the
    smallest number, and all maps are closed forms. Pixels of no region are not looked at.

    Parameters
    ----------
    regions : (H, W) integers, the number of the region of each pixel from 0 on; negative for none. No region is empty.
    channels : channels of x.
    """

    def __init__(self, regions: Tensor, channels: int) -> None:
        if regions.ndim != 2 or regions.is_floating_point() or regions.dtype == torch.bool:
            raise InputError(
                f"regions {tuple(regions.shape)}, {regions.dtype}", hint="wanted integers (height, width), -1 for none"
            )
        inside = regions >= 0
        sizes = torch.bincount(regions[inside])
        if not len(sizes) or int(sizes.min()) == 0:
            raise InputError("a region has no pixels", hint="number the regions from 0 on without a gap")
        super().__init__((channels, *regions.shape), (channels, len(sizes)))
        self.inside, self.numbers, self.sizes = inside, regions[inside].long(), sizes

    def _apply(self, x: Tensor) -> Tensor:
        sums = x.new_zeros((*x.shape[:2], len(self.sizes)))
        sums.index_add_(2, self.numbers.to(x.device), x[..., self.inside.to(x.device)])
        return sums / self.sizes.to(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros((len(y), *self.input_shape))
        x[..., self.inside.to(y.device)] = (y / self.sizes.to(y))[..., self.numbers.to(y.device)]
        return x

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        # A A' = 1 / sizes: Sherman-Morrison-Woodbury, region by region.
        return z + self._adjoint((y - self._apply(z)) / (1 / self.sizes.to(y) + rho.reshape(-1, 1, 1)))

    def _pinv(self, y: Tensor) -> Tensor:
        return self._adjoint(y * self.sizes.to(y))

    def _norm(self) -> float:
        return float(self.sizes.min()) ** -0.5
