"""Noise ladders and per-image noise."""

from __future__ import annotations

import math

import pytest
import torch

from invsolve.errors import UsageError
from invsolve.samplers.noise import SeededNoise
from invsolve.samplers.sigmas import geometric, karras, ncsnv2_levels, ncsnv2_step


@pytest.mark.parametrize("ladder", [karras, geometric])
def test_ladders_fall_from_max_to_min_then_zero(ladder) -> None:  # type: ignore[no-untyped-def]
    sigmas = ladder(20, 0.01, 3.0)
    assert sigmas.shape == (21,)
    assert float(sigmas[0]) == pytest.approx(3.0)
    assert float(sigmas[-2]) == pytest.approx(0.01)
    assert float(sigmas[-1]) == 0
    assert bool((sigmas[1:] < sigmas[:-1]).all())


def test_karras_matches_equation_5() -> None:
    sigmas = karras(5, 0.002, 80.0, rho=7.0)
    expected = [(80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(5)]
    assert sigmas[:-1].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("bad", [(0, 0.1, 1.0), (5, -1.0, 1.0), (5, 2.0, 1.0), (5, 0.1, math.inf)])
def test_impossible_ladders_are_refused(bad: tuple[int, float, float]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        karras(*bad)


def test_ncsnv2_rules_match_the_papers_cifar10_setting() -> None:
    """Sigma 50 -> 0.01 on 32 x 32 x 3, T = 5: the paper takes 232 levels and epsilon = 6.2e-6."""
    assert ncsnv2_step(geometric(232, 0.01, 50.0), 5) == pytest.approx(6.2e-6, rel=0.03)
    # The equation itself gives 220 levels; the authors took a slightly finer ladder.
    assert ncsnv2_levels(3 * 32 * 32, 0.01, 50.0) == pytest.approx(232, rel=0.06)


@pytest.mark.parametrize(
    ("dimension", "sigma_min", "sigma_max", "levels"),
    [
        (3072, 0.01, 50.0, 220),
        (2, 0.1, 10.0, 3),
        (48, 0.005, 5.0, 20),
        (100_000, 0.01, 100.0, 1370),
        (12, 1.0, 1.01, 2),
    ],
)
def test_ncsnv2_levels_are_those_recorded(dimension: int, sigma_min: float, sigma_max: float, levels: int) -> None:
    assert ncsnv2_levels(dimension, sigma_min, sigma_max) == levels


@pytest.mark.parametrize(
    ("levels", "sigma_min", "sigma_max", "langevin_steps", "step"),
    [
        (232, 0.01, 50.0, 5, 6.1844e-06),
        (50, 0.01, 5.0, 3, 1.80302e-05),
        (6, 0.02, 1.0, 3, 1.89566e-04),
        (2, 0.01, 10.0, 1, 9.9931e-05),
        (500, 0.001, 300.0, 10, 3.99393e-08),
        (10, 0.5, 1.0, 5, 0.0273174),
        (3, 0.01, 100.0, 5, 7.15814e-05),
        (1, 0.3, 0.3, 4, 0.01125),
    ],
)
def test_ncsnv2_steps_are_those_recorded(
    levels: int, sigma_min: float, sigma_max: float, langevin_steps: int, step: float
) -> None:
    """From a search of 20 000 steps, .07 % apart."""
    assert ncsnv2_step(geometric(levels, sigma_min, sigma_max), langevin_steps) == pytest.approx(step, rel=1e-3)


def test_ncsnv2_step_is_the_best_of_its_neighbours() -> None:
    sigmas = geometric(50, 0.01, 5.0)
    best, ratio = ncsnv2_step(sigmas, 3) / 0.01**2, float(sigmas[0] / sigmas[1])

    def end_variance(b: float) -> float:  # simulate T steps of x <- (1 - b) x + sqrt(2 b) z from variance ratio^2
        variance = ratio**2
        for _ in range(3):
            variance = (1 - b) ** 2 * variance + 2 * b
        return variance

    assert abs(end_variance(best) - 1) < abs(end_variance(0.9 * best) - 1)
    assert abs(end_variance(best) - 1) < abs(end_variance(1.1 * best) - 1)


def test_noise_belongs_to_the_image_not_the_batch() -> None:
    together = SeededNoise([3, 4, (5, 1)])
    x = torch.zeros(3, 2, 4, 4)
    first, second = together(x), together(x)
    alone = SeededNoise([4])
    assert torch.equal(alone(x[:1])[0], first[1])
    assert torch.equal(alone(x[:1])[0], second[1])
    assert not torch.equal(first[0], first[1])
    with pytest.raises(ValueError, match="3 seeds"):
        together(x[:2])


def test_neighbouring_seeds_are_uncorrelated() -> None:
    x = torch.zeros(2, 1, 100, 100)
    a, b = SeededNoise([0, 1])(x)
    assert abs(float((a * b).mean())) < 0.05
    assert float(a.std()) == pytest.approx(1, abs=0.03)
