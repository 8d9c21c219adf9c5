"""The replacement rule: before each step, x is pulled towards a measurement with the same noise as x.

Song, Shen, Xing & Ermon 2022, "Solving inverse problems in medical imaging with score-based generative models",
section 3.2, in a form that needs no inverse of A: their mix of measured and generated coefficients is the minimiser of
``lambda |A x' - (y + sigma A z)|^2 + (1 - lambda) |x' - x|^2``. The noise goes *through the operator*.
"""

from __future__ import annotations

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel
from invsolve.models.score_model import Noise, ScoreModel, Sigma, per_image
from invsolve.rules.conditioned import ConditionedModel


class Replacement(ConditionedModel):
    """Projects x before every step, then is the prior. ``lam`` in (0, 1): 1 trusts the measurement fully."""

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor, lam: float = 0.999) -> None:
        if not 0 < lam < 1:
            raise UsageError(f"lam {lam}", hint="wanted a number between 0 and 1, both excluded")
        super().__init__(prior, forward_model, y)
        self.operator = forward_model.linear
        self.rho = (1 - lam) / lam * self.operator.norm**2

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.prior.denoise(x, sigma)

    def project(self, x: Tensor, sigma: Sigma, noise: Noise) -> Tensor:
        noisy_y = self.y + self.operator(per_image(sigma, x) * noise(x))
        return self.operator.prox(x, noisy_y, self.rho)
