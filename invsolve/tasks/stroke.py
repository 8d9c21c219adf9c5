"""Pictures from a painting: the reverse diffusion started part of the way up, from the painting under noise.

Meng et al. 2022, "SDEdit: guided image synthesis and editing with stochastic differential equations", Algorithms 1 and 2. Noise
drowns what is wrong with a painting (flat areas, hard edges) before it drowns its layout; what the prior makes of the rest is a
picture. Nothing is trained for it and nothing is optimised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.ndimage import median_filter

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel, Mask
from invsolve.models.score_model import ScoreModel
from invsolve.options import SAMPLING, Changes, SolveOptions
from invsolve.pictures import Missing, Pixels, UnitPicture, check_missing, check_picture
from invsolve.posterior import Posterior
from invsolve.rules import Rule
from invsolve.samplers import Callback
from invsolve.solver import solve, task_ladder
from invsolve.tasks.generation import unconditional
from invsolve.tasks.restoration import planes
from invsolve.tasks.task import check_colour_prior

BRUSH = 23 / 256
"""Side of the median filter over the picture's shorter side, and ..."""

COLOURS = 6
"""... number of colours: appendix C.2 of the paper simulates strokes so."""


def strength_sigma(prior: ScoreModel, strength: float) -> float:
    """The noise level that a strength names: that share of the way up the prior's geometric ladder.

    The paper's t_0 for the variance-exploding SDE, ``sigma_min (sigma_max / sigma_min)^t_0``.

    Raises
    ------
    UsageError : not above 0, or more than 1.
    """
    if not 0 < strength <= 1:
        raise UsageError(f"strength {strength}", hint="wanted more than 0, where nothing changes, and at most 1")
    return prior.sigma_min * (prior.sigma_max / prior.sigma_min) ** strength


def stroke(
    painting: UnitPicture,
    prior: ScoreModel,
    options: SolveOptions = SAMPLING,
    *,
    strength: float = 0.6,
    edited: Missing | None = None,
    callback: Callback | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Draw pictures that look like a painting.

    Parameters
    ----------
    painting : (H, W, 3) RGB or (H, W) grey floats in [0, 1]; samples have colours in any case.
    prior : a prior of RGB pictures.
    options : how to sample; sample j uses seed + j. The rule is ``replacement`` with ``edited`` and none without.
    strength : how far up the noise ladder to start, in (0, 1]: little keeps the painting, much makes another picture; see
        :func:`strength_sigma`. The paper finds 0.3 to 0.6 useful.
    edited : (H, W), True where the picture may change; the rest is held as in the paper's Algorithm 2. Default everywhere.
    callback : see :func:`invsolve.solve`.
    changes : fields of ``options`` that differ.

    Returns
    -------
    Posterior with samples (n, 1, 3, H, W), not clipped.

    Raises
    ------
    InputError : no such painting or mask; not of the one size the prior knows.
    ModelError : the prior is not one of RGB pictures.
    UsageError : strength out of range.
    """
    check_colour_prior(prior)
    prior.check_rgb()
    x = planes(check_picture(painting)).expand(-1, 3, -1, -1).to(prior.device)
    prior.check_size(x)
    sigma = strength_sigma(prior, strength)
    model, y = ForwardModel(lambda x: x[:, :0]), x[:, :0]
    rule: str | Rule = unconditional
    if edited is not None:
        held = torch.from_numpy(~check_missing(edited, painting.shape))[None].to(x)
        model, y, rule = ForwardModel(Mask(held, channels=3)), held * x, "replacement"
    wanted = replace(options, **changes)
    found = solve(
        prior,
        model,
        y,
        **replace(wanted, rule=rule).keywords,
        sigmas=task_ladder(wanted, prior.sigma_min, sigma, x[0].numel()),
        start=x,
        callback=callback,
    )
    found.settings.update(rule="none" if edited is None else "replacement", strength=strength)
    return found


def distances(painting: Pixels, pictures: Sequence[Pixels]) -> npt.NDArray[np.float64]:
    """Rms difference of each picture from the painting, (n,), in units of the range: how faithful it is."""
    return np.array([np.sqrt(np.mean((picture.astype(float) - painting) ** 2)) / 255 for picture in pictures])


def painted(pixels: Pixels, colours: int = COLOURS, brush: float = BRUSH) -> Pixels:
    """A picture (H, W[, 3]) as if painted with a broad brush and few colours: a median filter, then an adaptive palette.

    Parameters
    ----------
    colours : of the palette, 2 to 256.
    brush : side of the filter over the picture's shorter side, in (0, 1]; at least 3 pixels.

    Raises
    ------
    UsageError : no such number of colours or brush.
    """
    if not 0 < brush <= 1:
        raise UsageError(
            f"brush {brush}", hint="wanted a share of the picture's shorter side, more than 0 and at most 1"
        )
    if not 2 <= colours <= 256:
        raise UsageError(f"{colours} colours", hint="wanted 2 to 256")
    side = max(3, round(brush * min(pixels.shape[:2])) | 1)
    smooth = np.stack([median_filter(plane, side) for plane in np.moveaxis(np.atleast_3d(pixels), 2, 0)], axis=2)
    image = Image.fromarray(smooth.squeeze(2) if smooth.shape[2] == 1 else smooth).convert("RGB")
    found = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    return np.asarray(found if pixels.ndim == 3 else found.convert("L"))
