"""``invsolve interpolate``: pictures on the way between two."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from invsolve.atomic import write_files
from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, say
from invsolve.cli.files import check_writable, encode_picture, open_picture, output_path, provenance
from invsolve.cli.formats import check_format
from invsolve.cli.likelihood import as_known
from invsolve.cli.limits import check_memory, finite
from invsolve.cli.sample import GAP
from invsolve.errors import InputError
from invsolve.pictures import channels_last, to_pixels

MOST_PICTURES = 10**6

HOTTEST = 100.0
"""Codes this much too long are noise far beyond all that a prior knows."""

BYTES_PER_VALUE = 160
"""Of a picture under way: the ODE's state, seven stages and the result, in double precision."""


def interpolate(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="PNG or JPEG.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="PNG or JPEG.", show_default=False)],
    count: Annotated[
        int,
        typer.Option(
            "--count", "-n", min=2, max=MOST_PICTURES, help="Pictures, both ends counted.", rich_help_panel="Problem"
        ),
    ] = 8,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit", help="Cut the middle square and scale it to the prior's size.", rich_help_panel="Problem"
        ),
    ] = False,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=HOTTEST,
            callback=finite,
            help="Scale of the codes; below 1 more ordinary.",
            rich_help_panel="Problem",
        ),
    ] = 1.0,
    tolerance: Annotated[
        float,
        typer.Option(min=1e-9, max=1.0, callback=finite, help="Error of an ODE step.", rich_help_panel="Sampler"),
    ] = 3e-7,
    model: options.Model = "cifar10",
    output: options.Output = None,
    force: options.Force = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Morph one picture into another through the prior's latent space: a strip of pictures, the two ends among them.

    Example: invsolve interpolate cat.png dog.png --fit --temperature 0.9
    """
    Verbosity.level = -1 if quiet else verbose
    images = [open_picture(path) for path in (first, second)]
    path = output_path(output, first, "interpolate")
    check_writable([path], force=force)
    with clean_stdout():
        import torch

        from invsolve.ode.latent import interpolate as morph
        from invsolve.pretrained.loading import load_prior
        from invsolve.tasks.generation import grid

        prior = load_prior(model, device)
        arrays = [as_known(image, prior.channels, prior.size, fit=fit) for image in images]
        if arrays[0].shape != arrays[1].shape:
            raise InputError(
                f"{first.name} is {arrays[0].shape[2]} x {arrays[0].shape[1]}, "
                f"{second.name} {arrays[1].shape[2]} x {arrays[1].shape[1]}",
                hint="give pictures of one size, or --fit",
            )
        check_memory(
            arrays[0].size * count * BYTES_PER_VALUE,
            f"--count {count} of {arrays[0].shape[2]} x {arrays[0].shape[1]} pixels",
            hint="ask for fewer or smaller pictures: all are followed at once",
        )
        a, b = (torch.from_numpy(x).to(prior.device) for x in arrays)
        check_format(path, count * (arrays[0].shape[2] + GAP) + GAP, arrays[0].shape[1] + 2 * GAP)
        started = time.perf_counter()
        way = morph(prior, a, b, count, temperature=temperature, rtol=tolerance, atol=tolerance).float().cpu()
        sheet = to_pixels(channels_last(grid(way.clamp(0, 1), columns=count)))
        facts = provenance(
            task="interpolate", inputs=[str(first), str(second)], model=prior.card.name,
            model_sha256=prior.card.sha256, count=count, temperature=temperature, tolerance=tolerance,
        )  # fmt: skip
        write_files({path: encode_picture(sheet, path, facts)})
    trip = float(max((way[0] - a.cpu()).abs().max(), (way[-1] - b.cpu()).abs().max()))
    at_ends = f"; ends off by at most {255 * trip:.2f} grey levels" if temperature == 1 else ""
    say(f"wrote {path} ({time.perf_counter() - started:.1f} s{at_ends})")
