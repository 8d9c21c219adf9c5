"""The two-dimensional discrete cosine transform, orthonormal.

Cosines suit pictures: they continue them by reflection, where Fourier's waves would join the left edge to the right one.
On a CPU scipy's fast transform; elsewhere, where there is none, products with the matrix.
"""

from __future__ import annotations

import math
from functools import lru_cache

import scipy.fft
import torch
from torch import Tensor


def dct2(x: Tensor) -> Tensor:
    """DCT-II over the last two axes of (..., H, W); its inverse and adjoint is :func:`idct2`.

    >>> x = torch.rand(2, 5, 6)
    >>> torch.allclose(idct2(dct2(x)), x, atol=1e-6)
    True
    """
    if x.device.type == "cpu":
        return torch.from_numpy(scipy.fft.dctn(x.detach().numpy(), axes=(-2, -1), norm="ortho"))
    return _matrix(x.shape[-2], x.dtype, x.device) @ x @ _matrix(x.shape[-1], x.dtype, x.device).T


def idct2(coefficients: Tensor) -> Tensor:
    """DCT-III over the last two axes."""
    c = coefficients
    if c.device.type == "cpu":
        return torch.from_numpy(scipy.fft.idctn(c.detach().numpy(), axes=(-2, -1), norm="ortho"))
    return _matrix(c.shape[-2], c.dtype, c.device).T @ c @ _matrix(c.shape[-1], c.dtype, c.device)


@lru_cache(maxsize=16)
def _matrix(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(N, N), a cosine in each row."""
    k = torch.arange(length, dtype=torch.float64)
    matrix = math.sqrt(2 / length) * torch.cos(math.pi / length * (k + 0.5) * k[:, None])
    matrix[0] /= math.sqrt(2)
    return matrix.to(device, dtype)
