"""Denoising: a photograph under white Gaussian noise."""

from __future__ import annotations

from typing import Any, Unpack

from invsolve.errors import InputError
from invsolve.forward_models import Identity
from invsolve.models.score_model import ScoreModel
from invsolve.options import DENOISING, Changes, SolveOptions
from invsolve.pictures import UnitPicture, check_picture
from invsolve.posterior import Posterior
from invsolve.tasks.noise_level import estimate_noise
from invsolve.tasks.restoration import ROUNDING, Measurement, check_noise, planes
from invsolve.tasks.restoration_baselines import non_local_means
from invsolve.tasks.task import Progress, Task

START = 10.0
"""First noise level over the picture's own: so far above it that what is put on the picture hides it, and the measurement, the
same picture, is not counted twice."""


def denoising_task(picture: Any, *, noise: float | None = None) -> Task:
    """The task of denoising a photograph; parameters and errors as in :func:`denoise`."""
    unit = check_picture(picture)
    level = check_noise(estimate_noise(unit) if noise is None else noise)
    if noise is None and level <= ROUNDING:
        raise InputError("no noise found in the picture", hint="say how much there is: noise=0.05, or --sigma 0.05")
    y = planes(unit)
    operator = Identity(tuple(y.shape[1:]))
    measured = Measurement(y, operator, level, y, START * level, repeated=True)
    return Task(
        name="denoise",
        run=measured.solve,
        options=DENOISING,
        operator=operator,
        determined=lambda: 1.0,
        problem={"noise": level},
        baselines=lambda: {"non-local means": non_local_means(unit, level)},
        work=float(y.shape[2] * y.shape[3]),
    )


def denoise(
    picture: UnitPicture,
    prior: ScoreModel,
    options: SolveOptions = DENOISING,
    *,
    noise: float | None = None,
    progress: Progress | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Take white Gaussian noise off a photograph.

    Parameters
    ----------
    picture : (H, W, 3) RGB or (H, W) grey floats in [0, 1], up to noise.
    prior : a prior of RGB photographs in [0, 1].
    options : how to sample; ``sigma_start`` is the first noise level, in the picture's units.
    noise : standard deviation of the noise, the same in every pixel and channel, independent of each other; None estimates
        it from the picture (:func:`invsolve.tasks.noise_level.estimate_noise`), where fine texture counts as noise.
    progress : called with the share of the work done.
    changes : fields of ``options`` that differ, such as ``samples=8``.

    Returns
    -------
    Posterior with samples (n, 1, C, H, W).

    Raises
    ------
    InputError : no such picture or noise, no noise found; not of the one size the prior knows.
    ModelError : the prior is not one of RGB pictures.
    """
    return denoising_task(picture, noise=noise).solve(prior, options, progress=progress, **changes)
