"""Any measurements of one picture: operators and noises as they come, stacked as one likelihood.

This is the task of everything that has no task of its own. The picture is taken in the prior's units, and every measurement
is used as it is: nothing is kept bit for bit, cut to patches or solved coarse to fine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.forward_models import (
    ForwardModel,
    GaussianNoise,
    LinearOperator,
    output_shape,
    quadratic,
    stack_measurements,
)
from invsolve.forward_models.operator import Shape
from invsolve.forward_models.stacked import Measured
from invsolve.models.score_model import ScoreModel
from invsolve.options import AUTO, SolveOptions
from invsolve.posterior import Posterior
from invsolve.rules import Rule, find_rule
from invsolve.rules.conditioned import RELATIVE_FLOOR
from invsolve.solver import chi_squared, measured_values, solve, task_ladder
from invsolve.tasks.restoration import ROUNDING
from invsolve.tasks.task import Progress, Task, in_memory
from invsolve.uncertainty.intervals import determined

SIGMA_END = 0.005

REDRAWN = ("wiener", "merged", "exact")
"""The rules that can draw the clean picture, as the sampler ``redrawing`` asks for."""

MIDDLE = 0.5
"""The value of a picture of which nothing is known."""


@dataclass(frozen=True)
class Measurement:
    """One measurement of the picture.

    Parameters
    ----------
    name : what reports call it.
    model : operator and noise.
    y : (1, ...), on the CPU.
    """

    name: str
    model: ForwardModel
    y: Tensor


class Misfit(NamedTuple):
    """How far the samples are from one measurement."""

    name: str
    rms: float  # of A x - y, in the units of y
    sigma: float | None  # of the noise, where it is Gaussian and there is any
    chi2: float | None  # mean squared misfit per value over sigma^2, ideal 1; None where it has nothing to judge
    values: int  # that say something


class Filtered(LinearOperator):
    """``operator`` with a pseudo-inverse that takes the noise into account, ``(A'A + rho)^-1 A'``.

    With rho the variance of the noise over that of the picture it is the best linear estimate of a white picture, and its share
    of what is determined the degrees of freedom for signal (Rodgers 2000, section 2.4.2): a wave that drowns in the noise is
    not determined, although the operator could be inverted.
    """

    def __init__(self, operator: LinearOperator, rho: float) -> None:
        super().__init__(operator.input_shape, operator.output_shape)
        self.operator, self.rho, self.device = operator, rho, operator.device

    def _apply(self, x: Tensor) -> Tensor:
        return self.operator._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y)

    def _pinv(self, y: Tensor) -> Tensor:
        return self.operator.prox(y.new_zeros(len(y), *self.input_shape), y, self.rho)

    @property
    def informative(self) -> Tensor:
        return self.operator.informative


def measured_task(
    measurements: Sequence[Measurement],
    prior: ScoreModel,
    shape: Shape,
    options: SolveOptions = SolveOptions(rule=AUTO, sampler=AUTO),  # noqa: B008 - frozen
    *,
    start: Tensor | None = None,
) -> Task:
    """The task of finding the picture that was measured.

    Parameters
    ----------
    measurements : one or more, independent of each other given the picture.
    prior : knows pictures of ``shape``.
    shape : (C, H, W) of the picture.
    options : rule and sampler "auto" are those of :func:`settle`; sigma_start None is the prior's largest noise level.
    start : (1, C, H, W), a first guess; default :func:`first_guess`.

    Raises
    ------
    InputError : shapes that do not go together.
    UsageError : a rule that does not take such noise or such an operator.
    """
    _check_shapes(measurements, prior, shape, start)
    options = settle(measurements, options)
    likelihood = stand_ins(measurements, options.rule)
    floor = RELATIVE_FLOOR * prior.sigma_data
    guess = first_guess(measurements, shape, prior.sigma_data) if start is None else start
    seen = _seen(measurements, prior.sigma_data)
    options = replace(options, sigma_start=options.sigma_start or prior.sigma_max)
    return Task(
        name="solve",
        run=partial(_run, measurements, likelihood, guess, floor),
        options=options,
        operator=seen,
        determined=lambda: float("nan") if seen is None else float(determined(seen, probes=2).mean()),
        baselines=lambda: {_guessed(measurements, start): guess[0].permute(1, 2, 0).numpy()},
        work=float(shape[1] * shape[2]),
    )


def settle(measurements: Sequence[Measurement], options: SolveOptions) -> SolveOptions:
    """With a rule and a sampler in the place of "auto".

    Linear operators whose noise is Gaussian, or has a Gaussian stand-in: ``wiener`` with ``renoising`` for one sample and
    ``redrawing`` for several. Maps that are not linear: ``dps`` with ``ancestral``. Other noise: ``annealed`` with ``langevin``.
    """
    gaussian = all(isinstance(one.model.noise, GaussianNoise) for one in measurements)
    rule, sampler = options.rule, options.sampler
    if rule == AUTO:
        filtered = len(_gaussian(measurements)) == len(measurements)
        rule = "wiener" if filtered else "dps" if gaussian else "annealed"
    if sampler == AUTO and rule in REDRAWN:
        sampler = options.settled.sampler
    elif sampler == AUTO:
        sampler = "langevin" if takes_any_noise(rule) else "ancestral"
    return replace(options, rule=rule, sampler=sampler)


def takes_any_noise(rule: str | Rule) -> bool:
    """Whether a rule takes noise that is not Gaussian as it is."""
    found = find_rule(rule) if isinstance(rule, str) else rule
    return bool(getattr(found.func if isinstance(found, partial) else found, "any_noise", False))


def stand_ins(measurements: Sequence[Measurement], rule: str | Rule) -> list[Measured]:
    """Models and measurements as the rule takes them: noise that is not Gaussian by its Gaussian stand-in, if need be."""
    pairs = [(one.model, one.y) for one in measurements]
    return pairs if takes_any_noise(rule) else [_quadratic(*pair) for pair in pairs]


def first_guess(measurements: Sequence[Measurement], shape: Shape, sigma_data: float) -> Tensor:
    """(1, C, H, W): regularised least squares of the linear measurements, an even grey where there are none.

    Of an operator that is not linear, whose measurement is shaped as the picture, the measurement itself.
    """
    grey = torch.full((1, *shape), MIDDLE)
    linear = _gaussian(measurements)
    if linear:
        model, y = stack_measurements(linear, floor=RELATIVE_FLOOR * sigma_data)
        sigma = max(model.gaussian.sigma, RELATIVE_FLOOR * sigma_data * model.linear.norm)
        device = model.linear.device
        return model.linear.prox(grey.to(device), y.to(device, grey.dtype), (sigma / sigma_data) ** 2).cpu()
    first = measurements[0]
    alike = tuple(first.y.shape[1:]) == shape and isinstance(first.model.noise, GaussianNoise)
    return first.y.float() if alike else grey


def _guessed(measurements: Sequence[Measurement], start: Tensor | None) -> str:
    """What the first guess is called."""
    return "start" if start is not None else "least squares" if _gaussian(measurements) else "without model"


def misfits(measurements: Sequence[Measurement], samples: Tensor) -> list[Misfit]:
    """How far ``samples`` (n, 1, C, H, W) are from each measurement, in its own noise.

    Chi-squared is not judged of an exact measurement, nor of one whose noise is that of rounding to 8 bits or below, as that
    is not Gaussian. Noise of other kinds is judged by its Gaussian stand-in, where it has one.
    """
    found = []
    for one in measurements:
        model, noise = one.model, one.model.noise
        device = getattr(model.operator, "device", torch.device("cpu"))
        x, y = samples.to(device), one.y.to(device)
        linear = isinstance(model.operator, LinearOperator)
        said = (
            model.linear.informative.to(device) if linear else torch.ones(y.shape[1:], dtype=torch.bool, device=device)
        )
        rms = float(torch.stack([model.residual(sample, y)[0][said].square().mean() for sample in x]).mean().sqrt())
        sigma = noise.sigma if isinstance(noise, GaussianNoise) and noise.sigma else None
        if isinstance(noise, GaussianNoise):
            judged = [_quadratic(model, y)] if noise.sigma > ROUNDING else []
        else:
            judged = _gaussian([replace(one, y=y)])
        chi2 = float(chi_squared(judged[0][0], x, judged[0][1]).mean()) if judged else None
        found.append(Misfit(one.name, rms, sigma, chi2, measured_values(*(judged or [(model, y)])[0])))
    return found


def _run(
    measurements: Sequence[Measurement],
    likelihood: list[Measured],
    start: Tensor,
    floor: float,
    prior: ScoreModel,
    options: SolveOptions,
    progress: Progress,
) -> Posterior:
    """Sample the picture given everything that was measured."""
    model, y = stack_measurements([(one, y.to(prior.device)) for one, y in likelihood], floor=floor)
    pixels = start.shape[-2] * start.shape[-1]
    solved = solve(
        prior,
        model,
        y,
        **in_memory(options, pixels).keywords,
        sigmas=task_ladder(options, SIGMA_END, max(options.sigma_start or prior.sigma_max, SIGMA_END), start.numel()),
        start=start.to(prior.device),
        turn=True,
        callback=lambda info: progress(info.step / info.steps),
    )
    judged = [one for one in misfits(measurements, solved.samples) if one.chi2 is not None]
    values = sum(one.values for one in judged)
    if not values or solved.settings["sampler"] == "posterior_mean":  # nearer to the measurement than the truth is
        return replace(solved, chi2=torch.empty(0), measured_values=values)
    chi2 = sum((one.chi2 or 0.0) * one.values for one in judged) / values
    return replace(solved, chi2=torch.full((len(solved.samples), 1), chi2), measured_values=values)


def _gaussian(measurements: Sequence[Measurement]) -> list[Measured]:
    """The linear measurements with Gaussian noise, or with a stand-in for it."""
    found = []
    for one in measurements:
        known = isinstance(one.model.noise, GaussianNoise) or hasattr(one.model.noise, "quadratic")
        if known and isinstance(one.model.operator, LinearOperator):
            found.append(_quadratic(one.model, one.y))
    return found


def _quadratic(model: ForwardModel, y: Tensor) -> Measured:
    """:func:`quadratic`, with 0 for the values that say nothing of the picture: nothing should be made of their noise."""
    model, y = quadratic(model, y)
    if not isinstance(model.operator, LinearOperator):
        return model, y
    return model, torch.where(model.operator.informative.to(y.device), y, 0)


def _seen(measurements: Sequence[Measurement], sigma_data: float) -> LinearOperator | None:
    """What the data see of a picture, down to their noise; None where not all is linear with a Gaussian likelihood."""
    linear = _gaussian(measurements)
    if len(linear) < len(measurements):
        return None
    floor = RELATIVE_FLOOR * sigma_data
    model, _ = stack_measurements(linear, floor=floor)
    sigma = max(model.gaussian.sigma, floor * model.linear.norm)
    return Filtered(model.linear, (sigma / sigma_data) ** 2)


def _check_shapes(measurements: Sequence[Measurement], prior: ScoreModel, shape: Shape, start: Tensor | None) -> None:
    if not measurements:
        raise InputError("no measurement", hint="give at least one")
    if prior.channels != shape[0]:
        raise InputError(f"the picture has {shape[0]} channels, the prior {prior.channels}", hint="use another prior")
    prior.check_size(torch.empty(1, *shape, device="meta"))
    for one in measurements:
        operator = one.model.operator
        if isinstance(operator, LinearOperator) and operator.input_shape != shape:
            raise InputError(f"{one.name}: {operator!r} is no operator of a picture {shape}", hint="make them alike")
        wanted = output_shape(operator, shape)
        if tuple(one.y.shape) != (1, *wanted):
            raise InputError(
                f"{one.name} has shape {tuple(one.y.shape[1:])}, its operators give {wanted}",
                hint="correct the operators, or the size of the picture",
            )
        if not isinstance(one.model.noise, GaussianNoise) and not hasattr(one.model.noise, "log_likelihood_gradient"):
            raise UsageError(f"{one.name}: {type(one.model.noise).__name__} is no noise model", hint="see NoiseModel")
    if start is not None and tuple(start.shape) != (1, *shape):
        raise InputError(f"the start has shape {tuple(start.shape[1:])}", hint=f"wanted {shape}")
