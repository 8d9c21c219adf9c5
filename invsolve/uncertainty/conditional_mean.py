"""The posterior's mean by what each chain expects on its way, instead of where it ends.

By the tower property the mean of p(x0 | y) is that of E[x0 | x_sigma, y] over p(x_sigma | y), at any noise level, and so over any
of them together; and by Rao & Blackwell (1945, 1947) the average of so many of the latter varies less, as each is a mean already.
It costs nothing: the sampler has denoised at every level. Where samples differ as a whole, such as in a picture's colours, a few of
them leave much of that to gain (docs/lab/colorization.md); where they differ pixel by pixel, draws in pairs have gained it already.
With momentum a chain swings about its mean, and the average of its estimates has back what that costs
(docs/lab/uncertainty-and-calibration.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.samplers.info import StepInfo


class ConditionalMean:
    """Averages the chains' estimates of the clean picture at all noise levels from ``low`` to ``high``."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.total, self.count = torch.zeros(()), 0

    def add(self, info: StepInfo) -> None:
        """Note one step of one batch."""
        if self.low <= info.sigma <= self.high:
            self.total = self.total + info.denoised.sum(dim=0)
            self.count += len(info.denoised)

    @property
    def average(self) -> Tensor | None:
        """(C, H, W), the mean over all chains and levels; None where no level was among them."""
        return self.total / self.count if self.count else None
