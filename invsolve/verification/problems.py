"""Problems whose posterior is known in closed form: what :mod:`invsolve.verification.judge` judges rules and samplers against.

A Gaussian prior on small pictures with a linear measurement has a Gaussian posterior. A mixture of 25 Gaussians (Cardoso,
Janati El Idrissi, Le Corff & Moulines 2024, "Monte Carlo guided diffusion for Bayesian linear inverse problems",
section 5) has a posterior with many modes, some of which the data rule out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import DenseMatrix, ForwardModel, GaussianNoise, Grayscale, Identity, LinearOperator, Mask
from invsolve.models.gaussian import GaussianPrior, SharedMixturePrior, smooth_gaussian_prior
from invsolve.models.score_model import ScoreModel


@dataclass(frozen=True)
class Problem:
    """A measurement whose posterior is known.

    Parameters
    ----------
    posterior : of x0 given ``y`` (1, ...), in closed form.
    start : (C, H, W), what the first level's noise is added to.
    sigma_min, sigma_max : the ladder's ends, in the units of x.
    """

    name: str
    prior: ScoreModel
    forward_model: ForwardModel
    y: Tensor
    posterior: GaussianPrior | SharedMixturePrior
    start: Tensor
    sigma_min: float
    sigma_max: float

    def to(self, device: str | torch.device) -> Problem:
        """The same problem on another device."""

        def moved(model: Any) -> Any:
            twin = copy.copy(model)
            vars(twin).update({k: v.to(device) for k, v in vars(model).items() if isinstance(v, Tensor)})
            return twin

        return replace(
            self, prior=moved(self.prior), posterior=moved(self.posterior), y=self.y.to(device), start=self.start.to(device)
        )  # fmt: skip


def gaussian_problem(
    operator: LinearOperator | None = None, name: str = "custom", seed: int = 0, *, sigma_y: float = 0.05
) -> Problem:
    """A smooth Gaussian prior of the operator's input shape, a picture drawn from it, and its measurement.

    Parameters
    ----------
    operator : small, (C, H, W) of some hundred values; the default measures the picture itself.
    """
    chosen = Identity((3, 8, 8)) if operator is None else operator
    channels, height, width = chosen.input_shape
    prior = smooth_gaussian_prior((channels, height, width))
    generator = torch.Generator().manual_seed(seed)
    truth = prior.sample(1, generator)
    forward_model = ForwardModel(chosen, GaussianNoise(sigma_y))
    y = forward_model.simulate(truth, generator)
    return Problem(name, prior, forward_model, y, prior.posterior(forward_model, y), prior.mean, 0.01, 5.0)


def inpainting_problem(seed: int = 0) -> Problem:
    """Half of the pixels of a 3 x 8 x 8 picture, noise .05."""
    known = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64) > 0.5
    return gaussian_problem(Mask(known.double(), 3), "inpainting", seed)


def colorization_problem(seed: int = 0) -> Problem:
    """The luma of a 3 x 8 x 8 picture, noise .05."""
    return gaussian_problem(Grayscale((3, 8, 8)), "colorization", seed)


def blur_problem(seed: int = 0) -> Problem:
    """A 3 x 8 x 8 picture under a Gaussian blur of 1 pixel (zero outside), noise .05."""
    place = torch.arange(8, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (place[:, None] - place) ** 2)
    kernel = kernel / kernel[4].sum()
    matrix = torch.kron(torch.eye(3, dtype=torch.float64), torch.kron(kernel, kernel))
    return gaussian_problem(DenseMatrix(matrix, (3, 8, 8)), "blur", seed)


def mixture_problem(seed: int = 0, *, d: int = 8, dy: int = 1) -> Problem:
    """The mixture of MCG-diff's section 5: 25 unit Gaussians at (8 i, 8 j), i, j in -2..2, repeated d / 2 times.

    Weights are squares of normals, the operator has random orthonormal bases and singular values U(0, 1), the noise
    is U(0, 1) times the largest of them.
    """
    generator = torch.Generator().manual_seed(10_000 + seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    grid = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3)).double()
    means = (-8 * grid).repeat(1, d // 2).reshape(25, 1, 1, d)
    prior = SharedMixturePrior(normal(25).square(), means)
    basis, _ = torch.linalg.qr(normal(d, dy))
    turned, _ = torch.linalg.qr(normal(dy, dy))
    singular = uniform(dy)
    forward_model = ForwardModel(
        DenseMatrix(turned @ (singular[:, None] * basis.T), (1, 1, d)),
        GaussianNoise(float(uniform(1) * singular.max())),
    )
    y = forward_model.simulate(prior.sample(1, generator), generator)
    posterior = prior.posterior(forward_model, y)
    # The pattern's own standard deviation is 11 sqrt(d / 2): the first level must drown it.
    return Problem(f"mixture-{d}-{dy}", prior, forward_model, y, posterior, prior.mean, 0.01, 60 * math.sqrt(d / 2))


def _mixture(d: int, dy: int) -> Callable[[int], Problem]:
    return lambda seed: mixture_problem(seed, d=d, dy=dy)


problems: dict[str, Callable[[int], Problem]] = {
    "inpainting": inpainting_problem,
    "colorization": colorization_problem,
    "blur": blur_problem,
    **{f"mixture-{d}-{dy}": _mixture(d, dy) for d in (8, 80, 800) for dy in (1, 2, 4)},
}
"""Problems by name; each takes a seed."""


def find_problem(name: str) -> Callable[[int], Problem]:
    """A problem's maker by name."""
    if name not in problems:
        raise UsageError(f"unknown problem {name!r}", hint=f"known problems: {', '.join(problems)}")
    return problems[name]
