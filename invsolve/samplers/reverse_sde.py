"""Euler-Maruyama on the reverse SDE.

Anderson 1982; Song et al. 2021, eq. 6: ``du = (f u - g^2 score) dt + g dW`` with time running backwards, for any of the
SDEs of :mod:`invsolve.models.sde`. The default, ``edm``, has the noise level itself as time (Karras et al. 2022, eq. 6
with sigma(t) = t, beta(t) = 1 / sigma): for a step h the drift is 2 sigma h score and the noise's variance 2 sigma h.
Euler's error falls as h, in every one of them by another factor.

Of few levels too much noise is left in x: of data at one point ``((2 / g - 1)^2 + 2 (1 - 1 / g)) g^2`` times the next level's
variance for a ratio g of levels, 1.12 for g = 1.2 and 1.75 for g = 1.5. The network, told the level, removes too little of it.
"""

from __future__ import annotations

import itertools

from torch import Tensor

from invsolve.models.score_model import Noise, ScoreModel
from invsolve.models.sde import SDEName, find_sde
from invsolve.samplers.info import Callback, StepInfo, needs


@needs(levels=100, resumes=True)
def reverse_sde(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    sde: SDEName = "edm",
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model`` by Euler-Maruyama steps of the reverse SDE.

    Parameters
    ----------
    model : prior or posterior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0, where the last step denoises; where they end above 0, so does x.
    noise : source of standard normal noise.
    sde : whose state and time the steps are straight in: "edm", "ve", "vp" or "subvp".

    Returns
    -------
    Tensor (B, C, H, W). Costs one network call per level.
    """
    process, levels = find_sde(sde), [float(s) for s in sigmas]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        x = model.project(x, sigma, noise)
        score = model.score(x, sigma)
        denoised = x + sigma**2 * score
        if sigma_next > 0:
            t, t_next = process.time_of(sigma), process.time_of(sigma_next)
            h, f, g = float(t - t_next), float(process.drift(t)), float(process.diffusion(t))
            u = process.state(x, t)
            u = u - h * (f * u - g**2 * process.score(score, t)) + g * h**0.5 * noise(u)
            x = process.picture(u, t_next)
        else:
            x = denoised
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, sigma, x, denoised))
    return x
