"""deepinv 0.5.0's samplers on the Gaussian problems of ``invsolve verify``, tuned, beside ours in one run.

    pip install deepinv==0.5.0
    python benchmarks/verify_peers.py

Both sides get the same exact denoiser, measurement, seeds and count of draws, and are judged by
``invsolve.verification.judge.judge_samples``: bias of the mean in posterior standard deviations (ideal 0), standard deviation over
the exact one (ideal 1), coverage of the range of 19 draws (ideal .9). A backward pass through the denoiser counts as a
call. Seconds are CPU seconds of one thread for all draws, in float32 for deepinv (it casts what it denoises) and in
float64 for ours.

What deepinv gets. The operator is given by its singular values (``DecomposablePhysics``), so that DDRM runs on all three
problems and every prox and PiGDM's inverse is closed form. The data are mapped by x -> .5 + c (x - .5) where a method's
constants assume a unit: DiffPIR clamps to [0, 1] (c = .5 moves the prior inside), PiGDM's r^2 assumes unit variance
(c = 4). ``DPSDataFidelity`` is used without the clip that the class ``DPS`` hard-codes. Each method's options, the grids
below, are tuned for each kind of problem on another problem (seed 1) with another seed of the draws, for the least
hypot(bias, ratio - 1); judged on seed 0. Ours are the defaults. 0.5.0 has no DAPS.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import deepinv
import numpy as np
import torch
from deepinv.optim import L2, ScorePrior
from deepinv.physics import DecomposablePhysics, GaussianNoise
from deepinv.sampling import (
    DDRM,
    DPS,
    ULA,
    ALDDataFidelity,
    DiffPIR,
    DPSDataFidelity,
    ILVRDataFidelity,
    MomentMatchingDataFidelity,
    PiGDMDataFidelity,
    PosteriorDiffusion,
    ScoreSDEDataFidelity,
    VarianceExplodingDiffusion,
)
from deepinv.sampling.sde_solver import AncestralSolver, HeunSolver
from torch import Tensor

from invsolve.models.gaussian import GaussianPrior, dense_matrix
from invsolve.models.score_model import CountedModel
from invsolve.rules import MomentMatching, Rule, condition
from invsolve.samplers import Sampler, find_sampler
from invsolve.samplers.sigmas import geometric
from invsolve.verification.judge import draw_samples, judge_samples
from invsolve.verification.problems import Problem, problems

KINDS = ("inpainting", "colorization", "blur")
CENTRE = 0.5


class Denoise(torch.autograd.Function):
    """The Gaussian prior's denoiser; its Jacobian is symmetric, so a backward pass is the same map without the mean."""

    @staticmethod
    def forward(x: Tensor, level: float, owner: Denoiser) -> Tensor:
        owner.calls += len(x)
        return owner.prior.denoise(x, level)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.level, ctx.owner = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        prior = ctx.owner.prior
        ctx.owner.calls += len(grad)
        return prior.denoise(grad + prior.mean, ctx.level) - prior.mean, None, None


class Denoiser(torch.nn.Module):
    """The exact denoiser in deepinv's contract, for data u = .5 + c (x - .5); counts pictures, forwards and backwards."""

    def __init__(self, prior: GaussianPrior, scale: float) -> None:
        super().__init__()
        self.prior = GaussianPrior(prior.mean, prior.covariance)
        for name in ("mean", "covariance", "eigenvalues", "eigenvectors"):
            setattr(self.prior, name, getattr(self.prior, name).float())
        self.scale, self.calls = scale, 0

    def forward(self, u: Tensor, sigma: Any, *_: Any, **__: Any) -> Tensor:
        level = max(float(torch.as_tensor(sigma).flatten()[0]) / self.scale, 1e-6)  # DDRM ends by asking for sigma 0
        x = CENTRE + (u.float() - CENTRE) / self.scale
        return (CENTRE + self.scale * (Denoise.apply(x, level, self) - CENTRE)).to(u.dtype)


class Case(NamedTuple):
    """A problem as deepinv sees it."""

    denoiser: Denoiser
    physics: DecomposablePhysics
    y: Tensor  # (n, 1, 1, d), in the operator's singular basis, 0 where nothing is measured
    shape: tuple[int, ...]  # (n, C, H, W)
    scale: float
    seed: int
    sigma_min: float
    sigma_max: float


def case_of(problem: Problem, count: int, scale: float, seed: int) -> Case:
    """The problem for ``count`` draws, mapped by x -> .5 + scale (x - .5)."""
    matrix = dense_matrix(problem.forward_model.linear)
    d, shape = matrix.shape[1], tuple(problem.start.shape)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=True)
    s = torch.cat([s, s.new_zeros(d - len(s))])
    seen = int((s > 1e-9 * s.max()).sum())
    values = torch.zeros(d, dtype=torch.float64)
    values[:seen] = problem.y.flatten() @ u[:, :seen]
    flat = (s * (vt @ torch.full((d,), CENTRE, dtype=torch.float64)))[:seen]
    values[:seen] = flat + scale * (values[:seen] - flat)
    s[seen:] = 0
    physics = DecomposablePhysics(
        U=lambda z: z,
        U_adjoint=torch.clone,  # DDRM writes into it
        V_adjoint=lambda x: (x.flatten(1) @ vt.T.to(x.dtype)).reshape(-1, 1, 1, d),
        V=lambda z: (z.flatten(1) @ vt.to(z.dtype)).reshape(-1, *shape),
        mask=s.float().reshape(1, 1, 1, d),
        img_size=shape,
        noise_model=GaussianNoise(scale * problem.forward_model.noise.sigma),
    )
    y = values.float().reshape(1, 1, 1, d).expand(count, 1, 1, d)
    denoiser = Denoiser(problem.prior, scale)  # type: ignore[arg-type]
    return Case(denoiser, physics, y, (count, *shape), scale, seed, problem.sigma_min, problem.sigma_max)


# -- deepinv's methods: (case, calls, **options) -> draws -------------------------------------------------------------------
def posterior_diffusion(
    case: Case, calls: int, *, term: Callable[[], Any], cost: float, alpha: float, solver: str = "ancestral"
) -> Tensor:
    """Its general sampler in its [-1, 1] state (twice our sigma), on our range of levels, geometric as its VE schedule is."""
    kind, per_step = {"ancestral": (AncestralSolver, 1), "heun": (HeunSolver, 2)}[solver]
    steps = max(2, int((calls - 1) // (cost * per_step)))
    sampler = PosteriorDiffusion(
        data_fidelity=term(),
        denoiser=case.denoiser,
        sde=VarianceExplodingDiffusion(
            sigma_min=2 * case.scale * case.sigma_min, sigma_max=2 * case.scale * case.sigma_max, alpha=alpha
        ),
        solver=kind(t_start=1.0, t_end=0.0, num_steps=steps + 1, rng=torch.Generator().manual_seed(case.seed)),
    )
    return sampler(case.y, case.physics, x_init=case.shape, seed=case.seed)


def moment_matching(case: Case, calls: int, *, iterations: int, alpha: float, solver: str = "ancestral") -> Tensor:
    # A level: the denoiser, the solver's first residual, its iterations, the gradient.
    term = partial(MomentMatchingDataFidelity, cg_max_iter=iterations)
    return posterior_diffusion(case, calls, term=term, cost=3 + iterations, alpha=alpha, solver=solver)


def dps(case: Case, calls: int, *, guidance: str, weight: float, alpha: float) -> Tensor:
    term = partial(DPSDataFidelity, weight=weight, guidance=guidance)
    return posterior_diffusion(case, calls, term=term, cost=2, alpha=alpha)


def dps_class(case: Case, calls: int, *, weight: float) -> Tensor:
    """The class as it is: VP schedule, DDPM steps."""
    rng = torch.Generator().manual_seed(case.seed)
    return DPS(case.denoiser, num_steps=calls // 2 + 1, weight=weight, rng=rng)(case.y, case.physics, x_init=case.shape)


def pigdm(case: Case, calls: int, *, weight: float, alpha: float) -> Tensor:
    return posterior_diffusion(case, calls, term=partial(PiGDMDataFidelity, weight=weight), cost=2, alpha=alpha)


def simple(case: Case, calls: int, *, term: Callable[..., Any], weight: float, alpha: float) -> Tensor:
    return posterior_diffusion(case, calls, term=partial(term, weight=weight), cost=1, alpha=alpha)


def diffpir(case: Case, calls: int, *, zeta: float, lam: float) -> Tensor:
    torch.manual_seed(case.seed)  # it draws from the global generator
    sigma = float(case.physics.noise_model.sigma)
    return DiffPIR(case.denoiser, L2(), sigma=sigma, max_iter=calls, zeta=zeta, lambda_=lam)(case.y, case.physics)


def ddrm(case: Case, calls: int, *, eta: float, etab: float, ladder: str) -> Tensor:
    torch.manual_seed(case.seed)
    levels = np.linspace(1, 0, calls)  # its default
    if ladder == "geometric":
        levels = geometric(calls - 1, case.sigma_min, case.sigma_max).numpy()
    return DDRM(case.denoiser, sigmas=levels, eta=eta, etab=etab)(case.y, case.physics)


def ula(case: Case, calls: int, *, sigma: float, step: float) -> Tensor:
    """The last states of as many chains as draws; ``step`` in units of 1 / (1 / sigma^2 + 1 / sigma_y^2)."""
    last: list[Tensor] = [torch.empty(0)]
    sigma_y = float(case.physics.noise_model.sigma)
    size = step / (1 / sigma**2 + 1 / sigma_y**2)

    def keep(state: dict[str, Tensor]) -> Tensor:
        last[0] = state["x"]
        return state["x"]

    chain = ULA(
        ScorePrior(case.denoiser), L2(sigma=sigma_y), step_size=size, sigma=sigma, max_iter=calls, thinning=1,
        burnin_ratio=0.0, clip=None,
    )  # fmt: skip
    chain.sample(case.y, case.physics, seed=case.seed + 1, g_statistics=keep)
    return last[0]


class Method(NamedTuple):
    """A peer, its calls per draw, what is tuned and how many draws judge it (None: as many as ours)."""

    name: str
    run: Callable[..., Tensor]
    calls: int
    grid: dict[str, Sequence[Any]]
    draws: int | None = None


BUDGET = 100
ALPHAS = (0.0, 0.25, 1.0)  # share of the reverse SDE's noise: ODE, the VE schedule's default, SDE
LINEAR = {"weight": (0.3, 1.0, 3.0, 10.0, 30.0), "alpha": (0.0, 1.0)}
PEERS = [
    Method("moment matching", moment_matching, BUDGET, {"iterations": (1, 3, 8, 15), "alpha": ALPHAS}),
    Method("moment matching, Heun", moment_matching, BUDGET, {"iterations": (1, 3, 8), "alpha": (0.0,), "solver": ("heun",)}),
    Method("PiGDM", pigdm, BUDGET, {"weight": (1.0,), "alpha": ALPHAS, "scale": (1.0, 4.0)}),
    Method("DPS norm", partial(dps, guidance="norm"), BUDGET, {"weight": (3.0, 30.0, 100.0, 300.0), "alpha": (0.0, 1.0)}),
    Method("DPS annealed", partial(dps, guidance="annealed"), BUDGET, {"weight": (0.3, 1.0, 3.0, 10.0), "alpha": (0.0, 1.0)}),
    Method("DiffPIR", diffpir, BUDGET, {"zeta": (0.1, 0.3, 1.0), "lam": (0.1, 0.3, 1.0, 7.0), "scale": (0.5, 1.0)}),
    Method("DDRM", ddrm, BUDGET, {"eta": (0.85, 1.0), "etab": (0.5, 1.0), "ladder": ("linear", "geometric")}),
    Method("ULA", ula, BUDGET, {"sigma": (0.02, 0.05, 0.1), "step": (0.5, 1.0, 1.9)}),
    Method("ALD term", partial(simple, term=ALDDataFidelity), BUDGET, LINEAR),
    Method("Score-SDE term", partial(simple, term=ScoreSDEDataFidelity), BUDGET, LINEAR),
    Method("ILVR term", partial(simple, term=ILVRDataFidelity), BUDGET, LINEAR),
    # Their own defaults where those are bigger: 1000 steps of DPS and of ULA; the 200 steps of its examples.
    Method("moment matching, 200 steps", moment_matching, 1201, {"iterations": (3,), "alpha": ALPHAS}, 500),
    Method("DPS class, 1000 steps", dps_class, 2000, {"weight": (100.0, 300.0)}, 500),
    Method("ULA, 1000 steps", ula, 1000, {"sigma": (0.02, 0.05), "step": (1.0, 1.9)}, 500),
]  # fmt: skip
OURS: list[tuple[str, str | Rule, str, int]] = [
    ("ours: moment matching, multistep, 12 levels", "moment_matching", "multistep", 12),
    ("ours: moment matching, multistep, 10 levels", "moment_matching", "multistep", 10),
    ("ours: the same, solved to .2 in 6 iterations", partial(MomentMatching, tolerance=0.2, steps=6), "multistep", 12),
    ("ours: proximal, renoising, 50 levels", "proximal", "renoising", 50),
]


def options_of(grid: dict[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def peer_draws(
    method: Method, problem: Problem, count: int, seed: int, options: dict[str, Any]
) -> tuple[Tensor, float]:
    """Draws (n, C, H, W) in our units, and calls for each."""
    chosen = dict(options)
    case = case_of(problem, count, chosen.pop("scale", 1.0), seed)
    draws = method.run(case, method.calls, **chosen).detach().double()
    return CENTRE + (draws - CENTRE) / case.scale, case.denoiser.calls / count


def our_draws(
    problem: Problem, count: int, seed: int, rule: str | Rule, sampler: str | Sampler, steps: int
) -> tuple[Tensor, float]:
    """The same of ours, from as many levels between the problem's ends."""
    counted = CountedModel(problem.prior)
    model = condition(counted, problem.forward_model, problem.y, rule)
    function = find_sampler(sampler)
    ladder = geometric(steps, problem.sigma_min, problem.sigma_max)
    return draw_samples(problem, model, counted, function, ladder, count, seed, {})


def loss(method: Method, problem: Problem, count: int, options: dict[str, Any]) -> float:
    """What the tuning makes small; infinite where the method diverges."""
    draws, _ = peer_draws(method, problem, count, 11, options)
    if not bool(draws.isfinite().all()):
        return math.inf
    found = judge_samples(draws, problem.posterior)
    return math.hypot(found["bias"], found["std_ratio"] - 1)


def row(
    name: str, kind: str, problem: Problem, run: Callable[[], tuple[Tensor, float]], note: str = ""
) -> dict[str, Any]:
    """Draw, judge, print."""
    started = time.process_time()
    draws, calls = run()
    seconds = time.process_time() - started
    found = judge_samples(draws.nan_to_num(1e6), problem.posterior)
    print(
        f"{kind:<13} {name:<44} bias {found['bias']:6.3f} +-{found['bias_error']:.3f}  ratio {found['std_ratio']:6.3f}  "
        f"coverage {found['coverage']:.3f}  calls {calls:5.0f}  draws {len(draws):>4}  CPU {seconds:6.2f} s  {note}",
        flush=True,
    )
    return {"kind": kind, "name": name, "calls": calls, "draws": len(draws), "seconds": seconds, "note": note, **found}


def table(kind: str, samples: int, tuning: int, only: str) -> Iterator[dict[str, Any]]:
    """Ours and every peer on one kind of problem."""
    problem, other = problems[kind](0), problems[kind](1)
    for name, rule, sampler, steps in OURS:
        if only in name:
            yield row(name, kind, problem, partial(our_draws, problem, samples, 0, rule, sampler, steps))
    for method in PEERS:
        if only not in method.name:
            continue
        candidates = list(options_of(method.grid))
        best = min(candidates, key=partial(loss, method, other, tuning))
        count = min(samples, method.draws or samples)
        yield row(
            f"deepinv: {method.name}", kind, problem, partial(peer_draws, method, problem, count, 0, best), str(best)
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000, help="draws that judge (500 at most above 1000 calls)")
    parser.add_argument("--tuning", type=int, default=200, help="draws for each candidate in tuning")
    parser.add_argument("--only", default="", help="methods whose name contains this")
    parser.add_argument("--problem", default="", help="kinds of problem whose name contains this")
    parser.add_argument("--save", type=Path, help="figures as JSON")
    chosen = parser.parse_args(argv)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    print("deepinv", deepinv.__version__, "torch", torch.__version__, "threads", torch.get_num_threads(), flush=True)
    rows = [
        one
        for kind in KINDS
        if chosen.problem in kind
        for one in table(kind, chosen.samples, chosen.tuning, chosen.only)
    ]
    if chosen.save:
        chosen.save.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
