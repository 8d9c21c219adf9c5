"""Heun's method on the probability-flow ODE, without and with fresh noise.

Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", Algorithms 1 and 2 with
sigma(t) = t: the ODE is ``dx / dsigma = (x - D(x, sigma)) / sigma``. In the state u and the time of another SDE it is
``du / dt = f u - g^2 / 2 score`` (Song et al. 2021, eq. 13; see :mod:`invsolve.models.sde`).

============== =====================
code           paper
============== =====================
sigma, sigma_next  t_i, t_{i+1}
sigma_hat      t^hat_i
d, d_next      d_i, d'_i
churn          S_churn
churn_range    [S_tmin, S_tmax]
noise_scale    S_noise
============== =====================
"""

from __future__ import annotations

import itertools
import math

from torch import Tensor

from invsolve.models.score_model import Noise, ScoreModel
from invsolve.models.sde import EDM, SDE, SDEName, find_sde
from invsolve.samplers.info import Callback, StepInfo, needs


@needs(calls=lambda **_: 2, resumes=True)
def heun_sde(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    churn: float = 40.0,
    churn_range: tuple[float, float] = (0.02, 25.0),
    noise_scale: float = 1.003,
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model`` by EDM's stochastic sampler: add a little noise, then step down by Heun's method.

    Parameters
    ----------
    model : prior or posterior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0; where they end above 0, so does x.
    noise : source of standard normal noise.
    churn : noise added in all; each step raises sigma by the factor 1 + min(churn / steps, sqrt(2) - 1),
        at most to the model's sigma_max. A run that is kept in time shares it out over each piece of its ladder.
    churn_range : levels between which noise is added. The paper's .05 to 50 are halved here: its pictures span [-1, 1].
    noise_scale : standard deviation of the added noise.

    Returns
    -------
    Tensor (B, C, H, W). Costs two network calls per level, one at the last.
    """
    levels = [float(s) for s in sigmas]
    steps = len(levels) - 1
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        inside = churn_range[0] <= sigma <= churn_range[1]
        gamma = min(churn / steps, math.sqrt(2) - 1) if inside else 0.0
        # The model knows nothing of levels beyond its own, and would answer for another level than the step is taken from.
        sigma_hat = max(sigma, min(sigma * (1 + gamma), model.sigma_max))
        if gamma > 0:
            x = x + (sigma_hat**2 - sigma**2) ** 0.5 * noise_scale * noise(x)
        x = model.project(x, sigma_hat, noise)
        x, denoised = heun_step(model, x, sigma_hat, sigma_next)
        if callback is not None:
            callback(StepInfo(i + 1, steps, sigma, x, denoised))
    return x


@needs(calls=lambda **_: 2, resumes=True)
def ode(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    sde: SDEName = "edm",
    callback: Callback | None = None,
) -> Tensor:
    """Follow the probability-flow ODE by Heun's method: all randomness is in the start.

    Parameters as in :func:`heun_sde`, of which this is the case ``churn=0``; ``noise`` serves only rules that project.
    The error falls as the square of the step.

    sde : whose state and time the steps are straight in: "edm", "ve", "vp" or "subvp".
    """
    process, levels = find_sde(sde), [float(s) for s in sigmas]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        x = model.project(x, sigma, noise)
        x, denoised = heun_step(model, x, sigma, sigma_next, process)
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, sigma, x, denoised))
    return x


def heun_step(
    model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, process: SDE = EDM
) -> tuple[Tensor, Tensor]:
    """One step of the ODE from ``sigma`` to ``sigma_next``, and E[x0 | x] at its start.

    Downwards to 0 it ends on E[x0 | x], as Euler's step in sigma does. Upwards it encodes.
    """
    score = model.score(x, sigma)
    denoised = x + sigma**2 * score
    if sigma_next == 0:
        return denoised, denoised
    t, t_next = process.time_of(sigma), process.time_of(sigma_next)
    h, u = float(t_next - t), process.state(x, t)
    d = process.velocity(u, process.score(score, t), t)
    x_next = process.picture(u + h * d, t_next)
    d_next = process.velocity(u + h * d, process.score(model.score(x_next, sigma_next), t_next), t_next)
    return process.picture(u + 0.5 * h * (d + d_next), t_next), denoised
