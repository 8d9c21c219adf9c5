"""A forward model p(y | x): an operator (or any differentiable map) and a noise model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.forward_models.operator import LinearOperator


class NoiseModel(Protocol):
    """p(y | clean measurement): any class with these three methods is one. ``clean`` and ``y`` are (B, ...)."""

    def log_likelihood(self, clean: Tensor, y: Tensor, /) -> Tensor:
        """log p(y | clean), one number per image, (B,)."""

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, /, spread: float | Tensor = 0.0) -> Tensor:
        """The gradient of log p(y | clean) with respect to ``clean``, shaped as it.

        ``spread``, a number or a tensor that multiplies ``clean``, is how uncertain ``clean`` itself is: with it the
        gradient is that of ``log E p(y | clean + spread n)``, n standard normal. Samplers ask for that while the picture
        still is under noise. An approximation will do if it is right at spread 0 and no steeper than 1 / spread^2.
        """

    def simulate(self, clean: Tensor, generator: torch.Generator, /) -> Tensor:
        """A measurement with noise, shaped as ``clean``."""


@runtime_checkable
class MatchedNoise(Protocol):
    """Noise of independent values that knows, beside the methods of a :class:`NoiseModel`, a Gaussian that stands for it."""

    def matched(self, clean: Tensor, variance: Tensor, y: Tensor, /) -> tuple[Tensor, Tensor]:
        """Value and variance of the Gaussian measurement that gives N(``clean``, ``variance``) the mean and the variance that
        p(y | .) gives it (assumed density filtering, Minka 2001, "Expectation propagation for approximate Bayesian inference",
        section 2). All are shaped as ``clean``; an infinite variance says nothing.
        """


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

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        variance = self.sigma**2 + spread**2
        if self.sigma == 0 and not bool(torch.as_tensor(variance > 0).all()):
            raise InputError("an exact measurement has no density", hint="give GaussianNoise a positive sigma")
        return (y - clean) / variance

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
        return clean + self.sigma * noise


@dataclass(frozen=True)
class ForwardModel:
    """p(y | x) of a measurement.

    Parameters
    ----------
    operator : a :class:`LinearOperator`, or any differentiable map (B, C, H, W) -> (B, ...).
    noise : the noise on top of it. Gaussian noise goes with every rule, any other :class:`NoiseModel` with the rule
        ``annealed``.
    """

    operator: LinearOperator | Callable[[Tensor], Tensor]
    noise: NoiseModel = GaussianNoise()

    @property
    def gaussian(self) -> GaussianNoise:
        """The noise, where it is Gaussian; rules that need its standard deviation ask for this.

        Raises
        ------
        UsageError : it is another.
        """
        if not isinstance(self.noise, GaussianNoise):
            raise UsageError(
                f"Gaussian noise is needed here, the forward model has {type(self.noise).__name__}",
                hint="use rule='annealed' with another sampler than split_gibbs, daps and twisted",
            )
        return self.noise

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

    def pull_back(self, x: Tensor, direction: Callable[[Tensor], Tensor]) -> Tensor:
        """``J' direction(A(x))``, J the Jacobian at x: a direction of measurements as one of pictures, shaped as ``x``.

        The adjoint where A is linear, autograd for general maps.
        """
        operator = self.operator
        if isinstance(operator, LinearOperator):
            return operator.T(direction(operator(x)))
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = operator(x)
            return torch.autograd.grad(clean, x, direction(clean.detach()))[0]

    def misfit_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """``J' (y - A(x))``, the direction in x that lowers the misfit."""
        return self.pull_back(x, lambda clean: y - clean)

    def log_likelihood_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """grad_x log p(y | x), shaped as ``x``."""
        return self.pull_back(x, lambda clean: self.noise.log_likelihood_gradient(clean, y))
