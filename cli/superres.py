"""``invsolve superres``: enlarge a photograph."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from invsolve.cli.common import Common, with_common
from invsolve.cli.files import Photo, check_memory, read_photo
from invsolve.cli.folders import over_pictures
from invsolve.cli.pipeline import PictureJob, read_truth, run_pictures
from invsolve.options import SUPERRESOLUTION
from invsolve.pictures import to_pixels, to_unit


class Kernel(StrEnum):
    """How a picture was made smaller."""

    bicubic = "bicubic"
    box = "box"
    gaussian = "gaussian"


Factor = Annotated[
    int, typer.Option("--factor", "-x", min=2, max=8, help="How many times larger.", rich_help_panel="Problem")
]
Reduction = Annotated[
    Kernel,
    typer.Option(
        help="How the picture was made smaller: bicubic, as most programs do it; box, the mean of FACTOR x FACTOR pixels; "
        "gaussian, of standard deviation FACTOR / 2.",
        rich_help_panel="Problem",
    ),
]


@over_pictures()
@with_common(Common.of(SUPERRESOLUTION, model="photos"))
def superres(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="PNG, JPEG, TIFF, ..., grey or RGB, any size.", show_default=False)
    ],
    factor: Factor = 4,
    kernel: Reduction = Kernel.bicubic,
    noise: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="STD",
            rich_help_panel="Problem",
            help="Noise of the picture, as a share of the full range; rounding to 8 bits (0.0011) at least. A JPEG has more: "
            "0.01 to 0.03.",
        ),
    ] = 0.0,
    *,
    common: Common,
) -> list[Path]:
    """Enlarge a photograph 2 to 8 times.

    Made smaller again in the same way, the result is the picture. The detail is plausible, not recovered.

    Examples:

      invsolve superres small.png -x 4

      invsolve superres web.jpg -x 2 --noise 0.01 --samples 8 -o large/
    """
    common.set_verbosity()
    photo = read_photo(picture)
    height, width = (side * factor for side in photo.pixels.shape[:2])
    check_memory(picture, width, height)
    shape = (height, width, *photo.pixels.shape[2:])
    reference = read_truth(common.truth, shape, "large picture", f"give the same picture, {factor} times as large")
    return run_pictures(
        "superres", picture, enlarged_photo(photo, factor), common, reference,
        lambda: superres_job(photo, factor, kernel, noise),
    )  # fmt: skip


def enlarged_photo(photo: Photo, factor: int) -> Photo:
    """A picture file's content as large as the result; the transparency is that which is written."""
    size = (photo.pixels.shape[1] * factor, photo.pixels.shape[0] * factor)

    alpha = photo.alpha
    if alpha is not None:
        plane = Image.fromarray(alpha if alpha.dtype == np.uint8 else to_unit(alpha))
        large = np.asarray(plane.resize(size, Image.Resampling.BICUBIC))
        alpha = large if alpha.dtype == np.uint8 else to_pixels(large, alpha.dtype)
    pixels = photo.pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    return photo._replace(pixels=pixels, alpha=alpha)


def superres_job(photo: Photo, factor: int, kernel: Kernel, noise: float) -> PictureJob:
    """The task, and what was asked for."""
    from invsolve.tasks.superresolution import superresolution_task

    height, width = photo.pixels.shape[:2]
    return PictureJob(
        task=superresolution_task(photo.unit, factor, kernel=kernel.value, noise=noise),
        about=f"{width} x {height} pixels to {width * factor} x {height * factor} ({kernel.value})",
        facts={"factor": factor, "kernel": kernel.value},
    )
