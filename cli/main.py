"""Entry point: runs a command and turns every error into one line, a hint and a documented exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from invsolve.errors import terminate

if TYPE_CHECKING:
    import typer

    app: typer.Typer

SHARING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Environment for PyTorch's OpenMP, unless it is set already: threads that wait for each other sleep. By default they spin,
and where another program wants their core, that takes the time of the very thread waited for (benchmarks/busy.py)."""


def __getattr__(name: str) -> Any:
    # The commands are imported when they are asked for, so that Ctrl-C meanwhile is answered here as well.
    if name == "app":
        from invsolve.cli.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def end_in_order() -> None:
    """Let a request to terminate, and a terminal that is closed, end a command as Ctrl-C does: by default the system ends it on
    the spot, and temporary files stay. What is ignored, as under nohup, or handled otherwise stays so."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            with suppress(ValueError):  # not the main thread
                signal.signal(number, terminate)


def main() -> None:
    """Run the command line and end the process with an exit code of :class:`invsolve.errors.ExitCode`."""
    for name, value in SHARING.items():
        os.environ.setdefault(name, value)
    end_in_order()
    began = time.perf_counter()
    try:
        from invsolve.cli.app import run
        from invsolve.cli.budget import BEGAN

        BEGAN.set(began)
        code = run()
    except KeyboardInterrupt as stop:  # while modules were loaded, or while another error was reported
        sys.stderr.write("interrupted\n")
        code = 128 + getattr(stop, "number", signal.SIGINT)
    # Under `python -m`, CPython ends by SIGINT instead of with a code if Ctrl-C came while text was executed, as dataclasses do
    # when modules are loaded, even where it was caught; it forgets that when it executes more text.
    exec("")  # noqa: S102
    sys.exit(code)


if __name__ == "__main__":
    main()
