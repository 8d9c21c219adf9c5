"""What every noise must obey, each law with how far off it is: that the gradient is the gradient, and the simulation the density.

As :mod:`invsolve.verification.laws` for operators. Clean values lie between 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from invsolve.forward_models import NoiseModel
from invsolve.verification.laws import Finding, held

DRAWS = 20_000
"""Simulated values of a noise."""


def noise_shapes(noise: NoiseModel) -> Finding:
    """One log-likelihood for each image, a gradient and a measurement shaped as the clean one, in its floating type."""
    wrong = 0
    for dtype in (torch.float32, torch.float64):
        clean = _clean(12, dtype).reshape(3, 2, 2)
        y = noise.simulate(clean, torch.Generator().manual_seed(0))
        wrong += y.shape != clean.shape or y.dtype != dtype
        wrong += tuple(noise.log_likelihood(clean, y).shape) != (3,)
        gradient = noise.log_likelihood_gradient(clean, y)
        wrong += gradient.shape != clean.shape or gradient.dtype != dtype
        wide = noise.log_likelihood_gradient(clean, y, spread=torch.full((3, 1, 1), 0.3, dtype=dtype))
        wrong += wide.shape != clean.shape
    return Finding("shapes", float(wrong), 0.0, "results of another shape or floating type")


def noise_repeats(noise: NoiseModel) -> Finding:
    """One seed gives one measurement: all randomness comes from the generator."""
    clean = _clean(200)
    first, second = (noise.simulate(clean, torch.Generator().manual_seed(3)) for _ in range(2))
    return Finding("repeats", float((first != second).sum()), 0.0, "values that differ for one seed")


def noise_gradient(noise: NoiseModel, tolerance: float = 1e-4) -> Finding:
    """The gradient is that of the log-likelihood, by central differences, at 300 simulated values.

    Points next to a jump of the likelihood are left out.
    """
    clean = _clean(300)
    y = noise.simulate(clean, torch.Generator().manual_seed(1))
    h = 1e-5
    up, here, down = (noise.log_likelihood(clean + step, y) for step in (h, 0.0, -h))
    beside = [torch.isfinite(noise.log_likelihood(clean + step, y)) for step in (-0.005, 0.005)]
    smooth = beside[0] & beside[1]
    smooth &= (
        torch.isfinite(up) & torch.isfinite(down) & ((up - 2 * here + down).abs() < 1e-3 * (1 + (up - down).abs()))
    )
    expected = (up - down)[smooth] / (2 * h)
    found = noise.log_likelihood_gradient(clean, y).flatten()[smooth].to(expected)
    if len(expected) < len(clean) // 2:
        return Finding("gradient", math.inf, tolerance, "no more than half of the simulated values have a likelihood")
    size = max(float(expected.abs().max()), 1e-3)
    return Finding(
        "gradient",
        float((found - expected).abs().max()) / size,
        tolerance,
        "against finite differences, over the largest",
    )


def noise_simulation(noise: NoiseModel) -> Finding:
    """``simulate`` draws from the density of ``log_likelihood``, as far as its dependence on the clean value goes.

    For y drawn at c, the mean of p(y | c') / p(y | c) is 1 for every c' (the densities are those of probabilities). The error is
    the distance from 1 in standard errors of 20 000 draws, the largest of several c and c'. Where c' does not reach all y
    of c, the mean may be less than 1.
    """
    worst = 0.0
    for number, c in enumerate((0.25, 0.5, 0.8)):
        clean = torch.full((DRAWS, 1), c, dtype=torch.float64)
        y = noise.simulate(clean, torch.Generator().manual_seed(10 + number))
        at = noise.log_likelihood(clean, y)
        slope = noise.log_likelihood_gradient(clean, y).double()
        spread = float(slope.square().mean().sqrt())
        step = min(0.4 / spread, 0.2) if spread > 0 and math.isfinite(spread) else 0.02
        for sign in (-1, 1):
            ratio = (noise.log_likelihood(clean + sign * step, y) - at).exp()
            narrower = bool((ratio == 0).any())
            gap = float(ratio.mean() - 1)
            error = max(float(ratio.std()) / math.sqrt(DRAWS), 1e-9)
            worst = max(worst, (gap if narrower else abs(gap)) / error)
            if not math.isfinite(worst):
                break
    return Finding("simulation", worst, 5.0, "mean likelihood ratio from 1, in standard errors")


def noise_widened(noise: NoiseModel) -> Finding:
    """With a spread of 1 the gradient is finite and about as flat as a Gaussian's of that width: slope -4 or more."""
    clean = torch.linspace(-1, 2, 61, dtype=torch.float64).reshape(-1, 1)
    y = noise.simulate(torch.full_like(clean, 0.5), torch.Generator().manual_seed(2))
    h = 1e-3
    up, down = (noise.log_likelihood_gradient(clean + step, y, spread=1.0) for step in (h, -h))
    slope = (up - down) / (2 * h)
    steepest = float((-slope).max()) if bool(torch.isfinite(slope).all()) else math.inf
    return Finding("widened", steepest, 4.0, "steepest fall of the gradient under a spread of 1; a Gaussian's is 1")


NoiseLaw = Callable[[NoiseModel], Finding]

NOISE_LAWS: dict[str, NoiseLaw] = {
    "shapes": noise_shapes,
    "repeats": noise_repeats,
    "gradient": noise_gradient,
    "simulation": noise_simulation,
    "widened": noise_widened,
}


def check_noise(noise: NoiseModel) -> list[Finding]:
    """Every law of noises, on clean values from 0 to 1."""
    return [held(name, law, noise) for name, law in NOISE_LAWS.items()]


def _clean(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Clean values (count, 1) from 0.05 to 0.95, in no order."""
    values = torch.rand(count, 1, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return (0.05 + 0.9 * values).to(dtype)
