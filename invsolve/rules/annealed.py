"""The annealed-likelihood rule: the likelihood's gradient at x itself, its noise widened with sigma.

Jalal et al. 2021, "Robust compressed sensing MRI with deep generative priors", eq. 5 (their gamma_t is a fixed
schedule; here the widening is gamma * sigma * |A|, in the units of y, so the step stays stable for any operator).
"""

from __future__ import annotations

from torch import Tensor

from invsolve.forward_models import ForwardModel, GaussianNoise, LinearOperator
from invsolve.models.score_model import ScoreModel, Sigma, per_image
from invsolve.rules.conditioned import ConditionedModel


class AnnealedLikelihood(ConditionedModel):
    """``score(x | y) = score(x) + J'(y - A(x)) / (sigma_y^2 + (gamma sigma |A|)^2)``.

    With noise that is not Gaussian, ``score(x) + J' grad log p(y | A(x))``, that likelihood widened by gamma sigma |A|; see
    :class:`invsolve.forward_models.NoiseModel`. The default gamma = 1 is what blurring y by the perturbation's own size gives: exact for pixels that x0 leaves flat.
    """

    any_noise = True

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor, gamma: float = 1.0) -> None:
        super().__init__(prior, forward_model, y)
        self.gamma = gamma
        operator = forward_model.operator
        self.norm = operator.norm if isinstance(operator, LinearOperator) else 1.0

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        s, noise = per_image(sigma, x), self.forward_model.noise
        if not isinstance(noise, GaussianNoise):

            def direction(clean: Tensor) -> Tensor:
                spread = self.gamma * self.norm * per_image(sigma, clean)
                return noise.log_likelihood_gradient(clean, self.y, spread=spread)

            return self.prior.denoise(x, sigma) + s**2 * self.forward_model.pull_back(x, direction)
        variance = self.sigma_y**2 + (self.gamma * self.norm * s) ** 2
        return self.prior.denoise(x, sigma) + s**2 / variance * self.forward_model.misfit_gradient(x, self.y)
