"""Redraw the clean picture, put noise back: decoupled annealing with the draw in closed form.

At each level a clean picture is drawn given x and y, as far as the model can say, and noise of the next level's size is put
on it:

    x0 ~ p(x0 | x, y),    z = (x - x0) / sigma,    x' = x0 + sigma' (sqrt(1 - eta^2) z + eta n),    n ~ N(0, 1)

If x has the law of x0 + sigma z given y, x' has that of x0 + sigma' z, whatever the step and whatever eta: nothing is
discretised, a few levels do, and what went wrong at one is forgotten at the next. What is approximate is the draw, a
Gaussian (DAPS, Zhang et al. 2024, whose draw is by Langevin steps with a white covariance; the Gibbs sampler of Coeurdoux,
Dobigeon & Chainais 2024 splits in the same way).

:func:`renoising` puts noise on the *mean* of that law instead: nearer to the truth each time, and too narrow.
"""

from __future__ import annotations

import itertools

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo, needs


@needs(resumes=True, forgets=True)
def redrawing(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    eta: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model`` by drawing x0 and putting noise back.

    Parameters
    ----------
    model : a posterior of a rule that draws (``wiener``), or a prior.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels. Where they end in 0, the last step is the denoised mean, as what is left of the variance is
        below the last level's; where they end above 0, so does x.
    noise : source of standard normal noise.
    eta : share of fresh noise in [0, 1].

    Returns
    -------
    Tensor (B, C, H, W). Costs one network call per level.

    Raises
    ------
    UsageError : the model's rule has no draw; eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise UsageError(f"eta {eta}", hint="wanted 0 to 1, the share of fresh noise")
    levels = [float(s) for s in sigmas]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        if sigma_next > 0:
            x0, z = model.draw(x, sigma, noise)
            x = x0 + sigma_next * ((1 - eta**2) ** 0.5 * z + eta * noise(x0))
        else:
            x = x0 = model.denoise(x, sigma)
        if callback is not None:
            callback(StepInfo(i + 1, len(levels) - 1, sigma, x, x0))
    return x
