"""``invsolve sample``: new pictures from a prior."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from invsolve.atomic import write_files
from invsolve.cli import options
from invsolve.cli.budget import ASKED
from invsolve.cli.console import Verbosity, clean_stdout, progress_bar, say
from invsolve.cli.files import check_writable, encode_picture, named_output, provenance
from invsolve.cli.formats import ENDINGS, Encoding, check_format
from invsolve.cli.limits import LARGEST_SEED, MOST_SAMPLES, check_memory
from invsolve.cli.records import noting_asked, with_record
from invsolve.errors import UsageError
from invsolve.options import AUTO
from invsolve.pictures import Pixels, channels_last, to_pixels
from invsolve.typed import brief

Count = Annotated[
    int, typer.Option("--samples", "-n", min=1, max=MOST_SAMPLES, help="Pictures.", rich_help_panel="Sampler")
]
FirstSeed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=LARGEST_SEED, help="First seed; picture j uses seed + j.", rich_help_panel="Sampler"
    ),
]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Size, for priors that know any.  [default: 64x64]", rich_help_panel="Sampler"),
]
FreeSampler = Annotated[
    str,
    typer.Option(
        help="heun_sde, ode, ode_adaptive, pc, reverse_sde, sde_adaptive, ancestral, langevin or renoising.",
        rich_help_panel="Sampler",
    ),
]
BYTES_PER_VALUE = 32
"""Of a finished picture: kept in single precision, laid out in the grid, rounded in double precision."""

BYTES_IN_PROGRESS = 48
"""Of a picture that is being made: the state, its noise and a step's predictions."""

GAP = 2
"""Pixels between the pictures of a grid."""

Batch = Annotated[int, typer.Option(min=1, max=MOST_SAMPLES, help="Pictures made at once.", rich_help_panel="Run")]
GridOutput = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="The grid's file (.png, .jpg, .tif, .webp) or folder.", rich_help_panel="Output"
    ),
]


@dataclass(frozen=True)
class Drawing:
    """The options of every command that draws pictures in a grid."""

    model: options.Model = "cifar10"
    samples: Count = 16
    size: Size = None
    seed: FirstSeed = 0
    steps: options.Steps = 50
    schedule: options.Schedule = AUTO
    sampler: FreeSampler = "heun_sde"
    batch: Batch = 16
    output: GridOutput = None
    force: options.Force = False
    as_json: options.Json = False
    device: options.Device = "auto"
    quiet: options.Quiet = False
    verbose: options.Verbose = 0

    @property
    def chosen(self) -> dict[str, Any]:
        """What the functions of :mod:`invsolve.tasks` take of it; of levels as many as the sampler wants at least, where nobody
        gave a number."""
        from invsolve.samplers import find_sampler, needs_of

        names = ("samples", "seed", "schedule", "sampler", "batch")
        least = 0 if "steps" in ASKED.get() else needs_of(find_sampler(self.sampler)).levels
        return {"steps": max(self.steps, least)} | {name: getattr(self, name) for name in names}

    def set_verbosity(self) -> None:
        Verbosity.level = -1 if self.quiet else self.verbose

    def paths(self, default: str) -> list[Path]:
        """The grid's file and its pictures', all of which can be written."""
        paths = grid_paths(self.output, default, self.samples)
        check_writable(paths, force=self.force)
        return paths


def with_drawing(
    defaults: Drawing, *, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of :class:`Drawing`, with these defaults; it gets them as the argument ``drawing``."""
    record = with_record(defaults, "drawing", without=without)
    return lambda command: noting_asked(record(command))


@with_drawing(Drawing())
def sample(drawing: Drawing) -> None:
    """Draw new pictures from a prior: a grid, and each by itself.

    Examples:

      invsolve sample -n 64

      invsolve sample --model photos --size 96x64 --sampler pc --steps 200 -o dreams.png
    """  # fmt: skip
    drawing.set_verbosity()
    given = parse_size(drawing.size)
    paths = drawing.paths("sample.png")
    with clean_stdout():
        from invsolve.pretrained.loading import load_prior
        from invsolve.tasks.generation import sample as draw

        prior = load_prior(drawing.model, drawing.device)
        wanted = given or (None if prior.size or prior.frame else (64, 64))
        check_room(prior, wanted, drawing.samples, drawing.batch, paths[0])

        def run(callback: Callable[[Any], None]) -> Any:
            return draw(prior, wanted, **drawing.chosen, callback=callback)

        facts = make_grid(
            run, paths, task="sample", model=prior.card.name, model_sha256=prior.card.sha256, device=str(prior.device)
        )
    if drawing.as_json:
        sys.stdout.write(json.dumps(facts) + "\n")


def make_grid(
    run: Callable[[Callable[[Any], None]], Any],
    paths: list[Path],
    *,
    finish: Callable[[Pixels], Pixels] = lambda picture: picture,
    figures: Callable[[list[Pixels]], dict[str, float]] = lambda pictures: {},
    encoding: Encoding | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Draw, write grid and pictures, and say so; returns the facts for JSON.

    Parameters
    ----------
    run : draws, given a callback.
    paths : of the grid, and of each picture.
    finish : what is done to each picture's grey levels (H, W, C).
    figures : what is to be said of all pictures; among the facts.
    encoding : how the pictures are written.
    facts : for the provenance.
    """
    import torch

    from invsolve.tasks.generation import grid

    started = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task("sampling", total=1.0)
        posterior = run(lambda info: bar.update(task, completed=info.step / info.steps))
    seconds = time.perf_counter() - started
    pictures = [finish(to_pixels(channels_last(picture.float()))) for picture in posterior.samples[:, 0]]
    facts = provenance(**facts, seed=posterior.seeds[0], **posterior.settings, **figures(pictures))
    unit = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    sheet = to_pixels(channels_last(grid(unit)))
    files = {paths[0]: encode_picture(sheet, paths[0], facts, encoding)}
    for path, picture, seed in zip(paths[1:], pictures, posterior.seeds, strict=True):
        files[path] = encode_picture(picture, path, {**facts, "seed": seed}, encoding)
    write_files(files)
    say(f"wrote {paths[0]} and {len(pictures)} pictures beside it ({seconds:.1f} s, {posterior.network_calls} calls)")
    say(", ".join(f"{name} {value}" for name, value in posterior.settings.items()), level=1)
    return {
        **facts,
        "output": str(paths[0]),
        "outputs": [str(path) for path in paths],
        "seconds": round(seconds, 3),
        "network_calls": posterior.network_calls,
    }


def grid_paths(given: Path | None, default: str, count: int) -> list[Path]:
    """The grid's file, and one for each picture: ``<stem>.sample-<j>.png``, or with the grid's ending."""
    path = Path(default) if given is None else named_output(given, default, ENDINGS)
    return [path, *(path.with_name(f"{path.stem}.sample-{j}{path.suffix}") for j in range(count))]


def check_room(prior: Any, size: tuple[int, int] | None, samples: int, batch: int, path: Path) -> None:
    """Raise a UsageError where ``samples`` pictures of a size (height, width), or the prior's own, exceed the memory, and an
    OutputError where their grid exceeds what a file of the name ``path`` can hold."""
    side = prior.size or prior.frame or 64
    height, width = size or (side, side)
    columns = math.ceil(math.sqrt(samples))
    check_format(path, columns * (width + GAP) + GAP, columns * (height + GAP) + GAP)
    values = prior.channels * height * width
    check_memory(
        values * (BYTES_PER_VALUE * samples + BYTES_IN_PROGRESS * min(samples, batch)),
        f"--samples {samples} of {width} x {height} pixels",
        hint="draw fewer or smaller pictures, several times with other seeds if need be",
    )


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``WxH`` as (height, width)."""
    if text is None:
        return None
    found = re.fullmatch(r"0*([1-9]\d{0,5})x0*([1-9]\d{0,5})", text, re.ASCII)
    if found is None:
        raise UsageError(f"--size {brief(text)}", hint="wanted width x height in pixels, such as 96x64")
    return int(found[2]), int(found[1])
