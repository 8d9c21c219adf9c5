"""The reverse SDE or ODE with the denoiser extrapolated from level to level: second order at one call per level.

Lu, Zhou, Bao, Chen, Li & Zhu 2022, "DPM-Solver++", Algorithm 2 (2M) and its SDE form, eq. 13 and appendix B, for
variance-exploding noise: with lambda = -log sigma and h the step in lambda,

    x' = e^(-h (1 + tau)) x + (1 - e^(-h (1 + tau))) D* + sigma' sqrt(1 - e^(-2 h tau)) z,

D* = D + (D - D_previous) h / (2 h_previous) the denoised picture in the middle of the step. tau = 1 is the reverse SDE,
tau = 0 the probability-flow ODE. With D* = D and tau = 1 this is :func:`invsolve.samplers.ancestral`.
"""

from __future__ import annotations

import itertools
import math

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo, needs


@needs(resumes=True, remembers=True)
def multistep(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    tau: float = 0.3,
    after: StepInfo | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model`` by a second-order multistep solver.

    Parameters
    ----------
    model : prior or posterior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0; where they end above 0, so does x.
    noise : source of standard normal noise.
    tau : share of the reverse SDE's noise, 0 (ODE) to 1 (SDE). The ODE never forgets an error of the start, the SDE
        needs twice the levels for the same spread; .3 has little of either.
    after : the last step of a run that this one goes on with; None where it begins.

    Returns
    -------
    Tensor (B, C, H, W). Costs one network call per level.
    """
    if not 0 <= tau <= 1:
        raise UsageError(f"tau {tau}", hint="wanted a number from 0 (ODE) to 1 (SDE)")
    levels = [float(s) for s in sigmas]
    previous = None if after is None else after.denoised
    last_h = math.inf if after is None else math.log(after.sigma / levels[0])
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        x = model.project(x, sigma, noise)
        denoised = model.denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = math.log(sigma / sigma_next)
            middle = denoised if previous is None else denoised + (denoised - previous) * (h / (2 * last_h))
            kept = math.exp(-h * (1 + tau))
            x = kept * x + (1 - kept) * middle
            if tau > 0:
                x = x + sigma_next * math.sqrt(1 - math.exp(-2 * h * tau)) * noise(x)
            previous, last_h = denoised, h
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, sigma, x, denoised))
    return x
