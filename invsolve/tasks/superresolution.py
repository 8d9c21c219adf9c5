"""Super-resolution: the larger photograph that a small one was made from."""

from __future__ import annotations

from typing import Any, Unpack

from invsolve.errors import InputError
from invsolve.forward_models import Downsample
from invsolve.forward_models.downsample import FACTORS, Kernel
from invsolve.models.score_model import ScoreModel
from invsolve.options import SUPERRESOLUTION, WIDE_SUPERRESOLUTION, Changes, SolveOptions
from invsolve.pictures import UnitPicture, check_picture
from invsolve.posterior import Posterior
from invsolve.tasks.restoration import Measurement, check_noise, planes
from invsolve.tasks.restoration_baselines import enlarged
from invsolve.tasks.task import Progress, Task

SIGMA_START = 0.5
"""First noise level on the bicubic guess: above what interpolation gets wrong."""

EXPECTED_BETWEEN = 0.0, 0.25
"""Noise levels at which the chains' estimates make the mean of several samples: all but the first few, which still know the guess.
With momentum a chain swings about the mean; enlarged 4 times this gains 0.2 dB (docs/lab/uncertainty-and-calibration.md)."""


def superresolution_task(picture: Any, factor: int, *, kernel: Kernel = "bicubic", noise: float = 0.0) -> Task:
    """The task of enlarging a photograph; parameters and errors as in :func:`superres`."""
    unit = check_picture(picture)
    if isinstance(factor, bool) or factor not in FACTORS:
        raise InputError(f"factor {factor!r}", hint=f"wanted a whole number, {FACTORS[0]} to {FACTORS[-1]}")
    y = planes(unit)
    shape = (y.shape[1], y.shape[2] * factor, y.shape[3] * factor)
    operator = Downsample(shape, factor, kernel)
    level = check_noise(noise)
    guess = enlarged(unit, factor)
    measured = Measurement(y, operator, level, planes(guess), SIGMA_START, expected=EXPECTED_BETWEEN)
    return Task(
        name="superres",
        run=measured.solve,
        options=SUPERRESOLUTION if factor == FACTORS[0] else WIDE_SUPERRESOLUTION,
        operator=operator,
        determined=lambda: factor**-2.0,
        problem={"factor": float(factor), "noise": level},
        baselines=lambda: {"bicubic": guess},
        work=float(shape[1] * shape[2]),
    )


def superres(
    picture: UnitPicture,
    factor: int,
    prior: ScoreModel,
    options: SolveOptions | None = None,
    *,
    kernel: Kernel = "bicubic",
    noise: float = 0.0,
    progress: Progress | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Enlarge a photograph by a whole factor.

    Made smaller again in the same way, every sample is the picture, up to its noise.

    Parameters
    ----------
    picture : (h, w, 3) RGB or (h, w) grey floats in [0, 1].
    factor : 2 to 8, how many pixels lie along one of the picture's.
    prior : a prior of RGB photographs in [0, 1].
    options : how to sample, default ``SUPERRESOLUTION``, from a factor of 3 on ``WIDE_SUPERRESOLUTION``; ``sigma_start`` is the
        first noise level, in the picture's units.
    kernel : how the picture was made smaller: "bicubic" (as Pillow, MATLAB and most programs do it), "box" (the mean of
        factor x factor pixels, as a sensor does it) or "gaussian"; see :class:`invsolve.forward_models.Downsample`.
    noise : standard deviation of the picture's noise, rounding to 8 bits at least (0.0011).
    progress : called with the share of the work done.
    changes : fields of ``options`` that differ, such as ``samples=8``.

    Returns
    -------
    Posterior with samples (n, 1, C, factor h, factor w).

    Raises
    ------
    InputError : no such picture, factor, kernel or noise; not of the one size the prior knows once enlarged.
    ModelError : the prior is not one of RGB pictures.
    """
    task = superresolution_task(picture, factor, kernel=kernel, noise=noise)
    return task.solve(prior, options, progress=progress, **changes)
