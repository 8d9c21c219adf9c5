"""Weights on a measurement: what whitens noise of unequal size, or leaves dead detectors out."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.forward_models.operator import LinearOperator


class Diagonal(LinearOperator):
    """y = w * x, value by value; A' = A, norm max |w|. All maps are closed forms.

    Parameters
    ----------
    weights : any shape (without the batch axis); 0 leaves a value out.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__(weights.shape, weights.shape)
        self.weights, self.device = weights, weights.device

    @property
    def informative(self) -> Tensor:
        """Values with a weight; the others say nothing."""
        return self.weights != 0

    def _apply(self, x: Tensor) -> Tensor:
        return self.weights.to(x) * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.weights.to(y) * y

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        w = self.weights.to(z)
        return (w * y + rho * z) / (w**2 + rho)

    def _pinv(self, y: Tensor) -> Tensor:
        w = self.weights.to(y)
        return torch.where(w != 0, y / torch.where(w != 0, w, 1), 0)

    def _norm(self) -> float:
        return float(self.weights.abs().max())
