"""``--config FILE.toml`` and ``--show-config``: the options of a command from a file, and as a file.

A value comes from the command line, else from the environment where an option has a variable, else from the file, else
it is the default. Keys are the options' long names.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from invsolve.errors import UsageError, first_line
from invsolve.files import BOTH, regular_file
from invsolve.named import nearest
from invsolve.typed import brief

LARGEST = 2**20
"""Bytes of a file beyond which it is no configuration."""

NOT_IN_FILES = frozenset({"help", "config", "show-config", "dry-run"})

InForce = Callable[[Any], Mapping[str, Any]]
"""From the context of a command to the parameters that are not what they seem."""


def configurable(command: Callable[..., Any], in_force: InForce | None = None) -> Callable[..., Any]:
    """Give a command ``--config`` and ``--show-config``; one that has an option of that name keeps its own.

    ``in_force`` : of a command whose defaults depend on other options.
    """
    signature = inspect.signature(command, eval_str=True)
    if "config" in signature.parameters:
        return command
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (("config", None, Config), ("show_config", False, ShowConfig))
    ]

    @functools.wraps(command)
    def run(*arguments: Any, config: Path | None = None, show_config: Any = None, **given: Any) -> Any:
        if show_config:
            sys.stdout.write(as_toml(show_config, in_force(show_config) if in_force else {}))
            return None
        return command(*arguments, **given)

    parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": signature.return_annotation}
    return run


def use_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make a file's values the defaults, before any other option is looked at.

    Raises
    ------
    UsageError : no TOML, an unknown key, or a value that the option does not take.
    InputError : the file cannot be read.
    """
    if path is None:
        return None
    known = keys_of(context)
    values = {}
    for key, value in read_toml(path).items():
        if key not in known:
            command = context.command_path.replace("python -m ", "")
            raise UsageError(f"{path}: unknown key {brief(key)}", hint=f"{nearest(key, known)}see {command} --help")
        option = known[key]
        values[option.name] = checked(context, option, value, f"{path}: {key}")
    context.default_map = {**(context.default_map or {}), **values}
    return path


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content.

    Raises
    ------
    UsageError : it is no TOML, or too large for a configuration.
    """
    import tomllib

    file = regular_file(path, "configuration")
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST >> 20} MiB")
        return tomllib.loads(file.read_text(encoding=BOTH))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {first_line(error)}", hint="wanted lines such as steps = 40") from None


def keys_of(context: Any) -> dict[str, Any]:
    """Every option of a command by each of its long names."""
    found = {}
    for option in context.command.params:
        for name in option.opts:
            if name.startswith("--") and name[2:] not in NOT_IN_FILES:
                found[name[2:]] = option
    return found


def checked(context: Any, option: Any, value: Any, where: str) -> Any:
    """A file's value as the command line would give it, after checking that the option takes it.

    Raises
    ------
    UsageError : it does not.
    """
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) != bool(option.multiple) or not all(
        isinstance(one, str | int | float) for one in values
    ):
        raise UsageError(f"{where} is {brief(value)}", hint=f"wanted {'a list' if option.multiple else 'one value'}")
    if any("\0" in str(one) for one in values):  # no command line can have it, and no name of a file
        raise UsageError(f"{where} is {brief(value)}", hint="wanted a text without null characters")
    if bool(option.is_flag) != isinstance(value, bool):
        raise UsageError(
            f"{where} is {brief(value)}", hint=f"wanted {'true or false' if option.is_flag else 'no switch'}"
        )
    given = value if option.is_flag else [str(one) for one in values] if option.multiple else str(value)
    try:
        option.process_value(context, given)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        reason = " ".join(error.format_message().split())
        raise UsageError(f"{where}: {reason}", hint="correct the file; its values are those of the options") from None
    return given


def without_arguments(context: typer.Context, wanted: bool) -> Any:
    """The context itself where the options are only to be shown: what the command needs may be missing then."""
    if not wanted:
        return None
    needed = [parameter for parameter in context.command.params if parameter.required]
    for parameter in needed:
        parameter.required = False

    def restore() -> None:  # a process may run the command again
        for parameter in needed:
            parameter.required = True

    context.call_on_close(restore)
    return context


def as_toml(context: Any, changed: Mapping[str, Any]) -> str:
    """The options in force, with where each comes from; those that are not given are comments."""
    lines = [f"# {context.command_path}: options in force; read them with --config FILE.toml"]
    seen = set()
    for key, option in keys_of(context).items():
        if option.name in seen:
            continue
        seen.add(option.name)
        value = changed.get(option.name, context.params.get(option.name))
        source = context.get_parameter_source(option.name)
        origin = "" if source is None or source.name == "DEFAULT" else f"  # {ORIGINS.get(source.name, source.name)}"
        missing = value is None or (option.multiple and not value)
        lines.append(f"# {key} is not given" if missing else f"{key} = {toml_value(value)}{origin}")
    return "\n".join(lines) + "\n"


ORIGINS = {"COMMANDLINE": "command line", "ENVIRONMENT": "environment", "DEFAULT_MAP": "configuration file"}


def toml_value(value: Any) -> str:
    """One value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Enum):
        return toml_value(value.value)
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value)).replace("\x7f", "\\u007f")


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        callback=use_file,
        is_eager=True,
        show_default=False,
        help="Options by their long names, such as steps = 40. The command line and the environment go before the file, "
        "the file before the defaults.",
        rich_help_panel="Run",
    ),
]
ShowConfig = Annotated[
    bool,
    typer.Option(
        "--show-config",
        callback=without_arguments,
        is_eager=True,
        help="Print the options in force as such a file, and stop.",
        rich_help_panel="Run",
    ),
]
