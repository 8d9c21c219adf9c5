"""``invsolve solve``: any measurements of a picture, described in one file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invsolve.cli import options
from invsolve.cli.common import Common
from invsolve.cli.console import Verbosity, clean_stdout, say
from invsolve.cli.dry_run import files_among
from invsolve.cli.files import check_apart, check_writable, provenance
from invsolve.cli.limits import LARGEST_SEED
from invsolve.cli.pipeline import Scores, Solved, score_pixels, solve_task
from invsolve.cli.problem import ProblemFile, read_problem
from invsolve.cli.results import (
    ResultPaths,
    encode_results,
    encode_trace,
    json_text,
    report_json,
    say_results,
    say_scores,
    std_picture,
)
from invsolve.cli.uncertainty import figure, say_uncertainty, uncertainty_json
from invsolve.errors import InputError, UsageError
from invsolve.pictures import Pixels, channels_last, to_pixels

if TYPE_CHECKING:
    from torch import Tensor

    from invsolve.tasks.measured import Measurement, Misfit
    from invsolve.tasks.task import Task

PICTURE_CHANNELS = (1, 3)
"""Of x that can be drawn; results of other priors are arrays only."""


def solve(
    problem: Annotated[
        Path, typer.Argument(metavar="PROBLEM.toml", help="What was measured and how to solve it; see docs/solve.md.")
    ],
    simulate: Annotated[
        Path | None,
        typer.Option(
            metavar="TRUTH",
            help="Make the measurement files from this picture, and stop.",
            rich_help_panel="Problem",
        ),
    ] = None,
    noise_seed: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_SEED, help="Seed of the noise that --simulate makes.", rich_help_panel="Problem"
        ),
    ] = 0,
    truth: Annotated[
        Path | None,
        typer.Option(help="The true picture: prints PSNR and SSIM beside least squares.", rich_help_panel="Problem"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder, instead of the file's.", rich_help_panel="Output")
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Solve what a file describes: prior, operators, noise, measurements, rule and sampler.

    For everything that has no command of its own, several measurements of one picture among them. The results go into a folder
    with a report and a copy of the file, so that the run can be repeated.

    Examples:

      invsolve solve problem.toml --simulate truth.png

      invsolve solve problem.toml --truth truth.png
    """
    Verbosity.level = -1 if quiet else verbose
    file = read_problem(problem)
    file = file if output is None else replace(file, folder=output)
    with clean_stdout():
        found = _simulate(file, simulate, noise_seed, force, device) if simulate else _solve(file, truth, force, device)
    if as_json:
        typer.echo(json_text(found))


def _simulate(file: ProblemFile, truth: Path, seed: int, force: bool, device: str) -> dict[str, Any]:
    """Make the measurement files; returns the facts."""
    from invsolve.atomic import write_files
    from invsolve.cli.problem_parts import read_whole, simulated
    from invsolve.pretrained.card import Card
    from invsolve.pretrained.loading import CARD, find_prior, resolve_device

    channels = Card.read(find_prior(file.prior) / CARD).facts.channels
    x = read_whole(truth, channels, "true picture")
    check_size(file, truth, x)
    check_writable([block.file for block in file.blocks], force=force)
    facts = provenance(task="simulate solve", input=str(truth), problem=str(file.path), seed=seed)
    write_files(dict(simulated(file, x, seed, facts, resolve_device(device))))
    names = [str(block.file) for block in file.blocks]
    say(f"wrote {', '.join(names)}")
    say(f"now: invsolve solve {file.path} --truth {truth}")
    return {**facts, "output": names[0], "outputs": names}


def _solve(file: ProblemFile, truth: Path | None, force: bool, device: str) -> dict[str, Any]:
    """Solve, write and say; returns the report."""
    from invsolve.atomic import write_files
    from invsolve.cli.own import blame
    from invsolve.cli.problem_parts import picture_shape, read_measurements, read_values, read_whole
    from invsolve.pretrained.loading import load_prior
    from invsolve.tasks.measured import measured_task, misfits

    check_names(file)
    values = [read_values(block.file) for block in file.blocks]
    prior = load_prior(file.prior, device, patches=file.patches)
    if prior.channels == 3:
        prior.check_rgb()
    x = None if truth is None else read_whole(truth, prior.channels, "true picture")
    start = None if file.start is None else read_whole(file.start, prior.channels, "start")
    shape = picture_shape(file, prior, values)
    if x is not None and truth is not None and tuple(x.shape[1:]) != shape:
        raise InputError(f"--truth {truth} has shape {tuple(x.shape[1:])}, the picture {shape}", hint="give its truth")
    measurements = read_measurements(file, values, shape, prior.device)
    try:
        task = measured_task(measurements, prior, shape, file.options, start=start)
    except UsageError as error:
        raise InputError(f"{file.path}: {error.message}", hint=error.hint) from error
    paths = plan_paths(file, drawn=prior.channels in PICTURE_CHANNELS)
    reads = files_among([*(block.file for block in file.blocks), truth, file.start])
    check_apart(list(paths.values()), reads, None)
    check_writable(list(paths.values()), force=force)
    say(f"{file.path.name}: {about(measurements)}, a picture of {shape[2]} x {shape[1]}, on {prior.device}")
    with blame(foreign(file)):
        solved = solve_task(task, prior, common_of(file, task), input=str(file.path))
        fits = misfits(measurements, solved.posterior.samples)
    scores = {} if x is None else score(task, solved, x)
    report = report_of(file, solved, fits, list(paths.values()), scores)
    write_files(encode(file, paths, solved, report), last=paths["report"])
    say_all(file, paths, solved, fits, scores)
    return report


def foreign(file: ProblemFile) -> dict[str, str]:
    """The names in a file that other packages offer, with what they are: to be blamed for what they raise."""
    from invsolve.forward_models import NOISES, OPERATORS
    from invsolve.options import AUTO
    from invsolve.rules import RULES
    from invsolve.samplers import SAMPLERS

    known = {"operator": set(OPERATORS), "noise": set(NOISES), "rule": {*RULES, AUTO}, "sampler": {*SAMPLERS, AUTO}}
    named = [(one.type, "operator") for block in file.blocks for one in block.operators]
    named += [(block.noise.type, "noise") for block in file.blocks]
    named += [(str(name).partition("(")[0], kind) for name, kind in (
        (file.options.rule, "rule"), (file.options.sampler, "sampler"),
    )]  # fmt: skip
    return {name: kind for name, kind in named if name not in known[kind]}


def check_names(file: ProblemFile) -> None:
    """Rule and sampler by their names, before anything else is loaded."""
    from invsolve.options import AUTO
    from invsolve.rules import find_rule
    from invsolve.samplers import find_sampler

    for find, name in ((find_rule, file.options.rule), (find_sampler, file.options.sampler)):
        try:
            if name != AUTO:
                find(str(name))
        except UsageError as error:
            raise InputError(f"{file.path}: [solve]: {error.message}", hint=error.hint) from error


def check_size(file: ProblemFile, truth: Path, x: Tensor) -> None:
    """A truth of the size that the file says."""
    if file.size is not None and tuple(x.shape[2:]) != file.size:
        raise InputError(
            f"{truth} is {x.shape[3]} x {x.shape[2]} pixels, {file.path} says {file.size[1]} x {file.size[0]}",
            hint="correct size in [picture], or resize the picture",
        )


def about(measurements: list[Measurement]) -> str:
    """What was measured, in a line."""
    kinds = [f"{type(one.model.noise).__name__} on {one.model.operator!r}" for one in measurements]
    return kinds[0] if len(kinds) == 1 else f"{len(kinds)} measurements"


def common_of(file: ProblemFile, task: Task) -> Common:
    """The settled way of solving as the options that all commands share."""
    chosen = task.options
    return Common(
        samples=chosen.samples, seed=chosen.seed, steps=chosen.steps, schedule=chosen.schedule, rule=str(chosen.rule),
        sampler=str(chosen.sampler), model=file.prior, patches=file.patches, interval=file.interval,
    )  # fmt: skip


def plan_paths(file: ProblemFile, *, drawn: bool) -> dict[str, Path]:
    """Names of everything the run writes."""
    names = {"report": "report.json", "problem": "problem.toml", "posterior": "posterior.npz"}
    if file.diagnostics:
        names["trace"] = "trace.png"
    paths = {name: file.folder / ending for name, ending in names.items()}
    if drawn:
        paths |= {path.stem: path for path in pictures_of(file).all}
    return paths


def pictures_of(file: ProblemFile) -> ResultPaths:
    return ResultPaths.plan(file.folder / "result.png", file.options.samples, interval=file.interval)


def drawn_picture(x: Tensor) -> Pixels:
    """(C, H, W) with one channel or three as grey levels."""
    pixels = to_pixels(channels_last(x))
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def score(task: Task, solved: Solved, truth: Tensor) -> Scores:
    """PSNR and SSIM in the range [0, 1] of least squares, one sample and the mean."""
    posterior = solved.posterior
    if truth.shape[1] not in PICTURE_CHANNELS:
        return {}
    found = {name: to_pixels(picture).squeeze() for name, picture in task.baselines().items()}
    found["invsolve sample"] = drawn_picture(posterior.samples[0, 0])
    if len(posterior.samples) > 1:
        found[f"mean of {len(posterior.samples)}"] = drawn_picture(posterior.mean[0])
    return score_pixels(drawn_picture(truth[0]), found)


def report_of(
    file: ProblemFile, solved: Solved, fits: list[Misfit], outputs: list[Path], scores: Scores
) -> dict[str, Any]:
    """All that is said of the run, as JSON."""
    from invsolve.pretrained.card import file_sha256

    described = [
        {
            "file": str(block.file), "sha256": file_sha256(block.file),
            "operators": [asdict(one) for one in block.operators], "noise": asdict(block.noise),
            "rms_misfit": figure(fit.rms), "sigma": fit.sigma, "values": fit.values,
            "chi2": None if fit.chi2 is None else figure(fit.chi2),
        }
        for block, fit in zip(file.blocks, fits, strict=True)
    ]  # fmt: skip
    calls = solved.posterior.network_calls
    report = report_json(solved.facts, [str(path) for path in outputs], solved.seconds, calls, scores)
    return report | uncertainty_json(solved.summary) | {"measurements": described}


def encode(file: ProblemFile, paths: dict[str, Path], solved: Solved, report: dict[str, Any]) -> dict[Path, Any]:
    """The files: pictures, exact samples, report and the problem."""
    posterior, interval = solved.posterior, solved.summary.interval
    files: dict[Path, Any] = {}
    if "result" in paths:
        bounds = None
        if file.interval and interval is not None:
            bounds = [drawn_picture(interval.low[0]), drawn_picture(interval.high[0])]
        files |= encode_results(
            pictures_of(file),
            [drawn_picture(x[0]) for x in posterior.samples],
            posterior.seeds,
            drawn_picture(posterior.mean[0]),
            std_picture(channels_last(posterior.std[0])),
            solved.facts,
            bounds=bounds,
        )
    if "trace" in paths:
        files[paths["trace"]] = encode_trace(solved.summary.diagnostics, paths["trace"], solved.facts)
    files[paths["posterior"]] = posterior.write
    files[paths["problem"]] = file.copy(file.folder).encode()
    files[paths["report"]] = (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()
    return files


def say_all(file: ProblemFile, paths: dict[str, Path], solved: Solved, fits: list[Misfit], scores: Scores) -> None:
    """Where the results are and how good they are."""
    posterior = solved.posterior
    if "result" in paths:
        say_results(pictures_of(file), solved.seconds, posterior.network_calls, sampler=posterior.settings["sampler"])
    say(
        f"{paths['posterior']}: all samples as numbers; {paths['report'].name}: this report; {paths['problem'].name}: the file"
    )
    for fit in fits:
        noise = "" if fit.sigma is None else f", noise {fit.sigma:.3g}"
        chi2 = "" if fit.chi2 is None else f", chi-squared per value {fit.chi2:.2f} (1 is right)"
        say(f"{fit.name}: rms misfit {fit.rms:.3g}{noise}{chi2}")
    say_uncertainty(solved.summary, unit="in the prior's units", interval=file.interval)
    say(", ".join(f"{key} {value}" for key, value in posterior.settings.items()), level=1)
    say_scores(scores)
