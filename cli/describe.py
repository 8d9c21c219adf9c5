"""``invsolve describe``: new pictures that fit a sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer

from invsolve.cli.console import clean_stdout, say
from invsolve.cli.generate import file_name
from invsolve.cli.limits import finite
from invsolve.cli.sample import Drawing, check_room, make_grid, parse_size, with_drawing
from invsolve.errors import UsageError
from invsolve.pictures import Pixels


@with_drawing(Drawing())
def describe(
    sentence: Annotated[
        str, typer.Argument(metavar="SENTENCE", help='What to show, such as "a red bird".', show_default=False)
    ],
    text_model: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|OWNER/NAME",
            help="A CLIP network: a folder, or a hub's repository, which is then fetched.",
            rich_help_panel="Problem",
            show_default=False,
        ),
    ],
    guidance: Annotated[
        float,
        typer.Option(
            min=0.0,
            callback=finite,
            help="Times the scale that the text model learned; more is closer to the sentence and less varied, 0 does not look "
            "at it.",
            rich_help_panel="Problem",
        ),
    ] = 1.0,
    *,
    drawing: Drawing,
) -> None:
    """Draw new pictures that fit a sentence, led by a network of pictures and texts; neither it nor the prior is trained for that.

    Needs `pip install 'invsolve[text]'`. No text model is shipped.

    Examples:

      invsolve describe "a photo of a bird" --text-model clip-vit-base-patch16/

      invsolve describe "a yellow flower" --model flowers64 --text-model OWNER/NAME --guidance 3 -o yellow.png
    """  # fmt: skip
    drawing.set_verbosity()
    if not sentence.strip():
        raise UsageError("an empty sentence", hint='say what to show, such as "a red bird on a branch"')
    given = parse_size(drawing.size)
    paths = drawing.paths(f"describe.{file_name(sentence)}.png")
    with clean_stdout():
        import torch

        from invsolve.pretrained.loading import load_prior
        from invsolve.pretrained.text import load_text_model
        from invsolve.tasks.generation import generate as draw
        from invsolve.tasks.task import check_colour_prior

        prior = load_prior(drawing.model, drawing.device)
        check_colour_prior(prior)
        check_room(prior, given, drawing.samples, drawing.batch, paths[0])
        guide = load_text_model(text_model, prior.device)
        similarity = guide.similarity(sentence)

        def run(callback: Callable[[Any], None]) -> Any:
            return draw(prior, similarity, sentence, given, guidance=guidance, **drawing.chosen, callback=callback)

        def figures(pictures: list[Pixels]) -> dict[str, float]:
            x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
            return {"cosine": float(guide.cosine(x.to(prior.device), sentence).mean())}

        facts = make_grid(
            run, paths, figures=figures, task="describe", model=prior.card.name, model_sha256=prior.card.sha256,
            text_model=guide.name, text_model_sha256=guide.sha256, device=str(prior.device),
        )  # fmt: skip
        say(f"mean cosine of pictures and sentence: {facts['cosine']:.3f}")
    if drawing.as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
