"""The proximal rule: denoise, then move to where denoised picture and measurement agree best.

DiffPIR (Zhu et al. 2023, eq. 12-13) and DDS (Chung et al. 2024) with the weight taken from the prior instead of a
tuned lambda: if the denoised picture is off by variance r^2 per pixel, the posterior mean of x0 given it and y is
``prox(D(x), y, sigma_y^2 / r^2)``. r^2(sigma) is the prior's validated denoising error.
"""

from __future__ import annotations

from torch import Tensor

from invsolve.forward_models import ForwardModel
from invsolve.rules.conditioned import ConditionedModel
from invsolve.score_model import Prediction, ScoreModel, Sigma, per_image


class Proximal(ConditionedModel):
    """``x0 = argmin |A x - y|^2 / (2 sigma_y^2) + |x - D(x_sigma)|^2 / (2 r^2(sigma))``."""

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor) -> None:
        super().__init__(prior, forward_model, y)
        self.operator = forward_model.linear

    def _agree(self, denoised: Tensor, sigma: Sigma) -> Tensor:
        rho = [self.sigma_y**2 / self.prior.mse(float(s)) for s in per_image(sigma, denoised).flatten()]
        return self.operator.prox(denoised, self.y, denoised.new_tensor(rho))

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._agree(self.prior.denoise(x, sigma), sigma)

    def predict(self, x: Tensor, sigma: Sigma) -> Prediction:
        # The noise is what the prior took out; counting the data misfit as noise as well would put it back in later.
        denoised = self.prior.denoise(x, sigma)
        return Prediction(self._agree(denoised, sigma), (x - denoised) / per_image(sigma, x))
