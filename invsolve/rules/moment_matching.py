"""Moment matching: x0 given x is Gaussian with the denoiser's mean and covariance sigma^2 J, J its Jacobian.

Boys, Girolami, Pidstrigach, Reich, Mosca & Akyildiz 2023, "Tweedie moment projected diffusions for inverse problems",
eq. 10; Rozet, Andry, Lanusse & Louppe 2024, "Learning diffusion priors from observations by expectation maximization",
eq. 20 and Algorithm 3 (which solves
by conjugate gradients). Exact for Gaussian priors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel
from invsolve.models.score_model import ScoreModel, Sigma, per_image
from invsolve.rules.conditioned import Guide, GuidedModel, denoise_with_jacobian

FEW_VALUES = 8
"""Measurements up to which A sigma^2 J A' is built densely, with its determinant."""


class MomentMatching(GuidedModel):
    """``x0 = D + C A' (A C A' + sigma_y^2)^-1 (y - A D)``, C = sigma^2 J.

    One network call and one per iteration. Each image stops by its own residual, so it does not depend on the batch.

    Parameters
    ----------
    steps : most iterations of the solve. A converged solve is exact for Gaussian priors; a fixed small
        number biases where the data are many (3: .07 to .2 posterior standard deviations on ``invsolve verify``'s
        Gaussian problems, against .01 to .03 with the default tolerance).
    tolerance : relative residual at which an image stops.

    Raises
    ------
    UsageError : no iteration at all.
    """

    def __init__(
        self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor, steps: int = 20, tolerance: float = 0.03
    ) -> None:
        if steps < 1:
            raise UsageError(
                f"moment_matching with {steps} steps", hint="wanted at least 1: with none y is not looked at"
            )
        super().__init__(prior, forward_model, y)
        self.operator = forward_model.linear
        self.steps, self.tolerance = steps, tolerance

    def guide(self, x: Tensor, sigma: Sigma) -> Guide:
        denoised, transposed_jacobian = denoise_with_jacobian(self.prior, x, sigma)
        variance = per_image(sigma, x) ** 2
        misfit = self.y - self.operator(denoised)

        def covariance(direction: Tensor) -> Tensor:
            return variance * transposed_jacobian(direction)

        if misfit[0].numel() <= FEW_VALUES:
            shift, log_likelihood = self._dense(covariance, misfit)
        else:
            shift, log_likelihood = self._iterate(covariance, misfit)
        return Guide(denoised, denoised + shift, log_likelihood)

    def _iterate(self, covariance: Callable[[Tensor], Tensor], misfit: Tensor) -> tuple[Tensor, Tensor]:
        """C A' v and -1/2 misfit' v for v = (A C A' + sigma_y^2)^-1 misfit, by generalised conjugate residuals.

        Eisenstat, Elman & Schultz 1983: the residual falls in every step although a network's Jacobian is neither
        quite symmetric nor positive, where conjugate gradients overshoot. Old directions are kept. C A' v is summed up
        beside v, from the products that the iteration makes anyway.
        """

        def dot(u: Tensor, v: Tensor) -> Tensor:
            return (u * v).flatten(1).sum(dim=1)

        residual = misfit
        goal = self.tolerance**2 * dot(misfit, misfit)
        running = dot(misfit, misfit) > 0
        fit = torch.zeros_like(goal)
        shift: Tensor | float = 0.0
        kept: list[
            tuple[Tensor, Tensor, Tensor, Tensor]
        ] = []  # direction p, C A' p, (A C A' + sigma_y^2) p, its square
        for _ in range(self.steps):
            direction, moved = residual, covariance(self.operator.T(residual))
            image = self.operator(moved) + self.sigma_y**2 * residual
            for p, moved_p, image_p, square_p in kept:
                beta = torch.where(square_p > 0, dot(image, image_p) / square_p, 0)
                direction = direction - per_image(beta, direction) * p
                moved = moved - per_image(beta, moved) * moved_p
                image = image - per_image(beta, image) * image_p
            square = dot(image, image)
            running = running & (square > 0)
            alpha = torch.where(running, dot(residual, image) / square, 0)
            shift = shift + per_image(alpha, moved) * moved
            fit = fit + alpha * dot(misfit, direction)
            residual = residual - per_image(alpha, residual) * image
            running = running & (dot(residual, residual) > goal)
            if not bool(running.any()):
                break
            kept.append((direction, moved, image, square))
        return torch.as_tensor(shift), -0.5 * fit

    def _dense(self, covariance: Callable[[Tensor], Tensor], misfit: Tensor) -> tuple[Tensor, Tensor]:
        """The same by eigenvalues of A C A', with the determinant: one product per measured value."""
        values, count = misfit[0].numel(), len(misfit)
        basis = torch.eye(values, dtype=misfit.dtype, device=misfit.device).reshape(values, *misfit.shape[1:])
        moved = torch.stack(
            [covariance(self.operator.T(unit.expand_as(misfit))).flatten(1) for unit in basis], dim=1
        )  # (B, m, d)
        shape = (count * values, *self.operator.input_shape)
        images = self.operator(moved.reshape(shape)).reshape(count, values, values)
        eigenvalues, vectors = torch.linalg.eigh(0.5 * (images + images.transpose(1, 2)))
        variances = eigenvalues.clamp(min=0) + self.sigma_y**2
        coefficients = (misfit.flatten(1)[:, None] @ vectors)[:, 0]
        solution = vectors @ (coefficients / variances)[..., None]  # (B, m, 1)
        log_likelihood = -0.5 * (coefficients**2 / variances + variances.log()).sum(dim=1)
        return (solution * moved).sum(dim=1).reshape(count, *self.operator.input_shape), log_likelihood
