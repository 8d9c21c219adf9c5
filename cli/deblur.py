"""``invsolve deblur``: sharpen a photograph whose blur is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from invsolve.cli.common import Common, with_common
from invsolve.cli.files import Photo, read_photo
from invsolve.cli.folders import over_pictures
from invsolve.cli.limits import finite
from invsolve.cli.pipeline import PictureJob, read_truth, run_pictures
from invsolve.cli.psf import PSF, Motion, Sigma, Spread, read_spread
from invsolve.options import DEBLURRING


@over_pictures()
@with_common(Common.of(DEBLURRING, model="photos"))
def deblur(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="PNG, JPEG, TIFF, ..., grey or RGB, any size.", show_default=False)
    ],
    psf: PSF = None,
    sigma: Sigma = None,
    motion: Motion = None,
    noise: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            callback=finite,
            metavar="STD",
            rich_help_panel="Problem",
            help="Noise of the picture, as a share of the full range; estimated from its finest detail where not given.",
        ),
    ] = None,
    *,
    common: Common,
) -> list[Path]:
    """Sharpen a photograph that is blurred in a known way, the same everywhere.

    Say how with --psf, --sigma or --motion. A wrong blur gives ringing, and often a warning that nothing fits.

    Examples:

      invsolve deblur soft.png --sigma 1.6

      invsolve deblur shaken.jpg --motion 15,30 --noise 0.02 --samples 8 -o sharp/

      invsolve deblur blurred.png --psf star.png
    """
    common.set_verbosity()
    photo = read_photo(picture)
    reference = read_truth(common.truth, photo.pixels.shape, "sharp picture", "give the same picture, sharp")
    spread = read_spread(psf, sigma, motion)
    return run_pictures("deblur", picture, photo, common, reference, lambda: deblur_job(photo, spread, noise))


def deblur_job(photo: Photo, spread: Spread, noise: float | None) -> PictureJob:
    """The task, and what was asked for."""
    from invsolve.tasks.deblurring import deblurring_task

    task = deblurring_task(photo.unit, spread.psf, noise=noise)
    level = f"noise {task.problem['noise']:.4f}{' (estimated)' if noise is None else ''}"
    return PictureJob(
        task=task,
        about=f"{photo.pixels.shape[1]} x {photo.pixels.shape[0]} pixels, {spread.name}, {level}",
        facts={"blur": spread.name, "noise": task.problem["noise"]},
    )
