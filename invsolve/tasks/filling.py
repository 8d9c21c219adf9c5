"""Filling a box coarse to fine: the layout first, and each finer resolution given the coarser one.

p(fine, coarse | known) = p(coarse | known) p(fine | coarse, known): a sample of the coarsest picture is drawn first, where a
hole is narrow and the prior sees all around it. At twice the resolution it is one more measurement: of each block of 2 x 2
missing pixels the mean is known, with noise for what the coarser picture got wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.forward_models import ForwardModel, GaussianNoise, Mask, RegionMeans
from invsolve.forward_models.stacked import stack_measurements
from invsolve.models.score_model import ScoreModel
from invsolve.options import SolveOptions
from invsolve.posterior import Posterior
from invsolve.samplers import StepInfo
from invsolve.solver import solve, task_ladder
from invsolve.tasks.push_pull import push_pull
from invsolve.tasks.task import in_memory

SIGMA_START = 0.25
"""First noise level on the interpolated guess: above what interpolation gets wrong."""

SIGMA_START_WIDE = 3.0
"""First noise level at the coarsest resolution of a wide hole, where interpolation knows nothing."""

SIGMA_START_REFINING = 0.25
"""First noise level on a guess that comes from half the resolution: keeps its layout, renews its detail."""

SIGMA_END = 0.005


@dataclass(frozen=True)
class Filling:
    """How one part is filled: all that stays the same from resolution to resolution."""

    prior: ScoreModel
    options: SolveOptions  # sigma_start is that of the coarsest resolution
    noise: float  # at full resolution
    stream: int
    meter: Callable[[int, StepInfo], None]

    def coarse_to_fine(self, picture: Tensor, precision: Tensor, scales: int, level: int = 0) -> Posterior:
        """Fill at the coarsest resolution first; each finer one starts from the coarser sample plus a little noise.

        Parameters
        ----------
        picture : (1, 3, H, W), or (n, 3, H, W) of n samples that see different surroundings.
        precision : (1, 1, H, W), what is known of each pixel relative to one without a gap beneath it; 0 where missing.
        scales : resolutions still to come, this one counted.
        level : how often the picture was halved.
        """
        if scales > 1:
            coarse = self.coarse_to_fine(*self.halve(picture, precision), scales - 1, level + 1)
            size = tuple(picture.shape[-2:])
            guess = F.interpolate(coarse.samples[:, 0], size=size, mode="bilinear", align_corners=False).to(picture)
            start = torch.where(precision > 0, picture, guess)
            return self.solve(picture, precision, level, start, SIGMA_START_REFINING, coarse.network_calls)
        first = self.options.sigma_start or SIGMA_START
        return self.solve(picture, precision, level, push_pull(picture, precision > 0), first, 0)

    def halve(self, picture: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Half resolution: the mean of what is known in each 2 x 2 block, and how precise it is.

        Without noise a block is known as soon as any of its pixels is.
        """
        weight = F.avg_pool2d(precision, 2, ceil_mode=True)
        average = F.avg_pool2d(picture * precision, 2, ceil_mode=True) / weight.clamp(min=1e-12)
        return average, weight if self.noise else (weight > 0).to(picture)

    def solve(
        self, picture: Tensor, precision: Tensor, level: int, start: Tensor, sigma_start: float, calls: int
    ) -> Posterior:
        """Sample at one resolution; ``calls`` were made at coarser ones."""
        options, pixels = self.options, picture.shape[-2] * picture.shape[-1]
        # The mean of 4^level pixels has 1 / 2^level of their noise; of fewer, less precise ones the rows weigh less.
        rows = precision.sqrt()
        solved = solve(
            self.prior,
            ForwardModel(Mask(rows[0], channels=3), GaussianNoise(self.noise / 2**level)),
            rows * picture,
            **in_memory(options, pixels).keywords,
            sigmas=task_ladder(options, SIGMA_END, sigma_start, picture[0].numel()),
            start=start[:, None],
            paired=len(picture) > 1,
            turn=True,
            stream=self.stream + level,
            callback=lambda info: self.meter(pixels, info),
        )
        return replace(solved, network_calls=solved.network_calls + calls)
