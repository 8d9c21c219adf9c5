"""What the rules share: a score model made of a prior, a forward model and a measurement."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import CleanClassifier, ForwardModel, GaussianNoise, LinearOperator, NoiseModel
from invsolve.models.score_model import DerivedModel, Noise, Prediction, ScoreModel, Sigma

RELATIVE_FLOOR = 1e-3


class ConditionedModel(DerivedModel):
    """Holds prior, forward model and measurement ``y`` (B, ...); a rule's file writes ``denoise`` and its kin.

    ``sigma_y`` is the measurement noise, clamped from below to 1e-3 of the signal (sigma_data |A|): an exact
    measurement would make the rules' weights infinite.
    """

    any_noise = False
    """Whether the rule takes noise of every kind; other noise than it takes is refused from the start."""

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor) -> None:
        super().__init__(prior)
        self.prior, self.forward_model, self.y = prior, forward_model, y
        if not self.takes(forward_model.noise):
            _ = self.sigma_y  # says what is wanted

    @classmethod
    def takes(cls, noise: NoiseModel) -> bool:
        """Whether the rule works with this noise as it is."""
        return cls.any_noise or isinstance(noise, GaussianNoise)

    @cached_property
    def sigma_y(self) -> float:
        operator = self.forward_model.operator
        scale = operator.norm if isinstance(operator, LinearOperator) else 1.0
        return max(self.forward_model.gaussian.sigma, RELATIVE_FLOOR * self.prior.sigma_data * scale)

    def draw(self, x: Tensor, sigma: Sigma, noise: Noise) -> Prediction:
        raise UsageError(
            f"sampler 'redrawing' wants draws of the clean picture, and the rule {type(self).__name__} has none",
            hint="use rule='wiener', or another sampler such as 'renoising'",
        )

    def with_measurement(self, y: Tensor) -> Self:
        """The same rule for other measurements: what a sampler with many particles per image asks for."""
        other = copy.copy(self)
        other.y = y
        return other


class Guide(NamedTuple):
    """One evaluation of a guided model."""

    denoised: Tensor  # the prior's E[x0 | x], (B, C, H, W)
    x0: Tensor  # the rule's E[x0 | x, y], (B, C, H, W)
    log_likelihood: Tensor  # the rule's log p(y | x) up to a constant, (B,): what x0 is the gradient of


class GuidedModel(ConditionedModel):
    """A rule with ``x0 = D(x) + sigma^2 grad log p(y | x)`` for a log p(y | x) it can evaluate; write :meth:`guide`."""

    def guide(self, x: Tensor, sigma: Sigma) -> Guide:
        """Both estimates and the likelihood between them. ``x`` (B, C, H, W)."""
        raise TypeError(f"{type(self).__name__} does not define guide")

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.guide(x, sigma).x0


def denoise_with_jacobian(prior: ScoreModel, x: Tensor, sigma: Sigma) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D(x), and ``v -> J'v`` with J the Jacobian of D at x; every product costs one backward pass.

    Works inside ``torch.no_grad``. J is symmetric for an exact denoiser, and sigma^2 J is the covariance of x0 given x
    (Efron 2011; Meng et al. 2021).
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        denoised = prior.denoise(leaf, sigma)
    if not denoised.requires_grad:
        raise UsageError(
            f"{type(prior.base).__name__} cannot be differentiated, and this rule needs its Jacobian",
            hint="compute its denoise without torch.no_grad, or use rule='proximal'",
        )

    def transposed_jacobian(v: Tensor) -> Tensor:
        prior.count_gradients(len(v))
        (product,) = torch.autograd.grad(denoised, leaf, v, retain_graph=True)
        return product

    return denoised.detach(), transposed_jacobian


def separable(model: ScoreModel, sampler: str) -> ConditionedModel:
    """``model``, when it still has prior, forward model and measurement apart.

    Raises
    ------
    UsageError : it is a prior, a rule that merged them, or one whose measurement is a label or has other noise than
        Gaussian.
    """
    if not isinstance(model, ConditionedModel) or isinstance(model.forward_model, CleanClassifier):
        raise UsageError(
            f"sampler {sampler!r} takes prior and likelihood apart, and {type(model).__name__} has no such parts",
            hint="use a rule such as 'proximal' or 'moment_matching', or another sampler",
        )
    _ = model.sigma_y
    return model
