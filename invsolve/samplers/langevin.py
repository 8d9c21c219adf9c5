"""Annealed Langevin dynamics as in the papers.

NCSN (Song & Ermon 2019), Algorithm 1, with NCSNv2's (Song & Ermon 2020) form of the step, step-size rule (Technique 4,
in ``invsolve.samplers.sigmas.ncsnv2_step``) and the final denoising step of Jolicoeur-Martineau et al. (2021).

========== =============================================
code       paper
========== =============================================
sigmas     sigma_1 > ... > sigma_L (then 0, not visited)
alpha      alpha_i = epsilon sigma_i^2 / sigma_L^2
langevin_steps  T
step_size  epsilon
========== =============================================

NCSN writes the step as x + alpha/2 s + sqrt(alpha) z; with NCSNv2's alpha (half of NCSN's) it is x + alpha s +
sqrt(2 alpha) z, used here.
"""

from __future__ import annotations

from torch import Tensor

from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo
from invsolve.samplers.sigmas import ncsnv2_step


def annealed_langevin(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    langevin_steps: int = 5,
    step_size: float | None = None,
    denoise_last: bool = True,
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model`` by annealed Langevin dynamics.

    Parameters
    ----------
    model : prior or posterior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0.
    noise : source of standard normal noise.
    langevin_steps : steps per level.
    step_size : epsilon; None takes NCSNv2's rule.
    denoise_last : end on E[x0 | x] at the lowest level.

    Returns
    -------
    Tensor (B, C, H, W). Costs ``langevin_steps * levels`` network calls, one more with ``denoise_last``.
    """
    levels = [float(s) for s in sigmas[:-1]]
    epsilon = ncsnv2_step(sigmas, langevin_steps) if step_size is None else step_size
    for i, sigma in enumerate(levels):
        alpha = epsilon * (sigma / levels[-1]) ** 2
        for t in range(langevin_steps):
            x = model.project(x, sigma, noise)
            score = model.score(x, sigma)
            denoised = x + sigma**2 * score
            x = x + alpha * score + (2 * alpha) ** 0.5 * noise(x)
            if callback is not None:
                step = i * langevin_steps + t + 1
                callback(StepInfo(step, len(levels) * langevin_steps, sigma, x, denoised))
    if denoise_last:
        x = model.denoise(model.project(x, levels[-1], noise), levels[-1])
    return x
