"""deepinv 0.5.0's DPS and DiffPIR on 23-view CT with our weights and our operator, tuned, beside ours in one run.

    pip install deepinv==0.5.0
    python benchmarks/ct_peers.py --data ct-val.npz --tune ct-train.npz --case noiseless

Both get 100 network calls per sample. Their weights are tuned on a training slice, ours are the defaults.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import deepinv
import numpy as np
import torch
from common import machine
from ct import CASES, Slice, figures, measure, one_slice_per_patient
from deepinv.optim import L2
from deepinv.physics import GaussianNoise, LinearPhysics
from deepinv.sampling import DiffPIR, DPSDataFidelity, PosteriorDiffusion, VarianceExplodingDiffusion
from deepinv.sampling.sde_solver import AncestralSolver

from invsolve import load_prior
from invsolve.ct.reconstruction import reconstruct_ct
from invsolve.forward_models import TransmissionNoise, projector

CALLS = 100
Method = Callable[[torch.Tensor, Any], torch.Tensor]


class Denoiser(torch.nn.Module):
    """Our prior in deepinv's contract: x in [0, 1], sigma in the same units."""

    def __init__(self, prior: Any) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: torch.Tensor, sigma: Any, *_: Any, **__: Any) -> torch.Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float32).flatten()
        level = level.expand(len(x)) if level.numel() == 1 else level
        return self.prior.denoise(x.float(), level).to(x.dtype)


def dps(denoiser: Denoiser, guidance: str, weight: float, sigma_max: float) -> Method:
    def run(y: torch.Tensor, physics: Any) -> torch.Tensor:
        sampler = PosteriorDiffusion(
            data_fidelity=DPSDataFidelity(denoiser=denoiser, weight=weight, guidance=guidance, clip=None),
            denoiser=denoiser,
            sde=VarianceExplodingDiffusion(sigma_max=2 * sigma_max, alpha=1.0),
            solver=AncestralSolver(t_start=1.0, t_end=0.0, num_steps=CALLS, rng=torch.Generator().manual_seed(1)),
            dtype=torch.float32,
        )
        return sampler(y, physics, x_init=(len(y), 1, 256, 256), seed=1)

    return run


def diffpir(denoiser: Denoiser, sigma: float, zeta: float, lam: float) -> Method:
    def run(y: torch.Tensor, physics: Any) -> torch.Tensor:
        torch.manual_seed(1)
        return DiffPIR(denoiser, L2(), sigma=sigma, max_iter=CALLS, zeta=zeta, lambda_=lam)(y, physics)

    return run


def physics_of(operator: Any, sigma: float) -> Any:
    """The operator scaled to norm 1, as deepinv's weights and step sizes expect it."""
    operator = (1 / operator.norm) * operator
    return LinearPhysics(
        A=lambda x, **_: operator(x.float()).to(x.dtype),
        A_adjoint=lambda y, **_: operator.T(y.float()).to(y.dtype),
        img_size=(1, 256, 256),
        noise_model=GaussianNoise(sigma),
        max_iter=20,
        tol=1e-3,
    )


def prepared(one: Slice, case: Any, index: int) -> tuple[Any, torch.Tensor, float, Any, float]:
    """(truth, line integrals, their typical noise, raw data, scale)."""
    truth, data, scale = measure(one, case, index)
    y, sigma = torch.from_numpy(data)[None], 0.02
    if case.photons is not None:
        y, weight = TransmissionNoise(case.photons, scale).line_integrals(y)
        sigma = float((1 / weight.clamp(min=1e-6)).median())
    return truth, y, sigma, data, scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tune", required=True, help="training slices")
    parser.add_argument("--case", choices=("noiseless", "photons"), default="noiseless")
    parser.add_argument("--model", default="ct")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--only", default="", help="peers whose name contains this, such as DiffPIR")
    options = parser.parse_args()
    prior = load_prior(options.model, "cpu")
    case, denoiser = CASES[options.case], Denoiser(prior)
    operator = projector(case.geometry)
    norm = operator.norm
    candidates: dict[str, Method] = {
        **{f"DPS norm, weight {w:g}": dps(denoiser, "norm", w, 1.0) for w in (100, 300, 1000, 3000, 10000)},
        **{f"DPS annealed, weight {w:g}": dps(denoiser, "annealed", w, 1.0) for w in (1, 10, 30, 100, 300)},
        **{
            f"DiffPIR, sigma {s:g}, zeta {z:g}, lambda {g:g}": diffpir(denoiser, s, z, g)
            for s, z, g in ((0.02, 1.0, 7.0), (0.02, 0.3, 7.0), (0.1, 1.0, 7.0), (0.5, 1.0, 7.0))
        },
    }
    candidates = {name: method for name, method in candidates.items() if options.only in name}
    print(machine(), vars(options), "deepinv", deepinv.__version__, f"|A| {norm:.1f}")
    tuning = [prepared(one, case, 100 + i) for i, one in enumerate(one_slice_per_patient(options.tune)[3:4])]
    scores: dict[str, float] = {}
    for name, method in candidates.items():
        found = []
        for truth, y, sigma, _, _ in tuning:
            try:
                estimate = method(y / norm, physics_of(operator, sigma / norm)).detach()[0, 0].float().numpy()
                found.append(figures(truth, np.nan_to_num(estimate))["psnr"])
            except RuntimeError as error:
                print(f"{name}: {error}")
                found.append(float("nan"))
        scores[name] = float(np.mean(found))
        print(f"tuning  {name:<40} {scores[name]:.2f} dB", flush=True)
    kinds = [kind for kind in ("DPS norm", "DPS annealed", "DiffPIR") if any(n.startswith(kind) for n in scores)]
    best = [max((n for n in scores if n.startswith(k)), key=lambda n: np.nan_to_num(scores[n], nan=-99)) for k in kinds]
    rows: dict[str, list[dict[str, float]]] = {}
    for index, one in enumerate(one_slice_per_patient(options.data)[: options.slices]):
        truth, y, sigma, data, scale = prepared(one, case, index)
        for name in best:
            started = time.perf_counter()
            estimate = candidates[name](y / norm, physics_of(operator, sigma / norm)).detach()[0, 0].float().numpy()
            seconds = time.perf_counter() - started
            rows.setdefault(name, []).append({**figures(truth, np.nan_to_num(estimate)), "seconds": seconds})
        for steps, count in ((30, 1), (50, 1), (100, 1), (50, 2)):
            started = time.perf_counter()
            posterior = reconstruct_ct(
                data, case.geometry, prior, samples=count, steps=steps, i0=case.photons, scale=scale, operator=operator
            )
            seconds = time.perf_counter() - started
            name = f"invsolve, {steps} calls x {count}"
            rows.setdefault(name, []).append({**figures(truth, posterior.mean[0, 0].numpy()), "seconds": seconds})
    for name, results in rows.items():
        mean = {key: float(np.mean([r[key] for r in results])) for key in results[0]}
        print(f"{name:<42} " + "  ".join(f"{key} {value:.3f}" for key, value in mean.items()), flush=True)


if __name__ == "__main__":
    main()
