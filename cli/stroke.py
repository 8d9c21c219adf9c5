"""``invsolve stroke``: pictures from a painting."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from invsolve.cli import options
from invsolve.cli.budget import enough_steps
from invsolve.cli.console import Verbosity, clean_stdout, say
from invsolve.cli.files import check_writable, read_photo
from invsolve.cli.formats import Encoding, eight_bits
from invsolve.cli.limits import finite
from invsolve.cli.masks import read_mask
from invsolve.cli.sample import Batch, Count, FirstSeed, FreeSampler, GridOutput, check_room, grid_paths, make_grid
from invsolve.options import AUTO
from invsolve.pictures import Pixels, to_unit


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
    model: options.Model = "photos",
    patches: options.Patches = False,
    samples: Count = 4,
    seed: FirstSeed = 0,
    steps: options.Steps = 50,
    schedule: options.Schedule = AUTO,
    sampler: FreeSampler = "heun_sde",
    batch: Batch = 16,
    output: GridOutput = None,
    force: options.Force = False,
    as_json: options.Json = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
    context: typer.Context = None,  # type: ignore[assignment]  # none where another command calls
) -> None:
    """Draw pictures after a painting: a grid, and each by itself.

    A strength names the noise that the painting is put under; the noise level is printed.

    Examples:

      invsolve stroke painting.png --strength 0.5

      invsolve stroke bird.png --model cifar10 --mask beak.png -n 16 -o birds.png
    """  # fmt: skip
    Verbosity.level = -1 if quiet else verbose
    photo = read_photo(painting, "painting")
    painted = eight_bits(photo.pixels)
    pixels = painted if painted.ndim == 3 else np.repeat(painted[..., None], 3, axis=2)
    edited = None if mask is None else read_mask(mask, invert=invert_mask)
    default = painting.with_name(f"{painting.stem}.stroke.png")
    paths = grid_paths(default if output is None else output, default.name, samples)
    check_writable(paths, force=force)
    with clean_stdout():
        from invsolve.pictures import check_missing
        from invsolve.pretrained.loading import load_prior
        from invsolve.tasks import stroke as task

        prior = load_prior(model, device, patches=patches)
        sigma = task.strength_sigma(prior, strength)
        if edited is not None:
            check_missing(edited, pixels.shape)
        check_room(prior, (pixels.shape[0], pixels.shape[1]), samples, batch, paths[0])
        say(f"{painting.name}: strength {strength:g} is noise of {sigma:.3g}, on {prior.device}")

        def run(callback: Callable[[Any], None]) -> Any:
            return task.stroke(
                to_unit(pixels), prior, strength=strength, edited=edited, samples=samples, seed=seed,
                steps=enough_steps(steps, sampler, context), schedule=schedule, sampler=sampler, batch=batch, callback=callback,
            )  # fmt: skip

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
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
