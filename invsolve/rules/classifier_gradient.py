"""The classifier-gradient rule: ``score(x | label) = score(x) + scale * grad log p(label | x_sigma)``.

Song et al. 2021, eq. 14, with the guidance scale of Dhariwal & Nichol 2021, Algorithm 1: scale 1 is Bayes' rule,
larger scales sharpen p(label | x) to its power and trade variety for certainty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.forward_models import ForwardModel
from invsolve.forward_models.classifier import CleanClassifier
from invsolve.models.score_model import ScoreModel, Sigma, per_image
from invsolve.rules.conditioned import ConditionedModel


class ClassifierGradient(ConditionedModel):
    """``D(x) + scale sigma^2 grad_x log p(y | x_sigma)``; ``y`` (B,) class numbers, or (1,) for all images."""

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor, scale: float = 1.0) -> None:
        if not isinstance(forward_model, CleanClassifier):
            raise InputError("this rule needs a classifier as forward model", hint="use rule='proximal'")
        if not scale >= 0:
            raise UsageError(f"guidance scale {scale}", hint="wanted a number >= 0; 1 is Bayes' rule")
        super().__init__(prior, forward_model, y)
        self.classifier, self.scale = forward_model, scale

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        denoised: list[Tensor] = []

        def denoise_once(noisy: Tensor, level: Tensor) -> Tensor:
            denoised.append(self.prior.denoise(noisy, level))
            return denoised[-1]

        s = per_image(sigma, x)
        level = s.flatten().expand(len(x))
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            likelihood = self.classifier.noisy_log_likelihood(leaf, level, self.y, denoise_once).sum()
            gradient = torch.autograd.grad(likelihood, leaf)[0]
        estimate = denoised[0].detach() if denoised else self.prior.denoise(x, sigma)
        return estimate + self.scale * s**2 * gradient
