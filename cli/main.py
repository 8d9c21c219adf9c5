"""Entry point. Commands live in one file each; torch is imported only when a command needs it."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from invsolve._version import __version__
from invsolve.cli.colorize import colorize
from invsolve.cli.console import Verbosity, exit_code_of
from invsolve.cli.ct import ct
from invsolve.cli.demo import demo
from invsolve.cli.generate import generate
from invsolve.cli.inpaint import inpaint
from invsolve.cli.interpolate import interpolate
from invsolve.cli.likelihood import likelihood
from invsolve.cli.models import models
from invsolve.cli.sample import sample
from invsolve.cli.simulate import simulate
from invsolve.cli.train import train
from invsolve.cli.verify import verify

EXIT_CODES = (
    "Exit codes: 0 ok; 1 the solve failed; 2 usage; 3 bad input; 4 model or device; 5 output exists or cannot be "
    "written; 130 interrupted."
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Solve imaging inverse problems with one score model: repair a photo, colour a grey one, see a CT slice.",
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
app.command(epilog=EXIT_CODES)(ct)
app.add_typer(simulate, name="simulate", epilog=EXIT_CODES)
app.command(epilog=EXIT_CODES)(sample)
app.command(epilog=EXIT_CODES)(generate)
app.command(epilog=EXIT_CODES)(likelihood)
app.command(epilog=EXIT_CODES)(interpolate)
app.command(epilog=EXIT_CODES)(train)
app.command(epilog=EXIT_CODES)(models)
app.command(epilog=EXIT_CODES)(verify)
app.command(epilog=EXIT_CODES)(demo)


def main() -> None:
    """Run the command; every error becomes one line, a hint and an exit code."""
    try:
        app()
    except SystemExit as stop:
        # Typer has turned Ctrl-C into exit code 130 without a word.
        if isinstance(getattr(stop.__context__, "__cause__", None), KeyboardInterrupt):
            exit_code_of(KeyboardInterrupt())
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place where everything is reported
        if Verbosity.level >= 2:
            traceback.print_exc()
        sys.exit(exit_code_of(error))


if __name__ == "__main__":
    main()
