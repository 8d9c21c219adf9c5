"""The twisted diffusion sampler: guided particles, reweighted and resampled, exact as their number grows.

Wu, Trippe, Naesseth, Blei & Cunningham 2023, "Practical and asymptotically exact conditional sampling in diffusion
models", Algorithm 1. The proposal is the ancestral step with the rule's estimate x0; the weight of a particle is

    w = p~(y | x') p(x' | x) / (p~(y | x) q(x' | x)),

p~ the rule's likelihood (the twist), p and q the ancestral steps of prior and rule, two Gaussians of one variance. At
level 0 p~ is the likelihood itself, so that every rule is corrected to the same posterior. Resampling is systematic
(Kitagawa 1996) and done where the effective sample size (sum w)^2 / sum w^2 falls below half of the particles.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.rules.conditioned import Guide, GuidedModel
from invsolve.samplers.info import Callback, StepInfo, needs

RESAMPLE_BELOW = 0.5
"""Share of the particles below which the effective sample size asks for resampling."""


@needs(calls=lambda *, particles, **_: particles)
def twisted(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    particles: int = 16,
    callback: Callback | None = None,
) -> Tensor:
    """Sample a posterior with ``particles`` particles for each image, of which one is drawn by its weight at the end.

    Parameters
    ----------
    model : a rule that can evaluate its likelihood: dps, pigdm or moment_matching.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0.
    noise : source of standard normal noise.
    particles : number of particles per image.

    Returns
    -------
    Tensor (B, C, H, W). Costs ``particles`` times the rule's calls per level.
    """
    swarm = x[:, None].expand(-1, particles, *x.shape[1:])
    swarm, log_weights = twisted_particles(model, swarm, sigmas, noise, callback=callback)
    chosen = resample(log_weights, _uniform(noise, x), count=1)[:, 0]
    return swarm[torch.arange(len(x), device=x.device), chosen]


def twisted_particles(
    model: ScoreModel, swarm: Tensor, sigmas: Tensor, noise: Noise, *, callback: Callback | None = None
) -> tuple[Tensor, Tensor]:
    """All particles of :func:`twisted` with their weights: one run gives a whole posterior.

    Parameters
    ----------
    model, sigmas, noise : as there.
    swarm : start (B, P, C, H, W), P particles for each of B images, at noise level sigmas[0].

    Returns
    -------
    Particles (B, P, C, H, W) and their log weights (B, P).
    """
    if not isinstance(model, GuidedModel):
        raise UsageError(
            f"sampler 'twisted' needs a rule that evaluates p(y | x), and {type(model).__name__} does not",
            hint="use rule='moment_matching', 'pigdm' or 'dps'",
        )
    count, particles = swarm.shape[:2]
    if particles < 1:
        raise UsageError(f"{particles} particles", hint="wanted at least 1")
    y = model.y.expand(count, *model.y.shape[1:]).repeat_interleave(particles, dim=0)
    guided, levels = model.with_measurement(y), [float(s) for s in sigmas]
    x = swarm.flatten(0, 1)
    log_weights = swarm.new_zeros(count, particles)
    previous = torch.zeros_like(log_weights)
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        guide = guided.guide(x, sigma)
        twist = guide.log_likelihood.reshape(count, particles)
        log_weights = log_weights + twist - previous
        chosen = _where_poor(log_weights, _uniform(noise, swarm))
        if chosen is not None:
            flat = (chosen + particles * torch.arange(count, device=x.device)[:, None]).flatten()
            x, guide, twist = x[flat], Guide(*(part[flat] for part in guide)), twist.gather(1, chosen)
            resampled = (chosen != torch.arange(particles, device=x.device)).any(dim=1, keepdim=True)
            level = log_weights.logsumexp(1, keepdim=True) - math.log(particles)
            log_weights = torch.where(resampled, level, log_weights)
        if sigma_next == 0:
            x = guide.x0
        else:
            kept = (sigma_next / sigma) ** 2
            variance = sigma_next**2 * (1 - kept)
            drift = (1 - kept) * (guide.x0 - guide.denoised)  # from the prior's mean to the rule's
            fresh = noise(x.reshape(swarm.shape)).reshape(x.shape)
            step = variance**0.5 * fresh
            x = kept * x + (1 - kept) * guide.x0 + step
            # log p - log q of two Gaussians of one variance whose means are ``drift`` apart.
            ratio = -(drift * (step + 0.5 * drift)).flatten(1).sum(dim=1) / variance
            log_weights = log_weights + ratio.reshape(count, particles)
        previous = twist
        if callback is not None:
            first = (slice(None), 0)
            state, shown = x.reshape(swarm.shape)[first], guide.x0.reshape(swarm.shape)[first]
            callback(StepInfo(i + 1, len(levels) - 1, sigma, state, shown))
    return x.reshape(swarm.shape), log_weights


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 along the last axis: from 1, all weight on one particle, to P, all alike."""
    return 1 / torch.softmax(log_weights, dim=-1).square().sum(dim=-1)


def _where_poor(log_weights: Tensor, uniform: Tensor) -> Tensor | None:
    """Indices (B, P) that resample the images whose effective sample size is too small; None if none is."""
    particles = log_weights.shape[1]
    poor = effective_sample_size(log_weights) < RESAMPLE_BELOW * particles
    if not bool(poor.any()):
        return None
    chosen = resample(log_weights, uniform, count=particles)
    return torch.where(poor[:, None], chosen, torch.arange(particles, device=log_weights.device))


def resample(log_weights: Tensor, uniform: Tensor, *, count: int) -> Tensor:
    """Systematic resampling: ``count`` indices per row of (B, P), from one uniform number (B, 1) each."""
    cumulative = torch.softmax(log_weights, dim=1).cumsum(dim=1)
    points = (uniform + torch.arange(count, device=log_weights.device)) / count
    return torch.searchsorted(cumulative, points.to(cumulative)).clamp(max=log_weights.shape[1] - 1)


def _uniform(noise: Noise, like: Tensor) -> Tensor:
    """One uniform number (B, 1) for each image, from its own generator."""
    return torch.special.ndtr(noise(like.new_empty(len(like), 1)))
