"""The commands, put together. They live in one file each; torch is imported only when a command needs it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from invsolve._version import __version__
from invsolve.cli.check import check
from invsolve.cli.colorize import colorize, defaults_in_force
from invsolve.cli.config import configurable
from invsolve.cli.console import (
    Verbosity,
    exit_code_of,
    forget_stdout,
    hide_warnings,
    open_standard_streams,
    report,
)
from invsolve.cli.ct import ct
from invsolve.cli.deblur import deblur
from invsolve.cli.dejpeg import dejpeg
from invsolve.cli.demo import demo
from invsolve.cli.denoise import denoise
from invsolve.cli.describe import describe
from invsolve.cli.doctor import doctor
from invsolve.cli.evaluate import evaluate
from invsolve.cli.generate import generate
from invsolve.cli.inpaint import inpaint
from invsolve.cli.interpolate import interpolate
from invsolve.cli.likelihood import likelihood
from invsolve.cli.man import man
from invsolve.cli.merge import merge
from invsolve.cli.models import models
from invsolve.cli.mri import mri
from invsolve.cli.plugins import plugin_command, plugin_names
from invsolve.cli.sample import sample
from invsolve.cli.simulate import simulate
from invsolve.cli.simulate_mri import simulate_mri
from invsolve.cli.solve import solve
from invsolve.cli.stroke import stroke
from invsolve.cli.superres import superres
from invsolve.cli.train import train
from invsolve.cli.ui import ui
from invsolve.cli.verify import verify
from invsolve.errors import ExitCode, UsageError

EXIT_CODES = (
    "Exit codes: 0 ok; 1 the solve failed; 2 usage; 3 bad input; 4 model or device; 5 output exists or cannot be "
    "written; 6 some of several pictures failed; 130 interrupted (143 or 129 by a request to end)."
)


class Stopped(Exception):
    """Carries Ctrl-C, or an error of the operating system, past Typer, which would end the program in its own way."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Program(TyperGroup):
    """All commands, those of installed plug-ins behind our own; what they raise reaches :func:`run`."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *(name for name in plugin_names() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or plugin_command(cmd_name, EXIT_CODES)

    def make_context(self, *given: Any, **named: Any) -> Any:
        try:
            return super().make_context(*given, **named)
        except KeyboardInterrupt as error:
            raise Stopped(error) from error

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, OSError) as error:
            raise Stopped(error) from error


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Solve imaging inverse problems with one score model: repair, enlarge, sharpen, denoise or colour a "
    "photo, see a CT slice.",
    epilog=EXIT_CODES,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"invsolve {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


app.command(epilog=EXIT_CODES)(inpaint)
app.command(epilog=EXIT_CODES)(colorize)
app.command(epilog=EXIT_CODES)(superres)
app.command(epilog=EXIT_CODES)(deblur)
app.command(epilog=EXIT_CODES)(denoise)
app.command(epilog=EXIT_CODES)(dejpeg)
app.command(epilog=EXIT_CODES)(ct)
app.command(epilog=EXIT_CODES)(mri)
app.command(epilog=EXIT_CODES)(merge)
app.command(epilog=EXIT_CODES)(solve)
simulate.command("mri")(simulate_mri)
app.add_typer(simulate, name="simulate", epilog=EXIT_CODES)
app.command(epilog=EXIT_CODES)(sample)
app.command(epilog=EXIT_CODES)(generate)
app.command(epilog=EXIT_CODES)(describe)
app.command(epilog=EXIT_CODES)(stroke)
app.command(epilog=EXIT_CODES)(likelihood)
app.command(epilog=EXIT_CODES)(interpolate)
app.command(epilog=EXIT_CODES)(train)
app.add_typer(models, name="models", epilog=EXIT_CODES)
app.command(epilog=EXIT_CODES)(verify)
app.command(epilog=EXIT_CODES)(check)
app.command(epilog=EXIT_CODES)(evaluate)
app.command(epilog=EXIT_CODES)(doctor)
app.command(epilog=EXIT_CODES)(man)
app.command(epilog=EXIT_CODES)(demo)
app.command(epilog=EXIT_CODES)(ui)
for one in (*app.registered_commands, *simulate.registered_commands):
    if one.callback is not None:
        one.callback = configurable(one.callback, defaults_in_force if one.callback is colorize else None)


def run() -> int:
    """Run the command that ``sys.argv`` asks for; its exit code, every error reported."""
    open_standard_streams()
    hide_warnings()
    try:
        error: BaseException
        check_words(sys.argv[1:])
        code = app(standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else int(ExitCode.OK)
    except Stopped as stop:
        error = stop.cause
    except SystemExit as stop:  # what Typer makes of a reader of --help who leaves early
        if not isinstance(stop.__context__, OSError):
            raise
        error = stop.__context__
    except Exception as other:  # noqa: BLE001 - the one place where everything is reported
        error = other
    if Verbosity.level >= 2:
        traceback.print_exception(error)
    if hasattr(error, "format_message"):
        return _exit_code_of_usage(error)
    code = exit_code_of(error)
    try:
        sys.stdout.flush()
    except OSError:
        forget_stdout()
    return code


def check_words(words: Sequence[str]) -> None:
    """Refuse an empty word: as a path it would be the folder one is in, with all that is below it.

    Raises
    ------
    UsageError : there is one.
    """
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if "" in parts:
        at = parts.index("")
        after = f" after {parts[at - 1]}" if at else ""
        raise UsageError(f"an empty word{after}", hint="is a variable of the shell not set?")


def _exit_code_of_usage(error: Any) -> int:
    """What Typer found wrong with the options, said the way all errors are."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(ExitCode.USAGE)
    command = error.ctx.command_path if getattr(error, "ctx", None) else "invsolve"
    message = error.format_message()
    hash_lost = "--mask-colo" in message and "requires an argument" in message  # a shell takes # for a comment
    report(message, "quote the colour, '#ff00ff', or leave the # out" if hash_lost else f"see {command} --help")
    return int(ExitCode.USAGE)
