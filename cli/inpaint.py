"""``invsolve inpaint``: fill the missing pixels of a photograph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import typer

from invsolve.atomic import write_files
from invsolve.cli.budget import ASKED
from invsolve.cli.common import Common, with_common
from invsolve.cli.console import clean_stdout, percent, say
from invsolve.cli.files import Photo, check_writable, encode_picture, output_path, provenance, read_photo
from invsolve.cli.folders import over_pictures
from invsolve.cli.formats import eight_bits
from invsolve.cli.masks import Boxes, Grow, InvertMask, MaskColour, MaskFile, MaskSources, MaskThreshold, grown
from invsolve.cli.options import Fit
from invsolve.cli.pipeline import PictureJob, read_truth, run_pictures
from invsolve.errors import UsageError
from invsolve.options import INPAINTING, NOISY_INPAINTING
from invsolve.pictures import Pixels, to_pixels

RED = np.array([255, 0, 0], dtype=np.uint8)


@over_pictures(beside=("mask",))
@with_common(Common.of(INPAINTING, model="photos"))
def inpaint(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="PNG, JPEG, TIFF, ..., grey or RGB, any size.", show_default=False)
    ],
    mask: MaskFile = None,
    invert_mask: InvertMask = False,
    mask_threshold: MaskThreshold = 0.5,
    mask_colour: MaskColour = None,
    box: Boxes = None,
    grow: Grow = None,
    scratches: Annotated[
        bool,
        typer.Option(
            "--scratches",
            rich_help_panel="Problem",
            help="Only look for thin bright or dark lines, and write them as a mask to check and to give with --mask.",
        ),
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
) -> list[Path]:
    """Fill the missing pixels of a photograph.

    Known pixels come back bit for bit. The result is one sample: one picture that fits, not the only one.

    Examples:

      invsolve inpaint photo.png --mask scratches.png

      invsolve inpaint photo.jpg --mask hole.png --samples 8 -o repaired/

      invsolve inpaint painted-over.png --mask-color '#ff00ff'

      invsolve inpaint dated.jpg --box 520,440,110,24

      invsolve inpaint old-print.jpg --scratches

      invsolve inpaint scans/ --mask masks/ -o repaired/
    """
    common.set_verbosity()
    if noise and "rule" not in ASKED.get():
        common = replace(common, rule=str(NOISY_INPAINTING.rule))
    photo = read_photo(picture)
    if scratches:
        if mask or mask_colour or box:
            raise UsageError(
                "--scratches with another mask", hint="give --scratches alone, and the mask that it writes later"
            )
        if common.dry_run or common.report:
            raise UsageError(
                "--scratches with --dry-run or --report", hint="it fills nothing; leave them out, and look at its mask"
            )
        return propose_scratches(picture, photo, common, grow)
    sources = MaskSources(mask, invert_mask, mask_threshold, mask_colour, tuple(box or ()), grow)
    missing = sources.read(photo)
    reference = read_truth(common.truth, photo.pixels.shape, "undamaged picture", "give the same picture, undamaged")
    return run_pictures(
        "inpaint",
        picture,
        photo,
        common,
        reference,
        lambda: inpainting_job(photo, missing, noise, common.fit, mask=sources.about),
        squares=True,
        also=[mask],
    )


def propose_scratches(path: Path, photo: Photo, common: Common, grow: int | None) -> list[Path]:
    """Write the mask of the scratches that are found, and a picture of them to look at, and return both; nothing is filled.
    Where none is found nothing is written, which is said: a picture without scratches is no failure."""
    mask = output_path(common.output, path, "scratches", (".png",))
    shown = mask.with_name(f"{mask.stem}.shown.png")
    check_writable([mask, shown], force=common.force)
    with clean_stdout():
        from invsolve.tasks.scratches import find_scratches

        found = grown(find_scratches(photo.unit), grow or 0)
    if not found.any():
        old = f"; {mask} is of another run" if mask.exists() else ""
        say(f"warning: no scratch was found in {path}, so no mask is written{old}")
        say("found are lines up to 5 pixels wide and from 75 long on; paint a mask for others (`invsolve ui` has a brush), or mark "
            "the damage with --mask-color or --box")  # fmt: skip
        return []
    levels = eight_bits(photo.pixels)
    colours = levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)
    pale = (128 + colours // 2).astype(np.uint8)
    facts = provenance(task="scratches", input=str(path))
    pictures = {mask: found.astype(np.uint8) * 255, shown: np.where(found[..., None], RED, pale)}
    write_files({name: encode_picture(picture, name, facts) for name, picture in pictures.items()})
    say(f"wrote {mask}, {found.mean():.1%} of the picture")
    say(f"look at {shown}, where it is red, and correct the mask: wires and edges are found as well")
    say(f"then: invsolve inpaint {path} --mask {mask}")
    return [mask, shown]


def inpainting_job(
    photo: Photo, missing: npt.NDArray[np.bool_], noise: float, fit: Fit | None = None, **facts: str
) -> PictureJob:
    """The task, and known pixels that stay as they are in the file."""
    from invsolve.tasks.inpainting import inpainting_task, missing_pixels_task
    from invsolve.tasks.missing import scattered

    pixels = photo.pixels
    squares: Literal["crop", "resize"] | None = "crop" if fit is Fit.crop else "resize" if fit is Fit.resize else None
    about = f"{percent(float(missing.mean()))} of {pixels.shape[1]} x {pixels.shape[0]} pixels missing"
    facts = facts if fit is None else {**facts, "fit": str(fit)}
    if noise:
        task = inpainting_task(photo.unit, missing, noise=noise, fit=squares)
        return PictureJob(task, about, facts, opaque=missing)

    def finish(image: npt.NDArray[np.floating]) -> Pixels:
        return scattered(to_pixels(image[0], pixels.dtype), missing, pixels)

    return PictureJob(
        missing_pixels_task(pixels, missing, fit=squares),
        about,
        facts,
        finish=finish,
        opaque=missing,
        keeps_pixels=True,
        place=lambda grey: scattered(grey[0][:, None], missing, np.zeros(missing.shape, grey.dtype)),
    )
