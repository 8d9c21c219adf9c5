"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from invsolve.cli.files import Folder
from invsolve.cli.limits import LARGEST_SEED, MOST_SAMPLES, MOST_STEPS

_INPUT, _SAMPLER, _OUTPUT, _RUN = "Problem", "Sampler", "Output", "Run"


def output(what: str) -> Any:
    """``--output``, of which ``what`` says what may be named; a slash at its end is remembered."""
    return typer.Option("--output", "-o", parser=Folder.parse, metavar="PATH", help=what, rich_help_panel=_OUTPUT)


Model = Annotated[
    str,
    typer.Option(
        help="A shipped or imported prior, or a folder that `invsolve train` wrote.", rich_help_panel=_SAMPLER
    ),
]


class Fit(StrEnum):
    """How a prior of one size takes a picture of another."""

    tile = "tile"
    crop = "crop"
    resize = "resize"


Fitting = Annotated[
    Fit | None,
    typer.Option(
        "--fit",
        help="How a prior of one size takes a picture of another, which it refuses by default. tile: in overlapping patches of "
        "that size. For inpaint also crop: the squares of that size around the holes; and resize: squares as large as the "
        "picture, brought to that size.",
        rich_help_panel=_SAMPLER,
    ),
]
Patches = Annotated[
    bool,
    typer.Option(
        "--patches",
        help="The same as --fit tile.",
        rich_help_panel=_SAMPLER,
    ),
]
Samples = Annotated[
    int,
    typer.Option(
        "--samples", "-n", min=1, max=MOST_SAMPLES, help="Posterior samples; all are written.", rich_help_panel=_SAMPLER
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=LARGEST_SEED,
        help="Seed of the first sample. Samples come in pairs: the second takes the first one's noise negated.",
        rich_help_panel=_SAMPLER,
    ),
]
Steps = Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Noise levels.", rich_help_panel=_SAMPLER)]
Schedule = Annotated[
    str,
    typer.Option(
        help="How noise levels are spaced: karras, geometric, or ncsnv2, which also chooses their number; auto is what suits "
        "the sampler.",
        rich_help_panel=_SAMPLER,
    ),
]
Rule = Annotated[
    str,
    typer.Option(
        help="wiener, proximal, validated, annealed, replacement, dps, pigdm or moment_matching, the last for instance as "
        "'moment_matching(tolerance=0.2, steps=6)'.",
        rich_help_panel=_SAMPLER,
    ),
]
Sampler = Annotated[
    str,
    typer.Option(
        help="renoising, redrawing, ancestral, ancestral_corrected, heun_sde, multistep, langevin, split_gibbs, daps or "
        "twisted; auto is renoising for one sample; for several redrawing, or renoising with momentum, as the command does best.",
        rich_help_panel=_SAMPLER,
    ),
]
Truth = Annotated[
    Path | None,
    typer.Option(
        help="The undamaged picture, or a folder of them: prints PSNR and SSIM beside a classical baseline's.",
        rich_help_panel=_INPUT,
    ),
]
Output = Annotated[Path | None, output("Result file (.png, .jpg, .tif, .webp), folder, or - for stdout.")]
Quality = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        metavar="N",
        show_default=False,
        help="Of a .jpg (95 where not given) or a .webp, which loses nothing where not given.",
        rich_help_panel=_OUTPUT,
    ),
]


class Format(StrEnum):
    """What a result is written as."""

    png = "png"
    jpg = "jpg"
    tif = "tif"
    webp = "webp"


OutputFormat = Annotated[
    Format | None,
    typer.Option(
        "--format",
        show_default=False,
        help="Of a result that -o does not name: in a folder, by default png; on stdout (-o -), by default the input's.",
        rich_help_panel=_OUTPUT,
    ),
]
Interval = Annotated[
    bool,
    typer.Option(
        "--interval",
        help="Write each pixel's lower and upper bound: of 19 samples or more a 90 % interval, of fewer the range of all.",
        rich_help_panel=_OUTPUT,
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json|shipped",
        help="Scale the interval by a factor learned for this prior and these settings; implies --interval.",
        rich_help_panel=_OUTPUT,
    ),
]
Diagnostics = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Draw misfit and step against the noise level.", rich_help_panel=_OUTPUT),
]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html",
        help="Write the run as one page to read: pictures with a slider, samples, scores, what they mean; or a folder.",
        rich_help_panel=_OUTPUT,
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing results.", rich_help_panel=_OUTPUT)]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check the input, say what would be read, computed and written, and stop.",
        rich_help_panel=_RUN,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_OUTPUT)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", envvar="INVSOLVE_DEVICE", rich_help_panel=_RUN)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.", rich_help_panel=_RUN)]
Verbose = Annotated[
    int,
    typer.Option("--verbose", "-v", count=True, help="Show the settings; -vv shows tracebacks.", rich_help_panel=_RUN),
]
