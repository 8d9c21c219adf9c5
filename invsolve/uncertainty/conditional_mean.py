"""The posterior's mean by what each chain expects on its way, instead of where it ends.

By the tower property the mean of p(x0 | y) is that of E[x0 | x_sigma, y] over p(x_sigma | y), at any noise level; and by Rao &
Blackwell (1945, 1947) the average of so many of the latter varies less, as each is a mean already. It costs nothing: the sampler
has denoised at every level. Where samples differ as a whole, such as in a picture's colours, a few of them leave much of that to
gain; where they differ pixel by pixel, draws in pairs have gained it already (docs/lab/colorization.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invsolve.samplers.info import StepInfo


class ConditionalMean:
    """Collects the chains' estimates of the clean picture at the noise level nearest to ``sigma``, over all batches of a run."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma
        self.batches: list[
            tuple[float, Tensor]
        ] = []  # of each the distance to the level, and its chains' estimates there
        self.before = 0.0

    def add(self, info: StepInfo) -> None:
        """Note one step of one batch."""
        distance = abs(math.log(info.sigma / self.sigma))
        if info.sigma > self.before:  # a new batch begins at the top
            self.batches.append((distance, info.denoised))
        elif distance < self.batches[-1][0]:
            self.batches[-1] = (distance, info.denoised)
        self.before = info.sigma

    @property
    def average(self) -> Tensor | None:
        """(C, H, W), the mean over all chains; None before the first step."""
        return torch.cat([estimates for _, estimates in self.batches]).mean(dim=0) if self.batches else None
