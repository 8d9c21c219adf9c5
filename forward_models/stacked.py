"""Several measurements of one picture as one likelihood, each with an operator and a noise of its own.

Independent measurements multiply their likelihoods. Where all noise is Gaussian, weighing each measurement by the noise of the
most exact one over its own makes the noise of all the same (whitening), and every rule takes the stack. Noise of other kinds is
kept as it is, measurement by measurement, for the rules that take any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.forward_models.forward_model import ForwardModel, GaussianNoise, NoiseModel
from invsolve.forward_models.operator import LinearOperator, Shape, Stack

Map = Callable[[Tensor], Tensor]
"""An operator, linear or not: (B, C, H, W) -> (B, ...)."""

Measured = tuple[ForwardModel, Tensor]
"""A forward model and its measurement (B, ...)."""


def compose(*maps: Map) -> Map:
    """The maps one after the other, the first one first: ``compose(A, B)(x) = B(A(x))``.

    Linear operators next to each other become one, so that a composition of linear ones is linear.

    Raises
    ------
    InputError : none given, or linear operators whose shapes do not follow from one another.
    """
    if not maps:
        raise InputError("a composition of no operators", hint="give at least one")
    done: list[Map] = []
    for step in maps:
        if done and isinstance(step, LinearOperator) and isinstance(done[-1], LinearOperator):
            done[-1] = step @ done[-1]
        else:
            done.append(step)
    return done[0] if len(done) == 1 else Chain(tuple(done))


@dataclass(frozen=True)
class Chain:
    """Maps one after the other of which not all are linear; see :func:`compose`."""

    maps: tuple[Map, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.maps:
            x = step(x)
        return x


@dataclass(frozen=True)
class StackedMaps:
    """Several maps of one picture, not all linear, as one flat measurement (B, m1 + m2 + ...), each times its weight."""

    maps: tuple[Map, ...]
    weights: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([w * one(x).flatten(1) for one, w in zip(self.maps, self.weights, strict=True)], dim=1)


def output_shape(operator: Map, input_shape: Sequence[int]) -> Shape:
    """The shape of a measurement without the batch axis; a map that is no operator is tried on an even picture."""
    if isinstance(operator, LinearOperator):
        return operator.output_shape
    with torch.no_grad():
        return tuple(operator(torch.full((1, *input_shape), 0.5)).shape[1:])


@dataclass(frozen=True)
class StackedNoise:
    """Noise of its own for every part of a flat measurement (B, m1 + m2 + ...), as :class:`Stack` makes one.

    Parameters
    ----------
    noises : one per part.
    shapes : of the parts, without the batch axis.
    """

    noises: tuple[NoiseModel, ...]
    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        if len(self.noises) != len(self.shapes) or not self.noises:
            raise InputError(
                f"{len(self.noises)} noise models for {len(self.shapes)} measurements", hint="wanted one for each"
            )

    def split(self, y: Tensor) -> list[Tensor]:
        """The flat measurement (B, m) as the list of its parts (B, *shape)."""
        sizes = [math.prod(shape) for shape in self.shapes]
        return [part.reshape(-1, *shape) for part, shape in zip(y.split(sizes, dim=1), self.shapes, strict=True)]

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        parts = zip(self.noises, self.split(clean), self.split(y), strict=True)
        return torch.stack([noise.log_likelihood(c, part) for noise, c, part in parts]).sum(dim=0)

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        spreads = self._spreads(spread, clean)
        parts = zip(self.noises, self.split(clean), self.split(y), spreads, strict=True)
        return torch.cat(
            [noise.log_likelihood_gradient(c, part, spread=s).flatten(1) for noise, c, part, s in parts], dim=1
        )

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        parts = zip(self.noises, self.split(clean), strict=True)
        return torch.cat([noise.simulate(c, generator).flatten(1) for noise, c in parts], dim=1)

    def _spreads(self, spread: float | Tensor, clean: Tensor) -> Sequence[float | Tensor]:
        if not isinstance(spread, Tensor) or spread.ndim == 0:
            return [spread] * len(self.noises)
        return self.split(spread.expand(clean.shape))


def stack_measurements(parts: Sequence[Measured], *, floor: float = 0.0) -> Measured:
    """Independent measurements of the same pictures as one, (B, m1 + m2 + ...); a single one stays as it is.

    All noise Gaussian: y_i and A_i are weighed by s / sigma_i, with s the least of the sigma_i and the noise of the stack.
    Otherwise they stay as they are, under a :class:`StackedNoise`.

    Parameters
    ----------
    parts : forward models with their measurements, (B, ...) with one B.
    floor : least noise of a part, relative to the norm of its operator (1 of a map that is not linear), times the root of their
        number: an exact measurement has no finite weight.

    Raises
    ------
    InputError : none given, an exact measurement without ``floor``, or linear operators of different input shapes.
    """
    if not parts:
        raise InputError("no measurement", hint="give at least one")
    if len(parts) == 1:
        return parts[0]
    least = floor * math.sqrt(len(parts))
    models = [replace(model, noise=_at_least(model, least)) for model, _ in parts]
    flat = [y.flatten(1) for _, y in parts]
    sigmas = [model.noise.sigma if isinstance(model.noise, GaussianNoise) else None for model in models]
    whitened = [sigma for sigma in sigmas if sigma is not None]
    if len(whitened) < len(models):
        shapes = tuple(tuple(y.shape[1:]) for _, y in parts)
        noise = StackedNoise(tuple(model.noise for model in models), shapes)
        return ForwardModel(_stack(models, [1.0] * len(models)), noise), torch.cat(flat, dim=1)
    if min(whitened) == 0:
        raise InputError(
            "an exact measurement beside others has no finite weight", hint="give its GaussianNoise a positive sigma"
        )
    weights = [min(whitened) / sigma for sigma in whitened]
    y = torch.cat([weight * part for weight, part in zip(weights, flat, strict=True)], dim=1)
    return ForwardModel(_stack(models, weights), GaussianNoise(min(whitened))), y


def quadratic(model: ForwardModel, y: Tensor) -> Measured:
    """A measurement with Gaussian noise in place of one with another, of one image (1, ...): what rules for Gaussian noise take.

    Gaussian noise stays as it is; other noise models have it as their method ``quadratic``, see the documentation of each for
    how near it is.

    Raises
    ------
    UsageError : the noise has no such approximation.
    """
    if isinstance(model.noise, GaussianNoise):
        return model, y
    approximate = getattr(model.noise, "quadratic", None)
    if approximate is None or not isinstance(model.operator, LinearOperator):
        name = type(model.noise).__name__
        why = "has no Gaussian approximation" if approximate is None else "has one for linear operators only"
        raise UsageError(
            f"{name} {why}, and this rule needs Gaussian noise", hint="use rule 'annealed', which takes any noise"
        )
    found: Measured = approximate(model.operator, y)
    return found


def _at_least(model: ForwardModel, floor: float) -> NoiseModel:
    if not isinstance(model.noise, GaussianNoise):
        return model.noise
    norm = model.operator.norm if isinstance(model.operator, LinearOperator) else 1.0
    return GaussianNoise(max(model.noise.sigma, floor * norm))


def _stack(models: Sequence[ForwardModel], weights: Sequence[float]) -> Map:
    linear = [model.operator for model in models if isinstance(model.operator, LinearOperator)]
    if len(linear) == len(models):
        return Stack(*(one if w == 1 else w * one for one, w in zip(linear, weights, strict=True)))
    return StackedMaps(tuple(model.operator for model in models), tuple(weights))
