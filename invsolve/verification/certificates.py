"""An operator or a noise with the sampler: whether what is drawn is the posterior, where that is known."""

from __future__ import annotations

import math

from invsolve.forward_models import LinearOperator, NoiseModel
from invsolve.verification.judge import verify
from invsolve.verification.laws import DENSE, Finding
from invsolve.verification.noise_judge import DRAWS, judge_noise
from invsolve.verification.problems import gaussian_problem

RULE, SAMPLER, STEPS, SAMPLES = "wiener", "redrawing", 20, 400
"""What ``invsolve solve`` takes for linear operators."""

BIAS, SPREAD = 0.1, 0.1
"""Largest error of the mean in posterior standard deviations, and of the standard deviation as a share, of a calibrated result."""


def small_enough(operator: LinearOperator) -> bool:
    """Whether the posterior of a Gaussian prior is quick to compute: it needs matrices of all values squared."""
    shape = operator.input_shape
    return len(shape) == 3 and math.prod(shape) <= DENSE and operator.device.type == "cpu"


def certify_operator(operator: LinearOperator, seed: int = 0) -> list[Finding]:
    """Draws of rule and sampler against the closed-form posterior of a Gaussian prior, with Gaussian noise.

    The closed form is computed from the forward map alone, so an adjoint that is wrong shows here as well.
    """
    figures = verify(
        gaussian_problem(operator, "custom", seed), rule=RULE, sampler=SAMPLER, steps=STEPS, samples=SAMPLES, seed=seed
    )
    how = f"{RULE} with {SAMPLER}, {STEPS} levels, {SAMPLES} draws"
    return [
        Finding("posterior mean", figures.bias, BIAS + 2 * figures.bias_error, f"bias in posterior deviations, {how}"),
        Finding(
            "posterior spread",
            abs(figures.std_ratio - 1),
            SPREAD + 2 * figures.std_ratio_error,
            f"standard deviation against the exact one, {how}",
        ),
    ]


def certify_noise(noise: NoiseModel, seed: int = 0) -> list[Finding]:
    """Draws of ``annealed`` with ``langevin`` against the posterior of one pixel by quadrature, at two clean values."""
    figures = [judge_noise(noise, clean, seed) for clean in (0.35, 0.65)]
    chance = 2 / math.sqrt(DRAWS)
    bias = max((abs(one.bias) for one in figures), key=_worst)
    spread = max((abs(one.width_ratio - 1) for one in figures), key=_worst)
    how = f"annealed with langevin, {DRAWS} draws"
    return [
        Finding("posterior mean", bias, BIAS + chance, f"bias in posterior deviations, {how}"),
        Finding(
            "posterior spread",
            spread,
            SPREAD + chance,
            f"distance of the 10 and 90 % quantiles against the exact one, {how}",
        ),
    ]


def _worst(value: float) -> float:
    return math.inf if math.isnan(value) else value
