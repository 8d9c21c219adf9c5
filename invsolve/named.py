"""Functions by name, with arguments as Python writes them: ``moment_matching(tolerance=0.2, steps=6)``."""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from invsolve.errors import UsageError
from invsolve.typed import brief, describe, fits

LONGEST = 500
"""Characters of a name with its arguments."""

LARGEST_COUNT = 10**6
"""No argument that counts something may be larger: a million steps per noise level end in nobody's lifetime."""

LARGEST_NUMBER = 1e12
"""No argument of a known function may be larger: its square must still be a number in single precision."""


def find(kind: str, text: str, known: Mapping[str, Callable[..., Any]], arguments: int) -> Callable[..., Any]:
    """A function by name: a known one, else one that installed packages offer under ``invsolve.<kind>s``.

    Only numbers, strings and the like are read from ``text``, nothing is run. ``arguments`` is how many the caller will
    give by position.

    Raises
    ------
    UsageError : no such name, no such argument, an argument of another type than the function's, or not a call by
        keywords.
    """
    if not text.endswith(")"):
        return _find_bare(kind, text, known)
    example = {"rule": "moment_matching(tolerance=0.2, steps=6)"}.get(kind, "ancestral_corrected(step=0.5)")
    try:
        name, keywords = _parse(text)
        function = _find_bare(kind, name, known)
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


def _find_bare(kind: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    if name in known:
        return known[name]
    for entry in entry_points(group=f"invsolve.{kind}s", name=name):
        try:
            loaded: Callable[..., Any] = entry.load()
        except Exception as error:  # another package's code may raise anything
            raise UsageError(
                f"the {kind} {name} of {entry.value} cannot be loaded: {type(error).__name__}: {error}",
                hint="mend or remove the package that offers it",
            ) from error
        return loaded
    raise UsageError(f"unknown {kind} {brief(name)}", hint=f"known {kind}s: {', '.join(known)}")


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """Name and keyword arguments of a call, of which nothing but literals is read."""
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


def _check_values(function: Callable[..., Any], keywords: Mapping[str, Any]) -> None:
    """Raise a ValueError for the first argument that is not of the type its function says; unsaid, any will do."""
    try:
        hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError):  # names that only a type checker sees
        return
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
