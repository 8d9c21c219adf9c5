"""Time of the default inpainting of a 256 x 256 region, and what a sampler step costs beside its network call.

python benchmarks/timing.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from cases import SIZE, random_pixels
from harness import Timed, machine
from torch import Tensor

from invsolve import inpaint, load_prior, solve
from invsolve.cli.demo import demo_picture
from invsolve.forward_models import ForwardModel, Mask
from invsolve.models.score_model import ScoreModel
from invsolve.samplers.sigmas import karras

REPEATS = 5


class TimedMask(Mask):
    """Adds up the seconds spent in the operator."""

    def __init__(self, known: Tensor, channels: int) -> None:
        super().__init__(known, channels)
        self.seconds = 0.0

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        started = time.perf_counter()
        x = super()._prox(z, y, rho)
        self.seconds += time.perf_counter() - started
        return x


def step_over_call(prior: ScoreModel, known: Tensor, y: Tensor, batch: int) -> float:
    """Time of a step without its operator, over that of its network call."""
    timed, mask = Timed(prior), TimedMask(known, 3)
    started = time.perf_counter()
    solve(timed, ForwardModel(mask), y, sigmas=karras(10), samples=batch, batch=batch, turn=True)
    return (time.perf_counter() - started - mask.seconds) / timed.seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="photos")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=SIZE, help="side of the picture")
    parser.add_argument("--samples", type=int, default=8)
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    print(machine(), vars(chosen), prior.card.sha256[:12])
    picture = demo_picture(chosen.size).astype(np.float32) / 255
    missing = random_pixels(0, chosen.size)
    inpaint(picture, missing, prior, steps=2)
    started = time.perf_counter()
    inpaint(picture, missing, prior, samples=chosen.samples)
    seconds = time.perf_counter() - started
    print(f"default inpainting, {chosen.size} x {chosen.size}, {chosen.samples} samples: {seconds:.1f} s")

    known = torch.from_numpy(~missing)[None].float()
    y = known * torch.from_numpy(picture.transpose(2, 0, 1))[None]
    known, y = known.to(prior.device), y.to(prior.device)
    for batch in sorted({1, chosen.samples}):
        ratios = [step_over_call(prior, known, y, batch) for _ in range(REPEATS)]
        print(
            f"batch {batch}: (step - operator) / network call = {np.median(ratios):.3f} (median of {np.round(ratios, 3)})"
        )


if __name__ == "__main__":
    main()
