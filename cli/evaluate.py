"""``invsolve evaluate``: results against their truths."""

from __future__ import annotations

import csv
import functools
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, progress_bar, say
from invsolve.cli.evaluate_files import Pair, Values, find_pairs, parse_range, read_pair
from invsolve.cli.files import check_writable, encode_picture, provenance
from invsolve.cli.results import json_text
from invsolve.cli.uncertainty import figure
from invsolve.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from invsolve.evaluation.comparison import Scale

DIGITS = {"psnr": 2, "ssim": 4, "rmse": 4, "lpips": 4, "dists": 4}
"""Behind the point, in the table."""

ERRORS_WHITE = 3.0
"""Errors so many times the largest RMSE are drawn white."""


class Judged(NamedTuple):
    """A result and its figures."""

    pair: Pair
    figures: dict[str, float]  # psnr, ssim, rmse and what else was asked for
    scale: Scale


def evaluate(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT", show_default=False, help="Pictures, .npy, .npz or .tif, or folders of them."),
    ],
    truth: Annotated[
        Path,
        typer.Option(
            metavar="TRUTH",
            show_default=False,
            help="The true picture or slice; or a folder of them, each named as its result up to a point: photo.png is "
            "the truth of photo.inpaint.png.",
            rich_help_panel="Problem",
        ),
    ],
    data_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH|HU",
            show_default=False,
            help="Of arrays: the numbers that are black and white. HU is -1000,1000, and the default for what "
            "`invsolve ct` wrote; else 0 to the truth's largest.",
            rich_help_panel="Problem",
        ),
    ] = None,
    lpips: Annotated[
        bool, typer.Option("--lpips", help="LPIPS (AlexNet) too; needs invsolve[quality].", rich_help_panel="Output")
    ] = False,
    dists: Annotated[
        bool, typer.Option("--dists", help="DISTS too; needs invsolve[quality].", rich_help_panel="Output")
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE.csv", help="Write a row per file.", rich_help_panel="Output"),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Draw truth, result and error of each, all on one scale.", rich_help_panel="Output"
        ),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Compare results with their truths: PSNR, SSIM, RMSE, means with standard errors, and the worst.

    Pictures are judged over their full range, CT slices from -1000 to 1000 HU. Results with one ending before the
    file's type, such as .mean, are averaged among themselves.

    Examples:

      invsolve evaluate photo.inpaint.png --truth photo.png

      invsolve evaluate repaired/ --truth clean/ --csv scores.csv --pictures errors/

      invsolve evaluate scan.ct.npy --truth slice.npy --data-range HU
    """
    Verbosity.level = -1 if quiet else verbose
    scale = parse_range(data_range)
    pairs = find_pairs(results, truth, arrays=data_range is not None)
    drawn = {} if pictures is None else picture_paths(pairs, pictures)
    check_outputs(table, list(drawn), force=force)
    with clean_stdout():
        from invsolve.atomic import write_files

        judged = judge_all(pairs, scale, [name for name, asked in (("lpips", lpips), ("dists", dists)) if asked])
        files: dict[Path, bytes | Callable[[IO[bytes]], None]] = {}
        if table is not None:
            files[table] = csv_bytes(judged)
        if drawn:
            whites = error_whites(judged)
            for path, one in zip(drawn, judged, strict=True):
                files[path] = functools.partial(write_error, path, one, scale, whites[one.scale.unit])
        if files:
            write_files(files)
        if table is not None:
            say(f"wrote {table}")
        if drawn:
            white = ", ".join(f"{value:.3g} {unit}".rstrip() for unit, value in whites.items())
            say(f"wrote {len(drawn)} pictures into {pictures}: truth, result, error (white: {white} or more)")
    if as_json:
        sys.stdout.write(json_text(as_plain(judged)) + "\n")
    elif not quiet:
        print_table(judged)
    if len(judged) > 1:
        worst = worst_of(judged)
        say(f"the worst: {worst.pair.result}, PSNR {worst.figures['psnr']:.2f} dB")


def check_outputs(table: Path | None, drawn: list[Path], *, force: bool) -> None:
    """Before any work: what is to be written can be."""
    if table is not None and table.suffix.lower() != ".csv":
        raise OutputError(f"--csv {table} does not end in .csv", hint="name a .csv file")
    check_writable([*([] if table is None else [table]), *drawn], force=force)


def judge_all(pairs: list[Pair], scale: Scale | None, extra: list[str]) -> list[Judged]:
    """Each result's figures.

    Raises
    ------
    InputError : a file that cannot be read, or is of another size than its truth.
    UsageError : a perceptual distance of arrays.
    """
    from invsolve.evaluation.comparison import compare, perceptual

    distances = {name: perceptual(name) for name in extra}
    judged = []
    with progress_bar() as bar:
        running = bar.add_task("comparing", total=len(pairs))
        for pair in pairs:
            values = read_pair(pair, scale)
            figures = compare(values.truth, values.estimate, values.scale)
            for name, distance in distances.items():
                if not values.picture:
                    raise UsageError(f"--{name} of {pair.result}", hint=f"{name.upper()} is for pictures")
                figures[name] = distance(values.truth, values.estimate)
            judged.append(Judged(pair, figures, values.scale))
            bar.advance(running)
    return judged


def worst_of(judged: list[Judged]) -> Judged:
    """The one of lowest PSNR."""
    return min(judged, key=lambda one: one.figures["psnr"])


def groups_of(judged: list[Judged]) -> dict[tuple[str, str], list[Judged]]:
    """Results that are averaged: of one ending, folder and unit."""
    found: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        found.setdefault((one.pair.group, one.scale.unit), []).append(one)
    return found


def means(group: list[Judged]) -> dict[str, tuple[float, float]]:
    """Mean and standard error of each figure."""
    from invsolve.evaluation.comparison import mean_with_error

    return {name: mean_with_error([one.figures[name] for one in group]) for name in group[0].figures}


def print_table(judged: list[Judged]) -> None:
    """A row per result, and the means of each group, on stdout."""
    names = list(judged[0].figures)
    table = Table("result", "truth", *(name.upper() for name in names), "unit of RMSE")
    for column in table.columns[2:-1]:
        column.justify = "right"
    for one in judged:
        figures = [rounded(name, value) for name, value in one.figures.items()]
        table.add_row(str(one.pair.result), str(one.pair.truth), *figures, one.scale.unit)
    if len(judged) > 1:
        table.add_section()
        for (group, unit), members in groups_of(judged).items():
            what = f"{group}: " if group else ""
            figures = [with_error(name, *value) for name, value in means(members).items()]
            table.add_row(f"{what}mean of {len(members)} ± standard error", "", *figures, unit)
    console = Console(width=None if sys.stdout.isatty() else 250, highlight=False, markup=False)
    with console.capture() as shown:
        console.print(table)
    sys.stdout.write(shown.get())


def rounded(name: str, value: float) -> str:
    digits = DIGITS[name]
    return f"{value:.{digits}f}" if not (name == "rmse" and value >= 10) else f"{value:.1f}"


def with_error(name: str, mean: float, error: float) -> str:
    return rounded(name, mean) + ("" if math.isnan(error) else f" ± {rounded(name, error)}")


def as_plain(judged: list[Judged]) -> dict[str, Any]:
    """For JSON; what is infinite or undefined becomes null."""
    files = [
        {"result": str(one.pair.result), "truth": str(one.pair.truth), "group": one.pair.group}
        | {name: figure(value) for name, value in one.figures.items()}
        | {"unit": one.scale.unit, "data_range": [one.scale.low, one.scale.high]}
        for one in judged
    ]
    averages = [
        {"group": group, "files": len(members), "unit": unit}
        | {name: {"mean": figure(mean), "error": figure(error)} for name, (mean, error) in means(members).items()}
        for (group, unit), members in groups_of(judged).items()
    ]
    return {"files": files, "means": averages, "worst": str(worst_of(judged).pair.result)}


def csv_bytes(judged: list[Judged]) -> bytes:
    """A header and a row per result."""
    text, names = io.StringIO(), list(judged[0].figures)
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["result", "truth", "group", *names, "unit", "low", "high"])
    for one in judged:
        figures = [f"{one.figures[name]:.6g}" for name in names]
        rows.writerow([one.pair.result, one.pair.truth, one.pair.group, *figures, one.scale.unit, *one.scale[:2]])
    return text.getvalue().encode(errors="surrogateescape")


def picture_paths(pairs: list[Pair], folder: Path) -> dict[Path, Pair]:
    """Where each error is drawn: named as the result, with its folder's name where two are alike."""
    stems = [pair.result.stem for pair in pairs]
    found: dict[Path, Pair] = {}
    for pair, stem in zip(pairs, stems, strict=True):
        name = stem if stems.count(stem) == 1 else f"{pair.result.absolute().parent.name}-{stem}"
        path = folder / f"{name}.error.png"
        if path in found:
            raise InputError(
                f"{found[path].result} and {pair.result} would have one picture, {path}", hint="evaluate them apart"
            )
        found[path] = pair
    return found


def error_whites(judged: list[Judged]) -> dict[str, float]:
    """The error that is drawn white, by its unit: one scale for all."""
    largest: dict[str, float] = {}
    for one in judged:
        largest[one.scale.unit] = max(largest.get(one.scale.unit, 0.0), one.figures["rmse"])
    return {unit: ERRORS_WHITE * (value or 1.0) for unit, value in largest.items()}


def write_error(path: Path, one: Judged, scale: Scale | None, white: float, file: IO[bytes]) -> None:
    """The picture of one result, read again: so that few are in memory at once."""
    values = read_pair(one.pair, scale)
    facts = provenance(
        task="evaluate", result=str(one.pair.result), truth=str(one.pair.truth), error_white=white, unit=one.scale.unit,
        **{name: figure(value) for name, value in one.figures.items()},
    )  # fmt: skip
    file.write(encode_picture(error_picture(values, white), path, facts))


def error_picture(values: Values, white: float) -> Any:
    """Truth, result and absolute error side by side; of a stack the slice in the middle, of colours the rms error."""
    import numpy as np

    from invsolve.cli.ct_files import labelled_row
    from invsolve.pictures import to_pixels

    pair = [x[len(x) // 2] if values.stacked else x for x in (values.truth, values.estimate)]
    error = np.abs(pair[1].astype(np.float64) - pair[0])
    error = np.sqrt((error**2).mean(axis=2)) if error.ndim == 3 else error
    low, width = values.scale.low, values.scale.width
    shown = [to_pixels((x - low) / width) for x in pair]
    return labelled_row({"truth": shown[0], "result": shown[1], "error": to_pixels(error / white)})
