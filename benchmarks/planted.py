"""How small an error the verdict of `verify` and the kernel Stein discrepancy find: mistakes planted in several sizes.

    python benchmarks/planted.py

Colorization of 3 x 8 x 8 pictures with the exact rule and 200 ancestral levels, whose law is computed, and the posterior
of a mixture, drawn with wrong weights. Printed: bias, ratio of standard deviations, squared discrepancy; the share of
problems in which the verdict says wrong, and in which the discrepancy's p-value is 0.01 or less.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invsolve.atomic import write_files
from invsolve.models.gaussian import SharedMixturePrior
from invsolve.models.score_model import Noise, ScoreModel, Sigma
from invsolve.rules import ExactPosterior
from invsolve.samplers import ancestral
from invsolve.verification.figures import Figures
from invsolve.verification.judge import verify
from invsolve.verification.problems import Problem, colorization_problem, mixture_problem

LEVELS = 200
FOUND = 0.01


class Weighted(ExactPosterior):
    """The likelihood's pull counted ``times``."""

    def __init__(self, *args: Any, times: float = 1.0) -> None:
        super().__init__(*args)
        self.times = times

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        own = self.base.denoise(x, sigma)
        return own + self.times * (super().denoise(x, sigma) - own)


class Scaled(ExactPosterior):
    """The noise level handed on in another unit, ``times`` the right one."""

    def __init__(self, *args: Any, times: float = 1.0) -> None:
        super().__init__(*args)
        self.times = times

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return super().denoise(x, self.times * float(torch.as_tensor(sigma)))


def noisy(times: float) -> Callable[..., Tensor]:
    """The sampler with ``times`` the noise in every step."""

    def run(model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        return ancestral(model, x, sigmas, lambda like: times * noise(like))

    return run


def gaussian_row(rule: Any, sampler: Any, seed: int) -> Figures:
    return verify(colorization_problem(seed), rule=rule, sampler=sampler, steps=LEVELS, seed=seed)


def mixture_row(power: float, seed: int) -> Figures:
    """Draws of the posterior with its modes' weights to a power: 1 right, 0 all alike, many the largest alone."""
    problem: Problem = mixture_problem(seed)
    posterior = problem.posterior
    assert isinstance(posterior, SharedMixturePrior)
    weights = torch.softmax(power * posterior.log_weights, dim=0)
    wrong, generator = (
        SharedMixturePrior(weights, posterior.means, posterior.covariance),
        torch.Generator().manual_seed(seed),
    )

    def draw(model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        return wrong.sample(len(x), generator)

    return verify(problem, rule="exact", sampler=draw, steps=1, seed=seed)


PLANTED: dict[str, Callable[[int], Figures]] = {
    "nothing": partial(gaussian_row, ExactPosterior, ancestral),
    **{
        f"likelihood counted {times:g} times": partial(gaussian_row, partial(Weighted, times=times), ancestral)
        for times in (2.0, 1.3, 1.1, 1.03)
    },
    **{
        f"sigma {times:g} times the right one": partial(gaussian_row, partial(Scaled, times=times), ancestral)
        for times in (0.5, 0.8, 0.9, 0.97)
    },
    **{
        f"{times:.3g} times the noise in a step": partial(gaussian_row, ExactPosterior, noisy(times))
        for times in (2**0.5, 1.1, 1.03)
    },
    "mixture, nothing": partial(mixture_row, 1.0),
    "mixture, weights to the power 0.5": partial(mixture_row, 0.5),
    "mixture, the heaviest mode alone": partial(mixture_row, 50.0),
}


def summary(rows: Sequence[Figures]) -> dict[str, float]:
    """Means over the problems, and how often the error was found."""
    means = {name: float(np.mean([getattr(f, name) for f in rows])) for name in ("bias", "std_ratio", "ksd_squared")}
    wrong, rejected = ([not f.calibrated for f in rows], [f.ksd_p <= FOUND for f in rows])
    return {**means, "verdict says wrong": float(np.mean(wrong)), "discrepancy found": float(np.mean(rejected))}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="problems of each kind")
    parser.add_argument("--only", help="errors whose name holds this")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(argv)
    found = {}
    for name, judge in PLANTED.items():
        if not chosen.only or chosen.only in name:
            found[name] = summary([judge(seed) for seed in range(chosen.repeats)])
            print(f"{name:>36}: " + "  ".join(f"{key} {value:.4f}" for key, value in found[name].items()), flush=True)
    if chosen.json:
        write_files({chosen.json: json.dumps(found, indent=1).encode()})


if __name__ == "__main__":
    main()
