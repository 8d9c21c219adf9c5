"""Demosaicing: a camera's sensor sees one colour in every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator

PHASES = ("RGGB", "GRBG", "GBRG", "BGGR")
"""The colours of the upper left 2 x 2 pixels, row by row."""


class Bayer(LinearOperator):
    """y[i, j] = x[c(i, j), i, j], the colour c of the filter in front of pixel (i, j): (3, H, W) RGB -> (1, H, W).

    The colours repeat with a period of 2 x 2 pixels (Bayer 1976, US patent 3971065). Every value of y is one of x and no value
    comes twice, so A A' = 1, the norm is 1, and all maps are closed forms. Values are linear or gamma-encoded, as x is.

    Parameters
    ----------
    input_shape : (3, height, width), any height and width.
    phase : the colours of the upper left 2 x 2 pixels, row by row: "RGGB", "GRBG", "GBRG" or "BGGR".
    """

    row_square = 1.0

    def __init__(self, input_shape: Sequence[int], phase: str = "RGGB") -> None:
        if len(input_shape) != 3 or input_shape[0] != 3:
            raise InputError(f"input shape {tuple(input_shape)}", hint="wanted (3, height, width)")
        if phase not in PHASES:
            raise InputError(f"phase {phase!r}", hint=f"wanted one of {', '.join(PHASES)}")
        super().__init__(input_shape, (1, *input_shape[1:]))
        self.phase = phase
        _, height, width = input_shape
        rows, columns = torch.arange(height).reshape(-1, 1) % 2, torch.arange(width) % 2
        colours = torch.tensor(["RGB".index(colour) for colour in phase])[2 * rows + columns]
        self.seen = colours == torch.arange(3).reshape(3, 1, 1)  # (3, H, W)

    def _apply(self, x: Tensor) -> Tensor:
        return (self.seen.to(x) * x).sum(dim=1, keepdim=True)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.seen.to(y) * y

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        return z + self._adjoint((y - self._apply(z)) / (1 + rho))

    def _pinv(self, y: Tensor) -> Tensor:
        return self._adjoint(y)

    def _norm(self) -> float:
        return 1.0
