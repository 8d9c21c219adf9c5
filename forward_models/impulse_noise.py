"""Dead and hot pixels: some values are replaced by the ends of the range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.diagonal import Diagonal
from invsolve.forward_models.forward_model import ForwardModel, GaussianNoise
from invsolve.forward_models.operator import LinearOperator


@dataclass(frozen=True)
class SaltAndPepperNoise:
    """y = clean + sigma n, or with probability ``share`` one of ``low`` and ``high``, at equal odds.

    A value at one of the two ends says nothing of the clean one, any other is Gaussian about it: the likelihood is exact, a
    density with two atoms of ``share / 2`` (Chan, Ho & Nikolova 2005 tell the two apart likewise). A true value of exactly
    ``low`` or ``high`` is lost among them. :meth:`quadratic` is no approximation but the same likelihood.

    Parameters
    ----------
    share : of values that are replaced, above 0 and below 1.
    sigma : standard deviation of the Gaussian noise on the others, in the units of y; 0 is for :meth:`quadratic` alone.
    low, high : the two ends, in the units of y.
    """

    share: float
    sigma: float = 0.0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"share = {self.share}", hint="wanted above 0 and below 1")
        GaussianNoise(self.sigma)  # checks the number

    def kept(self, y: Tensor) -> Tensor:
        """Which values of ``y`` say something, bool of its shape."""
        return (y != self.low) & (y != self.high)

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        kept = self.kept(y)
        squares = torch.where(kept, (y - clean) / self._positive(), 0).square()
        gaussian = math.log(1 - self.share) - 0.5 * squares - math.log(self._positive() * math.sqrt(2 * math.pi))
        return torch.where(kept, gaussian, math.log(self.share / 2)).flatten(1).sum(dim=1)

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        gaussian = GaussianNoise(self._positive()).log_likelihood_gradient(clean, y, spread)
        return torch.where(self.kept(y), gaussian, 0)

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        y = GaussianNoise(self.sigma).simulate(clean, generator)
        u = torch.rand(clean.shape, generator=generator, dtype=torch.float64).to(clean.device)
        y = torch.where(u < self.share, torch.full_like(y, self.high), y)
        return torch.where(u < self.share / 2, torch.full_like(y, self.low), y)

    def quadratic(self, operator: LinearOperator, y: Tensor) -> tuple[ForwardModel, Tensor]:
        """The Gaussian forward model of the values that were kept, of one image (1, ...), and its measurement."""
        kept = self.kept(y).to(y)
        return ForwardModel(Diagonal(kept[0]) @ operator, GaussianNoise(self.sigma)), kept * y

    def _positive(self) -> float:
        if self.sigma == 0:
            raise InputError("values that were kept exactly have no density", hint="use quadratic, or a positive sigma")
        return self.sigma
