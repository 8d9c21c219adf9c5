"""``invsolve colorize``: colours for a grey photograph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from invsolve.cli.files import read_photo
from invsolve.cli.pipeline import Common, PictureJob, Scores, read_truth, run_pictures, score_pixels, with_common
from invsolve.options import COLORIZATION
from invsolve.pictures import Pixels


@with_common(Common.of(COLORIZATION, model="thumbnails"))
def colorize(
    picture: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURE", help="PNG or JPEG; of a colour picture only the grey is used.", show_default=False
        ),
    ],
    *,
    common: Common,
) -> None:
    """Give a grey photograph plausible colours.

    The result's Rec. 601 grey is the input's, within one level. Colours are one sample of many that fit.

    Examples:

      invsolve colorize old-photo.jpg

      invsolve colorize grey.png --samples 8 --truth colour.png
    """
    common.set_verbosity()
    photo = read_photo(picture)
    grey = np.asarray(Image.fromarray(photo.pixels).convert("L"))
    reference = read_truth(common.truth, (*grey.shape, 3), "colour picture", "give the same picture in colour")
    run_pictures("colorize", picture, photo, common, reference, lambda: colorization_job(grey, common.model))


def colorization_job(grey: Pixels, model: str) -> PictureJob:
    """The task, with the colour table that came with the prior or else the photographs'."""
    from invsolve.pretrained.loading import find_prior
    from invsolve.tasks.baselines import ColourTable
    from invsolve.tasks.colorization import colorization_task

    own, general = (find_prior(name) / "colour-table.json" for name in (model, "photos"))
    table = ColourTable.load(own if own.is_file() else general)
    return PictureJob(
        task=colorization_task(grey.astype(np.float32) / 255, table),
        about=f"{grey.shape[1]} x {grey.shape[0]} pixels",
        facts={},
        keep_profile=False,
        judge=judge_colours,
    )


def judge_colours(truth: Pixels, candidates: Mapping[str, Pixels]) -> Scores:
    """PSNR and SSIM, the colour difference CIEDE2000 and the mean chroma, which is the truth's too."""
    from invsolve.evaluation.metrics import ciede2000, mean_chroma

    scores = score_pixels(truth, candidates)
    for name, candidate in candidates.items():
        scores[name]["ciede2000"] = ciede2000(truth / 255, candidate / 255)
        scores[name]["chroma"] = mean_chroma(candidate / 255)
    return scores | {"truth": {"chroma": mean_chroma(truth / 255)}}
