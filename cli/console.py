"""Messages, progress and the way errors reach a person. All of it on stderr; stdout is for results and JSON."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from invsolve.errors import ExitCode, InvsolveError, Terminated, of_the_machine

if TYPE_CHECKING:
    from torch import Tensor

    from invsolve.tasks.task import Progress as Report


class StandardError(Console):
    """Where nobody reads stderr any more, nothing is said, and the work goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def print(self, *objects: Any, **options: Any) -> None:
        with suppress(OSError):  # a disk that is full: there is nowhere left to say so
            super().print(*objects, **options)


err = StandardError(stderr=True, highlight=False, soft_wrap=True)

LINE_SHARE, LINE_SECONDS = 0.1, 30.0
"""Where there is no bar, a line tells of progress after so much of the work, at the latest after so many seconds."""

QUIET_SECONDS = 3.0
"""No such line sooner than this after the one before: short runs need none."""

LONGEST_MESSAGE = 600


def percent(share: float) -> str:
    """``0.081`` -> ``8.1%``, and never 0 or 100 % of what is not none or all: ``0.0003`` -> ``0.03%``."""
    text = f"{share:.1%}"
    if 0 < share < 1 and text in ("0.0%", "100.0%"):
        return f"{100 * share:.1g}%" if share < 0.5 else "more than 99.9%"
    return text


class Verbosity:
    """How much is said: -1 errors only, 0 one line per result, 1 steps and levels, 2 tracebacks."""

    level = 0
    brief = False
    """Whether of what is said by default only warnings are: there are many pictures, and each has its line."""


class Listener(Protocol):
    """Who is told instead of the terminal, where a program runs the commands, as ``invsolve ui`` does."""

    def said(self, message: str) -> None:
        """A line of what a command says."""

    def failed(self, message: str, hint: str) -> None:
        """What is wrong, and the way out."""

    def progressed(self, what: str, share: float) -> None:
        """How much of what takes long is done."""

    def estimated(self, picture: Callable[[], Tensor]) -> None:
        """What makes the picture (C, H, W) that there is so far, in the prior's units."""


class Audience:
    """The listener, if there is one."""

    listener: Listener | None = None


def say(message: str, *, level: int = 0) -> None:
    """One line on stderr, if the verbosity asks for it."""
    if Verbosity.brief and level == 0 and not message.startswith("warning"):
        level = 1
    if Verbosity.level < level:
        return
    if Audience.listener is not None:
        Audience.listener.said(message)
    else:
        err.print(message, markup=False)


def show_bars() -> bool:
    """Progress bars only for a person: a terminal, not -q, no NO_COLOR, no dumb terminal."""
    quiet = Verbosity.level < 0 or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return err.is_terminal and not quiet and Audience.listener is None


class LineProgress(Progress):
    """A bar where a terminal shows it, else a plain line now and then, for log files; nothing with -q."""

    def __init__(self, *columns: Any, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._told: dict[TaskID, tuple[float, float]] = {}  # when the last line was written, and at which share

    def add_task(self, description: str, *arguments: Any, **options: Any) -> TaskID:
        task = super().add_task(description, *arguments, **options)
        self._told[task] = (time.monotonic(), 0.0)
        return task

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        task = self._tasks[task_id]
        if Audience.listener is not None and task.total:
            Audience.listener.progressed(task.description, task.completed / task.total)
            return
        if not self.disable or not task.total:
            return
        share, now = task.completed / task.total, time.monotonic()
        when, before = self._told[task_id]
        if share >= 1 or now - when < (QUIET_SECONDS if share - before >= LINE_SHARE else LINE_SECONDS):
            return
        self._told[task_id] = (now, share)
        elapsed = task.elapsed or 0.0
        left = f", about {elapsed * (1 - share) / share:.0f} s left" if share > 0 else ""
        say(f"{task.description}: {share:.0%} after {elapsed:.0f} s{left}")


class Watched:
    """A task's :data:`invsolve.tasks.task.Progress` that moves a bar, and shows the estimate to a listener."""

    def __init__(self, show: Report, listener: Listener) -> None:
        self.show, self.look = show, listener.estimated

    def __call__(self, done: float, /) -> None:
        self.show(done)


def reporting(show: Report) -> Report:
    """What a task is to tell its progress, for a bar that is moved by ``show``."""
    return show if Audience.listener is None else Watched(show, Audience.listener)


def progress_bar(*columns: str) -> LineProgress:
    """A bar with share, elapsed and remaining time; extra columns are format strings over the task's fields."""
    extra = [TextColumn(column) for column in columns]
    return LineProgress(
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
def clean_stdout() -> Iterator[Callable[[], None]]:
    """Send whatever libraries print to stderr, so that only results reach stdout; what is yielded ends that early."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)

    def restore() -> None:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)

    with ExitStack() as ended:
        ended.callback(restore)
        yield ended.close


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """What C libraries write to stderr of their own accord goes nowhere meanwhile: libtiff does, of files that are damaged."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


def hide_warnings() -> None:
    """Warnings of libraries are for developers: shown at -vv only, unless Python was told otherwise (-W)."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        say(f"{category.__name__}: {message}", level=2)

    if not sys.warnoptions:
        warnings.showwarning = show


def open_standard_streams() -> None:
    """Where stdin, stdout or stderr was closed, open nothing in its place: else the next file opened would be taken
    for it. What is written to a closed stdout is an error, of which :func:`exit_code_of` tells. What the encoding of stdout
    lacks, or a name that is no text, is written as an escape."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)  # the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def forget_stdout() -> None:
    """Nobody reads stdout any more: what Python still wants to write there when it ends goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def one_line(message: str) -> str:
    """A message without line breaks and control characters, such as a file's name can hold, and not without end."""
    flat = " ".join(message.split())
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in flat)
    return plain if len(plain) <= LONGEST_MESSAGE else f"{plain[:LONGEST_MESSAGE]}..."


def report(message: str, hint: str = "") -> None:
    """``error: what`` and ``hint: the way out``, one line each."""
    if Audience.listener is not None:
        Audience.listener.failed(one_line(message), one_line(hint))
        return
    err.print(f"error: {one_line(message)}", markup=False, style="red")
    if hint:
        err.print(f"hint: {one_line(hint)}", markup=False)


def exit_code_of(error: BaseException) -> int:
    """Report ``error`` on stderr and return its documented exit code."""
    if isinstance(error, InvsolveError):
        report(error.message, error.hint)
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        err.print("interrupted")
        return 128 + error.number if isinstance(error, Terminated) else int(ExitCode.INTERRUPTED)
    if out_of_memory(error):
        report("out of memory", "use fewer --samples, or a smaller picture")
        return int(ExitCode.FAILED)
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        forget_stdout()  # such as `invsolve models | head -1`: the reader has seen enough
        return int(ExitCode.OUTPUT)
    if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:
        return _exit_code_of_system(error)
    reason = str(error) or "no message"
    report(f"{type(error).__name__}: {reason}", "this is a bug; run again with -vv for a traceback and report it")
    return int(ExitCode.FAILED)


def out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch ran out of memory, on the CPU or on a GPU."""
    signs = (
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "Unable to allocate",
        "failed to map segment",
    )
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


def _has_folder() -> bool:
    """Whether the folder that the command runs in is still there."""
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _exit_code_of_system(error: OSError) -> int:
    """What the operating system refuses: a disk that is full, a stream that is closed, or a path it cannot follow."""
    where = f"{str(error.filename)[:200]}: " if error.filename is not None else ""
    if error.errno in FULL:
        report(f"cannot write: {where}{error.strerror}", "free some space or choose another place with -o")
        return int(ExitCode.OUTPUT)
    if error.errno == errno.EBADF and not where:
        forget_stdout()
        report("stdout is closed, and the result goes there", "give it a reader, or name a file with -o")
        return int(ExitCode.OUTPUT)
    if of_the_machine(error):
        report(f"{where}{error.strerror}", "raise the limit with ulimit -n 1024, or end other programs")
        return int(ExitCode.FAILED)
    if error.errno == errno.ENOENT and not where and not _has_folder():
        report("the folder that this runs in is no more", "change to one that is there, such as with cd")
        return int(ExitCode.BAD_INPUT)
    report(f"{where}{error.strerror}", "check the path and its permissions")
    return int(ExitCode.BAD_INPUT)
