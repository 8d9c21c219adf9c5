"""Commands of other installed packages: listed without importing them, imported when they are run."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand

from invsolve.errors import InvsolveError, SolveError, UsageError, first_line

GROUP = "invsolve.commands"


class PluginCommand(TyperCommand):
    """Stands for a command whose package is imported only when it is asked for."""

    def __init__(self, entry: EntryPoint, epilog: str) -> None:
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        super().__init__(entry.name, help=f"From the package {package}.", rich_help_panel="Commands of other packages")
        self.entry, self.own_epilog = entry, epilog
        self.loaded: Any = None

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        self.loaded = load_command(self.entry, self.own_epilog)
        context = self.loaded.make_context(info_name, args, parent, **extra)
        context.command = self  # so that it is run by the method below
        return context

    def invoke(self, ctx: Any) -> Any:
        """Run it; what it raises is that package's error, not ours."""
        try:
            return self.loaded.invoke(ctx)
        except (InvsolveError, typer.Exit, typer.Abort, OSError, MemoryError):
            raise
        except Exception as error:
            if hasattr(error, "format_message"):  # a usage error
                raise
            raise SolveError(
                f"the command {self.entry.name} of {self.entry.value} raised {type(error).__name__}: {first_line(error)}",
                hint="it is no part of invsolve; tell its authors",
            ) from error


def plugin_names() -> list[str]:
    """Names of the commands that installed packages offer."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def plugin_command(name: str, epilog: str) -> PluginCommand | None:
    """The command of that name, not imported yet; of two packages that offer it, the first one's."""
    for entry in entry_points(group=GROUP, name=name):
        return PluginCommand(entry, epilog)
    return None


def load_command(entry: EntryPoint, epilog: str) -> Any:
    """What the entry point names as a command: a function with Typer's annotations, a ``typer.Typer``, or a command.

    Raises
    ------
    UsageError : it cannot be imported, or is no such thing.
    """
    try:
        found = entry.load()
        if hasattr(found, "make_context"):
            return found
        if not isinstance(found, typer.Typer):
            if not callable(found):
                raise TypeError(f"it is a {type(found).__name__}, wanted a function or a typer.Typer")
            app = typer.Typer(add_completion=False)
            app.command(entry.name, epilog=epilog)(found)
            found = app
        return typer.main.get_command(found)
    except (Exception, SystemExit) as error:  # another package's code may raise anything
        raise UsageError(
            f"the command {entry.name} of {entry.value} cannot be loaded: {type(error).__name__}: {first_line(error)}",
            hint="mend or remove the package that offers it",
        ) from error
