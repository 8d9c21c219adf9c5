"""``invsolve dejpeg``: take the blocks and rings of JPEG compression off a photograph."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from invsolve.cli.common import Common, with_common
from invsolve.cli.console import say
from invsolve.cli.files import Photo, read_photo
from invsolve.cli.folders import over_pictures
from invsolve.cli.formats import eight_bits
from invsolve.cli.pipeline import PictureJob, read_truth, run_pictures
from invsolve.errors import UsageError
from invsolve.options import DEJPEG
from invsolve.pictures import Pixels

MOST_CHANGE = 2.0
"""Grey levels that a picture which had been such a JPEG changes by when it is compressed again, at most."""


class Sampling(StrEnum):
    """At what share of the resolution chroma was stored."""

    full = "4:4:4"
    half = "4:2:2"
    quarter = "4:2:0"


@over_pictures()
@with_common(Common.of(DEJPEG, model="photos"), without=("quality",))
def dejpeg(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="JPEG, grey or RGB, any size.", show_default=False)
    ],
    quality: Annotated[
        int | None,
        typer.Option(
            "--quality",
            "-Q",
            min=1,
            max=100,
            rich_help_panel="Problem",
            help="Of a picture that was saved in another format, or again, after it was compressed: libjpeg's quality then. "
            "A JPEG's own steps are read from the file.",
        ),
    ] = None,
    sampling: Annotated[
        Sampling | None,
        typer.Option(rich_help_panel="Problem", help="How its chroma was stored, beside --quality; default 4:2:0."),
    ] = None,
    *,
    common: Common,
) -> list[Path]:
    """Take the blocks and rings of JPEG compression off a photograph.

    Compressed again in the same way, the result is the file. The detail is plausible, not recovered.

    Examples:

      invsolve dejpeg web.jpg

      invsolve dejpeg screenshot.png --quality 30 --samples 8 -o clean/
    """
    common.set_verbosity()
    if sampling is not None and quality is None:
        raise UsageError(
            "--sampling without --quality", hint="a JPEG says itself how it was stored; leave --sampling out"
        )
    photo = read_photo(picture)
    photo = photo._replace(pixels=eight_bits(photo.pixels))
    reference = read_truth(common.truth, photo.pixels.shape, "picture before compression", "give the same picture")
    return run_pictures(
        "dejpeg", picture, photo, common, reference, lambda: dejpeg_job(picture, photo, quality, sampling)
    )


def dejpeg_job(picture: Path, photo: Photo, quality: int | None, sampling: Sampling | None) -> PictureJob:
    """The task, and what was asked for."""
    from invsolve.tasks import dejpeg as jpeg
    from invsolve.tasks.jpeg_file import read_jpeg

    if quality is None:
        data = picture.read_bytes()
        file, (_, orientation) = read_jpeg(data, str(picture)), jpeg.decode(data)
    else:
        data = jpeg.compressed(photo.pixels, quality, (sampling or Sampling.quarter).value)
        file, orientation = read_jpeg(data), 0
        change = jpeg.recompression_error(photo.pixels, data)
        if change > MOST_CHANGE:
            say(
                f"warning: quality {quality} changes the picture by {change:.1f} grey levels: it was hardly compressed so, "
                "or its blocks do not begin in its upper left corner any more"
            )
    task = jpeg.dejpeg_task(file, photo.unit, orientation=orientation)

    def consistency(result: Pixels) -> tuple[str, dict[str, float]]:
        inside = jpeg.share_inside(file, result, orientation=orientation)
        return f"{inside:.2%} of its coefficients lie in the file's cells", {"inside": inside}

    return PictureJob(
        task=task,
        about=f"{photo.pixels.shape[1]} x {photo.pixels.shape[0]} pixels, {file.sampling}, "
        f"{task.determined():.0%} of the coefficients are not 0",
        facts={"sampling": file.sampling, "quality": quality},
        check=consistency,
    )
