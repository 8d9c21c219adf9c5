"""deepinv 0.5.0's DPS and DiffPIR on 23-view CT with our weights and our operator, tuned, beside ours in one run.

    pip install deepinv==0.5.0
    python benchmarks/ct_peers.py --data ct-val.npz --tune ct-train.npz --case noiseless

Both get 100 network calls per sample. Their weights are tuned on a training slice, ours are the defaults.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import deepinv
import numpy as np
import torch
from ct import SCANS, Scan, Slice, ct_case, line_integrals, one_slice_per_patient, simulate, slice_figures, usual
from deepinv.optim import L2
from deepinv.physics import GaussianNoise, LinearPhysics
from deepinv.sampling import DiffPIR, DPSDataFidelity, PosteriorDiffusion, VarianceExplodingDiffusion
from deepinv.sampling.sde_solver import AncestralSolver
from harness import Array, Figures, Report, Table, solve_case

from invsolve.forward_models import LinearOperator, projector
from invsolve.models.score_model import ScoreModel
from invsolve.pretrained import load_prior

CALLS = 100
EXACT = 0.02
"""The noise that deepinv's methods are told of where there is none."""

TUNED_ON = 3
"""The training slice's number."""

OURS = ((30, 1), (50, 1), (100, 1), (50, 2))
"""Noise levels and samples."""

Peer = Callable[[torch.Tensor, Any], torch.Tensor]


class Denoiser(torch.nn.Module):
    """Our prior in deepinv's contract: x in [0, 1], sigma in the same units."""

    def __init__(self, prior: ScoreModel) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: torch.Tensor, sigma: Any, *_: Any, **__: Any) -> torch.Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float32).flatten()
        level = level.expand(len(x)) if level.numel() == 1 else level
        return self.prior.denoise(x.float(), level).to(x.dtype)


def dps(denoiser: Denoiser, guidance: str, weight: float, sigma_max: float, calls: int = CALLS) -> Peer:
    def run(y: torch.Tensor, physics: Any) -> torch.Tensor:
        sampler = PosteriorDiffusion(
            data_fidelity=DPSDataFidelity(denoiser=denoiser, weight=weight, guidance=guidance, clip=None),
            denoiser=denoiser,
            sde=VarianceExplodingDiffusion(sigma_max=2 * sigma_max, alpha=1.0),
            solver=AncestralSolver(t_start=1.0, t_end=0.0, num_steps=calls, rng=torch.Generator().manual_seed(1)),
            dtype=torch.float32,
        )
        return sampler(y, physics, x_init=(len(y), *physics.img_size), seed=1)

    return run


def diffpir(denoiser: Denoiser, sigma: float, zeta: float, lam: float, calls: int = CALLS) -> Peer:
    def run(y: torch.Tensor, physics: Any) -> torch.Tensor:
        torch.manual_seed(1)  # it draws from the global generator
        return DiffPIR(denoiser, L2(), sigma=sigma, max_iter=calls, zeta=zeta, lambda_=lam)(y, physics)

    return run


def peers(denoiser: Denoiser) -> dict[str, Peer]:
    """Every candidate of the tuning, by a name that starts with its kind."""
    return {
        **{f"DPS norm, weight {w:g}": dps(denoiser, "norm", w, 1.0) for w in (100, 300, 1000, 3000, 10000)},
        **{f"DPS annealed, weight {w:g}": dps(denoiser, "annealed", w, 1.0) for w in (1, 10, 30, 100, 300)},
        **{
            f"DiffPIR, sigma {s:g}, zeta {z:g}, lambda {g:g}": diffpir(denoiser, s, z, g)
            for s, z, g in ((0.02, 1.0, 7.0), (0.02, 0.3, 7.0), (0.1, 1.0, 7.0), (0.5, 1.0, 7.0))
        },
    }


KINDS = ("DPS norm", "DPS annealed", "DiffPIR")


def physics_of(operator: LinearOperator, sigma: float) -> Any:
    """The operator scaled to norm 1, as deepinv's weights and step sizes expect it."""
    scaled = (1 / operator.norm) * operator
    return LinearPhysics(
        A=lambda x, **_: scaled(x.float()).to(x.dtype),
        A_adjoint=lambda y, **_: scaled.T(y.float()).to(y.dtype),
        img_size=operator.input_shape,
        noise_model=GaussianNoise(sigma),
        max_iter=20,
        tol=1e-3,
    )


class Measured(NamedTuple):
    """A slice as the peers see it."""

    truth: Array
    y: torch.Tensor  # line integrals, in units of the operator's norm
    physics: Any


def measured(one: Slice, how: Scan, seed: int, operator: LinearOperator) -> Measured:
    truth, data, scale = simulate(one, how, seed)
    y, noise = line_integrals(data, how, scale)
    sigma = float(noise.median()) if isinstance(noise, torch.Tensor) else EXACT
    return Measured(truth, y / operator.norm, physics_of(operator, sigma / operator.norm))


def run_peer(peer: Peer, problem: Measured) -> Figures:
    started = time.perf_counter()
    estimate = peer(problem.y, problem.physics).detach()[0, 0].float().numpy()
    seconds = time.perf_counter() - started
    return {**slice_figures(problem.truth, np.nan_to_num(estimate)), "seconds": seconds}


def tuned(candidates: dict[str, Peer], problem: Measured) -> list[str]:
    """The best of each kind on a training slice."""
    scores: dict[str, float] = {}
    for name, peer in candidates.items():
        try:
            scores[name] = run_peer(peer, problem)["psnr"]
        except RuntimeError as error:
            print(f"{name}: {error}")
            scores[name] = -np.inf
        print(f"tuning  {name:<40} {scores[name]:.2f} dB", flush=True)
    of_kind = [[name for name in scores if name.startswith(kind)] for kind in KINDS]
    return [max(names, key=lambda name: scores[name]) for names in of_kind if names]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tune", required=True, help="training slices")
    parser.add_argument("--case", choices=("noiseless", "photons"), default="noiseless")
    parser.add_argument("--model", default="ct")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--only", default="", help="peers whose name contains this, such as DiffPIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every case")
    chosen = parser.parse_args(argv)
    prior, how = load_prior(chosen.model, "cpu"), SCANS[chosen.case]
    operator = projector(how.geometry)
    candidates = {name: peer for name, peer in peers(Denoiser(prior)).items() if chosen.only in name}
    report = Report(chosen, prior, deepinv=deepinv.__version__)
    prepare = partial(measured, how=how, operator=operator)
    best = tuned(candidates, prepare(one_slice_per_patient(chosen.tune)[TUNED_ON], seed=100))
    table = Table()
    for index, one in enumerate(one_slice_per_patient(chosen.data)[: chosen.slices]):
        problem, case = prepare(one, seed=index), ct_case(one, how, index, operator)
        table.put({name: run_peer(candidates[name], problem) for name in best})
        for steps, count in OURS:
            options = replace(usual(chosen.case), samples=count, steps=steps)
            result = solve_case(case, prior, options, baselines=False)
            figures = slice_figures(problem.truth, result.posterior.mean[0, 0].numpy())
            name = f"invsolve, {steps} calls x {count}"
            table.add(result, {name: {**figures, "seconds": result.seconds}})
    report.add(chosen.case, table)
    report.finish()


if __name__ == "__main__":
    main()
