"""Inpainting: some pixels are known, the others missing."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator


class Mask(LinearOperator):
    """y = m * x, pixel by pixel; missing pixels read 0.

    Domain and range are (C, H, W); norm is max |m|; A' = A. All maps are closed forms.

    Parameters
    ----------
    known : (C or 1, H, W), 1 where a pixel is known and 0 where it is missing (weights between are allowed).
    channels : channels of x when ``known`` has one that serves them all.
    """

    def __init__(self, known: Tensor, channels: int | None = None) -> None:
        if known.ndim != 3:
            raise InputError(f"mask has shape {tuple(known.shape)}", hint="wanted (channels or 1, height, width)")
        shape = (channels or known.shape[0], *known.shape[1:])
        super().__init__(shape, shape)
        self.known = known if known.is_floating_point() else known.float()

    @property
    def informative(self) -> Tensor:
        """The known values; the missing ones read 0 and say nothing."""
        return (self.known != 0).expand(self.output_shape)

    def _weights(self, like: Tensor) -> Tensor:
        return self.known.to(like)

    def _apply(self, x: Tensor) -> Tensor:
        return self._weights(x) * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._weights(y) * y

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        m = self._weights(z)
        return (m * y + rho * z) / (m**2 + rho)

    def _pinv(self, y: Tensor) -> Tensor:
        m = self._weights(y)
        return torch.where(m != 0, y / torch.where(m != 0, m, 1), 0)

    def _norm(self) -> float:
        return float(self.known.abs().max())
