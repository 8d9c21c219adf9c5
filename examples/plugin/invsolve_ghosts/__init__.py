"""A plug-in for invsolve: the ghost image of a window pane, and noise with heavy tails."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models import LinearOperator


class Ghost(LinearOperator):
    """y = x + strength * (x moved by ``across`` and ``down`` pixels, wrapping around): (C, H, W) -> (C, H, W).

    A pane of glass reflects the picture a second time, weaker and beside itself. Norm, proximal map and pseudo-inverse follow from
    the two methods.

    Parameters
    ----------
    input_shape : (C, height, width).
    strength : of the ghost, from -1 to 1.
    across, down : pixels to the right and down.
    """

    def __init__(self, input_shape: tuple[int, ...], strength: float = 0.4, across: int = 5, down: int = 2) -> None:
        if not abs(strength) < 1:
            raise InputError(f"ghost: strength = {strength:g}", hint="wanted between -1 and 1")
        super().__init__(input_shape, input_shape)
        self.strength, self.across, self.down = strength, across, down

    def _apply(self, x: Tensor) -> Tensor:
        return x + self.strength * x.roll((self.down, self.across), (-2, -1))

    def _adjoint(self, y: Tensor) -> Tensor:
        return y + self.strength * y.roll((-self.down, -self.across), (-2, -1))


@dataclass(frozen=True)
class StudentNoise:
    """y = clean + scale t, t of Student's distribution: outliers that no Gaussian has.

    Widened by a spread, the gradient is ``(k + 1) r / (k scale^2 + (k + 1) spread^2 + r^2)`` with r = y - clean: exact at spread 0 and
    nowhere steeper than that of a Gaussian of that spread.

    Parameters
    ----------
    scale : in the units of y, positive.
    freedom : k, degrees of freedom, positive; the variance is finite above 2.
    """

    scale: float
    freedom: float = 4.0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.freedom > 0 and math.isfinite(self.scale + self.freedom)):
            raise InputError(f"scale {self.scale}, freedom {self.freedom}", hint="wanted positive numbers")

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        k = self.freedom
        constant = math.lgamma((k + 1) / 2) - math.lgamma(k / 2) - 0.5 * math.log(k * math.pi) - math.log(self.scale)
        terms = constant - (k + 1) / 2 * torch.log1p(((y - clean) / self.scale) ** 2 / k)
        return terms.flatten(1).sum(dim=1)

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        k, r = self.freedom, y - clean
        return (k + 1) * r / (k * self.scale**2 + (k + 1) * spread**2 + r**2)

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        # Bailey 1994: a polar method for Student's distribution, from two uniform numbers.
        u, v = (torch.rand(clean.shape, generator=generator, dtype=torch.float64) for _ in range(2))
        radius = (self.freedom * (u.clamp(min=1e-300) ** (-2 / self.freedom) - 1)).sqrt()
        return clean + (self.scale * radius * torch.cos(2 * math.pi * v)).to(clean)
