"""Colorization: give a grey picture plausible colours and keep its grey."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.colours import LUMA_GAIN, from_rgb, to_rgb
from invsolve.errors import InputError
from invsolve.forward_models import ForwardModel, Grayscale
from invsolve.models.score_model import ScoreModel
from invsolve.options import COLORIZATION, HINTED_COLORIZATION, Changes, SolveOptions
from invsolve.pictures import UnitPicture, check_picture
from invsolve.posterior import Posterior
from invsolve.samplers import StepInfo
from invsolve.solver import solve, task_ladder
from invsolve.tasks.baselines import ColourTable, scribbled
from invsolve.tasks.hints import (
    Agreement,
    Averages,
    Hints,
    check_hints,
    check_reference,
    measurement,
    stroke_share,
)
from invsolve.tasks.task import Progress, Task, check_colour_prior, tell
from invsolve.uncertainty.conditional_mean import ConditionalMean

SIGMA_START = 20.0
"""Colour is a coherent mode: over 64 x 64 pixels a cast of sigma / 64 shows through noise of size sigma, so a start
at 1 would have settled on grey already."""

SIGMA_END = 0.02

SIGMA_START_LUMA_FIRST, SIGMA_END_LUMA_FIRST = 10.0, 0.02
"""The same for a prior with the luma first, in units of Cb and Cr: a cast over 32 x 32 pixels is some 1.4."""

EXPECTED_BETWEEN = 0.3, 3.0
"""Noise levels, in units of Cb and Cr of a prior with the luma first, at which the chains' estimates make the mean: casts are decided
there, and their exact size is still a mean. It gains 0.3 dB for the mean of 8 (docs/lab/colorization.md)."""

WORKING_SIZE = 64
"""Colours are found with the shorter side at most this long, unless the prior knows whole pictures of another size: the
whole picture is then within the prior's reach, which measured better than any larger size
(docs/lab/colorization.md)."""

BEYOND_FRAME = 1.25
"""The shorter side over that of the whole pictures a prior knows: more pixels tell more of a colour. Hints carry farther without
(docs/lab/colorization.md)."""

MULTIPLE = 8
"""The sides of a picture that is made smaller are multiples of it, its shape changed by little: a network that halves them three
times takes others with a margin of repeated noise, which is no noise."""

PIXELS_AT_ONCE = 2**20
"""Of a large picture so many are coloured at once."""

BASELINE, SCRIBBLES = "colour table", "scribbles (Levin 2004)"


def colorization_task(grey: Any, table: ColourTable | None = None, *, hints: Any = None, reference: Any = None) -> Task:
    """The task of giving a grey picture colours.

    Parameters
    ----------
    grey : (H, W) Rec. 601 luma, floats in [0, 1].
    table : the colour table that stands beside it, if any.
    hints : (H, W, 4) strokes of colour and their opacity, or (H, W, 3) strokes painted on the grey, floats in [0, 1];
        only their chroma counts. See :func:`invsolve.tasks.hints.check_hints`.
    reference : (h, w, 3) RGB in [0, 1], a picture with colours like those wanted, of any size.

    Raises
    ------
    InputError : ``grey``, ``hints`` or ``reference`` is not such a picture.
    """
    unit = check_picture(grey, colours=(0,))
    strokes = None if hints is None else check_hints(hints, unit)
    averages = None if reference is None else check_reference(reference)

    def baselines() -> dict[str, UnitPicture]:
        found = {"grey": np.repeat(unit[..., None], 3, axis=2)}
        if table is not None:
            found[BASELINE] = table.colorize(unit.astype(np.float64))
        if strokes is not None:
            chroma, opacity = strokes.chroma[0].permute(1, 2, 0).numpy(), strokes.opacity[0, 0].numpy()
            found[SCRIBBLES] = scribbled(unit, chroma, opacity)
        return found

    height, width = working_size(*unit.shape)
    return Task(
        name="colorize",
        run=partial(draw_colours, unit, strokes, averages),
        options=COLORIZATION if strokes is None and averages is None else HINTED_COLORIZATION,
        operator=Grayscale((3, *unit.shape)),
        # Of a pixel's three values the grey determines one, a stroke the others.
        determined=lambda: (1 + 2 * stroke_share(strokes)) / 3,
        baselines=baselines,
        work=height * width,
        values=3 * unit.size,
    )


def colorize(
    grey: UnitPicture,
    prior: ScoreModel,
    options: SolveOptions | None = None,
    *,
    hints: UnitPicture | None = None,
    reference: UnitPicture | None = None,
    progress: Progress | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Colours for a grey picture, those of strokes or like those of another picture where there are any.

    Large pictures get their colours at a working size, where the prior knows them; the chroma is then enlarged along
    the luma's edges and the luma itself is never touched. A prior of one size colours square pictures, at that size.

    Parameters
    ----------
    grey : (H, W) Rec. 601 luma, floats in [0, 1].
    prior : a prior of colour photographs; one of whole pictures, such as ``thumbnails``, knows most of colours.
    options : how to sample, default ``COLORIZATION``, with hints or a reference ``HINTED_COLORIZATION``; ``sigma_start``
        is in the prior's units, None is high enough for any cast.
    hints : (H, W, 4) RGB and opacity in [0, 1], or (H, W, 3) strokes painted on the grey. An opaque stroke's chroma comes
        back within a grey level, made weaker where the grey has no room for it.
    reference : (h, w, 3) RGB in [0, 1]: the picture's mean colours by luma are likely near this one's.
    progress : called with the share of the work done.
    changes : fields of ``options`` that differ, such as ``samples=8``.

    Returns
    -------
    Posterior with samples (n, 1, 3, H, W) inside [0, 1] whose luma is ``grey`` up to floating point.

    Raises
    ------
    InputError : ``grey`` is not (H, W) in [0, 1]; not square or too small for a prior of one size; hints that do not
        fit it or hold no stroke; a reference without colours.
    ModelError : the prior is not one of colour pictures.
    """
    task = colorization_task(grey, hints=hints, reference=reference)
    return task.solve(prior, options, progress=progress, **changes)


def draw_colours(
    grey: UnitPicture,
    hints: Hints | None,
    reference: Averages | None,
    prior: ScoreModel,
    options: SolveOptions,
    progress: Progress,
) -> Posterior:
    """Colours for a picture that was checked."""
    check_colour_prior(prior)
    y = torch.from_numpy(np.ascontiguousarray(grey))[None, None]
    steered = hints is not None or reference is not None
    beyond = 1.0 if steered or prior.frame is None else BEYOND_FRAME
    size = working_size(grey.shape[0], grey.shape[1], prior.size, round(beyond * (prior.frame or WORKING_SIZE)))
    small = y
    if size != grey.shape:
        small = F.interpolate(y, size=size, mode="bilinear", align_corners=False, antialias=True)
    small = small.to(prior.device)
    operator, start, levels = coordinates(prior, small, options)
    forward_model, measured = ForwardModel(operator), small
    if steered:
        forward_model, measured = measurement(small, prior.colours, hints, reference)
    agree = None if hints is None else Agreement(hints, y, size)

    def finish(x: Tensor, out: Tensor) -> Tensor:
        enlarged(to_rgb(x.cpu(), prior.colours)[None], small.cpu(), y, out, agree)
        return out

    expected = ConditionalMean(*EXPECTED_BETWEEN)

    def report(info: StepInfo) -> None:
        expected.add(info)
        tell(progress, info.step / info.steps, lambda: finish(info.denoised[0], torch.empty(3, *y.shape[-2:])))

    solved = solve(
        prior,
        forward_model,
        measured,
        **options.keywords,
        sigmas=levels,
        start=start,
        turn=True,
        callback=report,
    )
    coloured = torch.empty(len(solved.samples), 3, *y.shape[-2:])
    for x, picture in zip(solved.samples[:, 0], coloured, strict=True):
        finish(x, picture)
    settings = {**solved.settings, "working_size": list(size)}
    solved = replace(solved, samples=coloured[:, None], settings=settings)
    several = options.samples > 1 and prior.colours == "luma first" and not steered
    if several and (average := expected.average) is not None:
        solved = replace(solved, estimate=finish(average, torch.empty(3, *y.shape[-2:]))[None])
    # How vague a hint is was chosen, not measured: chi-squared would say nothing of it.
    return replace(solved, chi2=torch.empty(0), settings={**settings, "sigma_y": None}) if steered else solved


def enlarged(
    colours: Tensor,
    small_luma: Tensor,
    luma: Tensor,
    out: Tensor,
    agree: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """The chroma of ``colours`` (1, 3, h, w) on the full ``luma`` (1, 1, H, W), made to ``agree`` with hints; into ``out``
    (3, H, W), inside [0, 1]. Without hints, which look at the whole, some rows at a time."""
    chroma = colours - Grayscale((3, *colours.shape[-2:]))(colours)
    height, width = luma.shape[-2:]
    smaller = chroma.shape[-2:] != luma.shape[-2:]
    guide = guided(chroma, small_luma) if smaller else None
    step = height if agree is not None else max(1, PIXELS_AT_ONCE // width)
    for first in range(0, height, step):
        rows = slice(first, min(height, first + step))
        part = chroma[..., rows, :] if guide is None else enlarge_chroma(guide, luma, rows)
        out[:, rows] = into_gamut(luma[0, :, rows], (part if agree is None else agree(part))[0])


def coordinates(prior: ScoreModel, grey: Tensor, options: SolveOptions) -> tuple[Grayscale, Tensor, Tensor]:
    """What the grey picture (1, 1, H, W) measures in the prior's coordinates, a start without colour, and the ladder."""
    shape = (3, *grey.shape[-2:])
    neutral, sigma_start = from_rgb(grey.expand(-1, 3, -1, -1), prior.colours), options.sigma_start
    if prior.colours == "luma first":
        start = SIGMA_START_LUMA_FIRST if sigma_start is None else sigma_start
        levels = task_ladder(options, SIGMA_END_LUMA_FIRST, start, neutral.numel())
        return Grayscale(shape, weights=(1 / LUMA_GAIN, 0.0, 0.0)), neutral, levels
    start = SIGMA_START if sigma_start is None else sigma_start
    return Grayscale(shape), neutral, task_ladder(options, SIGMA_END, start, neutral.numel())


def working_size(height: int, width: int, known: int | None = None, shorter: int = WORKING_SIZE) -> tuple[int, int]:
    """The size at which colours are found: the one size that the prior knows, or the shorter side at most ``shorter``, both
    multiples of :data:`MULTIPLE`.

    Raises
    ------
    InputError : the prior knows one size, and the picture is smaller or not square.
    """
    if known is not None:
        if height != width or height < known:
            raise InputError(
                f"the picture is {width} x {height}, the prior colours squares of {known} pixels or more",
                hint="crop it to a square, or use a prior of any size such as photos",
            )
        return known, known
    factor = shorter / min(height, width)
    if factor >= 1:
        return height, width
    rows, columns = (MULTIPLE * max(1, round(side * factor / MULTIPLE)) for side in (height, width))
    return rows, columns


def guided(chroma: Tensor, small_luma: Tensor, radius: int = 2, epsilon: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Smooth coefficients a and b, (n, 3, h, w) each, of the fast guided filter (He & Sun 2015): chroma = a luma + b was
    fitted in windows of the small picture."""

    def box(t: Tensor) -> Tensor:
        padded = F.pad(t, (radius,) * 4, mode="replicate")
        return F.avg_pool2d(padded, 2 * radius + 1, stride=1)

    mean_luma, mean_chroma = box(small_luma), box(chroma)
    covariance = box(small_luma * chroma) - mean_luma * mean_chroma
    variance = box(small_luma**2) - mean_luma**2
    a = covariance / (variance + epsilon)
    return box(a), box(mean_chroma - a * mean_luma)


def enlarge_chroma(guide: tuple[Tensor, Tensor], luma: Tensor, rows: slice = slice(None)) -> Tensor:
    """Chroma (n, 3, k, W) at ``rows`` of ``luma`` (1, 1, H, W), along its edges: the coefficients of :func:`guided`, enlarged
    and applied."""
    part = luma[..., rows, :]
    a, b = (enlarged_rows(t, luma.shape[-2], rows, luma.shape[-1]) for t in guide)
    enlarged = a * part + b
    return enlarged - Grayscale((3, *part.shape[-2:]))(enlarged)


def enlarged_rows(t: Tensor, height: int, rows: slice, width: int) -> Tensor:
    """Rows (n, C, k, width) of the bilinear enlargement of ``t`` (n, C, h, w) to (height, width)."""
    at = ((torch.arange(height, dtype=torch.float64)[rows] + 0.5) * (t.shape[-2] / height) - 0.5).clamp(min=0)
    low = at.long().clamp(max=t.shape[-2] - 1)
    high = (low + 1).clamp(max=t.shape[-2] - 1)
    between = torch.lerp(t[..., low, :], t[..., high, :], (at - low).to(t)[:, None])
    return F.interpolate(between, size=(len(at), width), mode="bilinear", align_corners=False)


def into_gamut(luma: Tensor, chroma: Tensor) -> Tensor:
    """luma + t * chroma with the largest t <= 1, pixel by pixel, that stays inside [0, 1].

    ``luma`` (1, H, W) in [0, 1], ``chroma`` (3, H, W) of zero luma; returns (3, H, W). Luma and hue are kept.
    """
    luma = luma.clamp(0, 1)
    room = torch.where(chroma > 0, 1 - luma, luma)
    limit = torch.where(chroma != 0, room / chroma.abs().clamp(min=1e-12), torch.inf)
    inside = luma + limit.amin(dim=0, keepdim=True).clamp(max=1) * chroma
    return inside.clamp(0, 1)  # rounding errors of 1e-8 only
