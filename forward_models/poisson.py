"""Photon counts: Poisson noise, alone or under the Gaussian noise of reading the detector out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.diagonal import Diagonal
from invsolve.forward_models.forward_model import ForwardModel, GaussianNoise
from invsolve.forward_models.operator import LinearOperator

DARK = 1e-6
"""The least expected count, as far as likelihoods go: a clean value below it, which no light has, is as unlikely."""

SUMMED = 4.0
"""Standard deviations, in counts, up to which a widened likelihood is summed count by count; beyond it is a Gaussian."""


@dataclass(frozen=True)
class PoissonNoise:
    """y ~ Poisson(gain * clean), in counts.

    The widened gradient is ``gain (y - m) / (m + (gain spread)^2)`` with m = gain * clean: the Gaussian's of the same variance.

    Parameters
    ----------
    gain : expected count for a clean value of 1, positive.
    """

    gain: float

    def __post_init__(self) -> None:
        _check("gain", self.gain)

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        mean = _expected(self.gain, clean)
        return (y * mean.log() - mean - torch.lgamma(y + 1)).flatten(1).sum(dim=1)

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        mean = _expected(self.gain, clean)
        return self.gain * (y - mean) / (mean + (self.gain * spread) ** 2)

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return _counts(self.gain, clean, generator)

    def quadratic(self, operator: LinearOperator, y: Tensor) -> tuple[ForwardModel, Tensor]:
        """The weighted quadratic of one image's counts (1, ...): :meth:`PoissonGaussianNoise.quadratic` with sigma 0."""
        return _quadratic(self.gain, 0.0, operator, y)


@dataclass(frozen=True)
class PoissonGaussianNoise:
    """y = k + sigma n with k ~ Poisson(gain * clean) and n standard normal, in counts (Snyder, Hammoud & White 1993).

    ``p(y) = sum_k Poisson(k; gain clean) N(y; k, sigma^2)`` is summed over the counts that matter: exact to rounding. The
    widened gradient takes ``sigma^2 + (gain spread)^2`` for sigma^2 up to a spread of 4 counts, and from there on the Gaussian's
    of the same mean and variance. Time and memory grow with sigma: some 14 sigma + 70 numbers for each value.

    Parameters
    ----------
    gain : expected count for a clean value of 1, positive.
    sigma : standard deviation of the read-out noise in counts, positive (:class:`PoissonNoise` has none).
    """

    gain: float
    sigma: float

    def __post_init__(self) -> None:
        _check("gain", self.gain)
        _check("sigma", self.sigma)

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        _, terms = self._terms(_expected(self.gain, clean.double()), y.double(), self.sigma**2)
        return terms.logsumexp(dim=0).flatten(1).sum(dim=1).to(clean)

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        mean, values = _expected(self.gain, clean.double()), y.double()
        widened = (self.gain * torch.as_tensor(spread, dtype=torch.float64, device=y.device)) ** 2
        k, terms = self._terms(mean, values, self.sigma**2 + widened.clamp(max=SUMMED**2))
        summed = (torch.softmax(terms, dim=0) * k).sum(dim=0) / mean - 1  # of log Poisson(k; mean) by the mean
        gaussian = (values - mean) / (mean + self.sigma**2 + widened)
        return (self.gain * torch.where(widened > SUMMED**2, gaussian, summed)).to(clean)

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        counts = _counts(self.gain, clean, generator)
        return counts + self.sigma * torch.randn(clean.shape, generator=generator, dtype=clean.dtype).to(clean)

    def quadratic(self, operator: LinearOperator, y: Tensor) -> tuple[ForwardModel, Tensor]:
        """The weighted quadratic of one image's values (1, ...): y / gain with the variance ``(max(y, 1) + sigma^2) / gain^2``.

        The measured count stands for the expected one (Foi et al. 2008 estimate the same variance, affine in the signal); good
        from some 10 counts on.

        Returns
        -------
        (ForwardModel, Tensor) : ``Diagonal(w) @ operator`` with Gaussian noise of standard deviation 1, and w y / gain.
        """
        return _quadratic(self.gain, self.sigma, operator, y)

    def _terms(self, mean: Tensor, y: Tensor, variance: float | Tensor) -> tuple[Tensor, Tensor]:
        """Counts k about the most likely ones, and log Poisson(k; mean) N(y; k, variance) of each, (terms, B, ...)."""
        variance = torch.as_tensor(variance, dtype=mean.dtype, device=mean.device)
        half = math.ceil(7 * float((mean * variance / (mean + variance)).detach().max().sqrt()) + 6)
        middle = ((y + variance) * mean / (mean + variance)).detach().round().clamp(min=half)
        k = middle + torch.arange(-half, half + 1, dtype=mean.dtype, device=mean.device).reshape(-1, *(1,) * y.ndim)
        poisson = k * mean.log() - mean - torch.lgamma(k + 1)
        gaussian = -0.5 * (y - k).square() / variance - 0.5 * (2 * math.pi * variance).log()
        return k, poisson + gaussian


def _expected(gain: float, clean: Tensor) -> Tensor:
    return (gain * clean).clamp(min=DARK)


def _counts(gain: float, clean: Tensor, generator: torch.Generator) -> Tensor:
    """Exact Poisson draws, shaped as ``clean``."""
    return torch.poisson((gain * clean.double()).clamp(min=0).cpu(), generator=generator).to(clean)


def _quadratic(gain: float, sigma: float, operator: LinearOperator, y: Tensor) -> tuple[ForwardModel, Tensor]:
    weight = gain / (y.clamp(min=1) + sigma**2).sqrt()
    return ForwardModel(Diagonal(weight[0]) @ operator, GaussianNoise(1.0)), weight * y / gain


def _check(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} = {value}", hint="wanted a positive number")
