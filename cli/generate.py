"""``invsolve generate``: new pictures of one class."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from invsolve.cli.console import clean_stdout
from invsolve.cli.limits import finite
from invsolve.cli.sample import Drawing, check_room, make_grid, parse_size, with_drawing
from invsolve.errors import UsageError
from invsolve.typed import brief

GUIDANCE = 3.0
"""Unless told otherwise."""

LONGEST_NAME = 80
"""Characters of the class that the file's name repeats: file systems allow 255 bytes."""


@with_drawing(Drawing())
def generate(
    label: Annotated[
        str,
        typer.Option(
            "--class",
            help="What to show, e.g. bird; of a prior that knows classes itself, their number.",
            rich_help_panel="Problem",
        ),
    ],
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            callback=finite,
            help="1 is Bayes' rule; more is surer and less varied. By default 3, or 1 where a prior cannot be guided.",
            rich_help_panel="Problem",
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(help="A classifier's name or folder; default <model>-classifier.", rich_help_panel="Sampler"),
    ] = None,
    *,
    drawing: Drawing,
) -> None:
    """Draw new pictures of one class: from a prior that never saw a label, led by a noise-conditional classifier, or from one
    that was trained with classes, by classifier-free guidance.

    Examples:

      invsolve generate --class bird -n 16

      invsolve generate --class rose --model my-flowers --guidance 5 -o roses.png

      invsolve generate --class 207 --model imagenet64
    """  # fmt: skip
    drawing.set_verbosity()
    given = parse_size(drawing.size)
    paths = drawing.paths(f"generate.{file_name(label)}.png")
    with clean_stdout():
        from invsolve.pretrained.loading import load_classifier, load_prior
        from invsolve.tasks import generation

        prior = load_prior(drawing.model, drawing.device)
        check_room(prior, given, drawing.samples, drawing.batch, paths[0])
        facts: dict[str, Any] = {
            "task": "generate", "model": prior.card.name, "model_sha256": prior.card.sha256, "device": str(prior.device),
        }  # fmt: skip
        if prior.classes and classifier is None:
            strength = (GUIDANCE if prior.guidable else 1.0) if guidance is None else guidance
            of_class = prior.of_class(class_number(label, prior.classes), strength)

            def run(callback: Callable[[Any], None]) -> Any:
                found = generation.sample(of_class, given, callback=callback, **drawing.chosen)
                found.settings.update(rule="class-conditional", guidance=strength, label=label)
                return found

        else:
            guide = load_classifier(
                default_classifier(drawing.model) if classifier is None else classifier, prior.device
            )
            forward_model = guide.forward_model
            forward_model.label(label)  # an unknown class is found out before the work
            strength = GUIDANCE if guidance is None else guidance
            facts |= {"classifier": guide.card.name, "classifier_sha256": guide.card.sha256}

            def run(callback: Callable[[Any], None]) -> Any:
                return generation.generate(
                    prior, forward_model, label, given, guidance=strength, callback=callback, **drawing.chosen
                )

        made = make_grid(run, paths, **facts)
    if drawing.as_json:
        sys.stdout.write(json.dumps(made) + "\n")


def class_number(text: str, classes: int) -> int:
    """``--class`` of a prior that numbers its classes.

    Raises
    ------
    UsageError : not a number.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise UsageError(
            f"--class {brief(text)}: this prior numbers its classes", hint=f"wanted a number from 0 to {classes - 1}"
        )
    return int(text)


def file_name(label: str) -> str:
    """A class or a sentence as part of a file's name."""
    return "".join(c if c.isalnum() else "-" for c in label[:LONGEST_NAME])


def default_classifier(model: str) -> str:
    """``<model>-classifier``, for a shipped prior's name as for a folder."""
    path = Path(model)
    return str(path.with_name(f"{path.name}-classifier"))
