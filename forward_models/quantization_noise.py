"""A measurement rounded to steps, and clipped where the detector ends: all that is known is the cell of each value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import InputError

SHARPEST = 1e-3
"""Least spread of the likelihood's edges, in steps: a value outside its cell is pulled back, however sharp the edge."""

LEAST_SHARE = 1e-9
"""Of its variance that a value must lose to its cell to count as measured."""


@dataclass(frozen=True)
class QuantizationNoise:
    """y = clip(step * round(clean / step), low, high): p(y | clean) is 1 where clean lies in the cell of y, 0 elsewhere.

    The cell is ``[y - step / 2, y + step / 2]``; that of ``low`` and of ``high`` is open, as what was clipped may have been any
    value beyond. The widened likelihood ``Phi((upper - clean) / spread) - Phi((lower - clean) / spread)`` and its gradient are
    exact (Gaussian data that were grouped and censored; Zymnis, Boyd & Candes 2010). Without spread the log-likelihood is 0 or
    minus infinity and the gradient 0 inside the cell; outside it is that of a spread of 0.001 steps.

    Parameters
    ----------
    step : between neighbouring values of y, in its units, positive; 1 / 255 for 8 bits of [0, 1].
    low, high : the least and the largest value of y, multiples of ``step`` or infinite.
    """

    step: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and self.step > 0):
            raise InputError(f"step = {self.step}", hint="wanted a positive number in the units of y")
        if not self.low < self.high:
            raise InputError(f"clipped from {self.low} to {self.high}", hint="wanted the lower end first")

    def cell(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and the upper end of what may have become each value of ``y``."""
        slack, half = 1e-3 * self.step, 0.5 * self.step
        lower = torch.where(y <= self.low + slack, -math.inf, y - half)
        upper = torch.where(y >= self.high - slack, math.inf, y + half)
        return lower, upper

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        lower, upper = self.cell(y)
        outside = ((clean < lower) | (clean > upper)).flatten(1).any(dim=1)
        return torch.where(outside, -math.inf, torch.zeros(len(y), dtype=clean.dtype, device=clean.device))

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        s = torch.as_tensor(spread, dtype=torch.float64, device=y.device).clamp(min=SHARPEST * self.step)
        return self._slopes(clean, y, s)[0].to(clean)

    def _slopes(self, clean: Tensor, y: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivative of log E p(y | clean + s n) by ``clean``, float64."""
        lower, upper = self.cell(y.double())
        a, b = (((end - clean) / s).clamp(-1e6, 1e6) for end in (lower, upper))
        # phi(a) - phi(b) over Phi(b) - Phi(a), both tails as logarithms; mirrored so that the larger tail is the left one
        mirrored = a + b > 0
        a, b = torch.where(mirrored, -b, a), torch.where(mirrored, -a, b)
        larger, smaller = torch.special.log_ndtr(b), torch.special.log_ndtr(a)
        log_share = larger + torch.log(-torch.expm1(smaller - larger))
        start, end = (torch.exp(-0.5 * x**2 - log_share) / math.sqrt(2 * math.pi) for x in (a, b))
        slope = start - end
        bend = a * start - b * end - slope**2
        return torch.where(mirrored, -slope, slope) / s, bend / s**2

    def matched(self, clean: Tensor, variance: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The Gaussian that gives N(``clean``, ``variance``) the moments it has cut off at the cell's ends."""
        v = variance.double().clamp(min=(SHARPEST * self.step) ** 2)
        slope, bend = self._slopes(clean, y, v.sqrt())
        share = (
            -bend * v
        )  # of the variance that the cell takes away; rounding errors far outside would make it any number
        share = share.clamp(max=1 - 1e-9)
        told = share > LEAST_SHARE
        share = torch.where(told, share, 1.0)
        value = torch.where(told, clean + slope * v / share, clean)
        return value.to(clean), torch.where(told, v * (1 - share) / share, math.inf).to(clean)

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The rounded values; nothing is random."""
        return (self.step * (clean / self.step).round()).clamp(self.low, self.high)
