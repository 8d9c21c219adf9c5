"""The options that every solving command has, and how a command comes by them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from invsolve.cli import options
from invsolve.cli.budget import ASKED, Budget, note_start
from invsolve.cli.console import Verbosity
from invsolve.cli.formats import FORMATS, default_endings
from invsolve.cli.memory import Memory
from invsolve.cli.records import with_record
from invsolve.cli.streams import over_streams
from invsolve.errors import UsageError
from invsolve.options import AUTO, SolveOptions

if TYPE_CHECKING:
    from invsolve.tasks.task import Task

T = TypeVar("T")


@dataclass(frozen=True)
class Common:
    """The options that every solving command has, with what is most commands' default."""

    truth: options.Truth = None
    samples: options.Samples = 1
    seed: options.Seed = 0
    steps: options.Steps = 50
    schedule: options.Schedule = AUTO
    rule: options.Rule = "proximal"
    sampler: options.Sampler = "renoising"
    model: options.Model = "photos"
    fit: options.Fitting = None
    patches: options.Patches = False
    output: options.Output = None
    quality: options.Quality = None
    format: options.OutputFormat = None
    interval: options.Interval = False
    calibration: options.Calibration = None
    diagnostics: options.Diagnostics = None
    report: options.Report = None
    force: options.Force = False
    dry_run: options.DryRun = False
    as_json: options.Json = False
    memory: Memory = None
    budget: Budget = None
    device: options.Device = "auto"
    quiet: options.Quiet = False
    verbose: options.Verbose = 0
    pace: Any = None  # no option: a Pace, once a budget was laid out

    @classmethod
    def of(cls, solve: SolveOptions, **others: Any) -> Common:
        """With a task's own way of solving as default."""
        return cls(samples=solve.samples, steps=solve.steps, rule=str(solve.rule), sampler=str(solve.sampler), **others)

    def solve_options(self, task: Task, *, settle: bool = True) -> SolveOptions:
        """The task's way of solving, with what was asked for."""
        from invsolve.solver import enough_levels

        names = ("samples", "seed", "steps", "schedule", "rule", "sampler", "budget", "pace")
        wanted = replace(task.options, **{name: getattr(self, name) for name in names})
        if wanted.sampler != task.options.sampler and self.pace is None and "steps" not in ASKED.get():
            wanted = enough_levels(wanted)
        return wanted.settled if settle else wanted

    def with_levels_of(self, task: Task) -> Common:
        """With as many noise levels as this very task wants, where nobody asked for a number."""
        return self if "steps" in ASKED.get() else replace(self, steps=task.options.steps)

    @property
    def wants_interval(self) -> bool:
        return self.interval or self.calibration is not None

    @property
    def ending(self) -> str | None:
        """Of a result's name, where a format was asked for."""
        return None if self.format is None else f".{self.format}"

    def endings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        """What a result's name may end with, first what it ends with where it has none yet.

        Raises
        ------
        UsageError : it is named, and not as the format that was asked for.
        """
        first = self.ending
        if first is None:
            return default_endings(dtype)
        suffix = self.output.suffix.lower() if self.output is not None and not self.output.is_dir() else ""
        if suffix in FORMATS and FORMATS[suffix] != FORMATS[first]:
            raise UsageError(f"--format {self.format} with -o {self.output}", hint="give one of them")
        return (first, *(ending for ending in default_endings(dtype) if ending != first))

    def set_verbosity(self) -> None:
        Verbosity.level = -1 if self.quiet else self.verbose

    def in_patches(self, command: str, squares: bool = False) -> bool:
        """Whether a prior of one size takes the picture in patches; ``squares`` : the command also has those to give to it.

        Raises
        ------
        UsageError : asked for a fit that the command has not, or for two.
        """
        fit = options.Fit.tile if self.patches and self.fit is None else self.fit
        if self.patches and fit is not options.Fit.tile:
            raise UsageError(f"--patches with --fit {fit}", hint="--patches is --fit tile: give one of them")
        if fit not in (None, options.Fit.tile) and not squares:
            raise UsageError(
                f"--fit {fit} with {command}", hint="only inpaint has holes to put a square around; use --fit tile"
            )
        return fit is options.Fit.tile


def with_common(
    defaults: Common, *, without: tuple[str, ...] = (), **others: Any
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a command the options of :class:`Common`, with these defaults; it gets them as the argument ``common``.

    ``others`` are options that are declared otherwise for this command; those named in ``without`` it does not have.
    """
    return with_record(defaults, "common", without=(*without, "pace"), call=_timed_over_streams, **others)


def _timed_over_streams(
    command: Callable[..., T], common: Common, arguments: tuple[Any, ...], given: dict[str, Any]
) -> T:
    """Note when it began, and let ``-`` stand for stdin where the command takes a picture."""
    note_start()
    signature = inspect.signature(command)
    if next(iter(signature.parameters)) != "picture":
        return command(*arguments, **given, common=common)
    bound = signature.bind_partial(*arguments, **given).arguments
    return over_streams(command, bound.pop("picture"), common, **bound)
