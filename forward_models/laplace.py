"""Noise with heavy tails: values that are far off now and then pull no harder than those that are near."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import InputError


@dataclass(frozen=True)
class LaplaceNoise:
    """y = clean + n, n with the density ``exp(-|n| / scale) / (2 scale)``: standard deviation sqrt(2) scale.

    The widened likelihood is that of a Laplace plus a Gaussian variable, in closed form (Reed & Jorgensen 2004):
    of ``exp(s^2 / 2) [exp(-r) Phi(r/s - s) + exp(r) Phi(-r/s - s)] / (2 scale)``, r = (y - clean) / scale and s = spread / scale,
    the gradient is exact.

    Parameters
    ----------
    scale : in the units of y, positive.
    """

    scale: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"scale = {self.scale}", hint="wanted a positive number in the units of y")

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        return (-(y - clean).abs() / self.scale - math.log(2 * self.scale)).flatten(1).sum(dim=1)

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        r = (y - clean).double() / self.scale
        s = torch.as_tensor(spread, dtype=torch.float64, device=y.device) / self.scale
        # a spread of nothing is the plain likelihood's sign: the floor keeps r / s finite
        s = s.clamp(min=1e-9)
        right, left = (torch.special.log_ndtr(sign * r / s - s) - sign * r for sign in (1, -1))
        return (torch.tanh(0.5 * (right - left)) / self.scale).to(clean)

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        u = torch.rand(clean.shape, generator=generator, dtype=torch.float64) - 0.5
        return clean - (self.scale * u.sign() * torch.log1p(-2 * u.abs())).to(clean)
