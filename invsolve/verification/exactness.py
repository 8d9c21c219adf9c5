"""The exact law of a sampler on a Gaussian problem, without Monte Carlo.

With a Gaussian prior and a rule that is linear in x, all a sampler does is affine in its start and its noise. So its
output is Gaussian, and pushing basis vectors through the *unmodified* sampler gives mean and covariance exactly:
row 0 of the batch runs with all noise zero, every other row with one noise variable set to one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.errors import InvsolveError
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers import Sampler, annealed_langevin

Run = Callable[[Tensor, Noise], Tensor]
"""A sampler with everything but start and noise filled in."""


class Law(NamedTuple):
    """A Gaussian on images."""

    mean: Tensor  # (C, H, W)
    covariance: Tensor  # (d, d)


class Bias(NamedTuple):
    """A sampler's law against the true posterior."""

    mean: float  # rms over pixels of |mean error| / posterior standard deviation
    std_ratio: float  # rms standard deviation over the exact one's


def start_law(mean: Tensor, sigma: float) -> Law:
    """x = mean + sigma z."""
    return Law(mean, sigma**2 * torch.eye(mean.numel(), dtype=mean.dtype))


def push(run: Run, start: Law) -> Law:
    """The law of ``run(x, noise)`` for x ~ ``start``, exact when ``run`` is affine."""
    shape, dtype, d = tuple(start.mean.shape), start.mean.dtype, start.mean.numel()
    sizes = noise_sizes(run, start.mean)
    offsets = itertools.accumulate(sizes, initial=1 + d)

    def probe(x: Tensor) -> Tensor:
        first, size = next(offsets), x[0].numel()
        z = torch.zeros(len(x), size, dtype=dtype)
        z[first : first + size] = torch.eye(size, dtype=dtype)
        return z.reshape(x.shape)

    eigenvalues, eigenvectors = torch.linalg.eigh(start.covariance)
    factor = eigenvectors * eigenvalues.clamp(min=0).sqrt()
    batch = start.mean.flatten().repeat(1 + d + sum(sizes), 1)
    batch[1 : 1 + d] += factor.T
    out = run(batch.reshape(-1, *shape), probe).flatten(1)
    columns = out[1:] - out[0]
    return Law(out[0].reshape(shape), columns.T @ columns)


def noise_sizes(run: Run, start: Tensor) -> list[int]:
    """How many values each of the run's noise draws has, per image; ``start`` (C, H, W)."""
    sizes: list[int] = []

    def count(x: Tensor) -> Tensor:
        sizes.append(x[0].numel())
        return torch.zeros_like(x)

    run(start[None], count)
    return sizes


def is_affine(run: Run, start: Law, tolerance: float = 1e-6) -> bool:
    """Whether ``run`` maps the affine combination 2 a - b of two starts and noises to that of its outputs."""
    generator = torch.Generator().manual_seed(0)

    def combine(x: Tensor) -> Tensor:
        pair = torch.randn((2, *x.shape[1:]), generator=generator, dtype=x.dtype)
        return torch.cat([pair, 2 * pair[:1] - pair[1:]])

    spread = float(start.covariance.diagonal().mean().sqrt())
    x = start.mean + spread * combine(start.mean.expand(3, *start.mean.shape))
    out = run(x, combine)
    return float((2 * out[0] - out[1] - out[2]).abs().max()) <= tolerance * float((out[0] - out[1]).abs().max())


def sampler_law(sampler: Sampler, model: ScoreModel, start: Law, sigmas: Tensor, *, rows: int = 4000) -> Law | None:
    """The exact law of any affine sampler on any affine model; None where it is not affine, or too large.

    A sampler that carries nothing from level to level but x is pushed level by level; one that remembers more is
    pushed whole, which takes a row for every noise value it draws.

    Parameters
    ----------
    sampler, model, sigmas : what is to be judged; everything beside them filled in.
    start : law of x at sigmas[0].
    rows : largest batch.
    """

    def whole(x: Tensor, noise: Noise) -> Tensor:
        return sampler(model, x, sigmas, noise)

    if not is_affine(whole, start):
        return None
    segments = [sigmas[i : i + 2] for i in range(len(sigmas) - 1)]
    if _markov(sampler, model, start, sigmas, segments):
        law = start
        for segment in segments:
            law = push(lambda x, noise, s=segment: sampler(model, x, s, noise), law)  # type: ignore[misc]
        return law
    size = 1 + start.mean.numel() + sum(noise_sizes(whole, start.mean))
    return push(whole, start) if size <= rows else None


def _markov(sampler: Sampler, model: ScoreModel, start: Law, sigmas: Tensor, segments: list[Tensor]) -> bool:
    """Whether running segment after segment is the whole run, given the same noise."""

    def draws() -> Noise:
        generator = torch.Generator().manual_seed(1)
        return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)

    x = start.mean[None] + float(sigmas[0]) * draws()(start.mean[None])
    whole = sampler(model, x, sigmas, draws())
    noise = draws()
    for segment in segments:
        try:
            x = sampler(model, x, segment, noise)
        except InvsolveError:  # a ladder of one level is too short for it
            return False
    return bool(torch.allclose(whole, x, rtol=1e-9, atol=1e-9))


def bias(law: Law, posterior: GaussianPrior) -> Bias:
    """Compare with the true posterior, pixel by pixel."""
    exact_std = posterior.covariance.diagonal().clamp(min=0).sqrt()
    error = (law.mean - posterior.mean).flatten() / exact_std
    ratio = law.covariance.diagonal().clamp(min=0).mean().sqrt() / exact_std.square().mean().sqrt()
    return Bias(math.sqrt(float(error.square().mean())), float(ratio))


def langevin_by_levels(steps: int, share: float) -> Sampler:
    """NCSN's annealed Langevin with steps of ``share`` sigma^2, one level at a time: what sampler_law can push level by level."""

    def run(model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        for sigma, following in itertools.pairwise(sigmas.tolist()):
            level = torch.tensor([sigma, 0.0], dtype=torch.float64)
            x = annealed_langevin(
                model, x, level, noise, langevin_steps=steps, step_size=share * sigma**2, consistent=False,
                denoise_last=following == 0,
            )  # fmt: skip
        return x

    return run
