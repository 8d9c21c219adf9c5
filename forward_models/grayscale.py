"""Colorization: only the luma of a colour picture is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.colours import REC601
from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator


class Grayscale(LinearOperator):
    """y = w . x over the channels: (3, H, W) RGB -> (1, H, W) luma.

    The default weights are Rec. 601's, those of JPEG and of ``PIL.Image.convert("L")``. A A' = |w|^2, so the norm is
    |w| = .669 and pseudo-inverse and proximal map are closed forms.

    Parameters
    ----------
    input_shape : (3, height, width).
    weights : one per channel.
    """

    def __init__(self, input_shape: Sequence[int], weights: Sequence[float] = REC601) -> None:
        if len(input_shape) != 3 or input_shape[0] != len(weights):
            raise InputError(f"input shape {tuple(input_shape)}", hint=f"wanted ({len(weights)}, height, width)")
        super().__init__(input_shape, (1, *input_shape[1:]))
        self.weights = tuple(weights)
        self.squared_norm = self.row_square = sum(w * w for w in self.weights)

    def _row(self, like: Tensor) -> Tensor:
        return torch.tensor(self.weights, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)

    def _apply(self, x: Tensor) -> Tensor:
        return (self._row(x) * x).sum(dim=1, keepdim=True)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._row(y) * y

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        # Sherman-Morrison on w w' + rho.
        return z + self._row(z) * ((y - self._apply(z)) / (self.squared_norm + rho))

    def _pinv(self, y: Tensor) -> Tensor:
        return self._row(y) * (y / self.squared_norm)

    def _norm(self) -> float:
        return float(self.squared_norm**0.5)
