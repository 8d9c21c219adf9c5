"""Messages, progress bars and the way errors reach a person. All of it on stderr; stdout is for results and JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from invsolve.errors import ExitCode, InvsolveError

err = Console(stderr=True, highlight=False, soft_wrap=True)


class Verbosity:
    """How much is said: -1 errors only, 0 one line per result, 1 steps and levels, 2 tracebacks."""

    level = 0


def say(message: str, *, level: int = 0) -> None:
    """One line on stderr, if the verbosity asks for it."""
    if Verbosity.level >= level:
        err.print(message, markup=False)


def show_bars() -> bool:
    """Progress bars only for a person: a terminal, not -q, no NO_COLOR, no dumb terminal."""
    quiet = Verbosity.level < 0 or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return err.is_terminal and not quiet


def progress_bar(*columns: str) -> Progress:
    """A bar with share, elapsed and remaining time; extra columns are format strings over the task's fields."""
    extra = [TextColumn(column) for column in columns]
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        *extra,
        console=err,
        disable=not show_bars(),
        transient=True,
    )


@contextmanager
def clean_stdout() -> Iterator[None]:
    """Send whatever libraries print to stderr, so that only results reach stdout."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def report_error(error: InvsolveError) -> None:
    """``error: what`` and ``hint: the way out``, one line each."""
    err.print(f"error: {error.message}", markup=False, style="red")
    if error.hint:
        err.print(f"hint: {error.hint}", markup=False)


def exit_code_of(error: BaseException) -> int:
    """Report ``error`` on stderr and return its documented exit code."""
    if isinstance(error, InvsolveError):
        report_error(error)
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        err.print("interrupted; nothing was overwritten")
        return int(ExitCode.INTERRUPTED)
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        err.print("error: out of memory", style="red")
        err.print("hint: use fewer --samples, or a smaller picture")
        return int(ExitCode.FAILED)
    err.print(
        f"error: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}", markup=False
    )
    err.print("hint: this is a bug; run again with -vv for a traceback and report it")
    return int(ExitCode.FAILED)
