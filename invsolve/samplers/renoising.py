"""Denoise, agree with the data, put noise back: annealed Langevin in its semi-implicit form.

At each level the posterior's estimate x0 replaces the picture and noise of the next level's size is added:

    x' = x0 + sigma' (sqrt(1 - eta^2) z_hat + eta z)

with z_hat the noise the prior found in x. eta = 1 is full re-noising (DiffPIR, Zhu et al. 2023, zeta = 1): the best
single estimate, under-dispersed. eta^2 = 1 - (sigma'/sigma)^2 is ancestral sampling (Song et al. 2021, appendix F; DDIM's
eta = 1 for variance-exploding noise): the reverse SDE, close to calibrated.
"""

from __future__ import annotations

import itertools

from torch import Tensor

from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo, needs


@needs(resumes=True, forgets=True)
def renoising(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    eta: float | None = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model`` by denoising and re-noising.

    Parameters
    ----------
    model : prior or posterior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0; where they end above 0, so does x.
    noise : source of standard normal noise.
    eta : share of fresh noise in [0, 1]; None for the ancestral share of each step.

    Returns
    -------
    Tensor (B, C, H, W). Costs one network call per level.
    """
    levels = [float(s) for s in sigmas]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        x = model.project(x, sigma, noise)
        x0, z_hat = model.predict(x, sigma)
        fresh = (1 - (sigma_next / sigma) ** 2) ** 0.5 if eta is None else eta
        x = x0
        if sigma_next > 0:
            x = x0 + sigma_next * ((1 - fresh**2) ** 0.5 * z_hat + fresh * noise(x0))
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, sigma, x, x0))
    return x


@needs(resumes=True)
def ancestral(
    model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise, *, callback: Callback | None = None
) -> Tensor:
    """:func:`renoising` with the ancestral share of fresh noise at each step: the discretised reverse SDE."""
    return renoising(model, x, sigmas, noise, eta=None, callback=callback)
