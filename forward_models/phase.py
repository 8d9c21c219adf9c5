"""A complex picture whose phase is known: what is left to find is its magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator


class Phase(LinearOperator):
    """y = exp(i phi) x of a real x: (1, H, W) -> (2, H, W), real and imaginary part.

    A'y is the real part of exp(-i phi) y, so A'A = 1, the norm is 1, and all maps are closed forms.

    Parameters
    ----------
    phase : (H, W), phi in radians.
    """

    def __init__(self, phase: Tensor) -> None:
        if phase.ndim != 2:
            raise InputError(f"phase has shape {tuple(phase.shape)}", hint="wanted (height, width), in radians")
        super().__init__((1, *phase.shape), (2, *phase.shape))
        self.phase = phase

    @property
    def informative(self) -> Tensor:
        return self._pair(self.phase) != 0

    def _pair(self, like: Tensor) -> Tensor:
        phase = self.phase.to(like)
        return torch.stack([phase.cos(), phase.sin()])

    def _apply(self, x: Tensor) -> Tensor:
        return self._pair(x) * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return (self._pair(y) * y).sum(dim=1, keepdim=True)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        return (self._adjoint(y) + rho * z) / (1 + rho)

    def _pinv(self, y: Tensor) -> Tensor:
        return self._adjoint(y)

    def _norm(self) -> float:
        return 1.0
