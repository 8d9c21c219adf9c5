"""``invsolve verify``: rules and samplers against posteriors that are known in closed form."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from invsolve.atomic import write_files
from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, progress_bar, say
from invsolve.cli.files import check_writable, encode_picture, provenance
from invsolve.cli.limits import LARGEST_SEED, MOST_STEPS, check_memory
from invsolve.errors import ExitCode, InvsolveError, UsageError
from invsolve.files import regular_file

if TYPE_CHECKING:
    import torch

    from invsolve.verification.figures import Figures
    from invsolve.verification.problems import Problem

_WHAT, _HOW, _OUTPUT = "What to judge", "How", "Output"

MOST_REPEATS = 10**6

BYTES_PER_DRAW = 48_000
"""Of judging a draw, besides its own values: it is projected on 1000 directions, several times over."""

MOST_VALUES = 5000
"""Of an operator's input: its covariance is a matrix, and several such are needed."""


def verify(
    problem: Annotated[
        list[str] | None,
        typer.Option(
            "--problem",
            "-p",
            rich_help_panel=_WHAT,
            help="inpainting, colorization, blur, or mixture-D-M (D 8, 80, 800; M 1, 2, 4). Repeatable.",
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", "-r", help="A rule, or module:name of your own. Repeatable.", rich_help_panel=_WHAT),
    ] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option(
            "--sampler", "-s", help="A sampler, or module:name of your own. Repeatable.", rich_help_panel=_WHAT
        ),
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            rich_help_panel=_WHAT,
            help="Your own small linear operator, or a function that returns one: checked, and a problem of its own.",
        ),
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option(min=1, max=MOST_STEPS, help="Noise levels. Repeatable.", rich_help_panel=_HOW)
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", "-n", min=40, help="Draws where the law is not exact.", rich_help_panel=_HOW)
    ] = 2000,
    repeats: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_REPEATS, help="Problems of each kind; figures are means over them.", rich_help_panel=_HOW
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Problem k uses seed + k.", rich_help_panel=_HOW)
    ] = 0,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures.", rich_help_panel=_OUTPUT)
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_OUTPUT,
            help="Compare with saved figures: exit code 1 if one got worse beyond three standard errors.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_OUTPUT,
            help="PNG of exact (left) and sampled (right) posterior of the last row, in its two widest directions.",
        ),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    device: options.Device = "cpu",
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Judge rules and samplers against posteriors known in closed form.

    Bias is in posterior standard deviations (ideal 0), ratio the standard deviation over the exact one (ideal 1),
    coverage that of the range of 19 samples (ideal 0.90), SW the sliced Wasserstein distance beside its floor, that of
    exact draws against exact draws. KSD is the squared kernel Stein discrepancy of 1000 draws from the posterior's score
    (ideal 0) with the share of exact draws that would seem farther: it finds small errors, and knows nothing of how much
    each of several modes weighs. Calls are network evaluations per sample, backward passes included.

    Examples:

      invsolve verify

      invsolve verify -p mixture-8-1 -r moment_matching -s twisted --steps 100 -n 200 --repeats 20

      invsolve verify -r mypackage.rules:MyRule -s multistep --against before.json
    """  # fmt: skip
    Verbosity.level = -1 if quiet else verbose
    if picture is not None and picture.suffix.lower() != ".png":
        raise UsageError(f"--picture {picture} does not end in .png", hint="name a .png file")
    if save is not None and picture is not None and save.absolute() == picture.absolute():
        raise UsageError(f"--save and --picture both name {save}", hint="give two names")
    check_writable([path for path in (save, picture) if path], force=force)
    check_memory(BYTES_PER_DRAW * samples, f"--samples {samples}", hint="take fewer; errors fall as 1 / sqrt(samples)")
    if against is not None:
        regular_file(against, "saved run")

    with clean_stdout():
        from invsolve.cli.own import blame
        from invsolve.pretrained.loading import resolve_device
        from invsolve.verification.figures import changes, load_figures, save_figures
        from invsolve.verification.judge import judged_draws, slice_picture

        before = load_figures(against) if against else None
        where = resolve_device(device)
        makers = find_problems(problem or [], operator)
        rules, samplers = rule or ["proximal", "moment_matching"], sampler or ["renoising", "ancestral", "multistep"]
        functions = {
            name: named(name, kind) for kind, names in (("rule", rules), ("sampler", samplers)) for name in names
        }
        jobs = [Job(*job) for job in itertools.product(makers, rules, samplers, steps or [20])]
        own = {operator or "": "operator", **dict.fromkeys(rules, "rule"), **dict.fromkeys(samplers, "sampler")}
        own = {name: kind for name, kind in own.items() if ":" in name and not name.endswith(")")}
        numbers = range(seed, seed + repeats)
        with blame(own), progress_bar("{task.fields[job]}") as bar:
            task = bar.add_task("verifying", total=len(jobs) * repeats, job="")
            figures, last = judge_jobs(
                jobs, makers, functions, numbers, samples, where,
                starting=lambda job, done: bar.update(task, job=job.title, completed=done),
            )  # fmt: skip
        if save:
            save_figures(save, figures)
        if picture and last:
            case, job = last
            draws = judged_draws(
                case,
                rule=functions[job.rule],
                sampler=functions[job.sampler],
                steps=job.steps,
                samples=samples,
                seed=seed,
            )
            image = slice_picture(draws, case.posterior).numpy()
            facts = provenance(task="verify", problem=case.name, content="left exact, right sampled")
            write_files({picture: encode_picture(image, picture, facts)})
        moved = changes(figures, before) if before is not None else []
    if as_json:
        from invsolve.verification.figures import as_json as plain

        sys.stdout.write(json.dumps(plain(figures), allow_nan=False) + "\n")
    elif not quiet:
        print_table(figures)
    for change in moved:
        say(f"{'worse' if change.worse else 'changed'}: {change.text}", level=-1 if change.worse else 0)
    if any(change.worse for change in moved):
        raise typer.Exit(int(ExitCode.FAILED))


class Job(NamedTuple):
    """A row of the table: names, and the number of levels."""

    problem: str
    rule: str
    sampler: str
    steps: int

    @property
    def title(self) -> str:
        return f"{self.problem}, {self.rule}, {self.sampler}"


def judge_jobs(
    jobs: list[Job],
    makers: Mapping[str, Callable[[int], Problem]],
    functions: Mapping[str, Any],
    numbers: range,
    samples: int,
    where: torch.device,
    *,
    starting: Callable[[Job, int], None],
) -> tuple[list[Figures], tuple[Problem, Job] | None]:
    """The figures of every job, means over the problems of these ``numbers``, and the last problem with its job.

    ``starting`` hears of each job and of how many problems are done. A rule and a sampler that do not go together are
    left out, and said to be.

    Raises
    ------
    InvsolveError : none of them go together.
    """
    from invsolve.cli.own import OwnCodeError
    from invsolve.verification.figures import average
    from invsolve.verification.judge import verify as judge

    figures: list[Figures] = []
    refused: InvsolveError | None = None
    last: tuple[Problem, Job] | None = None
    for done, job in enumerate(jobs):
        starting(job, done * len(numbers))
        rule, sampler = functions[job.rule], functions[job.sampler]
        try:
            found = []
            for number in numbers:
                case = makers[job.problem](number).to(where)
                found.append(judge(case, rule=rule, sampler=sampler, steps=job.steps, samples=samples, seed=number))
            figures.append(average(found))
            last = (case, job)
        except OwnCodeError:
            raise
        except UsageError as error:
            refused = error
            say(f"left out {job.rule} with {job.sampler}: {error.message}")
    if not figures and refused is not None:
        raise refused
    return figures, last


def find_problems(names: list[str], operator: str | None) -> dict[str, Callable[[int], Problem]]:
    """Makers of the problems asked for, by name; the standard three if none is."""
    from invsolve.cli.own import blame, own_operator
    from invsolve.verification.judge import check_adjoint
    from invsolve.verification.problems import find_problem, gaussian_problem

    makers = {name: find_problem(name) for name in names}
    if operator is not None:
        made = own_operator(operator)
        with blame({operator: "operator"}):
            if (values := math.prod(made.input_shape)) > MOST_VALUES:
                raise UsageError(
                    f"your operator {operator} takes {values} values: their covariance is a matrix of {values} squared",
                    hint=f"give a small one of the kind, of at most {MOST_VALUES} values",
                )
            check_adjoint(made)
        makers[operator] = lambda number: gaussian_problem(made, operator, number)
    return makers or {name: find_problem(name) for name in ("inpainting", "colorization", "blur")}


def named(name: str, kind: str) -> Any:
    """A built-in name, with its arguments if any, as it is; of ``module:name`` what it names."""
    from invsolve.cli.own import own_rule, own_sampler
    from invsolve.rules import find_rule
    from invsolve.samplers import find_sampler

    if ":" in name and not name.endswith(")"):
        return (own_rule if kind == "rule" else own_sampler)(name)
    (find_rule if kind == "rule" else find_sampler)(name)
    return name


def print_table(figures: list[Figures]) -> None:
    """The figures as a table on stdout, one row per rule and sampler."""
    table = Table(
        "problem", "rule", "sampler", "steps", "bias", "ratio", "coverage", "SW", "floor", "KSD", "calls", "s", "law"
    )
    for column in table.columns[3:12]:
        column.justify = "right"
    for f in figures:

        def cell(name: str, digits: int = 3, f: Figures = f) -> str:
            value, error = getattr(f, name), getattr(f, f"{name}_error", 0.0)
            if not math.isfinite(value) or abs(value) >= 1e5:
                return "diverged"
            return f"{value:.{digits}f}" + (f" +-{error:.{digits}f}" if error else "")

        mark = "" if f.calibrated else " *"
        table.add_row(
            f.problem, f.rule, f.sampler, str(f.steps), cell("bias"), cell("std_ratio") + mark, cell("coverage"),
            cell("sliced_wasserstein"), cell("floor"), stein_cell(f), f"{f.calls:.0f}", f"{f.seconds:.1f}", f.method,
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    with console.capture() as shown:
        console.print(table)
        if any(not f.calibrated for f in figures):
            console.print(
                "* not calibrated: bias above .1 posterior standard deviations, or spread off by more than 10 %"
            )
    sys.stdout.write(shown.get())


def stein_cell(figures: Figures) -> str:
    """The squared discrepancy with its p-value; a dash where it was not asked, or of what diverged."""
    if not math.isfinite(figures.ksd_squared):
        return "-"
    return f"{figures.ksd_squared:.4f} (p {figures.ksd_p:.3f})"
