"""Denoise, agree with the data, put noise back: annealed Langevin in its semi-implicit form.

At each level the posterior's estimate x0 replaces the picture and noise of the next level's size is added:

    x' = x0 + sigma' (sqrt(1 - eta^2) z_hat + eta z)

with z_hat the noise the prior found in x. eta = 1 is full re-noising (DiffPIR, Zhu et al. 2023, zeta = 1): the least
error of all eta, under-dispersed. eta^2 = 1 - (sigma'/sigma)^2 is ancestral sampling (Song et al. 2021, appendix F; DDIM's
eta = 1 for variance-exploding noise): the reverse SDE, close to calibrated.

Full re-noising is a Langevin chain with half of the noise it should have: by Tweedie's formula x0 moves by h times the posterior's
score, h = sigma^2, under noise of variance h, where Langevin dynamics want 2 h. Hence its spread, 1/sqrt(2) of the posterior's.
``momentum`` b lets a share of x0's last change go on: with the chain's velocity v_k = b v_(k-1) + h s + sigma z the score counts
1 / (1 - b) times and the noise's variance 1 / (1 - b)^2 times, so that b = 1/2 is the underdamped Langevin dynamics whose noise
and friction are in balance (fluctuation-dissipation; Cheng, Chatterji, Bartlett & Jordan 2018). In general samples tend to
1/sqrt(2 (1 - b)) of the posterior's standard deviation; of a rule that counts the prior ``lam`` times, as ``proximal`` does,
to sqrt(lam / (2 (1 - b))).

``averaging`` p is the other way: the picture goes only a share g = (sigma / first sigma)^p of the way to x0, so that it is a
running mean over the last 1 / g levels, nearer to the posterior's mean than any draw (Polyak & Juditsky 1992, the average of a
stochastic approximation; a constant g spreads by sqrt(g / 2)). At the first levels, where x0 is still poor, it forgets at once.

``temperature`` T puts back T sigma' of noise where the level says sigma'. What a chain's picture is off by comes on top of the noise
that was put in, and a denoiser that is told only of the noise leaves it: the exposure bias of diffusion models (Ning et al. 2024).
Below 1 the sum is nearer to what the denoiser is told.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo, needs


@needs(resumes=True, remembers=True, forgets=True)
def renoising(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    eta: float | None = 1.0,
    momentum: float = 0.0,
    averaging: float = 0.0,
    temperature: float = 1.0,
    after: StepInfo | None = None,
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
    momentum : share of x0's last change that goes on, in [0, 1): 0 for one estimate, 1/2 for the posterior's spread.
    averaging : p, 0 or more: how many levels the picture is a mean of. With 1/2 a single sample is the best estimate; with more
        than 1 the last levels no longer count.
    temperature : T, above 0: how much of the noise that a level says is put back.
    after : the last step of a run that this one goes on with; None where it begins.

    Returns
    -------
    Tensor (B, C, H, W). Costs one network call per level.

    Raises
    ------
    UsageError : eta outside [0, 1], momentum outside [0, 1), averaging below 0, a temperature that is not above 0.
    """
    if eta is not None and not 0 <= eta <= 1:
        raise UsageError(f"eta {eta}", hint="wanted 0 to 1, the share of fresh noise")
    if not 0 <= momentum < 1:
        raise UsageError(f"momentum {momentum}", hint="wanted 0 to 1, 1 excluded")
    if not averaging >= 0:
        raise UsageError(f"averaging {averaging}", hint="wanted 0 or more")
    if not temperature > 0:
        raise UsageError(f"temperature {temperature}", hint="wanted a number above 0")
    levels = [float(s) for s in sigmas]
    previous, first = (None, levels[0]) if after is None else (after.denoised, after.first or levels[0])
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        x = model.project(x, sigma, noise)
        x0, z_hat = model.predict(x, sigma)
        previous = x0 if previous is None else previous
        mean = torch.lerp(previous, x0, (sigma / first) ** averaging)  # x0 to the last bit without averaging
        fresh = (1 - (sigma_next / sigma) ** 2) ** 0.5 if eta is None else eta
        x = mean
        if sigma_next > 0:
            z = (1 - fresh**2) ** 0.5 * z_hat + fresh * noise(mean)
            x = mean + momentum * (mean - previous) + temperature * sigma_next * z
        previous = mean
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, sigma, x, mean, first))
    return x


@needs(resumes=True)
def ancestral(
    model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise, *, callback: Callback | None = None
) -> Tensor:
    """:func:`renoising` with the ancestral share of fresh noise at each step: the discretised reverse SDE."""
    return renoising(model, x, sigmas, noise, eta=None, callback=callback)
