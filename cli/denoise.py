"""``invsolve denoise``: take the noise off a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from invsolve.cli.common import Common, with_common
from invsolve.cli.files import Photo, read_photo
from invsolve.cli.folders import over_pictures
from invsolve.cli.limits import finite
from invsolve.cli.pipeline import PictureJob, read_truth, run_pictures
from invsolve.options import DENOISING

Rule = Annotated[
    str,
    typer.Option(
        help="merged, which is exact here, or one of the others: wiener, proximal, moment_matching, ...",
        rich_help_panel="Sampler",
    ),
]
Sampler = Annotated[
    str,
    typer.Option(
        help="auto is posterior_mean for one sample, the estimate of least error, and redrawing for several; or heun_sde, "
        "ancestral, renoising, ...",
        rich_help_panel="Sampler",
    ),
]


@over_pictures()
@with_common(Common.of(DENOISING, model="photos"), rule=Rule, sampler=Sampler)
def denoise(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="PNG, JPEG, TIFF, ..., grey or RGB, any size.", show_default=False)
    ],
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            callback=finite,
            metavar="STD",
            rich_help_panel="Problem",
            help="Standard deviation of the noise, as a share of the full range (0.1 = 26 grey levels); estimated from the "
            "finest detail where not given.",
        ),
    ] = None,
    *,
    common: Common,
) -> list[Path]:
    """Take white noise off a photograph.

    One result is the posterior mean, the estimate of least error. Of several each is a picture that fits.

    Examples:

      invsolve denoise grainy.png

      invsolve denoise night.jpg --sigma 0.1 --samples 8 -o clean/

    """
    common.set_verbosity()
    photo = read_photo(picture)
    reference = read_truth(common.truth, photo.pixels.shape, "clean picture", "give the same picture, clean")
    return run_pictures("denoise", picture, photo, common, reference, lambda: denoise_job(photo, sigma))


def denoise_job(photo: Photo, sigma: float | None) -> PictureJob:
    """The task, and what was asked for."""
    from invsolve.tasks.denoising import denoising_task

    task = denoising_task(photo.unit, noise=sigma)
    level = f"noise {task.problem['noise']:.4f}{' (estimated)' if sigma is None else ''}"
    return PictureJob(
        task=task,
        about=f"{photo.pixels.shape[1]} x {photo.pixels.shape[0]} pixels, {level}",
        facts={"noise": task.problem["noise"]},
    )
