"""Options that several commands have, as the fields of one record."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar, get_type_hints

import typer

from invsolve.cli.budget import note_asked

R = TypeVar("R")
T = TypeVar("T")


def with_record(
    defaults: R,
    name: str,
    *,
    without: tuple[str, ...] = (),
    call: Callable[[Callable[..., Any], R, tuple[Any, ...], dict[str, Any]], Any] | None = None,
    **others: Any,
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a command the fields of a dataclass as options, behind its own; it gets them as one argument.

    Parameters
    ----------
    defaults : a record, whose values are the options' defaults.
    name : of the command's argument for the record.
    without : fields that are no options of this command.
    call : calls the command, given it, the record, and its own arguments by place and by name.
    others : options that are declared otherwise for this command.
    """
    hints = get_type_hints(type(defaults), include_extras=True) | others
    shared = [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=getattr(defaults, f.name), annotation=hints[f.name]
        )
        for f in fields(defaults)  # type: ignore[arg-type]
        if f.name not in without
    ]

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.name != name]

        @functools.wraps(command)
        def run(*arguments: Any, **given: Any) -> Any:
            changed = {parameter.name: given.pop(parameter.name) for parameter in shared if parameter.name in given}
            record = replace(defaults, **changed)  # type: ignore[type-var]
            if call is not None:
                return call(command, record, arguments, given)
            return command(*arguments, **given, **{name: record})

        run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*own, *shared]} | {"return": signature.return_annotation}
        return run

    return decorate


def noting_asked(command: Callable[..., T]) -> Callable[..., T]:
    """A command that remembers, when the command line calls it, which options were given."""
    signature = inspect.signature(command)
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=typer.Context)

    @functools.wraps(command)
    def run(*arguments: Any, **given: Any) -> T:
        note_asked(given.pop("context", None))
        return command(*arguments, **given)

    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), context])  # type: ignore[attr-defined]
    run.__annotations__ = command.__annotations__ | {"context": typer.Context}
    return run
