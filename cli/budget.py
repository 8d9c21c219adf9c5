"""``--budget 60s``: the time a command may take, from its start to the last file, and what that buys."""

from __future__ import annotations

import math
import re
import time
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from invsolve.cli.console import say

if TYPE_CHECKING:
    from invsolve.cli.common import Common
    from invsolve.pretrained.network_prior import NetworkPrior
    from invsolve.samplers.pace import Pace
    from invsolve.tasks.task import Task

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

ASKED: ContextVar[frozenset[str]] = ContextVar("ASKED", default=frozenset())
"""Options that the person gave, whose values are not to be chosen."""

BEGAN: ContextVar[float] = ContextVar("BEGAN", default=math.nan)
"""When the process began, until the first picture."""


class Moment(NamedTuple):
    """By ``time.perf_counter``, and by ``time.process_time``."""

    passed: float
    used: float


STARTED: ContextVar[Moment | None] = ContextVar("STARTED", default=None)
"""When the work on the picture began."""

ENDING = 1.2
"""Seconds of the processor from the last file to the end of the process, and of small things in between."""

LIKELY_SAMPLES = 8
"""That are split, where their number is not known yet: up to here they are one batch."""

NOT_SAMPLES = 3
"""Pictures that are written beside the samples: mean, deviation, and what compares."""


def seconds_of(text: str) -> float:
    """``90``, ``60s``, ``5m`` or ``1.5h`` in seconds.

    Raises
    ------
    BadParameter : it is no such time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(s|m|min|h)?", text.strip(), re.IGNORECASE)
    seconds = float(found[1]) * UNITS[(found[2] or "s").lower()] if found else 0.0
    if not 0 < seconds < math.inf:
        raise typer.BadParameter(f"{text!r} is not a time such as 60s, 5m or 1h.")
    return seconds


Budget = Annotated[
    float | None,
    typer.Option(
        metavar="TIME",
        parser=seconds_of,
        show_default=False,
        help="Be done in so long, such as 60s or 5m, reading and writing included: chooses --steps and --samples, where they "
        "are not given, by what they cost on this machine, and keeps to the time. Of several pictures, for each.",
        rich_help_panel="Run",
    ),
]


def note_start() -> None:
    """The work on a picture begins: on the first one with the process, which has to load its modules for it."""
    began = BEGAN.get()
    STARTED.set(now() if math.isnan(began) else Moment(began, 0.0))
    BEGAN.set(math.nan)


def asked_of(context: typer.Context | None) -> frozenset[str]:
    """The options that were given, on the command line or in a file; of a command that another calls, none."""
    if context is None:
        return frozenset()
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name != "DEFAULT")


def note_asked(context: typer.Context | None) -> None:
    """Remember which options were given."""
    ASKED.set(asked_of(context))


def now() -> Moment:
    """This moment."""
    return Moment(time.perf_counter(), time.process_time())


def busyness(since: Moment, until: Moment) -> float:
    """Seconds that pass for each that this process computes; 1 on a machine at rest, where it has a core for itself."""
    used, passed = until.used - since.used, until.passed - since.passed
    return max(1.0, passed / used) if used > 0 else 1.0


def keep_to_budget(
    common: Common,
    task: Task,
    prior: NetworkPrior,
    *,
    writing: float = 0.0,
    single: bool = False,
    least: int = 1,
    most: int | None = None,
) -> tuple[Common, Task]:
    """``common`` with the levels and samples that its budget buys, and the pace; says what they are. And the task, of which
    is known what the data determine: that is asked for anyway.

    ``writing`` : seconds that a sample's file takes. ``single`` : there is room for one sample only. ``least`` : samples, at least.
    ``most`` : samples that are split into what was measured and what was not, as for :func:`invsolve.cli.pipeline.solve_task`.

    Raises
    ------
    UsageError : not even the least fits into the budget.
    """
    if common.budget is None:
        return common, task
    from invsolve.tasks.budget import Size, in_words, seconds_to_summarize, within_budget

    determined = task.determined()
    task = replace(task, determined=lambda: determined)
    summary = 0.0 if single else seconds_to_summarize(task.operator, most or LIKELY_SAMPLES)
    asked = ASKED.get()
    samples = 1 if single else common.samples if "samples" in asked else None
    started = STARTED.get() or now()
    wanted = within_budget(
        task,
        prior,
        common.solve_options(task, settle=False),
        levels=common.steps if "steps" in asked else None,
        samples=samples,
        least=max(least, 2) if common.wants_interval else least,
        reserve=summary + ENDING * busyness(started, now()) + NOT_SAMPLES * writing,
        writing=writing,
        started=started.passed,
    )
    say(f"in {common.budget:g} s: {in_words(Size(wanted.steps, wanted.samples))}")
    return replace(common, steps=wanted.steps, samples=wanted.samples, pace=wanted.pace), task


def say_pace(pace: Pace | None) -> None:
    """A line where another number of levels was walked than planned."""
    if pace is None or pace.walked == pace.planned:
        return
    slower = "slower" if pace.walked < pace.planned else "faster"
    say(f"it went {slower} than measured at the start: {pace.walked} noise levels in place of {pace.planned}")
