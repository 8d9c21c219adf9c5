"""Predictor-corrector sampling of the variance-exploding SDE.

Song et al. 2021, "Score-based generative modeling through stochastic differential equations": Algorithm 2, with the
reverse diffusion predictor (appendix E, VE) and the Langevin corrector of Algorithm 4, whose step follows from a
signal-to-noise ratio.

================ ==========================================
code             paper
================ ==========================================
sigma, sigma_next sigma_{i+1}, sigma_i
epsilon          epsilon_i of Algorithm 4
snr              r
corrector_steps  M
================ ==========================================
"""

from __future__ import annotations

import itertools

from torch import Tensor

from invsolve.models.score_model import Noise, ScoreModel, per_image
from invsolve.samplers.info import Callback, StepInfo


def predictor_corrector(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    corrector_steps: int = 1,
    snr: float = 0.16,
    measured_norms: bool = True,
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model`` by a reverse diffusion step to the next level and Langevin steps on it.

    Parameters
    ----------
    model : prior or posterior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0; where they end above 0, so does x.
    noise : source of standard normal noise.
    corrector_steps : Langevin steps per level.
    snr : signal-to-noise ratio of a Langevin step; the paper's .16 for 32 x 32 pictures.
    measured_norms : the paper's rule ``epsilon = 2 (snr |z| / |score|)^2``, each image with its own norms; False takes
        the norms expected of pure noise, ``epsilon = 2 (snr sigma)^2``, which makes the step linear in x.

    Returns
    -------
    Tensor (B, C, H, W). Costs 1 + corrector_steps network calls per level, one at the last.
    """
    levels = [float(s) for s in sigmas]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        x = model.project(x, sigma, noise)
        score = model.score(x, sigma)
        denoised = x + sigma**2 * score
        x = x + (sigma**2 - sigma_next**2) * score  # at sigma_next = 0 this is the denoised picture
        if sigma_next > 0:
            x = x + (sigma**2 - sigma_next**2) ** 0.5 * noise(x)
            for _ in range(corrector_steps):
                x = model.project(x, sigma_next, noise)
                score, z = model.score(x, sigma_next), noise(x)
                epsilon = 2 * (snr * sigma_next) ** 2
                step = per_image(epsilon, x)
                if measured_norms:
                    ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)
                    step = per_image(2 * (snr * ratio) ** 2, x)
                x = x + step * score + (2 * step).sqrt() * z
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, sigma, x, denoised))
    return x
