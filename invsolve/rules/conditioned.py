"""What the rules share: a score model made of a prior, a forward model and a measurement."""

from __future__ import annotations

from torch import Tensor

from invsolve.forward_models import ForwardModel, LinearOperator
from invsolve.score_model import ScoreModel, WrappedModel

RELATIVE_FLOOR = 1e-3


class ConditionedModel(WrappedModel):
    """Holds prior, forward model and measurement ``y`` (B, ...); a rule's file writes ``denoise`` and its kin.

    ``sigma_y`` is the measurement noise, clamped from below to 1e-3 of the signal (sigma_data |A|): an exact
    measurement would make the rules' weights infinite.
    """

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor) -> None:
        super().__init__(prior)
        self.prior, self.forward_model, self.y = prior, forward_model, y
        operator = forward_model.operator
        scale = operator.norm if isinstance(operator, LinearOperator) else 1.0
        self.sigma_y = max(forward_model.noise.sigma, RELATIVE_FLOOR * prior.sigma_data * scale)
