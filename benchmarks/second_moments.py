"""A prior held against the Gaussian that has the data's own mean and covariance, in the words of ``invsolve verify``.

Two things are known of any exact prior, whatever its pictures are. What it draws has the data's mean and covariance. And its
denoiser D(x), the mean of x0 given x = x0 + sigma z, leaves an error x0 - D(x) of mean zero that is uncorrelated with x
(the orthogonality principle): the best linear fit to D is the Wiener filter of the data's second moments, the denoiser of that Gaussian.
Along an eigenvector of the covariance with variance v, that Gaussian's posterior has variance v sigma^2 / (v + sigma^2). So

- bias of the mean: rms over the directions of |mean of D - x0| in that posterior's standard deviations;
- bias of the fit: the same of Cov(D - x0, x) / sd(x), how far the best linear fit to D is off where x is one standard deviation
  from its mean. Both are zero of an exact denoiser, but for the finite number of pictures: about 1 / sqrt(N), the floor.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.models.score_model import ScoreModel


class GaussianFit(NamedTuple):
    """The data's mean (d,), the directions (d, k) in which they vary most, and their variances (k,) along those."""

    mean: Tensor
    directions: Tensor
    variances: Tensor

    def along(self, x: Tensor) -> Tensor:
        """Pictures (N, C, H, W) without the mean, by direction (N, k)."""
        return (x.flatten(1).double() - self.mean) @ self.directions


def gaussian_fit(pictures: Tensor, count: int) -> GaussianFit:
    """Of pictures (N, C, H, W), in the ``count`` directions of largest variance."""
    rows = pictures.flatten(1).double()
    mean = rows.mean(dim=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, values, directions = torch.svd_lowrank(rows - mean, q=min(count + 8, *rows.shape), niter=4)
    return GaussianFit(mean, directions[:, :count], (values[:count] ** 2) / (len(rows) - 1))


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def drawn_bias(drawn: Tensor, fit: GaussianFit) -> dict[str, float]:
    """Bias of the mean in standard deviations, and rms of the standard deviations over the data's; ``drawn`` (N, C, H, W)."""
    found = fit.along(drawn)
    ratio = (found.var(dim=0) / fit.variances).mean().sqrt()
    return {
        "bias": rms(found.mean(dim=0) / fit.variances.sqrt()),
        "std_ratio": float(ratio),
        "floor": len(found) ** -0.5,
    }


@torch.no_grad()
def denoiser_bias(
    prior: ScoreModel, pictures: Tensor, fit: GaussianFit, sigma: float, batch: int = 16
) -> dict[str, float]:
    """Both biases of a denoiser, on ``pictures`` (N, C, H, W) that it was not trained on, and their floor."""
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(round(1000 * sigma)))
    x = pictures + sigma * noise
    denoised = torch.cat([prior.denoise(part, sigma) for part in x.split(batch)])
    error, seen = fit.along(denoised) - fit.along(pictures), fit.along(x)
    spread = (fit.variances + sigma**2).sqrt()
    posterior = fit.variances.sqrt() * sigma / spread
    linear = (error * (seen - seen.mean(dim=0))).mean(dim=0) / spread
    return {
        "mean": rms(error.mean(dim=0) / posterior),
        "fit": rms(linear / posterior),
        "floor": 1 / math.sqrt(len(pictures)),
    }
