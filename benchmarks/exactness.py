"""Every rule x sampler against the true posterior of an image-like Gaussian, exactly (no Monte Carlo).

Gaussian prior 3 x 8 x 8 with a smooth covariance, noise 0.05. Bias is the rms error of the mean in posterior standard
deviations (ideal 0), ratio the standard deviation over the exact one (ideal 1).

    python benchmarks/exactness.py
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import torch
from torch import Tensor

from invsolve.forward_models import ForwardModel, GaussianNoise, Grayscale, LinearOperator, Mask
from invsolve.models.gaussian import smooth_gaussian_prior
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.rules import condition
from invsolve.samplers import (
    Sampler,
    ancestral,
    heun_sde,
    ode,
    predictor_corrector,
    renoising,
    reverse_sde,
)
from invsolve.samplers.sigmas import geometric, karras, ncsnv2_step
from invsolve.verification.exactness import Law, bias, langevin_by_levels, sampler_law, start_law

SHAPE, NOISE = (3, 8, 8), 0.05


def by_levels(sampler: Sampler, **options: Any) -> Sampler:
    """A sampler run on each pair of neighbouring levels by itself; ``churn`` then counts for each step."""

    def run(model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        for i in range(len(sigmas) - 1):
            x = sampler(model, x, sigmas[i : i + 2], noise, **options)
        return x

    return run


def laws(model: ScoreModel, sigma_max: float) -> dict[str, Law]:
    """Each sampler's law; network calls per sample in the name."""
    start = start_law(torch.full(SHAPE, 0.5, dtype=torch.float64), sigma_max)
    coarse, fine = karras(50, 0.005, sigma_max), karras(200, 0.005, sigma_max)
    ncsn, textbook = geometric(50, 0.005, sigma_max), geometric(300, 0.005, sigma_max)
    runs: dict[str, tuple[Sampler, Tensor]] = {
        "renoising, 50 calls": (renoising, coarse),
        "ancestral, 50 calls": (ancestral, coarse),
        "ancestral, 200 calls": (ancestral, fine),
        "reverse SDE, 50 calls": (reverse_sde, coarse),
        "predictor-corrector, 99 calls": (partial(predictor_corrector, measured_norms=False), coarse),
        "stochastic Heun, 99 calls": (by_levels(heun_sde, churn=40 / 50), coarse),
        "ODE (Heun), 99 calls": (ode, coarse),
        "langevin, NCSNv2 step, 50 x 4 calls": (langevin_by_levels(4, ncsnv2_step(ncsn, 4) / 0.005**2), ncsn),
        "langevin, fine, 300 x 5 calls": (langevin_by_levels(5, 0.2), textbook),
    }
    found = {name: sampler_law(sampler, model, start, sigmas) for name, (sampler, sigmas) in runs.items()}
    return {name: law for name, law in found.items() if law is not None}


def main() -> None:
    prior = smooth_gaussian_prior(SHAPE)
    generator = torch.Generator().manual_seed(0)
    truth = prior.sample(1, generator)
    known = (torch.rand(1, 8, 8, generator=generator, dtype=torch.float64) > 0.5).double()
    problems: dict[str, tuple[LinearOperator, float]] = {
        "inpainting": (Mask(known, 3), 1.0),
        "colorization": (Grayscale(SHAPE), 5.0),
    }
    table: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for name, (operator, sigma_max) in problems.items():
        forward_model = ForwardModel(operator, GaussianNoise(NOISE))
        y = forward_model.simulate(truth, generator)
        posterior = prior.posterior(forward_model, y)
        for rule in ("exact", "proximal", "validated", "annealed", "replacement"):
            found = {
                s: bias(law, posterior) for s, law in laws(condition(prior, forward_model, y, rule), sigma_max).items()
            }
            for sampler, (mean, ratio) in found.items():
                print(f"{name:>12}  {rule:>11}  {sampler:<36} bias {mean:.3f}  ratio {ratio:.3f}", flush=True)
                table.setdefault(name, {}).setdefault(rule, {})[sampler] = (round(mean, 4), round(ratio, 4))
    print(json.dumps(table))


if __name__ == "__main__":
    main()
