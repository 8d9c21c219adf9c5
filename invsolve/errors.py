"""Exceptions that carry a message, a way out and the command line's exit code."""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the ``invsolve`` command: a stable interface."""

    OK = 0
    FAILED = 1  # the solve itself failed (divergence, out of memory)
    USAGE = 2  # unknown option, missing argument, impossible combination
    BAD_INPUT = 3  # a picture, mask or data file that is missing, broken or does not fit
    MODEL = 4  # weights or a dependency missing, damaged or unknown
    OUTPUT = 5  # output exists, or cannot be written
    SOME_FAILED = 6  # of several pictures some have no result; the others do
    HUNG_UP = 129  # SIGHUP: the terminal was closed
    INTERRUPTED = 130  # Ctrl-C
    TERMINATED = 143  # SIGTERM: kill, a scheduler, a machine that shuts down


class Terminated(KeyboardInterrupt):
    """A request to end, taken like Ctrl-C: what is half-written goes, what is done stays."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def terminate(number: int, _: object) -> None:
    """Handler of SIGTERM and SIGHUP.

    Raises
    ------
    Terminated : always.
    """
    raise Terminated(number)


LONGEST_LINE = 300
"""Characters: some libraries put what they could not read into their message."""


MACHINE = frozenset({errno.EMFILE, errno.ENFILE})


def of_the_machine(error: BaseException) -> bool:
    """Whether it is the machine, and not the file, that keeps it from being read: no more files can be opened."""
    return isinstance(error, OSError) and error.errno in MACHINE


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line that is not without end; its type where it says nothing."""
    line = (str(error).splitlines() or [""])[0] or type(error).__name__
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


class InvsolveError(Exception):
    """Base of all errors meant for a person: ``message`` says what is wrong, ``hint`` what to do."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class SolveError(InvsolveError):
    """The sampler diverged or ran out of memory."""


class UsageError(InvsolveError, ValueError):
    """Arguments that do not fit together."""

    exit_code = ExitCode.USAGE


class InputError(InvsolveError, ValueError):
    """A file or array that is missing, broken or of the wrong shape, range or unit."""

    exit_code = ExitCode.BAD_INPUT


class ModelError(InvsolveError):
    """Weights, a card or a device that is missing, damaged or unknown."""

    exit_code = ExitCode.MODEL


class OutputError(InvsolveError):
    """The result cannot be written, or would overwrite something."""

    exit_code = ExitCode.OUTPUT


class PicturesError(InvsolveError):
    """Of several pictures some failed, or are missing; the others are done."""

    exit_code = ExitCode.SOME_FAILED
