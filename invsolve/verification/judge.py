"""Certificates: any rule x sampler x operator against posteriors that are known in closed form.

Two families of problems. A Gaussian prior on small pictures with a linear measurement has a Gaussian posterior; where
rule and sampler are affine, their law is computed exactly (``invsolve.verification.exactness``), else from samples. A mixture of 25
Gaussians (Cardoso, Janati El Idrissi, Le Corff & Moulines 2024, "Monte Carlo guided diffusion for Bayesian linear
inverse problems", section 5) has a posterior with many modes, some of which the data rule out.

>>> from invsolve.verification.problems import problems
>>> from invsolve.verification.judge import verify
>>> figures = verify(problems["inpainting"](0), rule="exact", sampler="ancestral", steps=20)
>>> figures.method, figures.bias < 0.05
('exact', True)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models import LinearOperator
from invsolve.models.gaussian import GaussianPrior, SharedMixturePrior
from invsolve.models.score_model import CountedModel, Noise, ScoreModel
from invsolve.rules import GuidedModel, Rule, condition, rule_name
from invsolve.samplers import Sampler, find_sampler, sampler_name
from invsolve.samplers.sigmas import geometric
from invsolve.samplers.twisted import resample, twisted, twisted_particles
from invsolve.verification.exactness import Law, sampler_law, start_law
from invsolve.verification.figures import Figures
from invsolve.verification.laws import adjoint
from invsolve.verification.problems import Problem
from invsolve.verification.stein import Stein, kernel_stein_discrepancy, resolved, smoothed

INTERVAL_SAMPLES = 19
"""The range of so many samples of a perfect posterior is a 90 % interval."""

PROJECTIONS = 1000
BLOCKS = 8
STEIN_DRAWS = 1000
"""Of a kernel Stein discrepancy, which takes a matrix of their pairs."""

ADJOINT_TOLERANCE = 1e-5


@torch.no_grad()
def verify(
    problem: Problem,
    *,
    rule: str | Rule = "proximal",
    sampler: str | Sampler = "renoising",
    steps: int = 50,
    samples: int = 2000,
    seed: int = 0,
    exact: bool = True,
    sigmas: Tensor | None = None,
    label: str | None = None,
    **options: Any,
) -> Figures:
    """Judge a rule and a sampler on a problem.

    Parameters
    ----------
    rule, sampler : names, or your own with the signatures of :data:`invsolve.rules.Rule` and of the samplers.
    steps : geometric levels between the problem's ends.
    samples : draws where the law is not computed exactly.
    seed : of those draws.
    exact : compute the law exactly where rule and sampler are affine.
    sigmas : another ladder; replaces ``steps``.
    label : what the figures call the rule; default its name.
    options : passed to the sampler.
    """
    function = find_sampler(sampler)
    counted = CountedModel(problem.prior)
    model = condition(counted, problem.forward_model, problem.y, rule)
    model.denoise(problem.start[None], problem.sigma_max)
    if counted.calls == 0:  # a rule that leaves the prior alone, as the exact one: its own calls are the ones to count
        model = counted = CountedModel(model)
    ladder = geometric(steps, problem.sigma_min, problem.sigma_max) if sigmas is None else sigmas

    def run(model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        return function(model, x, sigmas, noise, **options)

    started = time.perf_counter()
    law = None
    if exact and isinstance(problem.posterior, GaussianPrior) and problem.start.device.type == "cpu":
        law = sampler_law(run, model, start_law(problem.start, problem.sigma_max), ladder)
    if law is not None and isinstance(problem.posterior, GaussianPrior):
        counted.calls, count = 0, 0
        run(model, problem.start[None], ladder, torch.zeros_like)
        calls, found = float(counted.calls), judge_law(law, problem.posterior)
    else:
        draws, calls = draw_samples(problem, model, counted, function, ladder, samples, seed, options)
        count = len(draws)
    seconds = time.perf_counter() - started
    if law is None:
        found = judge_samples(draws, problem.posterior, seed)
    elif isinstance(problem.posterior, GaussianPrior):
        draws = GaussianPrior(*law).sample(STEIN_DRAWS, torch.Generator().manual_seed(seed))
    independent = function is not twisted  # the particles of one run are not
    stein = judge_by_score(draws, problem, seed) if independent else Stein(math.nan, math.nan)
    return Figures(
        problem=problem.name,
        rule=label or rule_name(rule),
        sampler=sampler_name(sampler),
        steps=len(ladder) - 1,
        method="monte carlo" if law is None else "exact",
        samples=count,
        calls=calls,
        seconds=seconds,
        ksd_squared=stein.squared,
        ksd_p=stein.p_value,
        **found,
    )


def judged_draws(
    problem: Problem, *, rule: str | Rule, sampler: str | Sampler, steps: int, samples: int, seed: int, **options: Any
) -> Tensor:
    """Draws (n, C, H, W) as :func:`verify` judges them, to look at."""
    counted = CountedModel(problem.prior)
    model = condition(counted, problem.forward_model, problem.y, rule)
    function = find_sampler(sampler)
    ladder = geometric(steps, problem.sigma_min, problem.sigma_max)
    return draw_samples(problem, model, counted, function, ladder, samples, seed, options)[0]


@torch.no_grad()
def draw_samples(
    problem: Problem,
    model: ScoreModel,
    counted: CountedModel,
    sampler: Sampler,
    sigmas: Tensor,
    samples: int,
    seed: int,
    options: dict[str, Any],
    *,
    batch: int = 2000,
) -> tuple[Tensor, float]:
    """Draws (n, C, H, W) of a sampler's law, and network calls per draw.

    The particle method returns all particles of one run, resampled by weight: with one measurement they are its
    posterior.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)

    counted.calls = 0
    if sampler is twisted and isinstance(model, GuidedModel):
        particles = options.get("particles", samples)
        runs = -(-samples // particles)
        start = problem.start.expand(runs, particles, *problem.start.shape)
        swarm, log_weights = twisted_particles(model, start + float(sigmas[0]) * noise(start), sigmas, noise)
        chosen = resample(log_weights, torch.rand(runs, 1, generator=generator).to(swarm), count=particles)
        rows = torch.arange(runs, device=swarm.device)[:, None]
        return swarm[rows, chosen].flatten(0, 1)[:samples], counted.calls / (runs * particles)
    out = []
    for first in range(0, samples, batch):
        start = problem.start.expand(min(batch, samples - first), *problem.start.shape)
        out.append(sampler(model, start + float(sigmas[0]) * noise(start), sigmas, noise, **options))
    return torch.cat(out), counted.calls / samples


def judge_law(law: Law, posterior: GaussianPrior) -> dict[str, float]:
    """A Gaussian law against a Gaussian posterior, without Monte Carlo (the projections aside)."""
    exact_std = posterior.covariance.diagonal().clamp(min=0).sqrt()
    std = law.covariance.diagonal().clamp(min=0).sqrt()
    error = (law.mean - posterior.mean).flatten()
    # Coverage: E over the true value t of 1 - P(19 samples above t) - P(19 below), by quadrature over its quantiles.
    quantiles = torch.special.ndtri((torch.arange(400, dtype=std.dtype) + 0.5) / 400)
    below = torch.special.ndtr((quantiles[:, None] * exact_std - error) / std)
    outside = below**INTERVAL_SAMPLES + (1 - below) ** INTERVAL_SAMPLES
    directions = random_directions(len(std), std)
    spread, exact_spread = (
        ((directions @ c) * directions).sum(dim=1).clamp(min=0).sqrt() for c in (law.covariance, posterior.covariance)
    )
    squares = (directions @ error) ** 2 + (spread - exact_spread) ** 2
    return {
        "bias": float((error / exact_std).square().mean().sqrt()),
        "std_ratio": float((std.square().mean() / exact_std.square().mean()).sqrt()),
        "coverage": float(1 - outside.mean()),
        "sliced_wasserstein": float(squares.mean().sqrt()),
        "floor": 0.0,
        **{f"{name}_error": 0.0 for name in ("bias", "std_ratio", "coverage", "sliced_wasserstein")},
    }


def judge_samples(draws: Tensor, posterior: GaussianPrior | SharedMixturePrior, seed: int = 0) -> dict[str, float]:
    """Samples (n, C, H, W) against a posterior in closed form. Standard errors come from blocks of the samples."""
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    x = draws.flatten(1)
    mean = posterior.mean.flatten()
    variance = posterior.covariance.diagonal() if isinstance(posterior, GaussianPrior) else posterior.variance.flatten()
    variance = variance.clamp(min=1e-300)
    reference, other = (posterior.sample(len(x), generator).flatten(1) for _ in range(2))
    directions = random_directions(x.shape[1], x)

    def squared_bias(part: Tensor) -> float:
        """What the mean is off beyond the n-sample noise of the mean itself."""
        noise = part.var(dim=0) / (len(part) * variance)
        return float(((part.mean(dim=0) - mean).square() / variance - noise).mean())

    def std_ratio(part: Tensor) -> float:
        return float((part.var(dim=0).mean() / variance.mean()).sqrt())

    def coverage(part: Tensor) -> float:
        ordered = part.sort(dim=0).values.T.contiguous()
        below = torch.searchsorted(ordered, reference.T.contiguous()) / len(part)
        return float(1 - (below**INTERVAL_SAMPLES + (1 - below) ** INTERVAL_SAMPLES).mean())

    def distance(part: Tensor) -> float:
        return sliced_wasserstein(part, reference[: len(part)], directions)

    blocks = [x[i::BLOCKS] for i in range(BLOCKS)] if len(x) >= 10 * BLOCKS else [x, x]

    def error(figure: Callable[[Tensor], float]) -> float:
        values = torch.tensor([figure(block) for block in blocks], dtype=torch.float64)
        return float(values.std() / math.sqrt(len(blocks)))

    square, square_error = squared_bias(x), error(squared_bias)
    bias = math.sqrt(max(square, 0.0))
    return {
        "bias": bias,
        "bias_error": min(square_error / (2 * bias) if bias > 0 else math.inf, math.sqrt(square_error)),
        "std_ratio": std_ratio(x),
        "std_ratio_error": error(std_ratio),
        "coverage": coverage(x),
        "coverage_error": error(coverage),
        "sliced_wasserstein": distance(x),
        "sliced_wasserstein_error": error(distance),
        "floor": sliced_wasserstein(other, reference, directions),
    }


def judge_by_score(draws: Tensor, problem: Problem, seed: int = 0) -> Stein:
    """The kernel Stein discrepancy of the first thousand draws (n, C, H, W) from the posterior, whose score is exact.

    Both are looked at with the noise of the ladder's end, below which no sampler is asked for anything, and in the
    directions in which the posterior (of a mixture, each of its modes) is wider than that. NaN for draws that are not finite.
    """
    generator, posterior, sigma = torch.Generator().manual_seed(2_000_000 + seed), problem.posterior, problem.sigma_min
    chosen = draws[:STEIN_DRAWS]
    if not chosen.isfinite().all():
        return Stein(math.nan, math.nan)
    x, scores = smoothed(posterior, chosen, sigma, generator)
    covariance = torch.eye(x.shape[1]).to(x) if posterior.covariance is None else posterior.covariance.to(x)
    # Only differences of samples matter, and small numbers have more digits.
    return kernel_stein_discrepancy(*resolved(x - x.mean(dim=0), scores, covariance, sigma), generator)


def random_directions(d: int, like: Tensor) -> Tensor:
    """Unit vectors (1000, d), the same for all comparisons of one dimension."""
    directions = torch.randn(PROJECTIONS, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    return (directions / directions.norm(dim=1, keepdim=True)).to(like)


def sliced_wasserstein(a: Tensor, b: Tensor, directions: Tensor) -> float:
    """SW2 of two samples (n, d): root mean over directions of the squared 1-D Wasserstein-2 distance (Bonneel 2015)."""
    p, q = ((x @ directions.T).sort(dim=0).values for x in (a, b))
    return float((p - q).square().mean().sqrt())


def check_adjoint(operator: LinearOperator) -> None:
    """Raise where an operator's adjoint is not its adjoint: every rule would go a wrong way without a word."""
    error = adjoint(operator).error
    if error > ADJOINT_TOLERANCE:
        raise InputError(
            f"{operator!r}: |<Ax, y> - <x, A'y>| is {error:.1e} of |Ax||y|, wanted {ADJOINT_TOLERANCE:.0e} or less",
            hint="compare _adjoint with the transpose of invsolve.models.gaussian.dense_matrix(operator)",
        )


def slice_picture(
    draws: Tensor, posterior: GaussianPrior | SharedMixturePrior, *, size: int = 320, seed: int = 0
) -> Tensor:
    """Exact (left) against sampled (right) in the plane of the posterior's two widest directions, (H, W) uint8.

    Two histograms of the same bins, darker where denser.
    """
    exact = posterior.sample(max(len(draws), 2000), torch.Generator().manual_seed(seed)).flatten(1).cpu()
    centre = exact.mean(dim=0)
    _, _, axes = torch.linalg.svd((exact - centre)[:2000], full_matrices=False)
    planes = [(x.flatten(1).cpu() - centre) @ axes[:2].T for x in (exact, draws)]
    reach = 1.15 * torch.cat(planes).abs().max()
    bins = 64
    panels = []
    for plane in planes:
        cells = ((plane / reach + 1) / 2 * bins).long().clamp(0, bins - 1)
        counts = torch.bincount(cells[:, 1] * bins + cells[:, 0], minlength=bins * bins).reshape(bins, bins).double()
        share = (counts / len(plane)).sqrt()
        panels.append(share.flip(0))
    peak = panels[0].max().clamp(min=1e-12)
    grey = [255 - (255 * (panel / peak).clamp(max=1)) for panel in panels]
    gap = torch.full((bins, 2), 160.0, dtype=torch.float64)
    image = torch.cat([grey[0], gap, grey[1]], dim=1)
    scale = max(1, size // bins)
    return image.repeat_interleave(scale, 0).repeat_interleave(scale, 1).to(torch.uint8)
