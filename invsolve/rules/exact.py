"""The exact rule: priors whose posterior is known in closed form (``invsolve.gaussian``), the yardstick for the others."""

from __future__ import annotations

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel
from invsolve.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.score_model import ScoreModel


def exact(prior: ScoreModel, forward_model: ForwardModel, y: Tensor) -> ScoreModel:
    """The posterior of a Gaussian or Gaussian-mixture prior as a score model; ``y`` (1, ...)."""
    if not isinstance(prior, GaussianPrior | GaussianMixturePrior):
        raise UsageError(
            f"rule 'exact' needs a closed-form prior, got {type(prior).__name__}", hint="use rule='proximal'"
        )
    return prior.posterior(forward_model, y)
