"""One step of a rule, told the truth's own noisy slice: is a draw of x0 given x and y as wide as the mean's error?

    python benchmarks/one_step.py --data ct-val.npz --case photons --size 128

x is the true slice with noise of sigma on it, which a sampler has only if all its steps before were right. So a rule that is
honest here and samples that are too sure after many steps put the fault in how the steps follow each other, not in the prior.
Per noise level, inside the body, means over slices:

- the denoiser's error, and what Tweedie's formula says it is, sigma sqrt(tr J / d) (Efron 2011), J by one random probe;
- the error of the rule's mean, the spread of its draws, and their ratio, ideal 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from ct import BODY, SCANS, line_integrals, one_slice_per_patient, scan_of, simulate
from harness import machine
from torch import Tensor

from invsolve import condition
from invsolve.forward_models import Diagonal, ForwardModel, GaussianNoise, LinearOperator, projector
from invsolve.models.score_model import ScoreModel
from invsolve.pretrained import load_prior

SIGMAS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
NOISELESS = 1e-4
"""Standard deviation that stands for no noise."""

PROBE = 0.05
"""Step of the finite difference, as a share of sigma."""


def rms(x: Tensor, where: Tensor) -> float:
    """Of the values that count."""
    return float(x[where].square().mean().sqrt())


def one_step(
    prior: ScoreModel, model: ForwardModel, y: Tensor, truth: Tensor, sigma: float, rule: str, draws: int,
    generator: torch.Generator,
) -> dict[str, float]:  # fmt: skip
    """The figures of a level; ``truth`` (1, 1, H, W)."""

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    body = truth > BODY
    x = truth + sigma * noise(truth)
    sign = noise(x).sign()
    step = PROBE * sigma
    slope = (prior.denoise(x + step * sign, sigma) - prior.denoise(x - step * sign, sigma)) * sign / (2 * step)
    posterior = condition(prior, model, y, rule)
    drawn = torch.cat([posterior.draw(x, sigma, noise)[0] for _ in range(draws)])
    error = rms(posterior.denoise(x, sigma) - truth, body)
    spread = float(drawn.var(dim=0, keepdim=True)[body].mean().sqrt())
    return {
        "denoiser": rms(prior.denoise(x, sigma) - truth, body),
        "Tweedie": sigma * max(float(slope[body].mean()), 0.0) ** 0.5,
        "mean": error,
        "draws": spread,
        "ratio": spread / error,
    }


def measured(
    truth: np.ndarray, data: np.ndarray, noise: float | Tensor, operator: LinearOperator
) -> tuple[ForwardModel, Tensor]:
    """The forward model of a slice, each ray in units of its own noise, and what was measured (1, ...)."""
    y = torch.from_numpy(data).reshape(1, *operator.output_shape)
    if isinstance(noise, float):
        return ForwardModel(operator, GaussianNoise(NOISELESS)), y
    level = noise.reshape(operator.output_shape)
    return ForwardModel(Diagonal(1 / level) @ operator, GaussianNoise(1.0)), y / level


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="slices like ct-val.npz")
    parser.add_argument("--model", default="ct", help="a prior's name or folder")
    parser.add_argument("--case", choices=SCANS, default="photons")
    parser.add_argument("--size", type=int, help="side of the middle of the slices; default whole slices")
    parser.add_argument("--rule", default="wiener", help="one that draws")
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS)
    chosen = parser.parse_args(argv)
    print(machine(), vars(chosen), flush=True)
    prior, how = load_prior(chosen.model, "cpu"), scan_of(chosen.case, chosen.size)
    operator = projector(how.geometry, "cpu")
    cases = []
    for index, one in enumerate(one_slice_per_patient(chosen.data, chosen.size)[: chosen.slices]):
        truth, data, scale = simulate(one, how, index)
        y, noise = line_integrals(data, how, scale)
        cases.append((torch.from_numpy(truth.copy())[None, None], *measured(truth, y.numpy(), noise, operator)))
    generator = torch.Generator().manual_seed(0)
    for sigma in chosen.sigmas:
        found = [
            one_step(prior, model, y, truth, sigma, chosen.rule, chosen.draws, generator) for truth, model, y in cases
        ]
        figures = {name: sum(figure[name] for figure in found) / len(found) for name in found[0]}
        print(f"sigma {sigma:<6g}", *(f"{name} {value:.4f}" for name, value in figures.items()), sep="  ", flush=True)


if __name__ == "__main__":
    main()
