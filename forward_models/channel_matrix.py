"""Another basis of the channels: the same small matrix in every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator


class ChannelMatrix(LinearOperator):
    """y = M x over the channels of every pixel: (C, H, W) -> (m, H, W); the norm is M's.

    Where the rows of M are orthogonal and of one length (``row_square``), all maps are closed forms, and so are those of
    operators that a :class:`~invsolve.forward_models.Mask` or another one makes of the rows.

    Parameters
    ----------
    matrix : (m, C).
    input_shape : (C, height, width).
    """

    def __init__(self, matrix: Tensor, input_shape: Sequence[int]) -> None:
        if matrix.ndim != 2 or len(input_shape) != 3 or matrix.shape[1] != input_shape[0]:
            raise InputError(
                f"matrix {tuple(matrix.shape)} for x {tuple(input_shape)}", hint="wanted (m, C) for (C, height, width)"
            )
        super().__init__(input_shape, (len(matrix), *input_shape[1:]))
        self.matrix = matrix
        gram = (matrix @ matrix.T).double()
        square = float(gram[0, 0])
        if torch.allclose(gram, square * torch.eye(len(gram), dtype=gram.dtype), rtol=0, atol=1e-6 * square):
            self.row_square = square

    def _apply(self, x: Tensor) -> Tensor:
        return torch.einsum("mc,bchw->bmhw", self.matrix.to(x), x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.einsum("mc,bmhw->bchw", self.matrix.to(y), y)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        if not self.row_square:
            return super()._prox(z, y, rho)
        return z + self._adjoint((y - self._apply(z)) / (self.row_square + rho))

    def _pinv(self, y: Tensor) -> Tensor:
        return torch.einsum("cm,bmhw->bchw", torch.linalg.pinv(self.matrix).to(y), y)

    def _norm(self) -> float:
        return float(torch.linalg.matrix_norm(self.matrix, ord=2))
