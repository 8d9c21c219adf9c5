"""``--budget 60s``: the time a command may take, from its start to the last file, and what that buys."""

from __future__ import annotations

import math
import re
import time
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from invsolve.cli.console import say

if TYPE_CHECKING:
    from invsolve.cli.pipeline import Common
    from invsolve.pretrained.loading import NetworkPrior
    from invsolve.samplers.pace import Pace
    from invsolve.tasks.task import Task

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

ASKED: ContextVar[frozenset[str]] = ContextVar("ASKED", default=frozenset())
"""Options that the person gave, whose values are not to be chosen."""

BEGAN: ContextVar[float] = ContextVar("BEGAN", default=math.nan)
"""When the process began, until the first picture."""

STARTED: ContextVar[float] = ContextVar("STARTED", default=math.nan)
"""When the work on the picture began, by ``time.perf_counter``."""

SUMMARIES = 2.0
"""What is said of the samples takes so many times as long as what is said of the data."""

ENDING = 0.5
"""Seconds from the last file to the end of the process, and of small things in between."""

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
    STARTED.set(time.perf_counter() if math.isnan(began) else began)
    BEGAN.set(math.nan)


def note_asked(context: typer.Context | None) -> None:
    """Remember which options were given, on the command line or in a file; of a command that another calls, none."""
    given = () if context is None else context.params
    sources = {name: context.get_parameter_source(name) for name in given} if context is not None else {}
    ASKED.set(frozenset(name for name, source in sources.items() if source is not None and source.name != "DEFAULT"))


def enough_steps(steps: int, sampler: str, context: typer.Context | None) -> int:
    """``steps``, but as many noise levels as the sampler wants at least where nobody gave a number."""
    from invsolve.samplers import find_sampler, needs_of

    note_asked(context)
    return steps if "steps" in ASKED.get() else max(steps, needs_of(find_sampler(sampler)).levels)


def keep_to_budget(
    common: Common, task: Task, prior: NetworkPrior, *, writing: float = 0.0, single: bool = False, least: int = 1
) -> tuple[Common, Task]:
    """``common`` with the levels and samples that its budget buys, and the pace; says what they are. And the task, of which
    is known what the data determine: that is asked for anyway, and says how long the summary takes.

    ``writing`` : seconds that a sample's file takes. ``single`` : there is room for one sample only. ``least`` : samples, at least.

    Raises
    ------
    UsageError : not even the least fits into the budget.
    """
    if common.budget is None:
        return common, task
    from invsolve.tasks.budget import Size, in_words, within_budget

    before = time.perf_counter()
    determined = task.determined()
    summary = SUMMARIES * (time.perf_counter() - before)
    task = replace(task, determined=lambda: determined)
    asked = ASKED.get()
    samples = 1 if single else common.samples if "samples" in asked else None
    started = time.perf_counter() if math.isnan(STARTED.get()) else STARTED.get()
    wanted = within_budget(
        task,
        prior,
        common.solve_options(task, settle=False),
        levels=common.steps if "steps" in asked else None,
        samples=samples,
        least=max(least, 2) if common.wants_interval else least,
        reserve=summary + ENDING + NOT_SAMPLES * writing,
        writing=writing,
        started=started,
    )
    say(f"in {common.budget:g} s: {in_words(Size(wanted.steps, wanted.samples))}")
    return replace(common, steps=wanted.steps, samples=wanted.samples, pace=wanted.pace), task


def say_pace(pace: Pace | None) -> None:
    """A line where another number of levels was walked than planned."""
    if pace is None or pace.walked == pace.planned:
        return
    slower = "slower" if pace.walked < pace.planned else "faster"
    say(f"it went {slower} than measured at the start: {pace.walked} noise levels in place of {pace.planned}")
