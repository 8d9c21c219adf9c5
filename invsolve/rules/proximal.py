"""The proximal rule: denoise, then move to where denoised picture and measurement agree best.

Half-quadratic splitting as in DiffPIR (Zhu et al. 2023, eq. 12-13) and DDS (Chung et al. 2024):
``argmin |A x - y|^2 / (2 sigma_y^2) + |x - D(x_sigma)|^2 / (2 r^2)``, with two choices of r^2 that need no tuning:

- ``r^2 = sigma^2 / lam`` (default). With full re-noising the picture at a level settles where
  ``A'(y - A m) / sigma_y^2 = (m - D(m)) lam / sigma^2``, which is ``grad log p_sigma(m)`` on the right for lam = 1: the
  data against the prior's score, each at its own strength (for a Gaussian prior the posterior mean as sigma falls).
- the prior's *validated* denoising error (``ValidatedProximal``): a single step's Bayes estimate if D's errors were
  white. They are not (what the data see is denoised worst), so repeated steps trust the prior too much in noisy
  problems; for ancestral sampling, where each step counts once, it is the better one.
"""

from __future__ import annotations

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel
from invsolve.models.score_model import Prediction, ScoreModel, Sigma, per_image
from invsolve.rules.conditioned import ConditionedModel


class Proximal(ConditionedModel):
    """``x0 = argmin |A x - y|^2 / (2 sigma_y^2) + lam |x - D(x_sigma)|^2 / (2 sigma^2)``.

    ``lam`` below 1 trusts the data more: a learned denoiser applied over and over smooths more than the prior it stands for.
    """

    def __init__(self, prior: ScoreModel, forward_model: ForwardModel, y: Tensor, lam: float = 1.0) -> None:
        if not lam > 0:
            raise UsageError(f"lam {lam}", hint="wanted a positive number")
        super().__init__(prior, forward_model, y)
        self.operator, self.lam = forward_model.linear, lam

    def variance(self, sigma: float) -> float:
        """r^2, how far the denoised picture may be off."""
        return sigma**2 / self.lam

    def _agree(self, denoised: Tensor, sigma: Sigma) -> Tensor:
        rho = [self.sigma_y**2 / self.variance(float(s)) for s in per_image(sigma, denoised).flatten()]
        return self.operator.prox(denoised, self.y, denoised.new_tensor(rho))

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._agree(self.prior.denoise(x, sigma), sigma)

    def predict(self, x: Tensor, sigma: Sigma) -> Prediction:
        # The noise is what the prior took out; counting the data misfit as noise as well would put it back in later.
        denoised = self.prior.denoise(x, sigma)
        return Prediction(self._agree(denoised, sigma), (x - denoised) / per_image(sigma, x))


class ValidatedProximal(Proximal):
    """The same with r^2 = the prior's validated mean squared error at sigma."""

    def variance(self, sigma: float) -> float:
        return self.prior.mse(sigma) / self.lam
