"""Some frequencies of a real picture; and the centred Fourier transform that it shares with MRI."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator

AXES = (-2, -1)


def fft2(x: Tensor) -> Tensor:
    """The unitary discrete Fourier transform of the last two axes, complex.

    Centred as in MRI: the picture's origin is pixel (H // 2, W // 2), and frequency 0 stands at (H // 2, W // 2).
    """
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, AXES), norm="ortho"), AXES)


def ifft2(k: Tensor) -> Tensor:
    """The inverse (and adjoint) of :func:`fft2`."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, AXES), norm="ortho"), AXES)


def opposite(k: Tensor) -> Tensor:
    """The values at the frequencies of the opposite sign: the last two axes mirrored about frequency 0."""
    flipped = torch.fft.ifftshift(k, AXES).flip(AXES).roll((1, 1), AXES)
    return torch.fft.fftshift(flipped, AXES)


class Fourier(LinearOperator):
    """y = m * F x, the unitary 2-D DFT of a real picture, frequency by frequency; unmeasured ones read 0.

    (C, H, W) -> (2 C, H, W): the real parts of all channels, then their imaginary parts. Frequency 0 stands at
    (H // 2, W // 2), the picture's origin at pixel (H // 2, W // 2). As x is real, frequencies k and -k say the same, and
    A'A is diagonal in the Fourier basis with (m(k)^2 + m(-k)^2) / 2: the norm is the root of its largest value, and all maps
    are closed forms.

    Parameters
    ----------
    measured : (H, W), 1 where a frequency is measured and 0 where it is not (weights are allowed).
    channels : channels of x.
    """

    def __init__(self, measured: Tensor, channels: int = 1) -> None:
        if measured.ndim != 2:
            raise InputError(f"frequency mask has shape {tuple(measured.shape)}", hint="wanted (height, width)")
        super().__init__((channels, *measured.shape), (2 * channels, *measured.shape))
        self.measured = measured if measured.is_floating_point() else measured.float()

    @property
    def informative(self) -> Tensor:
        """The measured values, without the imaginary parts of the frequencies that are their own opposite, which are 0."""
        height, width = self.measured.shape
        index = torch.arange(height * width).reshape(height, width)
        complex_ones = opposite(index) != index
        parts = torch.stack([torch.ones_like(complex_ones), complex_ones]) & (self.measured != 0).cpu()
        return parts.repeat_interleave(self.input_shape[0], dim=0)

    def _weights(self, like: Tensor) -> Tensor:
        return self.measured.to(like)

    def _gram(self, like: Tensor) -> Tensor:
        """A'A in the Fourier basis, (H, W)."""
        squares = self._weights(like) ** 2
        return 0.5 * (squares + opposite(squares))

    def _apply(self, x: Tensor) -> Tensor:
        k = self._weights(x) * fft2(x)
        return torch.cat([k.real, k.imag], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        real, imaginary = y.chunk(2, dim=1)
        return ifft2(self._weights(y) * torch.complex(real, imaginary)).real

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        return ifft2(fft2(self._adjoint(y) + rho * z) / (self._gram(z) + rho)).real

    def _pinv(self, y: Tensor) -> Tensor:
        gram = self._gram(y)
        inverse = torch.where(gram > 0, 1 / torch.where(gram > 0, gram, 1), 0)
        return ifft2(inverse * fft2(self._adjoint(y))).real

    def _norm(self) -> float:
        return float(self._gram(self.measured).max().sqrt())


def low_frequencies(shape: Sequence[int], cutoff: float) -> Tensor:
    """A mask (H, W) of the frequencies below ``cutoff``, in cycles per pixel (0.5 is the highest along an axis)."""
    rows, columns = (torch.fft.fftshift(torch.fft.fftfreq(n, dtype=torch.float64)) for n in shape)
    return (rows.reshape(-1, 1) ** 2 + columns**2).sqrt() < cutoff
