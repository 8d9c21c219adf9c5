"""A circular blur of which every f-th pixel is kept: the single-image super-resolution model with a closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.blur import transfer_function
from invsolve.forward_models.operator import LinearOperator


class BlurredDecimation(LinearOperator):
    """y = (psf * x)[::f, ::f] with a circular convolution: (C, H, W) -> (C, H / f, W / f).

    f x f waves of x fall together on one of y, so A A' is again a circular convolution, with the mean of their |h|^2 as
    transfer function. Norm, proximal map and pseudo-inverse are closed forms (Zhao, Wei, Basarab, Dobigeon, Kouame &
    Tourneret 2016, "Fast single image super-resolution using a new analytical solution for l2-l2 problems", theorem 1).

    Parameters
    ----------
    psf : (h, w), taps in pixels of x, centred at ``psf[h // 2, w // 2]``.
    input_shape : (C, height, width), the sides multiples of ``factor``.
    factor : f, a whole number from 1 on.
    """

    def __init__(self, psf: Tensor, input_shape: Sequence[int], factor: int) -> None:
        if psf.ndim != 2 or 0 in psf.shape or not bool(torch.isfinite(psf).all()):
            raise InputError(f"PSF of shape {tuple(psf.shape)}", hint="wanted finite numbers (height, width)")
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise InputError(f"factor {factor!r}", hint="wanted a whole number from 1 on")
        if len(input_shape) != 3 or input_shape[1] % factor or input_shape[2] % factor or 0 in input_shape:
            raise InputError(
                f"decimating {tuple(input_shape)} by {factor}",
                hint=f"wanted (channels, height, width) with sides that are multiples of {factor}",
            )
        channels, height, width = input_shape
        super().__init__(input_shape, (channels, height // factor, width // factor))
        self.psf, self.factor = psf, factor
        self._transfer = transfer_function(psf, (height, width))
        whole = torch.fft.fft2(torch.fft.irfft2(self._transfer, s=(height, width))).abs() ** 2
        self._square = whole.unflatten(1, (factor, -1)).unflatten(0, (factor, -1)).mean(dim=(0, 2))
        """The transfer function of A A', (H / f, W / f)."""

    def _otf(self, like: Tensor) -> Tensor:
        return self._transfer.to(device=like.device, dtype=torch.promote_types(like.dtype, torch.complex64))

    def _apply(self, x: Tensor) -> Tensor:
        blurred = torch.fft.irfft2(torch.fft.rfft2(x) * self._otf(x), s=self.input_shape[1:])
        return blurred[..., :: self.factor, :: self.factor].contiguous()

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros((len(y), *self.input_shape))
        x[..., :: self.factor, :: self.factor] = y
        return torch.fft.irfft2(torch.fft.rfft2(x) * self._otf(y).conj(), s=self.input_shape[1:])

    def _on_spectrum(self, y: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function(A A')`` y, for a function of the transfer function of A A'."""
        return torch.fft.ifft2(torch.fft.fft2(y) * function(self._square.to(y))).real

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        return z + self._adjoint(self._on_spectrum(y - self._apply(z), lambda square: 1 / (square + rho)))

    def _pinv(self, y: Tensor) -> Tensor:
        def inverse(square: Tensor) -> Tensor:
            seen = square > 1e-12 * square.max()
            return torch.where(seen, 1 / torch.where(seen, square, 1), 0)

        return self._adjoint(self._on_spectrum(y, inverse))

    def _norm(self) -> float:
        return math.sqrt(float(self._square.max()))
