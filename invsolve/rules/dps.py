"""Diffusion posterior sampling: the misfit of the denoised picture, differentiated through the denoiser.

Chung, Kim, McCann, Klasky & Ye 2023, "Diffusion posterior sampling for general noisy inverse problems", eq. 16 and
Algorithm 1. Works for every differentiable map.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel, LinearOperator
from invsolve.models.score_model import ScoreModel, Sigma, per_image
from invsolve.rules.conditioned import Guide, GuidedModel, denoise_with_jacobian


class DPS(GuidedModel):
    """``x0 = D + w J' A'(y - A D)`` with J the denoiser's Jacobian. Costs two network calls.

    Parameters
    ----------
    weight : "annealed" takes ``w = sigma^2 / (sigma_y^2 + (gamma sigma |A|)^2)``, the Gaussian likelihood widened by
        the perturbation's size in the units of y. "norm" is the paper's step of constant length,
        ``w = zeta sigma sqrt(m) / (|A| |y - A D|)`` for m measured values: the paper's zeta is tied to its 1000 steps
        and to the picture's unit, the factor sigma sqrt(m) / |A| frees it of both.
    gamma, zeta : the two weights' factors.
    """

    def __init__(
        self,
        prior: ScoreModel,
        forward_model: ForwardModel,
        y: Tensor,
        weight: Literal["annealed", "norm"] = "annealed",
        gamma: float = 1.0,
        zeta: float = 1.0,
    ) -> None:
        if weight not in ("annealed", "norm"):
            raise UsageError(f"weight {weight!r}", hint="wanted 'annealed' or 'norm'")
        super().__init__(prior, forward_model, y)
        self.weight, self.gamma, self.zeta = weight, gamma, zeta
        operator = forward_model.operator
        self.norm = operator.norm if isinstance(operator, LinearOperator) else 1.0
        values = operator.measured_values if isinstance(operator, LinearOperator) else math.prod(y.shape[1:])
        self.length = math.sqrt(values)

    def guide(self, x: Tensor, sigma: Sigma) -> Guide:
        denoised, transposed_jacobian = denoise_with_jacobian(self.prior, x, sigma)
        misfit = (self.y - self.forward_model.operator(denoised)).flatten(1).norm(dim=1)
        direction = transposed_jacobian(self.forward_model.misfit_gradient(denoised, self.y))
        s = per_image(sigma, misfit)
        if self.weight == "annealed":
            variance = self.sigma_y**2 + (self.gamma * self.norm * s) ** 2
            factor, log_likelihood = s**2 / variance, -0.5 * misfit**2 / variance
        else:
            scale = self.zeta * self.length / self.norm
            factor, log_likelihood = scale * s / misfit.clamp(min=1e-12), -scale * misfit / s
        return Guide(denoised, denoised + per_image(factor, x) * direction, log_likelihood)
