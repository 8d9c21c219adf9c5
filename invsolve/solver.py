"""solve(): a prior, a forward model, a measurement -> samples of the posterior."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import SolveError, UsageError
from invsolve.forward_models import ForwardModel, LinearOperator
from invsolve.models.orientation import OrientedModel
from invsolve.models.score_model import CountedModel, ScoreModel
from invsolve.posterior import Posterior
from invsolve.rules import Rule, condition, rule_name
from invsolve.samplers import Callback, Sampler, StepInfo, find_sampler, sampler_name
from invsolve.samplers.noise import SeededNoise
from invsolve.samplers.sigmas import karras
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
    samples: int = 1,
    seed: int = 0,
    start: Tensor | None = None,
    batch: int = 8,
    turn: bool = False,
    antithetic: bool = False,
    stream: int = 0,
    callback: Callback | None = None,
    **options: Any,
) -> Posterior:
    """Sample p(x | y).

    Parameters
    ----------
    prior : score model of p(x).
    forward_model : p(y | x).
    y : (B, ...) measurements of B images, on the prior's device.
    rule : how y enters the score; see :mod:`invsolve.rules`.
    sampler : a name from :data:`invsolve.samplers.SAMPLERS` or a function with their signature.
    sigmas : falling noise levels ending in 0; default 50 Karras levels from 1 to the prior's sigma_min.
    samples : number n of samples; sample j uses seed ``seed + j``.
    seed : first seed. Sample j of image k depends on (seed + j, k) only, not on n, B or ``batch``; in pairs, on the seed
        of the pair's first sample and on which of the two it is.
    start : (B, C, H, W), or (n, B, C, H, W) with one for each sample: what the first level's noise is added to;
        default the pseudo-inverse of y.
    batch : images denoised at once; bounds the memory.
    turn : show the prior each image in another of the orientations it knows at every step, which averages out what
        the network does differently in each.
    antithetic : draw the samples in pairs: of samples 2m and 2m + 1 the second takes the first one's noise with the
        opposite sign. Each is a sample as before, but what the two err by cancels in their mean as far as the sampler
        is affine (Hammersley & Morton 1956; Jia et al. 2025, "Antithetic noise in diffusion models").
    stream : mixed into the seeds, so that several solves of one run draw different noise.
    callback : called after every step with a :class:`StepInfo` counted over the whole run.
    options : passed to the sampler.

    Raises
    ------
    SolveError : x became NaN or infinite; the message names the level.
    """
    if samples < 1:
        raise UsageError(f"{samples} samples", hint="wanted at least 1")
    sample = find_sampler(sampler) if isinstance(sampler, str) else sampler
    operator = forward_model.operator
    if start is None:
        if not isinstance(operator, LinearOperator):
            raise UsageError("a forward model without pseudo-inverse needs a start", hint="pass start=(B, C, H, W)")
        start = operator.pinv(y)
    starts = start.expand(samples, *start.shape[-4:])
    ladder = karras(50, max(prior.sigma_min, 0.005), 1.0) if sigmas is None else sigmas
    counted, trace = CountedModel(prior), Trace(forward_model)
    seeds = [seed + (j - j % 2 if antithetic else j) for j in range(samples)]
    runs = [(j, k) for j in range(samples) for k in range(len(y))]
    chunks = [runs[i : i + batch] for i in range(0, len(runs), batch)]

    results = []
    for number, chunk in enumerate(chunks):
        images = [k for _, k in chunk]
        noise = SeededNoise(
            [(seeds[j], k, stream) for j, k in chunk], signs=[-1 if antithetic and j % 2 else 1 for j, _ in chunk]
        )
        oriented = OrientedModel(counted, [seed + j + k for j, k in chunk]) if turn else counted
        model = condition(oriented, forward_model, y[images], rule)
        guess = starts[[j for j, _ in chunk], images]
        x = guess + float(ladder[0]) * noise(guess)

        def watch(info: StepInfo, number: int = number, y: Tensor = y[images]) -> None:
            trace.add(info, y)
            # NaN and infinity survive a sum, at a fifth of the cost
            if not bool(torch.isfinite(info.x.sum())) or trace.runaway(info.step):
                misfits = trace.diagnostics()["misfit"]
                raise SolveError(
                    f"the sampler diverged at noise level {info.sigma:.3g} (step {info.step} of {info.steps})",
                    hint=likely_cause(info.sigma, prior.sigma_min, prior.sigma_max, misfits),
                )
            if callback is not None:
                callback(info._replace(step=number * info.steps + info.step, steps=len(chunks) * info.steps))

        results.append(sample(model, x, ladder, noise, callback=watch, **options))
    stacked = torch.cat(results).reshape(samples, len(y), *start.shape[-3:])
    return Posterior(
        samples=stacked.cpu(),
        seeds=tuple(seeds),
        chi2=chi_squared(forward_model, stacked, y).cpu(),
        settings={
            "rule": rule_name(rule),
            "sampler": sampler_name(sampler),
            "steps": len(ladder) - 1,
            "sigma_start": float(ladder[0]),
            "sigma_y": forward_model.noise.sigma,
            "turn": turn,
            "antithetic": antithetic,
            **options,
        },
        network_calls=counted.calls,
        diagnostics=trace.diagnostics(),
        measured_values=measured_values(forward_model, y),
    )


def chi_squared(forward_model: ForwardModel, samples: Tensor, y: Tensor) -> Tensor:
    """Mean squared misfit per measured value over the noise variance, (n, B); empty for exact measurements."""
    sigma = forward_model.noise.sigma
    if sigma == 0:
        return torch.empty(0)
    operator, values = forward_model.operator, measured_values(forward_model, y)
    return torch.stack([((operator(x) - y) / sigma).square().flatten(1).sum(dim=1) / values for x in samples])


def measured_values(forward_model: ForwardModel, y: Tensor) -> int:
    """How many values of one image's measurement say something."""
    operator = forward_model.operator
    return operator.measured_values if isinstance(operator, LinearOperator) else math.prod(y.shape[1:])
