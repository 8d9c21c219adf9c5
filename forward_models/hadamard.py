"""Compressed sensing with +-1 patterns, as a single-pixel camera measures: a subsampled, randomised Hadamard transform."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator


class Hadamard(LinearOperator):
    """y = R H S x: signs S, the orthonormal Walsh-Hadamard transform H of the flattened picture, some of its values R.

    (C, H, W) -> (m,). H has the size n, the smallest power of two that is at least d = C H W; a picture with d < n is padded
    with zeros. H is that of Sylvester's construction (natural order), divided by sqrt(n), so H H' = 1. With d = n the rows
    are orthonormal, the norm is 1 and all maps are closed forms; with d < n the norm is at most 1, and proximal map and
    pseudo-inverse are conjugate gradients.

    Source: Duarte et al. 2008, "Single-pixel imaging via compressive sampling"; random signs as in Ailon & Chazelle 2006.

    Parameters
    ----------
    input_shape : (C, height, width), any size.
    rows : (m,) whole numbers from 0 to n - 1, each at most once: which values of the transform are measured.
    signs : (C, height, width) of +1 and -1; None for the plain transform.

    Raises
    ------
    InputError : rows that are not in the transform or come twice, signs that are none.
    """

    def __init__(self, input_shape: Sequence[int], rows: Tensor, signs: Tensor | None = None) -> None:
        self.size = padded_size(input_shape)
        if rows.ndim != 1 or rows.is_floating_point() or not len(rows) or len(rows.unique()) != len(rows):
            raise InputError(f"rows {tuple(rows.shape)}, {rows.dtype}", hint="wanted different whole numbers (m,)")
        if int(rows.min()) < 0 or int(rows.max()) >= self.size:
            raise InputError(
                f"rows {int(rows.min())} to {int(rows.max())}", hint=f"wanted 0 to {self.size - 1} for this picture"
            )
        if signs is not None and (signs.shape != torch.Size(input_shape) or bool((signs.abs() != 1).any())):
            raise InputError(f"signs {tuple(signs.shape)}", hint=f"wanted +1 and -1 in the shape {tuple(input_shape)}")
        super().__init__(input_shape, (len(rows),))
        self.rows, self.signs = rows, signs
        if math.prod(input_shape) == self.size:
            self.row_square = 1.0

    def _signed(self, x: Tensor) -> Tensor:
        return x if self.signs is None else self.signs.to(x) * x

    def _apply(self, x: Tensor) -> Tensor:
        flat = self._signed(x).flatten(1)
        padded = torch.nn.functional.pad(flat, (0, self.size - flat.shape[1]))
        return walsh_hadamard(padded)[:, self.rows.to(x.device)]

    def _adjoint(self, y: Tensor) -> Tensor:
        values = y.new_zeros((len(y), self.size))
        values[:, self.rows.to(y.device)] = y
        flat = walsh_hadamard(values)[:, : math.prod(self.input_shape)]
        return self._signed(flat.reshape(-1, *self.input_shape))

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        if not self.row_square:
            return super()._prox(z, y, rho)
        return z + self._adjoint(y - self._apply(z)) / (1 + rho)

    def _pinv(self, y: Tensor) -> Tensor:
        return self._adjoint(y) if self.row_square else super()._pinv(y)

    def _norm(self) -> float:
        return 1.0 if self.row_square or len(self.rows) == self.size else super()._norm()


def padded_size(input_shape: Sequence[int]) -> int:
    """The size of the transform of a picture: the smallest power of two that is at least its number of values."""
    return 1 << (math.prod(input_shape) - 1).bit_length()


def random_hadamard(input_shape: Sequence[int], count: int, generator: torch.Generator) -> Hadamard:
    """``count`` values of the transform drawn without replacement, under random signs.

    The first row, whose value is the sum of all signed pixels, is no different from the others once the signs are random.

    Raises
    ------
    InputError : ``count`` is not between 1 and the transform's size.
    """
    size = padded_size(input_shape)
    if not 1 <= count <= size:
        raise InputError(f"{count} values", hint=f"wanted 1 to {size} for this picture")
    rows = torch.randperm(size, generator=generator)[:count]
    signs = 2 * torch.randint(0, 2, tuple(input_shape), generator=generator) - 1
    return Hadamard(input_shape, rows, signs)


def walsh_hadamard(x: Tensor) -> Tensor:
    """The orthonormal transform of each row of ``x`` (B, n), n a power of two, in n log2 n additions; its own inverse."""
    batch, size = x.shape
    half = 1
    while half < size:
        pairs = x.reshape(batch, -1, 2, half)
        x = torch.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], dim=2)
        half *= 2
    return x.reshape(batch, size) / math.sqrt(size)
