"""Time of the default inpainting of a 256 x 256 region, and what a sampler step costs beside its network call.

python benchmarks/timing.py
"""

from __future__ import annotations

import time

import numpy as np
import torch
from common import SIZE, machine, random_pixels

from invsolve import inpaint, load_prior, solve
from invsolve.cli.demo import demo_picture
from invsolve.forward_models import ForwardModel, Mask
from invsolve.models.score_model import CountedModel, ScoreModel, Sigma
from invsolve.samplers.sigmas import karras


class Timed(CountedModel):
    """Adds up the seconds spent in the network."""

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.seconds = 0.0

    def denoise(self, x: torch.Tensor, sigma: Sigma) -> torch.Tensor:
        started = time.perf_counter()
        denoised = super().denoise(x, sigma)
        self.seconds += time.perf_counter() - started
        return denoised


class TimedMask(Mask):
    """Adds up the seconds spent in the operator."""

    seconds = 0.0

    def _prox(self, z: torch.Tensor, y: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        x = super()._prox(z, y, rho)
        TimedMask.seconds += time.perf_counter() - started
        return x


def main() -> None:
    prior = load_prior("photos", "cpu")
    print(machine(), prior.card.sha256[:12])
    picture = demo_picture(SIZE).astype(np.float32) / 255
    missing = random_pixels(0)
    inpaint(picture, missing, prior, steps=2)
    started = time.perf_counter()
    inpaint(picture, missing, prior, samples=8)
    print(f"default inpainting, 256 x 256, 8 samples: {time.perf_counter() - started:.1f} s")

    known = torch.from_numpy(~missing)[None].float()
    y = known * torch.from_numpy(picture.transpose(2, 0, 1))[None]
    for batch in (1, 8):
        ratios = []
        for _ in range(5):
            timed, TimedMask.seconds = Timed(prior), 0.0
            started = time.perf_counter()
            solve(timed, ForwardModel(TimedMask(known, 3)), y, sigmas=karras(10), samples=batch, batch=batch, turn=True)
            ratios.append((time.perf_counter() - started - TimedMask.seconds) / timed.seconds)
        print(
            f"batch {batch}: (step - operator) / network call = {np.median(ratios):.3f} (median of {np.round(ratios, 3)})"
        )


if __name__ == "__main__":
    main()
