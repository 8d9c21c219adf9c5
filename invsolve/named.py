"""Functions by name, with arguments as Python writes them: ``moment_matching(tolerance=0.2, steps=6)``.

Names that other installed packages offer, as entry points, are found like our own; such a package is imported only when one of
its names is asked for.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from invsolve.errors import UsageError, first_line
from invsolve.typed import brief, describe, fits

LONGEST = 500
"""Characters of a name with its arguments."""

LARGEST_COUNT = 10**6
"""No argument that counts something may be larger: a million steps per noise level end in nobody's lifetime."""

LARGEST_NUMBER = 1e12
"""No argument of a known function may be larger: its square must still be a number in single precision."""


PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
"""What can be written in a name or a file; other values are the caller's own."""


def group_of(kind: str) -> str:
    """The group of entry points in which packages offer things of a kind."""
    return {"operator": "invsolve.forward_models"}.get(kind, f"invsolve.{kind}s")


def offered(kind: str) -> list[str]:
    """Names that installed packages offer, sorted; nothing is imported."""
    return sorted({entry.name for entry in entry_points(group=group_of(kind))})


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'sigma'? `` where a known name is near, else nothing: the beginning of a hint."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? " if close else ""


def bind(
    kind: str, name: str, known: Mapping[str, Callable[..., Any]], arguments: Mapping[str, Any], *, positional: int
) -> Callable[..., Any]:
    """A function by name with its keyword arguments, as :func:`find`, where they are data already.

    ``positional`` is how many more arguments the caller will give, ``device`` not counted, which is nobody's to write down.

    Raises
    ------
    UsageError : no such name, no such argument, an argument missing, or one of another type than the function's.
    """
    function = look_up(kind, name, known)
    if not callable(function):
        raise UsageError(
            f"the {kind} {name} is a {type(function).__name__}", hint="wanted something that can be called"
        )
    taken = list(inspect.signature(function).parameters.values())[positional:]
    written = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [one.name for one in taken if one.kind in written and one.name != "device"]
    if not any(one.kind is one.VAR_KEYWORD for one in taken):
        for argument in arguments:
            if argument not in named:
                takes = f"{name} takes {', '.join(named)}" if named else f"{name} takes no arguments"
                raise UsageError(f"{kind} {name}: {argument!r} is not known", hint=nearest(argument, named) + takes)
    for one in taken:
        if one.name in named and one.default is one.empty and one.name not in arguments:
            raise UsageError(f"{kind} {name}: {one.name!r} is missing", hint=f"{name} takes {', '.join(named)}")
    try:
        _check_values(function, {key: value for key, value in arguments.items() if isinstance(value, PLAIN)})
    except ValueError as error:
        raise UsageError(f"{kind} {name}: {error}", hint="give the argument another value") from None
    return partial(function, **arguments)


def find(kind: str, text: str, known: Mapping[str, Callable[..., Any]], arguments: int) -> Callable[..., Any]:
    """A function by name: a known one, else one that installed packages offer in the group of :func:`group_of`.

    Only numbers, strings and the like are read from ``text``, nothing is run. ``arguments`` is how many the caller will
    give by position.

    Raises
    ------
    UsageError : no such name, no such argument, an argument of another type than the function's, or not a call by
        keywords.
    """
    if not text.endswith(")"):
        return look_up(kind, text, known)
    example = {"rule": "moment_matching(tolerance=0.2, steps=6)"}.get(kind, "ancestral_corrected(step=0.5)")
    try:
        name, keywords = parse_call(text)
        function = look_up(kind, name, known)
        inspect.signature(function).bind(*[None] * arguments, **keywords)
        _check_values(function, keywords)
        if function is known.get(name):
            _check_signs(keywords)
    except UsageError:
        raise
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or "too deeply nested"
        raise UsageError(
            f"{kind} {brief(text)}: {reason}", hint=f"wanted a name with keywords, such as {example}"
        ) from None
    return partial(function, **keywords)


def look_up(kind: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """A function by its bare name, as :func:`find`.

    Raises
    ------
    UsageError : no such name, or an installed package that offers it cannot be imported.
    """
    if name in known:
        return known[name]
    for entry in entry_points(group=group_of(kind), name=name):
        try:
            loaded: Callable[..., Any] = entry.load()
        except (Exception, SystemExit) as error:  # another package's code may raise anything
            raise UsageError(
                f"the {kind} {name} of {entry.value} cannot be loaded: {type(error).__name__}: {first_line(error)}",
                hint="mend or remove the package that offers it",
            ) from error
        return loaded
    names = [*known, *(one for one in offered(kind) if one not in known)]
    raise UsageError(f"unknown {kind} {brief(name)}", hint=f"{nearest(name, names)}known {kind}s: {', '.join(names)}")


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Name and keyword arguments of a call, of which nothing but literals is read.

    Raises
    ------
    ValueError, SyntaxError, RecursionError, MemoryError : no such call.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} characters, at most {LONGEST} are read")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as an invalid escape in a string
        call = ast.parse(text, mode="eval").body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args):
        raise ValueError("not a call by keywords")
    keywords: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in keywords:
            raise ValueError("not a call by keywords, each given once")
        try:
            keywords[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            raise ValueError(f"{keyword.arg} is not a number, a text or the like") from None
    return call.func.id, keywords


def argument_types(function: Callable[..., Any]) -> dict[str, Any]:
    """The types that a function says its arguments have; empty where they cannot be told."""
    try:
        return get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError):  # names that only a type checker sees
        return {}


def _check_values(function: Callable[..., Any], keywords: Mapping[str, Any]) -> None:
    """Raise a ValueError for the first argument that is not of the type its function says; unsaid, any will do."""
    hints = argument_types(function)
    for name, value in keywords.items():
        if name not in hints:
            continue
        if not fits(value, hints[name]):
            raise ValueError(f"{name} is {brief(value)}, wanted {describe(hints[name])}")
        counts = fits(value, int) and not fits(0.5, hints[name])
        if counts and not 0 <= value <= LARGEST_COUNT:
            raise ValueError(f"{name} is {brief(value)}, wanted 0 to {LARGEST_COUNT}")


def _check_signs(keywords: Mapping[str, Any]) -> None:
    """Raise a ValueError for the first number that none of our own functions knows what to do with."""
    for name, value in keywords.items():
        if fits(value, float) and not 0 <= value <= LARGEST_NUMBER:
            raise ValueError(f"{name} is {brief(value)}, wanted 0 to {LARGEST_NUMBER:g}")


def name_of(function: Callable[..., Any], known: Mapping[str, Callable[..., Any]]) -> str:
    """What a report calls a function: its name, with the arguments it was given in alphabetical order."""
    if isinstance(function, partial):
        arguments = ", ".join(f"{key}={value!r}" for key, value in sorted(function.keywords.items()))
        return f"{name_of(function.func, known)}({arguments})"
    for name, one in known.items():
        if one is function:
            return name
    return getattr(function, "__name__", "custom")
