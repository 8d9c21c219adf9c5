"""Pseudo-inverse guidance: x0 given x is Gaussian with the denoiser's mean and the variance r^2 of its error.

Song, Vahdat, Mardani & Kautz 2023, "Pseudoinverse-guided diffusion models for inverse problems", eq. 7. Their r^2
assumes data of unit variance; here it is the prior's validated mse(sigma).
"""

from __future__ import annotations

from torch import Tensor

from invsolve.forward_models import ForwardModel
from invsolve.models.score_model import ScoreModel, Sigma, mse_per_image, per_image
from invsolve.rules.conditioned import Guide, GuidedModel, denoise_with_jacobian


class PiGDM(GuidedModel):
    """``x0 = D + sigma^2 J' A' (r^2 A A' + sigma_y^2)^-1 (y - A D)``. Costs two network calls.

    The solve is the operator's proximal map, ``r^2 A' (r^2 A A' + sigma_y^2)^-1 (y - A D) = prox(D, y, sigma_y^2 / r^2)
    - D``: closed form where the operator has one, conjugate gradients else, no singular values.
    """

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor) -> None:
        super().__init__(prior, forward_model, y)
        self.operator = forward_model.linear

    def guide(self, x: Tensor, sigma: Sigma) -> Guide:
        denoised, transposed_jacobian = denoise_with_jacobian(self.prior, x, sigma)
        y = self.y.expand(len(x), *self.y.shape[1:])
        r2 = mse_per_image(self.prior, sigma, x)
        agreed = self.operator.prox(denoised, y, (self.sigma_y**2 / r2).flatten())
        x0 = denoised + per_image(sigma, x) ** 2 / r2 * transposed_jacobian(agreed - denoised)
        # (y - A prox) / sigma_y^2 is the solution of the measurement-space system.
        misfit = y - self.operator(denoised)
        solution = (y - self.operator(agreed)) / self.sigma_y**2
        return Guide(denoised, x0, -0.5 * (misfit * solution).flatten(1).sum(dim=1))
