"""MCG-diff beside ours at equal score evaluations, in one run, on its authors' mixture of 25 Gaussians.

    python benchmarks/mcg_diff.py            # the table, after the check
    python benchmarks/mcg_diff.py --check    # only: MCG-diff against a posterior known in closed form

Peer: Cardoso, Janati El Idrissi, Le Corff & Moulines 2024, "Monte Carlo guided diffusion for Bayesian linear inverse
problems", Algorithms 1 and 2, written from the paper's equations with the exact score. Their x_t / sqrt(alpha_bar_t) is
our x at sigma_t^2 = (1 - alpha_bar_t) / alpha_bar_t, so all of it is said in sigma. With A = U diag(s) V', the
coefficient c_i = (V'x)_i is measured as Y_i = (U'y)_i / s_i with noise tau_i = sigma_y / s_i: as if the diffusion had
passed Y_i at level tau_i. Above that level

- the guide is c_i(x_s) ~ N(Y_i, sigma_s^2 - tau_i^2), the forward law from there,
- a particle moves by the prior's step N(m, v) times the guide, K = v / (v + sigma_s^2 - tau_i^2):
  c_i ~ N(K Y_i + (1 - K) m_i, K (sigma_s^2 - tau_i^2)), all other coefficients by N(m, v),
- its weight is N(Y_i; m_i, v + sigma_s^2 - tau_i^2) / N(c_i(x_t); Y_i, sigma_t^2 - tau_i^2), multiplied over i,

and below it, nothing. The levels tau_i are in the ladder.

Accounting, 200 score evaluations per returned draw, backward passes counted. *all particles*: one run of N particles and
T levels returns 200 draws from its weighted particles, N T = 200 x 200. *one draw a run*: 200 runs of N T = 200, of
each one particle. Ours (twisted particles) returns all 200 particles of a run. MCG-diff's split of N and T, the ladder, its
eta and the resampling are tuned for each (d, dy) on other problems than those it is judged on. Ours are the defaults, 200 particles
on the problem's geometric ladder; the rows named *tuned* choose particles and ladder in the same way. CPU seconds.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from verify import MIXTURES

from invsolve.forward_models import DenseMatrix, ForwardModel, GaussianNoise
from invsolve.models.gaussian import SharedMixturePrior, dense_matrix
from invsolve.models.score_model import CountedModel, Noise
from invsolve.rules import condition
from invsolve.samplers.sigmas import geometric, karras
from invsolve.samplers.twisted import effective_sample_size, resample, twisted_particles
from invsolve.verification.judge import judge_samples
from invsolve.verification.problems import Problem, mixture_problem

BUDGET = 200
DRAWS = 200


class Setting(NamedTuple):
    """What MCG-diff leaves to its user."""

    particles: int
    levels: int
    spacing: str  # "geometric", or "rho 3": more of the large levels
    eta: float  # 1: DDPM's steps, 0: DDIM's
    adaptive: bool  # systematic resampling below half of the effective sample size, else multinomial at every step


class Measured(NamedTuple):
    """What is measured, in the basis where the operator is diagonal."""

    basis: Tensor  # (d, m), orthonormal columns
    values: Tensor  # (m,), Y
    levels: Tensor  # (m,), tau


def measured(problem: Problem, sigma_min: float) -> Measured:
    """Y and tau of a problem; a tau below the last level becomes that level."""
    u, s, vt = torch.linalg.svd(dense_matrix(problem.forward_model.linear), full_matrices=False)
    tau = problem.forward_model.noise.sigma / s
    return Measured(vt.T, (problem.y.flatten() @ u) / s, tau.clamp(min=sigma_min))


def ladder(setting: Setting, tau: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    """``setting.levels`` falling levels, those of the measurements among them, then 0."""
    inside = tau[(tau > sigma_min) & (tau <= sigma_max)]
    levels = SPACINGS[setting.spacing](max(2, setting.levels - len(inside)), sigma_min, sigma_max)[:-1]
    return torch.cat([torch.cat([levels, inside]).sort(descending=True).values, levels.new_zeros(1)])


def mcg_diff(
    prior: CountedModel, facts: Measured, sigmas: Tensor, start: Tensor, noise: Noise, setting: Setting
) -> tuple[Tensor, Tensor]:
    """Particles (R, N, C, H, W) of R runs and their log weights (R, N).

    Parameters
    ----------
    start : (R, N, C, H, W), the prior's mean; the first level's law is put around it.
    sigmas : falling levels ending in 0.
    """
    runs, particles, *shape = start.shape
    levels = [float(s) for s in sigmas]
    basis, y, tau = facts
    x = start.reshape(runs * particles, -1)
    used = tau < levels[0]
    # First level: N(start, sigma^2) times the guide. The guide is the narrower, and the start is only a place.
    z = noise(x)
    x = guided(x, levels[0] ** 2, levels[0], z, facts, used)
    log_weights = x.new_zeros(runs, particles)
    for sigma, sigma_next in itertools.pairwise(levels):
        denoised = prior.denoise(x.reshape(-1, *shape), sigma).flatten(1)
        if sigma_next == 0:
            x = denoised
            continue
        variance = (setting.eta * sigma_next) ** 2 * (1 - (sigma_next / sigma) ** 2)
        mean = denoised + math.sqrt(sigma_next**2 - variance) / sigma * (x - denoised)
        active = (tau <= sigma_next) & used
        if bool(active.any()):
            above = variance + sigma_next**2 - tau[active] ** 2
            ahead = normal(y[active], mean @ basis[:, active], above)
            behind = normal(x @ basis[:, active], y[active], sigma**2 - tau[active] ** 2)
            log_weights = log_weights + (ahead - behind).reshape(runs, particles)
            chosen = chosen_particles(log_weights, noise, setting.adaptive)
            if chosen is not None:
                index, log_weights = chosen
                mean = mean[(index + particles * torch.arange(runs)[:, None]).flatten()]
        x = guided(mean, variance, sigma_next, noise(x), facts, active)
    return x.reshape(start.shape), log_weights


def guided(mean: Tensor, variance: float, sigma: float, z: Tensor, facts: Measured, active: Tensor) -> Tensor:
    """A draw of N(mean, variance) times the guides of the active coefficients at level sigma; all (n, d)."""
    free = mean + math.sqrt(variance) * z
    if not bool(active.any()):
        return free
    basis, room = facts.basis[:, active], (sigma**2 - facts.levels[active] ** 2).clamp(min=0)
    gain = variance / (variance + room)
    centre, fresh = mean @ basis, z @ basis
    wanted = centre + gain * (facts.values[active] - centre) + (gain * room).sqrt() * fresh
    return free + (wanted - free @ basis) @ basis.T


def normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; mean, variance) summed over the coefficients, (n,); the constant is shared by all particles."""
    return -0.5 * ((x - mean) ** 2 / variance).sum(dim=1)


def chosen_particles(log_weights: Tensor, noise: Noise, adaptive: bool) -> tuple[Tensor, Tensor] | None:
    """Whom to copy (R, N), and the weights after it; None: nobody."""
    particles = log_weights.shape[1]
    if not adaptive:
        uniform = torch.special.ndtr(noise(log_weights))
        cumulative = torch.softmax(log_weights, dim=1).cumsum(dim=1)
        index = torch.searchsorted(cumulative, uniform).clamp(max=particles - 1)
        return index, torch.zeros_like(log_weights)
    poor = effective_sample_size(log_weights) < 0.5 * particles
    if not bool(poor.any()):
        return None
    index = resample(log_weights, torch.special.ndtr(noise(log_weights[:, :1])), count=particles)
    index = torch.where(poor[:, None], index, torch.arange(particles))
    return index, torch.where(poor[:, None], 0.0, log_weights)


@torch.no_grad()
def draw(problem: Problem, setting: Setting, runs: int, draws: int, seed: int) -> tuple[Tensor, float]:
    """Draws (n, C, H, W), ``draws / runs`` of each run, and score evaluations for each."""
    generator = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    facts, prior = measured(problem, problem.sigma_min), CountedModel(problem.prior)
    sigmas = ladder(setting, facts.levels, problem.sigma_min, problem.sigma_max)
    start = problem.start.expand(runs, setting.particles, *problem.start.shape)
    swarm, log_weights = mcg_diff(prior, facts, sigmas, start, noise, setting)
    count = draws // runs
    index = resample(log_weights, torch.rand(runs, 1, generator=generator, dtype=torch.float64), count=count)
    return swarm[torch.arange(runs)[:, None], index].flatten(0, 1), prior.calls / draws


# -- the check --------------------------------------------------------------------------------------------------------------
def gaussian_case(seed: int = 0) -> Problem:
    """One Gaussian in 8 dimensions with its own covariance, two measured values: the posterior is a Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    mean = torch.randn(1, 1, 1, 8, generator=generator, dtype=torch.float64)
    prior = SharedMixturePrior(torch.ones(1, dtype=torch.float64), mean, root @ root.T / 8 + 0.1 * torch.eye(8))
    matrix = torch.randn(2, 8, generator=generator, dtype=torch.float64) / 3
    forward_model = ForwardModel(DenseMatrix(matrix, (1, 1, 8)), GaussianNoise(0.3))
    y = forward_model.simulate(prior.sample(1, generator), generator)
    return Problem("gaussian-8-2", prior, forward_model, y, prior.posterior(forward_model, y), prior.mean, 0.01, 30.0)


def check() -> None:
    """MCG-diff must come to the exact posterior as N and T grow; raises where it does not.

    The error of the mean is held against the scatter between independent runs: particles of one run share ancestors.
    """
    case, runs = gaussian_case(), 20
    exact = case.posterior.mean.flatten(), case.posterior.variance.flatten().sqrt()
    for adaptive in (False, True):
        for particles, levels in ((50, 25), (200, 50), (800, 200)):
            setting = Setting(particles, levels, "geometric", 1.0, adaptive)
            draws = draw(case, setting, runs, runs * particles, 0)[0].reshape(runs, particles, -1)
            z = (draws - exact[0]) / exact[1]
            bias = float(z.mean(dim=(0, 1)).square().mean().sqrt())
            scatter = float((z.mean(dim=1).var(dim=0) / runs).mean().sqrt())
            ratio = float(z.square().mean().sqrt())
            print(
                f"check: one Gaussian, {runs} runs, N {particles:>3}, T {levels:>3}, "
                f"{'adaptive' if adaptive else 'multinomial':<11}  bias {bias:.3f} +-{scatter:.3f}  ratio {ratio:.3f}",
                flush=True,
            )
        if bias > 0.01 + 2.5 * scatter or scatter > 0.1 or abs(ratio - 1) > 0.03:
            raise SystemExit("MCG-diff misses a posterior known in closed form")


# -- the table --------------------------------------------------------------------------------------------------------------
SPLITS = {1: ((200, 200), (400, 100), (800, 50), (1600, 25)), DRAWS: ((2, 100), (4, 50), (8, 25), (16, 12))}
ETAS = (0.5, 0.8)
OURS = (("moment_matching", None), ("pigdm", 2), ("dps", 2))
SPACINGS = {"geometric": geometric, "rho 3": partial(karras, rho=3.0)}


@cache
def case(d: int, dy: int, seed: int) -> Problem:
    return mixture_problem(seed, d=d, dy=dy)


def distances(d: int, dy: int, setting: Setting, runs: int, seeds: Sequence[int]) -> tuple[list[float], float]:
    """Sliced Wasserstein distance of each problem, and score evaluations per draw."""
    found = []
    for seed in seeds:
        draws, calls = draw(case(d, dy, seed), setting, runs, DRAWS, seed)
        found.append(judge_samples(draws, case(d, dy, seed).posterior, seed)["sliced_wasserstein"])
    return found, calls


def tuned(d: int, dy: int, runs: int, seeds: Sequence[int]) -> Setting:
    """The setting with the least mean distance over the tuning problems: eta 1 first, then other eta for the best."""

    def best(settings: Sequence[Setting]) -> Setting:
        scores = {setting: sum(distances(d, dy, setting, runs, seeds)[0]) for setting in settings}
        return min(scores, key=lambda setting: scores[setting])

    choices = itertools.product(SPLITS[runs], ("geometric", "rho 3"), (False, True))
    first = best([Setting(n, t, spacing, 1.0, adaptive) for (n, t), spacing, adaptive in choices])
    return best([first, *(first._replace(eta=eta) for eta in ETAS)])


def line(d: int, dy: int, name: str, found: Sequence[float], calls: float, seconds: float, note: str = "") -> None:
    values = torch.tensor(found, dtype=torch.float64)
    error = float(values.std()) / math.sqrt(len(values))
    print(
        f"{d:>4} {dy}  {name:<40} SW {float(values.mean()):6.3f} +-{error:.3f}  calls {calls:5.1f}  {seconds:5.1f} s  {note}",
        flush=True,
    )


@torch.no_grad()
def our_draw(problem: Problem, rule: str, particles: int, levels: int, spacing: str, seed: int) -> tuple[Tensor, float]:
    """Draws (n, C, H, W) of one run of the twisted sampler with more particles than draws, and calls for each draw."""
    generator = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    counted = CountedModel(problem.prior)
    model = condition(counted, problem.forward_model, problem.y, rule)
    sigmas = SPACINGS[spacing](levels, problem.sigma_min, problem.sigma_max)
    start = problem.start.expand(1, particles, *problem.start.shape)
    swarm, log_weights = twisted_particles(model, start + problem.sigma_max * noise(start), sigmas, noise)
    index = resample(log_weights, torch.rand(1, 1, generator=generator, dtype=torch.float64), count=DRAWS)
    return swarm[0, index[0]], counted.calls / DRAWS


def our_distances(
    d: int, dy: int, rule: str, cost: int, choice: tuple[int, str], seeds: Sequence[int]
) -> tuple[list[float], float]:
    """As :func:`distances`; ``choice`` is particles and spacing, the levels are what the budget leaves."""
    particles, spacing = choice
    levels = BUDGET * DRAWS // (particles * cost)
    found = []
    for seed in seeds:
        draws, calls = our_draw(case(d, dy, seed), rule, particles, levels, spacing, seed)
        found.append(judge_samples(draws, case(d, dy, seed).posterior, seed)["sliced_wasserstein"])
    return found, calls


def table(d: int, dy: int, repeats: int, tuning: int, only: str) -> None:
    """Every method on the same problems, with the floor."""
    seeds, others = range(repeats), range(1000, 1000 + tuning)
    for name, runs in (("MCG-diff, all particles", 1), ("MCG-diff, one draw a run", DRAWS)):
        if only in name:
            best = tuned(d, dy, runs, others)
            started = time.process_time()
            found, calls = distances(d, dy, best, runs, seeds)
            line(d, dy, name, found, calls, time.process_time() - started, str(tuple(best)))
    for rule, fixed in OURS:
        cost = fixed or 1 + dy
        for name, choices in (
            (f"{rule}, twisted", [(DRAWS, "geometric")]),
            (f"{rule}, twisted, tuned", list(itertools.product((200, 400, 800), SPACINGS))),
        ):
            if only in name:
                scores = (
                    {c: sum(our_distances(d, dy, rule, cost, c, others)[0]) for c in choices} if choices[1:] else {}
                )
                choice = min(scores, key=lambda c: scores[c]) if scores else choices[0]
                started = time.process_time()
                found, calls = our_distances(d, dy, rule, cost, choice, seeds)
                line(d, dy, name, found, calls, time.process_time() - started, str(choice))
    floors = [judge_samples(case(d, dy, s).posterior.sample(DRAWS, rng(s)), case(d, dy, s).posterior, s) for s in seeds]
    line(d, dy, "exact draws (floor)", [floor["floor"] for floor in floors], 0, 0)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only the check")
    parser.add_argument("--skip-check", action="store_true", help="only the table")
    parser.add_argument("--repeats", type=int, default=20, help="problems of each kind")
    parser.add_argument("--tuning", type=int, default=4, help="other problems, to tune MCG-diff on")
    parser.add_argument("--problem", default="", help="only (d, dy) whose d-dy contains this, such as 80-1")
    parser.add_argument("--only", default="", help="methods whose name contains this")
    chosen = parser.parse_args(argv)
    if not chosen.skip_check:
        check()
    if chosen.check:
        return
    for d, dy in MIXTURES:
        if chosen.problem in f"{d}-{dy}":
            table(d, dy, chosen.repeats, chosen.tuning, chosen.only)


if __name__ == "__main__":
    main()
