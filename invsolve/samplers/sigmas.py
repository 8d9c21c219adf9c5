"""Noise ladders: functions that return a falling 1-D tensor (float64) ending in 0."""

from __future__ import annotations

import itertools
import math

import torch
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.options import SCHEDULES

WIDEST_RATIO = 12.0
"""Of neighbouring levels, in :func:`ncsnv2_levels`."""


def _check(steps: int, sigma_min: float, sigma_max: float) -> None:
    if steps < 1:
        raise UsageError(f"{steps} steps", hint="wanted at least 1")
    if not 0 < sigma_min <= sigma_max < math.inf:
        raise UsageError(f"sigma_min {sigma_min}, sigma_max {sigma_max}", hint="wanted 0 < sigma_min <= sigma_max")


def karras(steps: int, sigma_min: float = 0.005, sigma_max: float = 1.0, rho: float = 7.0) -> Tensor:
    """``steps`` levels spaced as sigma^(1/rho), then 0 (Karras et al. 2022, eq. 5).

    >>> karras(3, 0.01, 1.0).shape
    torch.Size([4])
    """
    _check(steps, sigma_min, sigma_max)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def geometric(steps: int, sigma_min: float = 0.01, sigma_max: float = 1.0) -> Tensor:
    """``steps`` levels in geometric progression, then 0 (NCSN; Song & Ermon 2019, section 4)."""
    _check(steps, sigma_min, sigma_max)
    levels = torch.logspace(math.log10(sigma_max), math.log10(sigma_min), steps, dtype=torch.float64)
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def ncsnv2_levels(dimension: int, sigma_min: float, sigma_max: float) -> int:
    """Number of geometric levels that NCSNv2's Technique 2 asks for (Song & Ermon 2020).

    The ratio g = sigma_{i-1} / sigma_i solves ``Phi(sqrt(2 D) (g - 1) + 3 g) - Phi(sqrt(2 D) (g - 1) - 3 g) = 0.5``,
    so that neighbouring levels overlap; ``dimension`` D is the number of values in x.
    """
    _check(1, sigma_min, sigma_max)

    def overlap(ratio: float) -> float:
        shift = math.sqrt(2 * dimension) * (ratio - 1)
        return 0.5 * (math.erf((shift + 3 * ratio) / math.sqrt(2)) - math.erf((shift - 3 * ratio) / math.sqrt(2)))

    # In a few dimensions neighbouring levels overlap at any ratio; the widest taken is WIDEST_RATIO.
    wide = overlap(WIDEST_RATIO) > 0.5
    ratio = WIDEST_RATIO if wide else brentq(lambda ratio: overlap(ratio) - 0.5, 1.0, WIDEST_RATIO)
    return max(2, 1 + math.ceil(math.log(sigma_max / sigma_min) / math.log(ratio)))


def ncsnv2_step(sigmas: Tensor, langevin_steps: int) -> float:
    """The step size epsilon of NCSNv2's Technique 4 for a ladder ending in 0 and T Langevin steps per level.

    For data at one point it brings the variance of x at each level's end as near to right as T steps can: with ``b = epsilon / sigma_L^2`` and
    ratio g, ``(1 - b)^(2T) (g^2 - 2 b / (1 - (1 - b)^2)) + 2 b / (1 - (1 - b)^2)`` is closest to 1 (Song & Ermon 2020, eq. 7).
    The ladder is taken to be geometric; :func:`ncsnv2_steps` is for any.

    Raises
    ------
    UsageError : no Langevin step at all.
    """
    levels = sigmas[:-1]
    smallest = float(levels[-1])
    check_langevin_steps(langevin_steps)
    if len(levels) < 2:
        return 0.5 * smallest**2 / langevin_steps
    return _best_step(float((levels[0] / smallest) ** (1 / (len(levels) - 1))), langevin_steps) * smallest**2


def ncsnv2_steps(sigmas: Tensor, langevin_steps: int) -> list[float]:
    """Technique 4 for each level by itself, alpha_i / sigma_i^2: on a geometric ladder all are epsilon / sigma_L^2.

    A level takes its ratio to the one before; the first, to the one after.
    """
    levels = [float(s) for s in sigmas[:-1]]
    if len(levels) < 2:
        return [ncsnv2_step(sigmas, langevin_steps) / levels[0] ** 2]
    check_langevin_steps(langevin_steps)
    ratios = [before / after for before, after in itertools.pairwise(levels)]
    return [_best_step(ratio, langevin_steps) for ratio in [ratios[0], *ratios]]


def check_langevin_steps(langevin_steps: int) -> None:
    """Raise a UsageError for no Langevin step at all."""
    if langevin_steps < 1:
        raise UsageError(f"langevin_steps {langevin_steps}", hint="wanted at least 1 at each level")


def _best_step(ratio: float, langevin_steps: int) -> float:
    """b of Technique 4 between levels of ``ratio`` g."""

    def excess_variance(log_b: float) -> float:
        b = math.exp(log_b)
        stationary = 2 / (2 - b)
        return (1 - b) ** (2 * langevin_steps) * (ratio**2 - stationary) + stationary - 1

    # The variance falls from ratio^2 with the step and then rises with its own discretisation error: one minimum.
    found = minimize_scalar(excess_variance, bounds=(math.log(1e-6), 0.0), method="bounded", options={"xatol": 1e-9})
    return math.exp(found.x)


def ladder(schedule: str, steps: int, sigma_min: float, sigma_max: float, dimension: int) -> Tensor:
    """A ladder by name.

    Parameters
    ----------
    schedule : "karras", "geometric" or "ncsnv2": the geometric one with as many levels as Technique 2 asks for.
    steps : number of levels, of the first two.
    sigma_min, sigma_max : last level above 0, and first one.
    dimension : number of values in x, for Technique 2.

    Raises
    ------
    UsageError : unknown schedule, no steps, or levels that are not 0 < sigma_min <= sigma_max.
    """
    if schedule == "karras":
        return karras(steps, sigma_min, sigma_max)
    if schedule == "geometric":
        return geometric(steps, sigma_min, sigma_max)
    if schedule == "ncsnv2":
        return geometric(ncsnv2_levels(dimension, sigma_min, sigma_max), sigma_min, sigma_max)
    raise UsageError(f"unknown schedule {schedule!r}", hint=f"known schedules: {', '.join(SCHEDULES)}")
