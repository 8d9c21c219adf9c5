"""``invsolve generate``: new pictures of one class."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout
from invsolve.cli.files import check_writable
from invsolve.cli.limits import finite
from invsolve.cli.sample import (
    Batch,
    Count,
    FirstSeed,
    FreeSampler,
    GridOutput,
    Size,
    check_room,
    grid_paths,
    make_grid,
    parse_size,
)
from invsolve.options import AUTO

LONGEST_NAME = 80
"""Characters of the class that the file's name repeats: file systems allow 255 bytes."""


def generate(
    label: Annotated[str, typer.Option("--class", help="What to show, e.g. bird.", rich_help_panel="Problem")],
    guidance: Annotated[
        float,
        typer.Option(
            min=0.0,
            callback=finite,
            help="1 is Bayes' rule; more is surer and less varied.",
            rich_help_panel="Problem",
        ),
    ] = 3.0,
    model: options.Model = "cifar10",
    classifier: Annotated[
        str | None,
        typer.Option(help="A classifier's name or folder; default <model>-classifier.", rich_help_panel="Sampler"),
    ] = None,
    samples: Count = 16,
    size: Size = None,
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
) -> None:
    """Draw new pictures of one class from a prior that never saw a label, led by a noise-conditional classifier.

    Examples:

      invsolve generate --class bird -n 16

      invsolve generate --class rose --model my-flowers --guidance 5 -o roses.png
    """  # fmt: skip
    Verbosity.level = -1 if quiet else verbose
    given = parse_size(size)
    paths = grid_paths(output, f"generate.{file_name(label)}.png", samples)
    check_writable(paths, force=force)
    with clean_stdout():
        from invsolve.pretrained.loading import load_classifier, load_prior
        from invsolve.tasks.generation import generate as draw

        prior = load_prior(model, device)
        guide = load_classifier(default_classifier(model) if classifier is None else classifier, prior.device)
        forward_model = guide.forward_model
        forward_model.label(label)  # an unknown class is found out before the work
        check_room(prior, given, samples, batch)

        def run(callback: Callable[[Any], None]) -> Any:
            return draw(
                prior, forward_model, label, given, guidance=guidance, samples=samples, seed=seed,
                steps=steps, schedule=schedule, sampler=sampler, batch=batch, callback=callback,
            )  # fmt: skip

        facts = make_grid(
            run, paths, task="generate", model=prior.card.name, model_sha256=prior.card.sha256,
            classifier=guide.card.name, classifier_sha256=guide.card.sha256, device=str(prior.device),
        )  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")


def file_name(label: str) -> str:
    """A class or a sentence as part of a file's name."""
    return "".join(c if c.isalnum() else "-" for c in label[:LONGEST_NAME])


def default_classifier(model: str) -> str:
    """``<model>-classifier``, for a shipped prior's name as for a folder."""
    path = Path(model)
    return str(path.with_name(f"{path.name}-classifier"))
