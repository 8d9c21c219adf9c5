"""Predictor-corrector sampling of the variance-exploding SDE.

Song et al. 2021, "Score-based generative modeling through stochastic differential equations": Algorithm 2, with the
reverse diffusion predictor (appendix E, VE) or the ancestral one (appendix F), and the Langevin corrector of Algorithm 4,
whose step follows from a signal-to-noise ratio.

The paper takes a thousand levels. Of fewer, the reverse diffusion predictor leaves too much noise in x: of data at one point
``1 / g^2 + g^2 - 1`` times the next level's variance for a ratio g of levels, 1.13 for g = 1.2 and 1.7 for g = 1.5. The
ancestral predictor leaves exactly the next level's. In few dimensions the norm of a score is now and then next to nothing,
and the step that is measured by it enormous; in many both rules of the step agree.

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
from typing import Literal

from torch import Tensor

from invsolve.models.score_model import Noise, ScoreModel, per_image
from invsolve.samplers.info import Callback, StepInfo, needs


@needs(calls=lambda *, corrector_steps, **_: 1 + corrector_steps, resumes=True)
def predictor_corrector(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    corrector_steps: int = 1,
    snr: float = 0.16,
    predictor: Literal["ancestral", "reverse_diffusion"] = "ancestral",
    measured_norms: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model`` by a step to the next level and Langevin steps on it.

    Parameters
    ----------
    model : prior or posterior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0; where they end above 0, so does x.
    noise : source of standard normal noise.
    corrector_steps : Langevin steps per level.
    snr : signal-to-noise ratio of a Langevin step; the paper's .16 for 32 x 32 pictures.
    predictor : how x gets to the next level; "reverse_diffusion" is the paper's first choice, for a thousand levels.
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
            added = sigma**2 - sigma_next**2
            if predictor == "ancestral":
                added *= (sigma_next / sigma) ** 2
            x = x + added**0.5 * noise(x)
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
