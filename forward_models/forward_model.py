"""A forward model p(y | x): an operator (or any differentiable map) and a noise model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.operator import LinearOperator


class NoiseModel(Protocol):
    """p(y | clean measurement)."""

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        """One number per image, (B,)."""

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """A measurement with noise, shaped as ``clean``."""


@dataclass(frozen=True)
class GaussianNoise:
    """y = clean + sigma n, n standard normal; ``sigma`` in the units of y, 0 for an exact measurement."""

    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise InputError(f"noise standard deviation {self.sigma}", hint="wanted a number >= 0 in the units of y")

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            raise InputError("an exact measurement has no density", hint="give GaussianNoise a positive sigma")
        squares = ((y - clean) / self.sigma).square().flatten(1).sum(dim=1)
        count = math.prod(clean.shape[1:])
        return -0.5 * squares - count * math.log(self.sigma * math.sqrt(2 * math.pi))

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
        return clean + self.sigma * noise


@dataclass(frozen=True)
class ForwardModel:
    """p(y | x) of a measurement.

    Parameters
    ----------
    operator : a :class:`LinearOperator`, or any differentiable map (B, C, H, W) -> (B, ...).
    noise : the noise on top of it.
    """

    operator: LinearOperator | Callable[[Tensor], Tensor]
    noise: GaussianNoise = GaussianNoise()

    @property
    def linear(self) -> LinearOperator:
        """The operator, where it is linear; rules that need an adjoint or a proximal map ask for this.

        Raises
        ------
        InputError : the map is not a LinearOperator.
        """
        if not isinstance(self.operator, LinearOperator):
            raise InputError(
                "this rule needs a linear operator, the forward model has a general map",
                hint="subclass LinearOperator, or use rule='annealed'",
            )
        return self.operator

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(y | x), one number per image (B,)."""
        return self.noise.log_likelihood(self.operator(x), y)

    def simulate(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a measurement of ``x`` (B, C, H, W)."""
        return self.noise.simulate(self.operator(x), generator)

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """``A(x) - y``, (B, ...): what is left unexplained, for reports."""
        return self.operator(x) - y

    def misfit_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """``J' (y - A(x))``, the direction in x that lowers the misfit; autograd for general maps."""
        if isinstance(self.operator, LinearOperator):
            return self.operator.T(y - self.operator(x))
        operator = self.operator
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            half_squares = 0.5 * (y - operator(x)).square().sum()
            return -torch.autograd.grad(half_squares, x)[0]

    def log_likelihood_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """grad_x log p(y | x) for Gaussian noise, shaped as ``x``."""
        if self.noise.sigma == 0:
            raise InputError("an exact measurement has no density", hint="give GaussianNoise a positive sigma")
        return self.misfit_gradient(x, y) / self.noise.sigma**2
