"""``invsolve colorize``: colours for a grey photograph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer

from invsolve.cli.budget import ASKED, asked_of
from invsolve.cli.common import Common, with_common
from invsolve.cli.console import say
from invsolve.cli.files import Photo, luma, read_photo
from invsolve.cli.folders import over_pictures
from invsolve.cli.pipeline import PictureJob, Scores, read_truth, run_pictures, score_pixels
from invsolve.options import COLORIZATION, HINTED_COLORIZATION
from invsolve.pictures import Pixels, full_range, to_unit


@over_pictures(beside=("hints",))
@with_common(Common.of(COLORIZATION, model="thumbnails"))
def colorize(
    picture: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURE",
            help="PNG, JPEG, TIFF, ...; of a colour picture only the grey is used.",
            show_default=False,
        ),
    ],
    hints: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Strokes of the colours wanted, of the picture's size: opaque ones on a transparent layer, or painted "
            "on the grey picture. Half opaque is a nudge. Their brightness does not count.",
            rich_help_panel="Problem",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A colour picture of any size whose mean colours, from dark to light, are likely this one's.",
            rich_help_panel="Problem",
        ),
    ] = None,
    *,
    common: Common,
) -> list[Path]:
    """Give a grey photograph plausible colours.

    The result's Rec. 601 grey is the input's, within one level. Colours are one sample of many that fit. With --hints or
    --reference the defaults are --steps 30 --rule 'moment_matching(steps=1)' --sampler multistep.

    Examples:

      invsolve colorize old-photo.jpg

      invsolve colorize grey.png --samples 8 --truth colour.png

      invsolve colorize grey.png --hints strokes.png
    """
    common.set_verbosity()
    photo = read_photo(picture)
    grey = luma(photo.pixels)
    say_tone(picture, photo)
    steering = Steering()
    if hints is not None:
        steering = steering._replace(hints=with_opacity(read_photo(hints, "picture of hints")))
    if reference is not None:
        steering = steering._replace(reference=in_colour(read_photo(reference, "reference").pixels))
    if hints is not None or reference is not None:
        common = steered(common, ASKED.get())
    truth = read_truth(common.truth, (*grey.shape, 3), "colour picture", "give the same picture in colour")
    facts = {name: str(path) for name, path in (("hints", hints), ("reference", reference)) if path is not None}
    return run_pictures(
        "colorize", picture, photo, common, truth, lambda: colorization_job(grey, common.model, steering, **facts)
    )


def say_tone(path: Path, photo: Photo) -> None:
    """A line where a picture is not grey, but toned, or has colours."""
    from invsolve.tasks.tints import is_coloured, is_toned

    if photo.pixels.ndim < 3:
        return
    if is_toned(photo.unit):
        say(f"{path.name} is toned, as sepia is: taken as its grey, and coloured anew")
    elif is_coloured(photo.unit):
        say(f"{path.name} has colours: taken as its grey, and coloured anew")


class Steering(NamedTuple):
    """What colours are wanted, as far as somebody said."""

    hints: npt.NDArray[np.float32] | None = None  # (H, W, 3 or 4) in [0, 1]
    reference: npt.NDArray[np.float32] | None = None  # (h, w, 3) in [0, 1]


def in_colour(pixels: Pixels) -> npt.NDArray[np.float32]:
    """A file's pixels (H, W) or (H, W, 3) as (H, W, 3) in [0, 1]."""
    rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return to_unit(rgb)


def with_opacity(photo: Photo) -> npt.NDArray[np.float32]:
    """A picture with its transparency, where it has any, as fourth channel; in [0, 1]."""
    colours = in_colour(photo.pixels)
    if photo.alpha is None:
        return colours
    return np.concatenate([colours, to_unit(photo.alpha)[..., None]], axis=2)


def steered(common: Common, asked: frozenset[str]) -> Common:
    """``common`` with the way of solving for hints, as far as no other was ``asked`` for."""
    if asked & {"rule", "sampler"}:  # another way of solving, whose steps are its own
        return common
    wanted = HINTED_COLORIZATION
    steps = common.steps if "steps" in asked else wanted.steps
    return replace(common, steps=steps, rule=str(wanted.rule), sampler=str(wanted.sampler))


def defaults_in_force(context: typer.Context) -> dict[str, Any]:
    """The way of solving that the options given so far lead to."""
    given = context.params
    if given["hints"] is None and given["reference"] is None:
        return {}
    names = ("steps", "rule", "sampler")
    common = steered(replace(Common(), **{name: given[name] for name in names}), asked_of(context))
    return {name: getattr(common, name) for name in names}


def colorization_job(grey: Pixels, model: str, steering: Steering, **facts: str) -> PictureJob:
    """The task, with the colour table that came with the prior or else the photographs'."""
    from invsolve.pretrained.loading import find_prior
    from invsolve.tasks.baselines import ColourTable
    from invsolve.tasks.colorization import colorization_task

    own, general = (find_prior(name) / "colour-table.json" for name in (model, "photos"))
    table = ColourTable.load(own if own.is_file() else general)
    return PictureJob(
        task=colorization_task(to_unit(grey), table, hints=steering.hints, reference=steering.reference),
        about=f"{grey.shape[1]} x {grey.shape[0]} pixels" + "".join(f", {what} {name}" for what, name in facts.items()),
        facts=dict(facts),
        keep_profile=False,
        judge=judge_colours,
    )


def judge_colours(truth: Pixels, candidates: Mapping[str, Pixels]) -> Scores:
    """PSNR and SSIM, the colour difference CIEDE2000 and the mean chroma, which is the truth's too."""
    from invsolve.evaluation.metrics import ciede2000, mean_chroma

    scores, true = score_pixels(truth, candidates), truth / full_range(truth.dtype)
    for name, candidate in candidates.items():
        unit = candidate / full_range(candidate.dtype)
        scores[name]["ciede2000"] = ciede2000(true, unit)
        scores[name]["chroma"] = mean_chroma(unit)
    return scores | {"truth": {"chroma": mean_chroma(true)}}
