"""Euler-Maruyama on the reverse SDE.

Anderson 1982; Song et al. 2021, eq. 6, with the noise level itself as time (Karras et al. 2022, eq. 6 with
sigma(t) = t, beta(t) = 1 / sigma): ``dx = -2 sigma score dsigma + sqrt(2 sigma) dw``, sigma falling. For a step h the
drift is 2 sigma h score and the noise's variance 2 sigma h; Euler's error falls as h.
"""

from __future__ import annotations

import itertools

from torch import Tensor

from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo


def reverse_sde(
    model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise, *, callback: Callback | None = None
) -> Tensor:
    """Sample from ``model`` by Euler-Maruyama steps of the reverse SDE.

    Parameters
    ----------
    model : prior or posterior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0, where the last step denoises; where they end above 0, so does x.
    noise : source of standard normal noise.

    Returns
    -------
    Tensor (B, C, H, W). Costs one network call per level.
    """
    levels = [float(s) for s in sigmas]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        x = model.project(x, sigma, noise)
        score = model.score(x, sigma)
        denoised = x + sigma**2 * score
        variance = 2 * sigma * (sigma - sigma_next)
        x = x + variance * score + variance**0.5 * noise(x) if sigma_next > 0 else denoised
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, sigma, x, denoised))
    return x
