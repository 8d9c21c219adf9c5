"""Denoising: the picture itself is measured."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from invsolve.forward_models.operator import LinearOperator


class Identity(LinearOperator):
    """y = x, norm 1."""

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__(input_shape, input_shape)
        self.row_square = 1.0

    def _apply(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        return (y + rho * z) / (1 + rho)

    def _pinv(self, y: Tensor) -> Tensor:
        return y

    def _norm(self) -> float:
        return 1.0
