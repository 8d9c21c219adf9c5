"""Any small linear map, given as its matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator, Shape


class DenseMatrix(LinearOperator):
    """y = M x for a matrix M (m, C H W); y has shape (m,). All maps go through the singular values of M.

    Parameters
    ----------
    matrix : (m, d), d the number of values in x.
    input_shape : (C, H, W).
    """

    def __init__(self, matrix: Tensor, input_shape: Sequence[int]) -> None:
        shape: Shape = tuple(input_shape)
        if matrix.ndim != 2 or matrix.shape[1] != math.prod(shape):
            raise InputError(f"matrix {tuple(matrix.shape)} for x {shape}", hint="wanted (m, C * H * W)")
        super().__init__(shape, (len(matrix),))
        self.matrix, self.device = matrix, matrix.device
        self._u, self._s, self._vt = torch.linalg.svd(matrix, full_matrices=False)

    def _apply(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.to(x).T

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.to(y)).reshape(-1, *self.input_shape)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        u, s, vt = self._u.to(z), self._s.to(z), self._vt.to(z)
        step = ((y - self._apply(z)) @ u) * s / (s**2 + rho.reshape(-1, 1))
        return z + (step @ vt).reshape(z.shape)

    def _pinv(self, y: Tensor) -> Tensor:
        u, s, vt = self._u.to(y), self._s.to(y), self._vt.to(y)
        inverse = torch.where(s > 1e-9 * s.max(), 1 / s, 0)
        return (((y @ u) * inverse) @ vt).reshape(-1, *self.input_shape)

    def _norm(self) -> float:
        return float(self._s.max())
