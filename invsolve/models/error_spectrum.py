"""How a denoiser errs: what was measured of its errors at every noise level, and the covariance that follows.

Of ``x = x0 + sigma z`` a denoiser makes D(x), and x0 - D(x) is far from white noise. Slow waves drown in the noise and are off by
all of it; fine detail is mostly not there to be missed. And it errs where things are: at edges and in texture, little in
what is flat. Both are measured on pictures with known truth, and the error is taken as Gaussian with

    Cov(x0 | x) = S U' T' diag(v(sigma, channel, frequency)) T U S,        S = diag(s(sigma, activity of D at the pixel)),

T the two-dimensional cosine transform, U an orthonormal mix of the colour channels (brightness and two colour differences,
nearly uncorrelated in pictures), s the rms error where D is as active as there, and v the power spectrum of the error over s.
For a linear denoiser of a stationary Gaussian s is constant and s^2 v is Wiener's ``1 / (1 / P + 1 / sigma^2)``. A network
sees edges where a spectrum sees none: it errs less, and elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.models.dct import dct2, idct2
from invsolve.models.score_model import ErrorCovariance, Sigma, per_image

FREQUENCIES = tuple(float(f) for f in np.geomspace(1 / 256, 2**-0.5, 14).round(5))
"""Cycles per pixel of the measured bands' centres, up to the corner of the transform's square."""

BINS = 10
"""Of activity, with equally many pixels each."""

WINDOW = 5
"""Side of the box, applied twice, over which activity is averaged."""

LEAST_ACTIVITY = 1e-12

OPPONENT = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
"""Rows of U for RGB, before normalisation: brightness, red against blue, green against both."""


@dataclass(frozen=True)
class ErrorSpectrum:
    """What was measured. Everything between is interpolated, all quantities as logarithms.

    Parameters
    ----------
    sigmas : L noise levels, rising.
    frequencies : K frequencies, rising, in cycles per pixel.
    variances : (L, C, K), v above, of channels mixed by U.
    activities : (L, M), rising: see :func:`activity`, in squared units of x.
    errors : (L, M), s^2 above, the mean squared error where D has that activity.
    """

    sigmas: Sequence[float]
    frequencies: Sequence[float]
    variances: Sequence[Sequence[Sequence[float]]]
    activities: Sequence[Sequence[float]]
    errors: Sequence[Sequence[float]]

    def between(self, sigma: float) -> tuple[int, int, float]:
        """Numbers of the neighbouring levels, and the share of the second."""
        last = len(self.sigmas) - 1
        position = float(np.interp(math.log(sigma), np.log(self.sigmas), np.arange(last + 1)))
        below = min(int(position), last)
        return below, min(below + 1, last), position - below

    def spectrum(self, sigma: float, height: int, width: int) -> Tensor:
        """v, (C, H, W) float32."""
        below, above, share = self.between(sigma)
        table = np.log(np.asarray(self.variances))
        row = (1 - share) * table[below] + share * table[above]
        frequency = np.log(_frequency(height, width).clip(self.frequencies[0]))
        planes = [np.interp(frequency, np.log(self.frequencies), channel) for channel in row]
        return torch.from_numpy(np.exp(np.stack(planes)).astype(np.float32))

    def scale(self, sigma: float, active: Tensor) -> Tensor:
        """s at pixels of the logarithmic activity ``active``.

        Below the first level it falls with sigma, as there all is noise; above the last it stays, as there nothing is known.
        """
        below, above, share = self.between(sigma)

        def at(level: int) -> Tensor:
            centres, errors = (active.new_tensor(np.log(table[level])) for table in (self.activities, self.errors))
            return 0.5 * _interpolate(active, centres, errors)

        found = at(below) if share == 0 else torch.lerp(at(below), at(above), share)
        return (found + min(0.0, math.log(sigma / self.sigmas[0]))).exp()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, four digits."""

        def short(values: Any) -> Any:
            return [short(v) for v in values] if isinstance(values, Sequence) else float(f"{values:.4g}")

        return {name: short(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ErrorSpectrum:
        """What :meth:`to_dict` wrote.

        Raises
        ------
        ValueError : shapes that do not go together, or values that are not positive or do not rise where they should.
        """
        tables = {name: np.asarray(fields[name], dtype=float) for name in cls.__dataclass_fields__}
        levels, frequencies = len(tables["sigmas"]), len(tables["frequencies"])
        shapes = {
            "sigmas": (levels,), "frequencies": (frequencies,), "variances": (levels, -1, frequencies),
            "activities": (levels, -1), "errors": (levels, *tables["activities"].shape[1:]),
        }  # fmt: skip
        for name, table in tables.items():
            wanted = shapes[name]
            if (
                table.size == 0
                or table.ndim != len(wanted)
                or not all(b in (-1, a) for a, b in zip(table.shape, wanted, strict=True))
            ):
                raise ValueError(f"{name} of shape {table.shape}, wanted {wanted}")
            if not (np.isfinite(table).all() and (table > 0).all()):
                raise ValueError(f"{name} that are not positive")
            if name in ("sigmas", "frequencies", "activities") and not (np.diff(table) > 0).all():
                raise ValueError(f"{name} that do not rise")
        return cls(**{name: table.tolist() for name, table in tables.items()})


def activity(x0: Tensor) -> Tensor:
    """log of the mean squared brightness step between neighbouring pixels around each pixel, (B, 1, H, W)."""
    grey = x0.mean(dim=1, keepdim=True)
    down = F.pad(grey.diff(dim=-2), (0, 0, 0, 1), mode="replicate") if grey.shape[-2] > 1 else torch.zeros_like(grey)
    right = F.pad(grey.diff(dim=-1), (0, 1, 0, 0), mode="replicate") if grey.shape[-1] > 1 else torch.zeros_like(grey)
    return _box(_box(down.square() + right.square())).clamp(min=LEAST_ACTIVITY).log()


def _box(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (WINDOW // 2,) * 4, mode="replicate"), WINDOW, stride=1)


def _interpolate(x: Tensor, centres: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear, constant beyond the ends."""
    if len(centres) == 1:
        return values.expand(x.shape)
    right = torch.bucketize(x.contiguous(), centres).clamp(1, len(centres) - 1)
    share = ((x - centres[right - 1]) / (centres[right] - centres[right - 1])).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], share)


def _frequency(height: int, width: int) -> npt.NDArray[np.float64]:
    """(H, W): cycles per pixel of every coefficient."""
    return np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width)[None] / (2 * width))


def channel_mix(channels: int, *, rgb: bool) -> Tensor:
    """U (C, C): :data:`OPPONENT` for RGB, else the channels as they are."""
    if not rgb or channels != len(OPPONENT):
        return torch.eye(channels)
    rows = torch.tensor(OPPONENT)
    return rows / rows.norm(dim=1, keepdim=True)


class SpectralCovariance(ErrorCovariance):
    """The covariance that an :class:`ErrorSpectrum` gives around ``x0``.

    Parameters
    ----------
    spectrum : of the denoiser's error.
    mix : U, see :func:`channel_mix`.
    x0 : (B, C, H, W), what the denoiser made of x.
    sigma : noise level of x.
    """

    def __init__(self, spectrum: ErrorSpectrum, mix: Tensor, x0: Tensor, sigma: Sigma) -> None:
        levels = per_image(sigma, x0).flatten().tolist()
        if len(set(levels)) == 1:
            levels = levels[:1]
        super().__init__(torch.stack([spectrum.spectrum(level, *x0.shape[-2:]) for level in levels]).to(x0))
        active = activity(x0)
        parts = active.split(len(x0) // len(levels))
        self.scale = torch.cat([spectrum.scale(level, part) for level, part in zip(levels, parts, strict=True)])
        self.mix = mix.to(x0)

    def times(self, v: Tensor) -> Tensor:
        return self.scale * self._filtered(self.scale * v, self.variance)

    def root_times(self, v: Tensor) -> Tensor:
        return self.scale * self._filtered(v, self.variance.sqrt())

    def _filtered(self, v: Tensor, transfer: Tensor) -> Tensor:
        return _mixed(self.mix.T, idct2(transfer * dct2(_mixed(self.mix, v))))


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
    """The spectrum of ``x0 - D(x)`` over clean pictures.

    Parameters
    ----------
    denoise : D(x, sigma) for x (B, C, H, W) and sigma (B,).
    pictures : (N, C, H, W), on the denoiser's device; the larger, the slower the waves that are measured.
    sigmas : rising noise levels.
    mix : U, see :func:`channel_mix`.
    seed : of the noise; level k draws from (seed, k).
    """
    centres = np.asarray(frequencies)
    mix = mix.to(pictures)
    variances, activities, errors = [], [], []
    for number, sigma in enumerate(sigmas):
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        denoised = []
        for clean in pictures.split(batch):
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            denoised.append(denoise(clean + sigma * noise, clean.new_full((len(clean),), sigma)))
        estimate = torch.cat(denoised)
        error = pictures - estimate
        active = activity(estimate)
        centre, squared = _by_activity(active, error.square().mean(dim=1, keepdim=True))
        scale = (0.5 * _interpolate(active, centre.log().to(active), squared.log().to(active))).exp()
        power = dct2(_mixed(mix, error / scale)).square().mean(dim=0).cpu().numpy()
        variances.append([_by_frequency(plane, centres) for plane in power])
        activities.append(centre.tolist())
        errors.append(squared.tolist())
    return ErrorSpectrum(list(map(float, sigmas)), centres.tolist(), variances, activities, errors)


def _by_activity(active: Tensor, squared: Tensor) -> tuple[Tensor, Tensor]:
    """Centres, rising, and mean squared errors of the bins of activity."""
    order = active.flatten().argsort()
    bins = [(active.flatten()[part].mean().exp(), squared.flatten()[part].mean()) for part in order.chunk(BINS)]
    centres, means = (torch.stack(part).double() for part in zip(*bins, strict=True))
    apart = torch.cat([torch.tensor([True]), centres.cpu().diff() > 1e-3 * centres.cpu()[1:]])
    floor = means.max() * 1e-8  # a picture that is black all over
    return centres[apart.to(centres.device)], means[apart.to(means.device)].clamp(min=floor)


def _by_frequency(power: Any, centres: Any) -> list[float]:
    """Means of the bands of (H, W); those slower than the pictures are wide take their neighbour's."""
    edges = np.sqrt(centres[1:] * centres[:-1])
    band = np.digitize(_frequency(*power.shape).clip(centres[0]), edges).ravel()
    sizes, sums = np.bincount(band, minlength=len(centres)), np.bincount(band, power.ravel(), len(centres))
    there = sizes > 0
    means = np.interp(np.log(centres), np.log(centres[there]), np.log(sums[there] / sizes[there]))
    return [float(value) for value in np.exp(means)]
