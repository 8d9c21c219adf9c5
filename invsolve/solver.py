"""solve(): a prior, a forward model, a measurement -> samples of the posterior."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import InputError, SolveError, UsageError
from invsolve.forward_models import ForwardModel, GaussianNoise, LinearOperator
from invsolve.models.orientation import OrientedModel
from invsolve.models.score_model import CountedModel, ScoreModel
from invsolve.options import AUTO, LARGEST_SEED, SolveOptions
from invsolve.posterior import Posterior
from invsolve.rules import Rule, condition, rule_name
from invsolve.samplers import Callback, Needs, Sampler, StepInfo, find_sampler, needs_of, sampler_name
from invsolve.samplers.info import HANDED_OVER
from invsolve.samplers.noise import SeededNoise
from invsolve.samplers.pace import Pace, paced
from invsolve.samplers.sigmas import karras, ladder
from invsolve.uncertainty.trace import Trace, likely_cause


@torch.no_grad()
def solve(
    prior: ScoreModel,
    forward_model: ForwardModel,
    y: Tensor,
    *,
    rule: str | Rule = "proximal",
    sampler: str | Sampler = "renoising",
    sigmas: Tensor | None = None,
    steps: int | None = None,
    sigma_start: float | None = None,
    samples: int = 1,
    seed: int = 0,
    start: Tensor | None = None,
    batch: int = 8,
    turn: bool = False,
    antithetic: bool = False,
    paired: bool = False,
    stream: int = 0,
    pace: Pace | None = None,
    callback: Callback | None = None,
    **options: Any,
) -> Posterior:
    """Sample p(x | y).

    Parameters
    ----------
    prior : score model of p(x), as :func:`invsolve.load_prior` loads one.
    forward_model : p(y | x).
    y : (B, ...) measurements of B images, on the prior's device.
    rule : how y enters the score; see :mod:`invsolve.rules`.
    sampler : a name from :data:`invsolve.samplers.SAMPLERS` or a function with their signature.
    sigmas : falling noise levels ending in 0; default ``steps`` Karras levels from ``sigma_start`` to the prior's
        sigma_min, or to 0.005 where that is more.
    steps, sigma_start : number of levels and first level of the default ladder, 50 and 1; not beside ``sigmas``.
    samples : number n of samples; sample j uses seed ``seed + j``.
    seed : first seed. Sample j of image k depends on (seed + j, k) only, not on n, B or ``batch``; in pairs, on the seed
        of the pair's first sample and on which of the two it is.
    start : (B, C, H, W), or (n, B, C, H, W) with one for each sample: what the first level's noise is added to;
        default the pseudo-inverse of y, where the operator is linear and the noise Gaussian.
    batch : images denoised at once; bounds the memory.
    turn : show the prior each image in another of the orientations it knows at every step, which averages out what
        the network does differently in each.
    antithetic : draw the samples in pairs: of samples 2m and 2m + 1 the second takes the first one's noise with the
        opposite sign. Each is a sample as before, but what the two err by cancels in their mean as far as the sampler
        is affine (Hammersley & Morton 1956; Jia et al. 2025, "Antithetic noise in diffusion models").
    paired : y (n, ...) holds the measurement of one image anew for each sample, as where samples continue others.
    stream : mixed into the seeds, so that several solves of one run draw different noise.
    pace : keeps the run in time, see :mod:`invsolve.samplers.pace`; who gives it notes in it, from the callback, what is done.
    callback : called after every step with a :class:`StepInfo` counted over the whole run.
    options : passed to the sampler.

    Raises
    ------
    UsageError : arguments that are no such thing, out of range or not known to the sampler.
    InputError : ``y`` is no tensor, or has values that are not finite.
    SolveError : x became NaN or infinite; the message names the level.
    """
    _check(prior, forward_model, y, samples=samples, seed=seed, batch=batch)
    if paired and len(y) != samples:
        raise UsageError(f"{len(y)} paired measurements for {samples} samples", hint="wanted one for each")
    sample = find_sampler(sampler)
    _check_options(sample, options)
    if start is None:
        start = _default_start(forward_model, y)
    starts = start.expand(samples, *start.shape[-4:])
    levels = _default_ladder(prior, steps, sigma_start) if sigmas is None else sigmas
    if sigmas is not None and (steps is not None or sigma_start is not None):
        raise UsageError(
            "sigmas beside steps or sigma_start", hint="sigmas is the whole ladder; give it, or the other two, not both"
        )
    counted, trace = CountedModel(prior), Trace(forward_model)
    seeds = [seed + (j - j % 2 if antithetic else j) for j in range(samples)]
    count = 1 if paired else len(y)
    runs = [(j, k) for j in range(samples) for k in range(count)]
    chunks = [runs[i : i + batch] for i in range(0, len(runs), batch)]

    results = []
    for number, chunk in enumerate(chunks):
        images, measured = [k for _, k in chunk], y[[j if paired else k for j, k in chunk]]
        noise = SeededNoise(
            [(seeds[j], k, stream) for j, k in chunk], signs=[-1 if antithetic and j % 2 else 1 for j, _ in chunk]
        )
        oriented = OrientedModel(counted, [seed + j + k for j, k in chunk]) if turn else counted
        model = condition(oriented, forward_model, measured, rule)
        guess = starts[[j for j, _ in chunk], images]
        x = guess + float(levels[0]) * noise(guess)
        watch = _Watch(trace, prior, measured, number, len(chunks), callback)
        results.append(paced(sample, model, x, levels, noise, pace, callback=watch, **options))
    stacked = torch.cat(results).reshape(samples, count, *start.shape[-3:])
    parts = [(stacked[j : j + 1], y[j : j + 1]) for j in range(samples)] if paired else [(stacked, y)]
    chi2 = torch.cat([chi_squared(forward_model, part, measured) for part, measured in parts])
    return Posterior(
        samples=stacked.cpu(),
        seeds=tuple(seeds),
        chi2=chi2.cpu(),
        settings={
            "rule": rule_name(rule),
            "sampler": sampler_name(sampler),
            "steps": len(levels) - 1,
            "sigma_start": float(levels[0]),
            "sigma_y": forward_model.noise.sigma if isinstance(forward_model.noise, GaussianNoise) else None,
            "turn": turn,
            "antithetic": antithetic,
            **options,
        },
        network_calls=counted.calls,
        diagnostics=trace.diagnostics(),
        measured_values=measured_values(forward_model, y),
    )


@dataclass(frozen=True)
class _Watch:
    """What is done after every step of one batch: note it, stop a run that diverges, tell the caller."""

    trace: Trace
    prior: ScoreModel
    y: Tensor
    number: int  # of the batch
    batches: int
    callback: Callback | None

    def __call__(self, info: StepInfo) -> None:
        self.trace.add(info, self.y)
        # NaN and infinity survive a sum, at a fifth of the cost
        if not bool(torch.isfinite(info.x.sum())) or self.trace.runaway(info.step):
            misfits = self.trace.diagnostics()["misfit"]
            raise SolveError(
                f"the sampler diverged at noise level {info.sigma:.3g} (step {info.step} of {info.steps})",
                hint=likely_cause(info.sigma, self.prior.sigma_min, self.prior.sigma_max, misfits),
            )
        if self.callback is not None:
            step, steps = self.number * info.steps + info.step, self.batches * info.steps
            self.callback(info._replace(step=step, steps=steps))


def _check(prior: Any, forward_model: Any, y: Any, *, samples: int, seed: int, batch: int) -> None:
    """Refuse what cannot be solved, before anything is computed."""
    if isinstance(prior, str):
        raise UsageError(
            f"the prior is a name, {prior!r}, wanted a score model", hint=f"pass invsolve.load_prior({prior!r})"
        )
    if not isinstance(prior, ScoreModel):
        raise UsageError(
            f"the prior is {type(prior).__name__}, wanted a ScoreModel",
            hint="pass invsolve.load_prior(name), or wrap a denoiser in invsolve.models.score_model.FunctionPrior",
        )
    if not isinstance(forward_model, ForwardModel):
        raise UsageError(
            f"the forward model is {type(forward_model).__name__}, wanted a ForwardModel",
            hint="pass ForwardModel(operator, GaussianNoise(sigma))",
        )
    for name, value, limit in (
        ("samples", samples, math.inf),
        ("batch", batch, math.inf),
        ("seed", seed, LARGEST_SEED),
    ):
        least = 0 if name == "seed" else 1
        if not isinstance(value, Integral) or not least <= value <= limit:
            wanted = f"a whole number, at least {least}" + (", below 2^63" if name == "seed" else "")
            raise UsageError(f"{name} = {value!r}", hint=f"wanted {wanted}")
    if not isinstance(y, Tensor):
        raise InputError(f"y is {type(y).__name__}, wanted a tensor (B, ...)", hint="pass torch.as_tensor(y)")
    if y.ndim == 0 or len(y) == 0:
        raise InputError(f"y has shape {tuple(y.shape)}", hint="wanted (B, ...), one measurement for each of B images")
    wrong = int((~torch.isfinite(y)).sum())
    if wrong:
        raise InputError(
            f"{wrong} values of y are NaN or infinite",
            hint="leave out what was not measured with a Mask or a Diagonal, and set it to 0",
        )


def _check_options(sampler: Sampler, options: dict[str, Any]) -> None:
    """Refuse a keyword that neither solve nor the sampler knows."""
    parameters = inspect.signature(sampler).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in list(parameters)[4:] if p.name not in HANDED_OVER]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(
            f"neither solve nor the sampler {sampler_name(sampler)!r} knows {', '.join(map(repr, unknown))}",
            hint=f"the sampler takes {', '.join(known) or 'nothing more'}; arguments of a rule go with its name, "
            "such as rule='proximal(lam=0.5)'",
        )


def _default_start(forward_model: ForwardModel, y: Tensor) -> Tensor:
    if not isinstance(forward_model.operator, LinearOperator):
        raise UsageError("a forward model without pseudo-inverse needs a start", hint="pass start=(B, C, H, W)")
    if not isinstance(forward_model.noise, GaussianNoise):
        raise UsageError(
            f"a measurement with {type(forward_model.noise).__name__} needs a start, as it may be in units of its own",
            hint="pass start=(B, C, H, W), such as operator.pinv of what was measured, in the operator's units",
        )
    return forward_model.operator.pinv(y)


def _default_ladder(prior: ScoreModel, steps: int | None, sigma_start: float | None) -> Tensor:
    return karras(
        50 if steps is None else steps, max(prior.sigma_min, 0.005), 1.0 if sigma_start is None else sigma_start
    )


def options_needs(options: SolveOptions) -> Needs:
    """What the sampler that ``options`` name asks for."""
    sampler = options.settled.sampler
    return needs_of(find_sampler(sampler))


def enough_levels(options: SolveOptions) -> SolveOptions:
    """With as many noise levels as the sampler wants at least, where nobody asked for a number."""
    return replace(options, steps=max(options.steps, options_needs(options).levels))


def task_ladder(options: SolveOptions, sigma_min: float, sigma_max: float, dimension: int) -> Tensor:
    """The noise levels that ``options`` ask for, from ``sigma_max`` to ``sigma_min`` and 0, for x of ``dimension`` values."""
    schedule = options_needs(options).schedule if options.schedule == AUTO else options.schedule
    return ladder(schedule, options.steps, sigma_min, sigma_max, dimension)


def chi_squared(forward_model: ForwardModel, samples: Tensor, y: Tensor) -> Tensor:
    """Mean squared misfit per measured value over the noise variance, (n, B).

    Values of y that say nothing of the picture, such as the noise of missing pixels, do not count. Empty for exact measurements
    and for noise that is not Gaussian.
    """
    noise = forward_model.noise
    if not isinstance(noise, GaussianNoise) or noise.sigma == 0:
        return torch.empty(0)
    operator, values = forward_model.operator, measured_values(forward_model, y)
    counted = operator.informative.to(y) if isinstance(operator, LinearOperator) else 1.0
    scale = counted / noise.sigma
    return torch.stack([(scale * (operator(x) - y)).square().flatten(1).sum(dim=1) / values for x in samples])


def measured_values(forward_model: ForwardModel, y: Tensor) -> int:
    """How many values of one image's measurement say something."""
    operator = forward_model.operator
    return operator.measured_values if isinstance(operator, LinearOperator) else math.prod(y.shape[1:])
