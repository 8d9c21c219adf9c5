"""The Wiener rule: x0 given x is Gaussian with the denoiser's mean and the covariance C that its error was measured to have.

``x0 = D + C A' (A C A' + sigma_y^2)^-1 (y - A D)``: moment matching (Boys et al. 2023; Rozet et al. 2024, who take
``(1 / Sigma_x + 1 / sigma^2)^-1`` for C in their section 4.2) without the denoiser's Jacobian, so without backpropagation.
It is Wiener's filter of the misfit, or kriging: what the data see is spread to where they do not look as far as errors go
together. Exact for Gaussian priors, whose C does not depend on x.

As C is known, so is a draw of x0 given x and y: draw from the unconditioned Gaussian, measure the draw, add the filtered
difference (Hoffman & Ribak 1991, "Constrained realizations of Gaussian fields"; perturb-and-MAP, Papandreou & Yuille 2010).
"""

from __future__ import annotations

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel
from invsolve.forward_models.conjugate_gradient import conjugate_gradient
from invsolve.models.score_model import ErrorCovariance, Noise, Prediction, ScoreModel, Sigma, per_image
from invsolve.rules.conditioned import ConditionedModel


class Wiener(ConditionedModel):
    """Filters the misfit with the prior's :meth:`error_covariance`. One network call.

    Parameters
    ----------
    lam : below 1 trusts the data more: the misfit is filtered with C / lam, while draws start from C. A learned denoiser
        applied over and over smooths more than the prior it stands for.
    steps : most iterations of conjugate gradients, each of which applies A, A' and C.
    tolerance : relative residual at which an image stops.
    """

    def __init__(
        self,
        prior: ScoreModel,
        forward_model: ForwardModel,
        y: Tensor,
        lam: float = 1.0,
        steps: int = 50,
        tolerance: float = 0.1,
    ) -> None:
        if not lam > 0:
            raise UsageError(f"lam {lam}", hint="wanted a positive number")
        if steps < 1:
            raise UsageError(f"wiener with {steps} steps", hint="wanted at least 1: with none y is not looked at")
        super().__init__(prior, forward_model, y)
        self.operator, self.lam, self.steps, self.tolerance = forward_model.linear, lam, steps, tolerance

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        denoised = self.prior.denoise(x, sigma)
        return self._filtered(denoised, self.y, self.prior.error_covariance(denoised, sigma))

    def draw(self, x: Tensor, sigma: Sigma, noise: Noise) -> Prediction:
        denoised = self.prior.denoise(x, sigma)
        covariance = self.prior.error_covariance(denoised, sigma)
        y = self.y.expand(len(x), *self.y.shape[1:])
        guess = denoised + covariance.root_times(noise(x))
        x0 = self._filtered(guess, y - self.sigma_y * noise(y), covariance)
        return Prediction(x0, (x - x0) / per_image(sigma, x))

    def _filtered(self, guess: Tensor, y: Tensor, covariance: ErrorCovariance) -> Tensor:
        """``guess + C A' (A C A' + lam sigma_y^2)^-1 (y - A guess)``."""

        def pulled_back(v: Tensor) -> Tensor:
            return covariance.times(self.operator.T(v))

        def matrix(v: Tensor) -> Tensor:
            return self.operator(pulled_back(v)) + self.lam * self.sigma_y**2 * v

        misfit = y - self.operator(guess)
        solution = conjugate_gradient(
            matrix, misfit, misfit.new_zeros(misfit.shape), steps=self.steps, tolerance=self.tolerance
        )
        return guess + pulled_back(solution)
