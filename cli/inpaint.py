"""``invsolve inpaint``: fill the missing pixels of a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import typer

from invsolve.cli.files import Photo, read_mask, read_photo
from invsolve.cli.options import Fit
from invsolve.cli.pipeline import Common, PictureJob, read_truth, run_pictures, with_common
from invsolve.options import INPAINTING
from invsolve.pictures import Pixels, to_pixels


@with_common(Common.of(INPAINTING, model="photos"))
def inpaint(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="PNG or JPEG, grey or RGB, any size.", show_default=False)
    ],
    mask: Annotated[
        Path, typer.Option(metavar="FILE", help="White = missing; same size as the picture.", rich_help_panel="Problem")
    ],
    invert_mask: Annotated[
        bool, typer.Option("--invert-mask", help="Black = missing.", rich_help_panel="Problem")
    ] = False,
    noise: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="STD",
            rich_help_panel="Problem",
            help="Noise of the known pixels, as a share of the full range (0.05 = 13 grey levels); they are denoised too.",
        ),
    ] = 0.0,
    *,
    common: Common,
) -> None:
    """Fill the missing pixels of a photograph.

    Known pixels come back bit for bit. The result is one sample: one picture that fits, not the only one.

    Examples:

      invsolve inpaint photo.png --mask scratches.png

      invsolve inpaint photo.jpg --mask hole.png --samples 8 -o repaired/
    """
    common.set_verbosity()
    photo = read_photo(picture)
    missing = read_mask(mask, invert=invert_mask)
    reference = read_truth(common.truth, photo.pixels.shape, "undamaged picture", "give the same picture, undamaged")
    run_pictures(
        "inpaint",
        picture,
        photo,
        common,
        reference,
        lambda: inpainting_job(photo, missing, noise, common.fit, mask=str(mask)),
        squares=True,
    )


def inpainting_job(
    photo: Photo, missing: npt.NDArray[np.bool_], noise: float, fit: Fit | None = None, **facts: str
) -> PictureJob:
    """The task, and known pixels that stay as they are in the file."""
    from invsolve.tasks.inpainting import inpainting_task

    pixels = photo.pixels
    squares: Literal["crop", "resize"] | None = "crop" if fit is Fit.crop else "resize" if fit is Fit.resize else None

    def finish(image: npt.NDArray[np.floating]) -> Pixels:
        rounded = to_pixels(image).reshape(pixels.shape)
        if noise == 0:
            rounded[~missing] = pixels[~missing]
        return rounded

    return PictureJob(
        task=inpainting_task(pixels.astype(np.float32) / 255, missing, noise=noise, fit=squares),
        about=f"{missing.mean():.1%} of {pixels.shape[1]} x {pixels.shape[0]} pixels missing",
        facts=facts if fit is None else {**facts, "fit": str(fit)},
        finish=finish,
        opaque=missing,
        jpeg_note="JPEG changes known pixels a little; name a .png file to keep them bit for bit",
    )
