"""Blur: every pixel is spread by the same point spread function (PSF)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator

Boundary = Literal["circular", "valid", "reflect"]
"""What lies beyond the picture's edge; see :class:`Blur`."""

CUTOFF = 4.0
"""Standard deviations at which a Gaussian PSF ends, unless told otherwise."""


class Blur(LinearOperator):
    """y = psf * x, the convolution of every channel: (C, H, W) -> (C, H, W), or less where the boundary is "valid".

    Computed by FFT, whatever the boundary. With the circular one A is diagonal in Fourier space, its norm the largest
    modulus of the transfer function, and all maps are closed forms. With the others norm, proximal map and
    pseudo-inverse are iterated; the norm on a picture of one channel and at most 64 pixels or 8 PSFs a side, which for
    PSFs of sum 1 is within a thousandth of a larger one's.

    Parameters
    ----------
    psf : (h, w), taps in pixels, centred at ``psf[h // 2, w // 2]``; usually of sum 1. Light from one point of x is seen
        as the PSF the right way up.
    input_shape : (C, height, width).
    boundary : what lies beyond the edge. "circular": the opposite edge. "reflect": the picture's mirror image, edge pixel
        included (scipy.ndimage's "reflect"). "valid": nothing is assumed; y has only the pixels that x determines, so it
        is h - 1 and w - 1 smaller, and x is the scene somewhat beyond the photograph.
    floor : values of the transfer function below this share of the largest one count as 0 in the pseudo-inverse of the
        circular boundary, a truncated one: of waves that drown in noise nothing is to be had.
    """

    def __init__(
        self, psf: Tensor, input_shape: Sequence[int], boundary: Boundary = "circular", *, floor: float = 1e-6
    ) -> None:
        if psf.ndim != 2 or 0 in psf.shape or not bool(torch.isfinite(psf).all()):
            raise InputError(f"PSF of shape {tuple(psf.shape)}", hint="wanted finite numbers (height, width)")
        if len(input_shape) != 3:
            raise InputError(f"input shape {tuple(input_shape)}", hint="wanted (channels, height, width)")
        if boundary not in get_args(Boundary):
            raise InputError(f"boundary {boundary!r}", hint=f"known: {', '.join(get_args(Boundary))}")
        channels, height, width = input_shape
        less = (psf.shape[0] - 1, psf.shape[1] - 1) if boundary == "valid" else (0, 0)
        if height <= less[0] or width <= less[1]:
            raise InputError(
                f"a PSF of {psf.shape[1]} x {psf.shape[0]} pixels for a picture of {width} x {height}",
                hint="wanted a larger picture, or crop the PSF",
            )
        super().__init__(input_shape, (channels, height - less[0], width - less[1]))
        self.psf, self.boundary, self.floor = psf, boundary, floor
        above, left = psf.shape[0] // 2, psf.shape[1] // 2
        self._before, self._after = (above, left), (psf.shape[0] - 1 - above, psf.shape[1] - 1 - left)
        grows = boundary == "reflect"
        self._grid = (height + grows * (psf.shape[0] - 1), width + grows * (psf.shape[1] - 1))
        self._transfer = transfer_function(psf, self._grid)

    def _otf(self, like: Tensor) -> Tensor:
        return self._transfer.to(device=like.device, dtype=torch.promote_types(like.dtype, torch.complex64))

    def _filter(self, x: Tensor, transfer: Tensor) -> Tensor:
        """Multiply by ``transfer`` in Fourier space, on the circular grid."""
        return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=self._grid)

    def _apply(self, x: Tensor) -> Tensor:
        if self.boundary == "circular":
            return self._filter(x, self._otf(x))
        if self.boundary == "reflect":
            rows, columns = self._mirrored(x)
            x = x[..., rows, :][..., columns]
        height, width = self.output_shape[1:]
        # Away from the grid's edges, where the circle closes, circular convolution is convolution.
        top, left = self._after
        return self._filter(x, self._otf(x))[..., top : top + height, left : left + width]

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.boundary == "circular":
            return self._filter(y, self._otf(y).conj())
        height, width = self.output_shape[1:]
        top, left = self._after
        padded = F.pad(y, (left, self._grid[1] - width - left, top, self._grid[0] - height - top))
        x = self._filter(padded, self._otf(y).conj())
        if self.boundary == "valid":
            return x
        rows, columns = self._mirrored(y)
        folded = x.new_zeros((*x.shape[:2], self.input_shape[1], x.shape[3])).index_add_(2, rows, x)
        return x.new_zeros((*x.shape[:2], *self.input_shape[1:])).index_add_(3, columns, folded)

    def _mirrored(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """For every row and column of the grid, the picture's row and column that lies there."""
        # Output pixel 0 reads the scene from -after on: the convolution turns the PSF round.
        return tuple(  # type: ignore[return-value]
            mirror(torch.arange(-after, length + before), length).to(like.device)
            for before, after, length in zip(self._before, self._after, self.input_shape[1:], strict=True)
        )

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        if self.boundary != "circular":
            return super()._prox(z, y, rho)
        # (A'A + rho) d = A'(y - A z) for d = x - z, wave by wave.
        h = self._otf(z)
        misfit = torch.fft.rfft2(y) - h * torch.fft.rfft2(z)
        return z + torch.fft.irfft2(h.conj() * misfit / (h.abs() ** 2 + rho), s=self._grid)

    def _pinv(self, y: Tensor) -> Tensor:
        if self.boundary != "circular":
            return super()._pinv(y)
        h = self._otf(y)
        seen = h.abs() > self.floor * h.abs().max()
        return self._filter(y, torch.where(seen, 1 / torch.where(seen, h, 1), 0))

    @property
    def determined(self) -> float:
        """Share of the circular grid's waves whose transfer function is above ``floor``."""
        whole = torch.fft.fft2(torch.fft.irfft2(self._transfer, s=self._grid)).abs()
        return float((whole > self.floor * whole.max()).double().mean())

    def _norm(self) -> float:
        if self.boundary == "circular":
            return float(self._transfer.abs().max())
        # Channels are alike, and pictures much larger than the PSF too.
        size = [min(n, max(8 * k, 64)) for n, k in zip(self.input_shape[1:], self.psf.shape, strict=True)]
        if (1, *size) == self.input_shape:
            return super()._norm()
        return Blur(self.psf, (1, *size), self.boundary).norm


def transfer_function(psf: Tensor, grid: tuple[int, int]) -> Tensor:
    """The PSF's Fourier transform on a circular grid (height, width): complex128 (height, width // 2 + 1).

    A PSF larger than the grid goes round it.
    """
    rows = torch.arange(psf.shape[0]) - psf.shape[0] // 2
    columns = torch.arange(psf.shape[1]) - psf.shape[1] // 2
    places = (rows % grid[0])[:, None] * grid[1] + (columns % grid[1])[None]
    wrapped = torch.zeros(grid[0] * grid[1], dtype=torch.float64)
    wrapped.index_add_(0, places.flatten(), psf.detach().double().cpu().flatten())
    return torch.fft.rfft2(wrapped.reshape(grid))


def mirror(index: Tensor, length: int) -> Tensor:
    """Where a mirror at both edges, edge pixels included, shows pixel ``index`` of a row of ``length``."""
    index = index % (2 * length)
    return torch.where(index < length, index, 2 * length - 1 - index)


def gaussian_psf(sigma: float, cutoff: float = CUTOFF) -> Tensor:
    """A Gaussian PSF of sum 1, square and of odd side, float64.

    Parameters
    ----------
    sigma : standard deviation in pixels, positive.
    cutoff : standard deviations at which it ends.

    Raises
    ------
    InputError : sigma is not a positive number.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"a Gaussian PSF of sigma {sigma}", hint="wanted a positive number of pixels")
    radius = max(1, math.ceil(cutoff * sigma))
    row = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return torch.outer(row, row) / row.sum() ** 2


def motion_psf(length: float, angle: float, samples: int = 64) -> Tensor:
    """The PSF of an even motion along a straight line, of sum 1, of odd sides, float64.

    Parameters
    ----------
    length : pixels that a point moves; 0 is no blur.
    angle : direction in degrees, counter-clockwise from the rows' direction to the right; angle + 180 is the same blur.
    samples : points per pixel of the line, each shared among its four neighbours by bilinear weights.

    Raises
    ------
    InputError : a length that is negative, or numbers that are not finite.
    """
    if not (math.isfinite(length) and length >= 0 and math.isfinite(angle)):
        raise InputError(
            f"a motion of {length} pixels at {angle} degrees", hint="wanted numbers, the length not negative"
        )
    count = max(1, math.ceil(length * samples))
    along = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * length
    radians = math.radians(angle)
    x, y = along * math.cos(radians), -along * math.sin(radians)
    half = [int(torch.floor(p.abs().max() + 1e-9)) + 1 for p in (y, x)]
    psf = torch.zeros(2 * half[0] + 1, 2 * half[1] + 1, dtype=torch.float64)
    top, left = torch.floor(y), torch.floor(x)
    for below in (0, 1):
        for right in (0, 1):
            weight = (1 - (y - top - below).abs()) * (1 - (x - left - right).abs())
            rows, columns = top.long() + below + half[0], left.long() + right + half[1]
            psf.view(-1).index_add_(0, rows * psf.shape[1] + columns, weight)
    return _cropped(psf / psf.sum())


def _cropped(psf: Tensor) -> Tensor:
    """Without rows and columns of (almost) nothing at the edges, as many on either side."""
    for axis in (0, 1):
        while psf.shape[axis] > 1:
            ends = psf.select(axis, 0).abs().max(), psf.select(axis, -1).abs().max()
            if max(map(float, ends)) > 1e-9:
                break
            psf = psf.narrow(axis, 1, psf.shape[axis] - 2)
    return psf / psf.sum()
