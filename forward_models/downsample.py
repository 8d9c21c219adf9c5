"""Downsampling: a picture made smaller by a whole factor, as programs do that reduce photographs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator

Kernel = Literal["bicubic", "box", "gaussian"]
"""How pixels are averaged; see :class:`Downsample`."""

FACTORS = range(2, 9)


class Downsample(LinearOperator):
    """y = averages of x around every ``factor``-th place: (C, H, W) -> (C, H / factor, W / factor).

    Separable, with weights of sum 1; at the edges those that lie within are scaled to sum 1, as in Pillow. A A' is a Kronecker
    product of two small matrices, whose eigenvectors give the norm, the proximal map and the pseudo-inverse in closed form.

    Parameters
    ----------
    input_shape : (C, height, width), the sides multiples of ``factor``.
    factor : a whole number, 2 to 8.
    kernel : "bicubic", Keys' with a = -0.5 stretched by the factor (Pillow's BICUBIC, MATLAB's imresize away from the
        edges); "box", the mean of factor x factor pixels, where A A' = 1 / factor^2; "gaussian", of standard deviation
        factor / 2 pixels, ending at three of them.
    """

    def __init__(self, input_shape: Sequence[int], factor: int, kernel: Kernel = "bicubic") -> None:
        if isinstance(factor, bool) or factor not in FACTORS:
            raise InputError(f"factor {factor!r}", hint=f"wanted a whole number, {FACTORS[0]} to {FACTORS[-1]}")
        if kernel not in get_args(Kernel):
            raise InputError(f"kernel {kernel!r}", hint=f"known: {', '.join(get_args(Kernel))}")
        if len(input_shape) != 3 or input_shape[1] % factor or input_shape[2] % factor or 0 in input_shape:
            raise InputError(
                f"downsampling {tuple(input_shape)} by {factor}",
                hint=f"wanted (channels, height, width) with sides that are multiples of {factor}",
            )
        channels, height, width = input_shape
        super().__init__(input_shape, (channels, height // factor, width // factor))
        self.factor, self.kernel = factor, kernel
        self._taps, self._margin = taps(kernel, factor)
        self._scales = [self._edge_scale(length) for length in input_shape[1:]]
        if kernel == "box":
            self.row_square = factor**-2.0

    def _edge_scale(self, length: int) -> Tensor:
        """(length / factor): 1 over the sum of the weights that lie within."""
        ones = torch.ones(1, 1, length, dtype=torch.float64)
        return 1 / F.conv1d(ones, self._taps[None, None], stride=self.factor, padding=self._margin)[0, 0]

    def _apply(self, x: Tensor) -> Tensor:
        planes = x.flatten(0, 1)[:, None]
        for axis in (0, 1):
            planes = F.conv2d(planes, self._along(axis, x), stride=self._pick(axis), padding=self._pad(axis))
        return planes[:, 0].unflatten(0, x.shape[:2]) * self._scale(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        planes = (y * self._scale(y)).flatten(0, 1)[:, None]
        for axis in (0, 1):
            # What a stride leaves of the last pixels is fixed by the sides being multiples of the factor.
            rest = [0, 0]
            rest[axis] = self.factor + 2 * self._margin - len(self._taps)
            planes = F.conv_transpose2d(
                planes, self._along(axis, y), stride=self._pick(axis), padding=self._pad(axis), output_padding=rest
            )
        return planes[:, 0].unflatten(0, y.shape[:2])

    def _along(self, axis: int, like: Tensor) -> Tensor:
        shape = [1, 1, 1, 1]
        shape[2 + axis] = -1
        return self._taps.to(like).reshape(shape)

    def _pick(self, axis: int) -> tuple[int, int]:
        return (self.factor, 1) if axis == 0 else (1, self.factor)

    def _pad(self, axis: int) -> tuple[int, int]:
        return (self._margin, 0) if axis == 0 else (0, self._margin)

    def _scale(self, like: Tensor) -> Tensor:
        rows, columns = (scale.to(like) for scale in self._scales)
        return rows[:, None] * columns

    @cached_property
    def _eigen(self) -> list[tuple[Tensor, Tensor]]:
        """Eigenvalues and -vectors of A A' along rows and along columns, float64."""
        return [
            torch.linalg.eigh(matrix @ matrix.T) for matrix in map(self._matrix, self.input_shape[1:], self._scales)
        ]

    def _matrix(self, length: int, scale: Tensor) -> Tensor:
        """(length / factor, length): the averages along one axis."""
        unit = torch.eye(length, dtype=torch.float64)[:, None]
        rows = F.conv1d(unit, self._taps[None, None], stride=self.factor, padding=self._margin)
        return rows[:, 0].T * scale[:, None]

    def _on_spectrum(self, y: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function(A A')`` y, for a function of the eigenvalues."""
        (lows, left), (others, right) = ((values.to(y), vectors.to(y)) for values, vectors in self._eigen)
        waves = left.T @ y @ right
        return left @ (waves * function(lows[:, None] * others)) @ right.T

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        misfit = y - self._apply(z)
        if self.row_square:
            return z + self._adjoint(misfit / (self.row_square + rho))
        return z + self._adjoint(self._on_spectrum(misfit, lambda square: 1 / (square + rho)))

    def _pinv(self, y: Tensor) -> Tensor:
        if self.row_square:
            return self._adjoint(y) / self.row_square
        return self._adjoint(self._on_spectrum(y, lambda square: 1 / square))

    def _norm(self) -> float:
        if self.row_square:
            return math.sqrt(self.row_square)
        return math.sqrt(float(self._eigen[0][0].max() * self._eigen[1][0].max()))


def taps(kernel: Kernel, factor: int) -> tuple[Tensor, int]:
    """The weights of a kernel along one axis, float64 and of sum 1, and how many of them come before the block averaged."""
    centre = (factor - 1) / 2
    reach = {"bicubic": 2.0 * factor, "box": factor / 2, "gaussian": 1.5 * factor}[kernel]
    margin = math.ceil(reach - centre) - 1 if kernel != "box" else 0
    distance = (torch.arange(-margin, factor + margin, dtype=torch.float64) - centre) / factor
    if kernel == "bicubic":
        weights = keys(distance)
    else:
        weights = torch.ones_like(distance) if kernel == "box" else torch.exp(-2 * distance**2)
    return weights / weights.sum(), margin


def keys(distance: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic convolution kernel (Keys 1981, "Cubic convolution interpolation for digital image processing")."""
    d = distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
