"""A noise model against posteriors that are known: one Gaussian pixel, its law by quadrature, against the sampler's draws.

The rule ``annealed`` with Langevin steps takes any noise as it is; what it draws is held against the product of the prior and
the noise's own likelihood, on a grid. So this judges whether likelihood, gradient and widened gradient lead to the posterior.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.forward_models import ForwardModel, Identity, NoiseModel
from invsolve.models.score_model import FunctionPrior
from invsolve.samplers.sigmas import geometric
from invsolve.solver import solve

MEAN, STD = 0.5, 0.2
"""Of the prior of the pixel."""

DRAWS = 2000


class NoiseFigures(NamedTuple):
    """How far the draws are from the posterior."""

    clean: float  # the true value
    y: float  # its measurement
    bias: float  # of the mean, in posterior standard deviations; 1 / sqrt(2000) = 0.02 is chance
    width_ratio: (
        float  # distance of the quantiles at 10 and 90 % over the exact one; a few stragglers in far tails do not count
    )

    @property
    def calibrated(self) -> bool:
        """Bias at most 0.1 and width within 10 %, beyond two standard errors of 2000 draws."""
        return abs(self.bias) <= 0.1 + 2 / DRAWS**0.5 and abs(self.width_ratio - 1) <= 0.1 + 2 / DRAWS**0.5


def judge_noise(noise: NoiseModel, clean: float, seed: int = 0) -> NoiseFigures:
    """Measure a pixel of value ``clean``, sample its posterior and compare.

    Parameters
    ----------
    noise : of measurements of values about 0.5.
    clean : between 0 and 1.
    seed : of the measurement and of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    value = float(noise.simulate(torch.full((1, 1), clean, dtype=torch.float64), generator))
    mean, std, width = exact_posterior(noise, value)
    y = torch.full((1, 1, 1, DRAWS), value, dtype=torch.float64)
    forward_model = ForwardModel(Identity((1, 1, DRAWS)), noise)
    last = 0.02 * STD
    sigmas = torch.cat([geometric(16, 2 * last, 3 * STD)[:-1], torch.tensor([last, 0.0])])
    found = solve(
        pixels(), forward_model, y, rule="annealed", sampler="langevin", sigmas=sigmas.double(), seed=seed,
        start=torch.full((1, 1, 1, DRAWS), MEAN, dtype=torch.float64),
        langevin_steps=60, step_size=0.3 * last**2, consistent=False,
    )  # fmt: skip
    draws = found.samples.flatten().double()
    low, high = torch.quantile(draws, torch.tensor([0.1, 0.9], dtype=draws.dtype))
    return NoiseFigures(clean, value, float(draws.mean() - mean) / std, float(high - low) / width)


def exact_posterior(noise: NoiseModel, value: float, points: int = 20_001) -> tuple[float, float, float]:
    """Mean, standard deviation and distance of the quantiles at 10 and 90 % of the pixel given its measurement.

    On a grid of six prior standard deviations each way.
    """
    grid = torch.linspace(MEAN - 6 * STD, MEAN + 6 * STD, points, dtype=torch.float64)
    log_likelihood = noise.log_likelihood(grid.reshape(-1, 1), torch.full((points, 1), value, dtype=torch.float64))
    weights = torch.softmax(log_likelihood - 0.5 * ((grid - MEAN) / STD) ** 2, dim=0)
    mean = weights @ grid
    below = torch.cumsum(weights, dim=0)
    low, high = (grid[int((below < share).sum())] for share in (0.1, 0.9))
    return float(mean), float((weights @ (grid - mean) ** 2).sqrt()), float(high - low)


def pixels() -> FunctionPrior:
    """Independent Gaussian pixels: every pixel of a picture is a draw of one problem."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        s = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1)
        return MEAN + STD**2 / (STD**2 + s**2) * (x - MEAN)

    return FunctionPrior(denoise, channels=1, sigma_min=1e-3, sigma_max=10.0, sigma_data=STD)
