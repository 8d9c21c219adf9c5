"""Annealed Langevin dynamics.

NCSN (Song & Ermon 2019), Algorithm 1, with NCSNv2's (Song & Ermon 2020) form of the step and its step-size rule
(Technique 4, ``invsolve.samplers.sigmas.ncsnv2_steps``), taken level by level, so that the ladder need not be geometric;
consistent noise and the final denoising step of Jolicoeur-Martineau et al. (2021, Algorithm 2 and section 3.1).

========== =============================================
code       paper
========== =============================================
sigmas     sigma_1 > ... > sigma_L (then 0, not visited)
step       alpha_i / sigma_i^2
langevin_steps  T
step_size  epsilon = alpha_L
========== =============================================

NCSN writes the step as x + alpha/2 s + sqrt(alpha) z; with NCSNv2's alpha (half of NCSN's) it is x + alpha s +
sqrt(2 alpha) z. Both leave more noise in x than the level's: after a step of data at one point 2 / (2 - step) of its variance
in the long run, and more where x has just come from the level above. The network, told the level, removes too little of it,
and what is left builds up. Consistent noise has the size that brings x to the level's variance exactly.
"""

from __future__ import annotations

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo, needs
from invsolve.samplers.sigmas import check_langevin_steps, ncsnv2_steps


@needs(schedule="geometric", calls=lambda *, langevin_steps, **_: langevin_steps, levels=24)
def annealed_langevin(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    langevin_steps: int = 5,
    step_size: float | None = None,
    consistent: bool = True,
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
    step_size : epsilon, the step at the lowest level in units of x^2; None takes NCSNv2's rule.
    consistent : put back as much noise as brings x to the level's variance; False: sqrt(2 alpha), as NCSN does.
    denoise_last : end on E[x0 | x] at the lowest level.

    Returns
    -------
    Tensor (B, C, H, W). Costs ``langevin_steps * levels`` network calls, one more with ``denoise_last``.

    Raises
    ------
    UsageError : no Langevin step at all, or consistent noise with steps of sigma^2 or more.
    """
    check_langevin_steps(langevin_steps)
    levels = [float(s) for s in sigmas[:-1]]
    steps = ncsnv2_steps(sigmas, langevin_steps) if step_size is None else [step_size / levels[-1] ** 2] * len(levels)
    if not steps[-1] > 0 or (consistent and steps[-1] > 1):
        raise UsageError(
            f"step_size {step_size:.3g}, {steps[-1]:.3g} times the lowest level's variance",
            hint="wanted above 0, and at most 1 times unless consistent=False",
        )
    variance = 1.0  # of the noise in x over the level's, as far as consistent noise keeps account of it
    for i, (sigma, step) in enumerate(zip(levels, steps, strict=True)):
        variance *= (levels[i - 1] / sigma) ** 2 if i else 1.0
        for t in range(langevin_steps):
            x = model.project(x, sigma, noise)
            score = model.score(x, sigma)
            denoised = x + sigma**2 * score
            kept = (1 - step) ** 2 * variance
            added = max(0.0, 1 - kept) if consistent else 2 * step
            variance = kept + added
            x = x + step * sigma**2 * score + added**0.5 * sigma * noise(x)
            if callback is not None:
                done = i * langevin_steps + t + 1
                callback(StepInfo(done, len(levels) * langevin_steps, sigma, x, denoised))
    if denoise_last:
        x = model.denoise(model.project(x, levels[-1], noise), levels[-1])
    return x
