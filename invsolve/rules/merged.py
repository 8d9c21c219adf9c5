"""The merged rule, for pictures that were measured themselves, under noise: exact, whatever the prior.

The sampler's ``x = x0 + s z`` and the measurement ``y = x0 + sigma_y n`` are two looks at one picture under independent white
noise. What both say of x0 is what their mean says, weighted by precision,

    m = (x / s^2 + y / sigma_y^2) t^2,        1 / t^2 = 1 / s^2 + 1 / sigma_y^2,

which is x0 under noise t: so ``E[x0 | x, y] = D(m, t)``, with no approximation of what the prior knows.
"""

from __future__ import annotations

import math

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel
from invsolve.models.score_model import ErrorCovariance, Noise, Prediction, ScoreModel, Sigma, per_image
from invsolve.rules.conditioned import ConditionedModel


class Merged(ConditionedModel):
    """``D(m, t)``. For an operator with A'A = c, such as the identity, whose A'y / c is the picture under noise
    sigma_y / sqrt(c); ``y`` (B, ...), or (1, ...) for all images."""

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor) -> None:
        super().__init__(prior, forward_model, y)
        operator = forward_model.linear
        if not operator.row_square or math.prod(operator.input_shape) != math.prod(operator.output_shape):
            raise UsageError(
                f"rule 'merged' is for pictures measured themselves, under noise, not for {operator!r}",
                hint="use rule='wiener'",
            )
        self.operator = operator

    def _merge(self, x: Tensor, sigma: Sigma) -> tuple[Tensor, Tensor]:
        """m and t, the latter one per image (B,)."""
        square = float(self.operator.row_square or 1.0)
        picture = self.operator.T(self.y).to(x) / square
        variance = self.sigma_y**2 / square
        s2 = per_image(sigma, x) ** 2
        t2 = s2 * variance / (s2 + variance)
        merged = (x * variance + picture * s2) / (s2 + variance)
        return merged, t2.sqrt().flatten().expand(len(x))

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.prior.denoise(*self._merge(x, sigma))

    def error_covariance(self, x0: Tensor, sigma: Sigma) -> ErrorCovariance:
        return self.prior.error_covariance(x0, self._merge(x0, sigma)[1])

    def draw(self, x: Tensor, sigma: Sigma, noise: Noise) -> Prediction:
        x0, _ = self.prior.draw(*self._merge(x, sigma), noise)
        return Prediction(x0, (x - x0) / per_image(sigma, x))
