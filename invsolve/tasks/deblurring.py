"""Deblurring: the sharp photograph, where it is known how it was blurred."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.forward_models import Blur
from invsolve.models.score_model import ScoreModel
from invsolve.options import DEBLURRING, Changes, SolveOptions
from invsolve.pictures import UnitPicture, check_picture
from invsolve.posterior import Posterior
from invsolve.tasks.noise_level import estimate_noise
from invsolve.tasks.restoration import Measurement, check_noise, check_psf, planes
from invsolve.tasks.restoration_baselines import lucy_richardson, wiener_filter
from invsolve.tasks.task import Progress, Task, check_colour_prior

SIGMA_START = 0.5
"""First noise level on the blurred picture as the guess: above what blur takes away."""


def deblurring_task(picture: Any, psf: Any, *, noise: float | None = None) -> Task:
    """The task of sharpening a photograph; parameters and errors as in :func:`deblur`."""
    unit = check_picture(picture)
    taps = check_psf(psf, unit.shape)
    level = check_noise(estimate_noise(unit) if noise is None else noise)
    y, spread = planes(unit), torch.from_numpy(taps)
    # Waves that the blur leaves weaker than the noise are not to be had, if all waves of the picture were equally strong.
    seen = Blur(spread, tuple(y.shape[1:]), floor=level / max(float(unit.std()), level))

    def baselines() -> dict[str, UnitPicture]:
        return {
            "Wiener": wiener_filter(unit, taps, level),
            "Richardson-Lucy": lucy_richardson(unit, taps, level),
        }

    return Task(
        name="deblur",
        run=partial(sharpen, y, spread, level),
        options=DEBLURRING,
        operator=seen,
        determined=lambda: seen.determined,
        problem={"determined": seen.determined, "noise": level},
        baselines=baselines,
        work=float((y.shape[2] + taps.shape[0] - 1) * (y.shape[3] + taps.shape[1] - 1)),
    )


def sharpen(
    y: Tensor, psf: Tensor, noise: float, prior: ScoreModel, options: SolveOptions, progress: Progress
) -> Posterior:
    """Sample the scene that was blurred, a PSF wider than the photograph, and keep what the photograph shows.

    What lies beyond the edges was blurred into the photograph, so it is reconstructed too, from that alone. A prior of one
    size has no room for it: the photograph's mirror image is then taken to lie there.
    """
    check_colour_prior(prior)
    (height, width), (above, left) = psf.shape, (psf.shape[0] // 2, psf.shape[1] // 2)
    before = (height - 1 - above, width - 1 - left)  # a convolution reads the scene with the PSF turned round
    if prior.size is not None:
        operator = Blur(psf, tuple(y.shape[1:]), "reflect")
        return Measurement(y, operator, noise, y, SIGMA_START).solve(prior, options, progress)
    start = F.pad(y, (before[1], left, before[0], above), mode="replicate")
    kept = tuple(slice(first, first + length) for first, length in zip(before, y.shape[-2:], strict=True))
    operator = Blur(psf, tuple(start.shape[1:]), "valid")
    return Measurement(y, operator, noise, start, SIGMA_START, (kept[0], kept[1])).solve(prior, options, progress)


def deblur(
    picture: UnitPicture,
    psf: npt.NDArray[np.floating],
    prior: ScoreModel,
    options: SolveOptions = DEBLURRING,
    *,
    noise: float | None = None,
    progress: Progress | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Sharpen a photograph that was blurred in a known way, the same everywhere.

    Parameters
    ----------
    picture : (H, W, 3) RGB or (H, W) grey floats in [0, 1].
    psf : (h, w), what the blur makes of a point of light, of any sum, centred at ``psf[h // 2, w // 2]``, smaller than the
        picture; :func:`invsolve.forward_models.gaussian_psf` and ``motion_psf`` make some (as tensors; ``.numpy()``).
    prior : a prior of RGB photographs in [0, 1].
    options : how to sample; ``sigma_start`` is the first noise level, in the picture's units.
    noise : standard deviation of the picture's noise, rounding to 8 bits at least (0.0011); None estimates it from the
        picture (:func:`invsolve.tasks.noise_level.estimate_noise`), which works well where blur left no fine detail.
    progress : called with the share of the work done.
    changes : fields of ``options`` that differ, such as ``samples=8``.

    Returns
    -------
    Posterior with samples (n, 1, C, H, W).

    Raises
    ------
    InputError : no such picture, PSF or noise; not of the one size the prior knows.
    ModelError : the prior is not one of RGB pictures.
    """
    return deblurring_task(picture, psf, noise=noise).solve(prior, options, progress=progress, **changes)
