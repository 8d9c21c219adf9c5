"""Learning from a denoiser that is better at some noise levels, as well as from the clean pictures.

Where the teacher knows the noise level, the target is a mix of the clean picture and what the teacher makes of the noisy
one: ``(1 - share) x0 + share T(x, sigma)``. The minimiser is the same mix of E[x0 | x] and T (Hinton, Vinyals & Dean 2015
for the idea): the better the teacher, the nearer to E[x0 | x], with far less noise in the gradient than clean pictures
alone have, since T is what is left of x0 when everything that x does not tell is averaged out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invsolve.models.energy import make_denoiser
from invsolve.models.network import EDMDenoiser
from invsolve.training.loss import Batch, Task, weighted_error
from invsolve.training.presets import TrainingConfig

Teacher = Callable[[Tensor, Tensor], Tensor]
"""A denoiser of x (B, C, H, W) at noise levels sigma (B,)."""


def distilling(teacher: Teacher, levels: tuple[float, float], share: float) -> Task[EDMDenoiser]:
    """Denoising score matching with a teacher.

    Parameters
    ----------
    levels : least and largest noise level at which the teacher is asked.
    share : of the teacher in the target, in [0, 1].
    """

    def loss(model: EDMDenoiser, batch: Batch, config: TrainingConfig) -> Tensor:
        noisy = batch.x0 + batch.sigma[:, None, None, None] * batch.z
        target = mixed_target(teacher, batch.x0, noisy, batch.sigma, levels, share)
        return weighted_error(
            model(noisy, batch.sigma), target, batch.sigma, model.sigma_data, config.weighting, config.density,
            config.channel_weights,
        )  # fmt: skip

    return Task(build=lambda config: make_denoiser(config.network), loss=loss)


@torch.no_grad()
def mixed_target(
    teacher: Teacher, x0: Tensor, noisy: Tensor, sigma: Tensor, levels: tuple[float, float], share: float
) -> Tensor:
    """What the network should make of ``noisy``: ``x0``, mixed with the teacher's estimate where ``sigma`` (B,) is within
    ``levels``."""
    taught = (sigma > levels[0]) & (sigma < levels[1])
    if not bool(taught.any()):
        return x0
    target = x0.clone()
    target[taught] = (1 - share) * x0[taught] + share * teacher(noisy[taught], sigma[taught])
    return target
