"""The mean of what x says: denoise at the first level, several times, and average.

No walk from noise to a picture: where the first level's x already says all that is known, as with the rule ``merged``, the
denoised picture is the posterior mean, the estimate of least expected squared error. Solved with ``turn``, each call shows
the network another orientation, and their mean errs less (Lim et al. 2017, "geometric self-ensemble").
"""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo


def posterior_mean(
    model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise, *, callback: Callback | None = None
) -> Tensor:
    """The average of ``model.denoise(x, sigmas[0])`` over as many calls as there are levels above 0.

    Parameters
    ----------
    model : prior or posterior.
    x : (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels; only the first counts, and how many there are. 8 show a network all orientations.
    noise : not used.

    Returns
    -------
    Tensor (B, C, H, W). Costs one network call per level.
    """
    first, calls = float(sigmas[0]), max(1, int((sigmas > 0).sum()))
    total = torch.zeros_like(x)
    for i in range(calls):
        total = total + model.denoise(x, first)
        if callback is not None:
            callback(StepInfo(i + 1, calls, first, total / (i + 1), total / (i + 1)))
    return total / calls
