"""How a denoiser errs: its error's power spectrum at every noise level, and the covariance that follows.

Of ``x = x0 + sigma z`` a denoiser makes D(x), and x0 - D(x) is far from white: slow waves drown in the noise and are off by
all of it, fine detail is mostly not there to be missed. Taken as stationary and Gaussian, the error has a covariance that
the cosine transform makes diagonal,

    Cov(x0 | x) = U' T' diag(s(sigma, channel, frequency)) T U,

with T the two-dimensional DCT and U an orthonormal mix of the colour channels (brightness and two colour differences, nearly
uncorrelated in pictures). s is what was measured on pictures with known truth: for a linear denoiser of a stationary Gaussian
it is Wiener's ``1 / (1 / S + 1 / sigma^2)``, for a network less, as it sees edges where a spectrum sees none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsolve.models.dct import dct2, idct2
from invsolve.models.score_model import ErrorCovariance, Sigma, per_image

FREQUENCIES = tuple(float(f) for f in np.geomspace(1 / 256, 2**-0.5, 14).round(5))
"""Cycles per pixel of the measured bands' centres, up to the corner of the DCT's square."""

OPPONENT = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
"""Rows of U for RGB, before normalisation: brightness, red against blue, green against both."""


@dataclass(frozen=True)
class ErrorSpectrum:
    """Variances of the denoising error's coefficients.

    Parameters
    ----------
    sigmas : L noise levels, rising.
    frequencies : K frequencies, rising, in cycles per pixel.
    variances : (L, C, K), in squared units of x, of channels mixed by U; interpolated in logarithms.
    """

    sigmas: tuple[float, ...]
    frequencies: tuple[float, ...]
    variances: tuple[tuple[tuple[float, ...], ...], ...]

    def at(self, sigma: float, height: int, width: int) -> Tensor:
        """(C, H, W) float32: the variance of every coefficient at noise level ``sigma``.

        Below the first level it falls with sigma^2, as all is noise there; above the last it stays, as nothing is known.
        """
        table = np.log(np.asarray(self.variances))
        position = np.interp(math.log(sigma), np.log(self.sigmas), np.arange(len(self.sigmas)))
        below = int(min(position, len(self.sigmas) - 2)) if len(self.sigmas) > 1 else 0
        share = position - below
        row = (1 - share) * table[below] + share * table[min(below + 1, len(table) - 1)]
        row = row + 2 * min(0.0, math.log(sigma / self.sigmas[0]))
        frequency = np.log(_frequency(height, width).clip(self.frequencies[0]))
        rows = [np.interp(frequency, np.log(self.frequencies), channel) for channel in row]
        return torch.from_numpy(np.exp(np.stack(rows)).astype(np.float32))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, four digits."""

        def short(values: Any) -> Any:
            return [short(v) for v in values] if isinstance(values, Sequence) else float(f"{values:.4g}")

        return {
            "sigmas": short(self.sigmas),
            "frequencies": short(self.frequencies),
            "variances": short(self.variances),
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ErrorSpectrum:
        """What :meth:`to_dict` wrote.

        Raises
        ------
        ValueError : shapes that do not go together, or values that are not positive.
        """
        sigmas, frequencies = (tuple(map(float, fields[name])) for name in ("sigmas", "frequencies"))
        table = np.asarray(fields["variances"], dtype=float)
        if table.ndim != 3 or table.shape[::2] != (len(sigmas), len(frequencies)) or not len(sigmas):
            raise ValueError(
                f"variances of shape {table.shape} for {len(sigmas)} levels, {len(frequencies)} frequencies"
            )
        for name, values in (("sigmas", sigmas), ("frequencies", frequencies)):
            if not (np.min(values) > 0 and np.all(np.diff(values) > 0)):
                raise ValueError(f"{name} that are not rising from above 0")
        if not (np.isfinite(table).all() and (table > 0).all()):
            raise ValueError("variances that are not positive")
        return cls(sigmas, frequencies, tuple(tuple(tuple(map(float, c)) for c in level) for level in table))


def _frequency(height: int, width: int) -> npt.NDArray[np.float64]:
    """(H, W): cycles per pixel of every coefficient."""
    return np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width)[None] / (2 * width))


def channel_mix(channels: int, *, rgb: bool) -> Tensor:
    """U (C, C): :data:`OPPONENT` for RGB, else the channels as they are."""
    if not rgb or channels != len(OPPONENT):
        return torch.eye(channels)
    rows = torch.tensor(OPPONENT)
    return rows / rows.norm(dim=1, keepdim=True)


class StationaryCovariance(ErrorCovariance):
    """The covariance of an :class:`ErrorSpectrum`.

    Parameters
    ----------
    spectrum : of the denoiser's error.
    mix : U, see :func:`channel_mix`.
    """

    def __init__(self, spectrum: ErrorSpectrum, mix: Tensor) -> None:
        super().__init__(lambda sigma: float(spectrum.at(sigma, 64, 64).mean()))
        self.spectrum, self.mix = spectrum, mix
        self._spectrum_at = lru_cache(maxsize=2)(spectrum.at)

    def times(self, v: Tensor, sigma: Sigma) -> Tensor:
        return self._scaled(v, sigma, lambda variance: variance)

    def root_times(self, v: Tensor, sigma: Sigma) -> Tensor:
        return self._scaled(v, sigma, torch.sqrt)

    def _scaled(self, v: Tensor, sigma: Sigma, function: Callable[[Tensor], Tensor]) -> Tensor:
        levels = per_image(sigma, v).flatten().tolist()
        variances = [
            self._spectrum_at(level, *v.shape[-2:]) for level in (levels[:1] if len(set(levels)) == 1 else levels)
        ]
        scale = function(torch.stack(variances)).to(v)
        mix = self.mix.to(v)
        return _mixed(mix.T, idct2(scale * dct2(_mixed(mix, v))))


def _mixed(mix: Tensor, x: Tensor) -> Tensor:
    return x if len(mix) == 1 else torch.einsum("ij,bjhw->bihw", mix, x)


@torch.no_grad()
def measure_error_spectrum(
    denoise: Callable[[Tensor, Tensor], Tensor],
    pictures: Tensor,
    sigmas: Sequence[float],
    mix: Tensor,
    *,
    seed: int = 0,
    batch: int = 4,
    frequencies: Sequence[float] = FREQUENCIES,
) -> ErrorSpectrum:
    """The spectrum of ``D(x) - x0`` over clean pictures.

    Parameters
    ----------
    denoise : D(x, sigma) for x (B, C, H, W) and sigma (B,).
    pictures : (N, C, H, W), on the denoiser's device; the larger, the slower the waves that are measured.
    sigmas : rising noise levels.
    mix : U, see :func:`channel_mix`.
    seed : of the noise; level k draws from (seed, k).
    """
    height, width = pictures.shape[-2:]
    centres = np.asarray(frequencies)
    edges = np.sqrt(centres[1:] * centres[:-1])
    band = torch.from_numpy(np.digitize(_frequency(height, width).clip(centres[0]), edges)).flatten()
    sizes = torch.bincount(band, minlength=len(centres)).double()
    mix = mix.to(pictures)
    rows = []
    for number, sigma in enumerate(sigmas):
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        power = torch.zeros(pictures.shape[1:])
        for first in range(0, len(pictures), batch):
            clean = pictures[first : first + batch]
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            error = denoise(clean + sigma * noise, clean.new_full((len(clean),), sigma)) - clean
            power += dct2(_mixed(mix, error)).square().sum(dim=0).cpu()
        sums = [torch.bincount(band, weights=plane.flatten().double(), minlength=len(centres)) for plane in power]
        rows.append([_filled(centres, (total / len(pictures)).numpy(), sizes.numpy()) for total in sums])
    return ErrorSpectrum(tuple(map(float, sigmas)), tuple(map(float, centres)), tuple(tuple(row) for row in rows))


def _filled(centres: Any, sums: Any, sizes: Any) -> tuple[float, ...]:
    """Means of the bands; those slower than the pictures are wide take their neighbour's."""
    there = sizes > 0
    means = np.log(sums[there] / sizes[there])
    return tuple(float(v) for v in np.exp(np.interp(np.log(centres), np.log(centres[there]), means)))
