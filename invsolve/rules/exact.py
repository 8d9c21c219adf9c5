"""The exact rule: priors whose posterior is known in closed form (``invsolve.models.gaussian``), the yardstick for the others."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior, SharedMixturePrior
from invsolve.models.score_model import DerivedModel, ErrorCovariance, ScoreModel, Sigma


class ExactPosterior(DerivedModel):
    """The closed-form posterior of each image's measurement; ``y`` (B, ...), or (1, ...) for all images."""

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor) -> None:
        base = prior.base
        if not isinstance(base, GaussianPrior | GaussianMixturePrior | SharedMixturePrior):
            raise UsageError(
                f"rule 'exact' needs a closed-form prior, got {type(base).__name__}", hint="use rule='proximal'"
            )
        super().__init__(base)
        measurements = y[:1] if bool((y == y[:1]).all()) else y
        self.posteriors = [base.posterior(forward_model, one[None]) for one in measurements]

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        if len(self.posteriors) == 1:
            return self.posteriors[0].denoise(x, sigma)
        levels = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x))
        parts = zip(self.posteriors, x, levels, strict=True)
        return torch.cat([posterior.denoise(image[None], float(level)) for posterior, image, level in parts])

    def error_covariance(self, x0: Tensor, sigma: Sigma) -> ErrorCovariance:
        """The posterior's own: the first one's where there are several, as a Gaussian's does not depend on y."""
        return self.posteriors[0].error_covariance(x0, sigma)
