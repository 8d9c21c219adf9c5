"""``invsolve stroke``: pictures from a painting."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from invsolve.cli import options
from invsolve.cli.console import clean_stdout, say
from invsolve.cli.files import read_photo
from invsolve.cli.formats import Encoding, eight_bits
from invsolve.cli.limits import finite
from invsolve.cli.masks import read_mask
from invsolve.cli.sample import Drawing, check_room, make_grid, with_drawing
from invsolve.pictures import Pixels, to_unit


@with_drawing(Drawing(model="photos", samples=4), without=("size",))
def stroke(
    painting: Annotated[
        Path, typer.Argument(metavar="PAINTING", help="PNG or JPEG, a rough painting or a photo.", show_default=False)
    ],
    strength: Annotated[
        float,
        typer.Option(
            callback=finite,
            rich_help_panel="Problem",
            help="How far up the prior's noise levels to start, more than 0 and at most 1: little keeps the painting, much makes "
            "another picture.",
        ),
    ] = 0.6,
    mask: Annotated[
        Path | None, typer.Option(help="Picture of the painting's size; white = may change.", rich_help_panel="Problem")
    ] = None,
    invert_mask: Annotated[
        bool, typer.Option("--invert-mask", help="Black = may change.", rich_help_panel="Problem")
    ] = False,
    patches: options.Patches = False,
    *,
    drawing: Drawing,
) -> None:
    """Draw pictures after a painting: a grid, and each by itself.

    A strength names the noise that the painting is put under; the noise level is printed.

    Examples:

      invsolve stroke painting.png --strength 0.5

      invsolve stroke bird.png --model cifar10 --mask beak.png -n 16 -o birds.png
    """  # fmt: skip
    drawing.set_verbosity()
    photo = read_photo(painting, "painting")
    painted = eight_bits(photo.pixels)
    pixels = painted if painted.ndim == 3 else np.repeat(painted[..., None], 3, axis=2)
    edited = None if mask is None else read_mask(mask, invert=invert_mask)
    default = painting.with_name(f"{painting.stem}.stroke.png")
    paths = replace(drawing, output=drawing.output or default).paths(default.name)
    with clean_stdout():
        from invsolve.pictures import check_missing
        from invsolve.pretrained.loading import load_prior
        from invsolve.tasks import stroke as task

        prior = load_prior(drawing.model, drawing.device, patches=patches)
        sigma = task.strength_sigma(prior, strength)
        if edited is not None:
            check_missing(edited, pixels.shape)
        check_room(prior, (pixels.shape[0], pixels.shape[1]), drawing.samples, drawing.batch, paths[0])
        say(f"{painting.name}: strength {strength:g} is noise of {sigma:.3g}, on {prior.device}")

        def run(callback: Callable[[Any], None]) -> Any:
            return task.stroke(
                to_unit(pixels), prior, strength=strength, edited=edited, **drawing.chosen, callback=callback
            )

        def held(picture: Pixels) -> Pixels:
            return picture if edited is None else np.where(edited[..., None], picture, pixels)

        def figures(pictures: list[Pixels]) -> dict[str, float]:
            return {"distance": float(task.distances(pixels, pictures).mean())}

        facts = make_grid(
            run, paths, finish=held, figures=figures, encoding=Encoding(photo.icc_profile), task="stroke", input=str(painting),
            mask=str(mask) if mask else None, model=prior.card.name, model_sha256=prior.card.sha256,
            device=str(prior.device),
        )  # fmt: skip
        say(f"rms distance from the painting: {facts['distance']:.3f} of the range")
    if drawing.as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
