"""New pictures: samples of a prior, of one of its classes, or of any conditioned model without a measurement's start."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel
from invsolve.forward_models.classifier import CleanClassifier
from invsolve.models.score_model import ScoreModel
from invsolve.options import SAMPLING, Changes, SolveOptions
from invsolve.posterior import Posterior
from invsolve.rules import Rule
from invsolve.rules.classifier_gradient import ClassifierGradient
from invsolve.samplers import Callback
from invsolve.samplers.noise import SeededNoise
from invsolve.solver import solve, task_ladder

CENTER = 0.5
"""What the first level's noise is added to: the middle of the range of pictures."""


BRIGHTNESS = 0.15
"""Standard deviation of the mean brightness of photographs (of crops of 64 pixels 0.18, of 256 pixels 0.12)."""

STREAM = 1
"""Of the noise that a start's brightness is drawn with; the sampler's own is 0."""


def ladder(prior: ScoreModel, options: SolveOptions, dimension: int) -> Tensor:
    """Levels over all the prior knows: where nothing is measured, sampling starts at the top."""
    return task_ladder(options, prior.sigma_min, prior.sigma_max, dimension)


def sample(
    prior: ScoreModel,
    size: tuple[int, int] | None = None,
    options: SolveOptions = SAMPLING,
    *,
    sigmas: Tensor | None = None,
    callback: Callback | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Draw new pictures from a prior.

    Parameters
    ----------
    prior : score model.
    size : (height, width); None takes the size the prior knows.
    options : how to sample; sample j uses seed + j.
    sigmas : falling levels ending in 0; default :func:`ladder` by ``options``.
    callback : see :func:`invsolve.solve`.
    changes : fields of ``options`` that differ.

    Returns
    -------
    Posterior with samples (n, 1, C, H, W), not clipped.

    Raises
    ------
    UsageError : no size is given and the prior knows any.
    """
    start = blank(prior, size)
    nothing = ForwardModel(lambda x: x[:, :0])
    return _draw(prior, nothing, start[:, :0], unconditional, start, replace(options, **changes), sigmas, callback)


def generate(
    prior: ScoreModel,
    classifier: CleanClassifier,
    name: str,
    size: tuple[int, int] | None = None,
    options: SolveOptions = SAMPLING,
    *,
    guidance: float = 3.0,
    sigmas: Tensor | None = None,
    callback: Callback | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Draw new pictures of one class from an unconditional prior.

    Parameters
    ----------
    prior : score model, which never saw a label.
    classifier : p(label | x), for instance ``load_classifier(...).forward_model``.
    name : one of the classifier's classes.
    guidance : scale on the classifier's gradient: 1 is Bayes' rule, more is surer of the class and less varied.
    size, options, sigmas, callback, changes : see :func:`sample`; the rule is always the classifier's gradient.

    Raises
    ------
    InputError : unknown class.
    """
    label = torch.tensor([classifier.label(name)], device=prior.device)
    rule = partial(ClassifierGradient, scale=guidance)
    result = _draw(prior, classifier, label, rule, blank(prior, size), replace(options, **changes), sigmas, callback)
    result.settings.update(rule="classifier_gradient", guidance=guidance, label=name)
    return result


def _draw(
    prior: ScoreModel,
    forward_model: ForwardModel,
    y: Tensor,
    rule: Rule,
    start: Tensor,
    options: SolveOptions,
    sigmas: Tensor | None,
    callback: Callback | None,
) -> Posterior:
    return solve(
        prior,
        forward_model,
        y,
        **replace(options, rule=rule).keywords,
        sigmas=ladder(prior, options, start[0].numel()) if sigmas is None else sigmas,
        start=starts(prior, start, options),
        callback=callback,
    )


def blank(prior: ScoreModel, size: tuple[int, int] | None) -> Tensor:
    """An even grey (1, C, H, W) to start from."""
    prior.check_rgb()
    if size is None:
        side = prior.size or prior.frame
        if side is None:
            raise UsageError("this prior knows pictures of any size", hint="give the size wanted, such as 64x64")
        size = (side, side)
    return torch.full((1, prior.channels, *size), CENTER, device=prior.device)


def starts(prior: ScoreModel, blank: Tensor, options: SolveOptions) -> Tensor:
    """A start (n, 1, C, H, W) for each sample: of a prior that knows any size, with a brightness of its own.

    White noise of the prior's sigma_max drowns a picture pixel by pixel, but averages out in the mean of a large one: there x
    holds sigma_max / sqrt(H W) of noise, and would otherwise start too near to the middle of the range.
    """
    if prior.size or prior.frame:
        return blank.expand(options.samples, *blank.shape)
    seeds = [(options.seed + j, 0, STREAM) for j in range(options.samples)]
    draws = SeededNoise(seeds)(blank.new_empty(options.samples, 1, 1, 1))
    return (blank + BRIGHTNESS * draws)[:, None]


def unconditional(prior: ScoreModel, forward_model: ForwardModel, y: Tensor) -> ScoreModel:
    """The rule that learns nothing from the measurement."""
    return prior


def grid(pictures: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Pictures (n, C, H, W) in [0, 1] side by side on white, (C, ...); by default about square."""
    count, channels, height, width = pictures.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    sheet = pictures.new_ones(channels, rows * (height + gap) + gap, columns * (width + gap) + gap)
    for k, picture in enumerate(pictures):
        top, left = (k // columns) * (height + gap) + gap, (k % columns) * (width + gap) + gap
        sheet[:, top : top + height, left : left + width] = picture
    return sheet
