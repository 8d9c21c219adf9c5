"""Ancestral sampling with Langevin corrections at every level.

Song et al. 2021, "Score-based generative modeling through SDEs", Algorithm 4, with two changes. The step is a share
``step`` of sigma^2, since no curvature of a density blurred by sigma exceeds 1 / sigma^2 (theirs is set by a
signal-to-noise ratio per batch). The noise is that of the exactly solved Ornstein-Uhlenbeck process, variance
(1 - (1 - step)^2) sigma^2 instead of 2 step sigma^2, which leaves directions that the data determine unbiased.
"""

from __future__ import annotations

import itertools

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo, needs
from invsolve.samplers.renoising import ancestral


@needs(calls=lambda *, corrections, **_: 1 + corrections)
def ancestral_corrected(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    corrections: int = 1,
    step: float = 0.3,
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model``: an ancestral step to each level, then Langevin steps at it.

    Parameters
    ----------
    model : prior or posterior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0.
    noise : source of standard normal noise.
    corrections : Langevin steps at each level.
    step : their size in units of sigma^2, in (0, 1).

    Returns
    -------
    Tensor (B, C, H, W). Costs ``1 + corrections`` network calls per level, one at the last.
    """
    if not 0 < step < 1:
        raise UsageError(f"step {step}", hint="wanted a number between 0 and 1, both excluded")
    levels = [float(s) for s in sigmas]
    fresh = (1 - (1 - step) ** 2) ** 0.5
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        seen: list[StepInfo] = []
        x = ancestral(model, x, sigmas[i : i + 2], noise, callback=seen.append)
        if sigma_next > 0:
            for _ in range(corrections):
                x = model.project(x, sigma_next, noise)
                x = x + step * (model.denoise(x, sigma_next) - x) + fresh * sigma_next * noise(x)
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, sigma, x, seen[0].denoised))
    return x
