"""The Wiener rule: x0 given x is Gaussian with the denoiser's mean and the covariance C that its error was measured to have.

``x0 = D + C A' (A C A' + sigma_y^2)^-1 (y - A D)``: moment matching (Boys et al. 2023; Rozet et al. 2024, who take
``(1 / Sigma_x + 1 / sigma^2)^-1`` for C in their section 4.2) without the denoiser's Jacobian, so without backpropagation.
It is Wiener's filter of the misfit, or kriging: what the data see is spread to where they do not look as far as errors go
together. Exact for Gaussian priors, whose C does not depend on x.

As C is known, so is a draw of x0 given x and y: draw from the unconditioned Gaussian, measure the draw, add the filtered
difference (Hoffman & Ribak 1991, "Constrained realizations of Gaussian fields"; perturb-and-MAP, Papandreou & Yuille 2010).

Noise that is not Gaussian but knows its matched Gaussian (:class:`invsolve.forward_models.MatchedNoise`; rounding does) is replaced
by that, value by value and at every level anew: the Gaussian under which A x0 has the mean and the variance that it has under the
noise itself (assumed density filtering, Minka 2001). What D says within its cell then stays as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import (
    Downsample,
    ForwardModel,
    GaussianNoise,
    LinearOperator,
    Mask,
    MatchedNoise,
    NoiseModel,
)
from invsolve.forward_models.conjugate_gradient import conjugate_gradient
from invsolve.models.score_model import ErrorCovariance, Noise, Prediction, ScoreModel, Sigma, per_image
from invsolve.rules.conditioned import ConditionedModel

PROBES = 8
"""Random signs that estimate the variances of A x0 (Hutchinson 1990), for noise that is not Gaussian."""


MOST_STEPS = 50
"""Iterations of conjugate gradients, at most. Where a picture is blurred, 25 lose 0.1 dB, and 15 lose 0.6 (docs/lab/speed.md)."""

STEPS_NEARBY, STEPS_REDUCED = 15, 25
"""As good, within 0.03 dB: where all missing pixels have known ones nearby, and for a picture that was made smaller."""

NEARBY, MOST_OF_THEM = 3, 0.99
"""So many pixels away, along rows and columns, of such a share of the missing ones. In wide holes, at any resolution, fewer steps
lose 0.2 dB."""

TOLERANCE = 0.1
"""Relative residual at which conjugate gradients stop."""


def most_steps(operator: LinearOperator, tolerance: float | None) -> int:
    """Iterations of conjugate gradients that an operator is worth; a ``tolerance`` that was asked for is to be met."""
    if tolerance is not None:
        return MOST_STEPS
    if isinstance(operator, Mask) and known_nearby(operator.known):
        return STEPS_NEARBY
    return STEPS_REDUCED if isinstance(operator, Downsample) else MOST_STEPS


def known_nearby(known: Tensor) -> bool:
    """Whether the missing pixels of a mask (C, H, W), 0 there, have known ones nearby."""
    seen = (known != 0).float()[None]
    reached = F.max_pool2d(seen, 2 * NEARBY + 1, stride=1, padding=NEARBY)
    far, missing = int((reached == 0).sum()), int((seen == 0).sum())
    return far <= (1 - MOST_OF_THEM) * missing


class Wiener(ConditionedModel):
    """Filters the misfit with the prior's :meth:`error_covariance`. One network call.

    Parameters
    ----------
    lam : below 1 trusts the data more: the misfit is filtered with C / lam, while draws start from C. A learned denoiser
        applied over and over smooths more than the prior it stands for.
    steps : most iterations of conjugate gradients, each of which applies A, A' and C; default :func:`most_steps`.
    tolerance : relative residual at which an image stops; default :data:`TOLERANCE`.
    """

    def __init__(
        self,
        prior: ScoreModel,
        forward_model: ForwardModel,
        y: Tensor,
        lam: float = 1.0,
        steps: int | None = None,
        tolerance: float | None = None,
    ) -> None:
        if not lam > 0:
            raise UsageError(f"lam {lam}", hint="wanted a positive number")
        if steps is not None and steps < 1:
            raise UsageError(f"wiener with {steps} steps", hint="wanted at least 1: with none y is not looked at")
        super().__init__(prior, forward_model, y)
        self.operator, self.lam = forward_model.linear, lam
        self.steps = most_steps(self.operator, tolerance) if steps is None else steps
        self.tolerance = TOLERANCE if tolerance is None else tolerance

    @classmethod
    def takes(cls, noise: NoiseModel) -> bool:
        return isinstance(noise, GaussianNoise | MatchedNoise)

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        denoised = self.prior.denoise(x, sigma)
        covariance = self.prior.error_covariance(denoised, sigma)
        y, weight = self._measured(denoised, covariance)
        return self._filtered(denoised, weight * (y - self.operator(denoised)), weight, covariance)

    def draw(self, x: Tensor, sigma: Sigma, noise: Noise) -> Prediction:
        denoised = self.prior.denoise(x, sigma)
        covariance = self.prior.error_covariance(denoised, sigma)
        y, weight = self._measured(denoised, covariance)
        guess = denoised + covariance.root_times(noise(x))
        misfit = weight * (y - self.operator(guess))
        x0 = self._filtered(guess, misfit - noise(misfit), weight, covariance)
        return Prediction(x0, (x - x0) / per_image(sigma, x))

    def _measured(self, denoised: Tensor, covariance: ErrorCovariance) -> tuple[Tensor, Tensor]:
        """The measurement as one under Gaussian noise, and one over that noise's standard deviation; 0 where it says nothing."""
        noise = self.forward_model.noise
        if isinstance(noise, GaussianNoise) or not isinstance(noise, MatchedNoise):
            return self.y, denoised.new_tensor(1 / self.sigma_y)
        clean = self.operator(denoised)
        y, variance = noise.matched(clean, self._variances(denoised, covariance), self.y.expand_as(clean))
        return y, variance.rsqrt()

    def _variances(self, like: Tensor, covariance: ErrorCovariance) -> Tensor:
        """The diagonal of A C A', as far as :data:`PROBES` tell, shaped as y."""
        generator = torch.Generator().manual_seed(0)
        shape = (PROBES, 1, *like.shape[1:])
        signs = (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(like)
        draws = [self.operator(covariance.root_times(sign.expand_as(like))).square() for sign in signs]
        return torch.stack(draws).mean(dim=0)

    def _filtered(self, guess: Tensor, misfit: Tensor, weight: Tensor, covariance: ErrorCovariance) -> Tensor:
        """``guess + C A' W (W A C A' W + lam)^-1 misfit``, the misfit whitened by the weights W."""

        def pulled_back(v: Tensor) -> Tensor:
            return covariance.times(self.operator.T(weight * v))

        def matrix(v: Tensor) -> Tensor:
            return weight * self.operator(pulled_back(v)) + self.lam * v

        solution = conjugate_gradient(
            matrix, misfit, misfit.new_zeros(misfit.shape), steps=self.steps, tolerance=self.tolerance
        )
        return guess + pulled_back(solution)
