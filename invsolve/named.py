"""Functions by name, with arguments as Python writes them: ``moment_matching(tolerance=0.2, steps=6)``."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from invsolve.errors import UsageError


def find(kind: str, text: str, known: Mapping[str, Callable[..., Any]], arguments: int) -> Callable[..., Any]:
    """A function by name: a known one, else one that installed packages offer under ``invsolve.<kind>s``.

    Only numbers, strings and the like are read from ``text``, nothing is run. ``arguments`` is how many the caller will
    give by position.

    Raises
    ------
    UsageError : no such name, no such argument, or not a call by keywords.
    """
    if not text.endswith(")"):
        if text in known:
            return known[text]
        for entry in entry_points(group=f"invsolve.{kind}s", name=text):
            loaded: Callable[..., Any] = entry.load()
            return loaded
        raise UsageError(f"unknown {kind} {text!r}", hint=f"known {kind}s: {', '.join(known)}")
    try:
        call = ast.parse(text, mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args):
            raise ValueError("not a call by keywords")
        keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        function = find(kind, call.func.id, known, arguments)
        inspect.signature(function).bind(*[None] * arguments, **keywords)
    except (SyntaxError, TypeError, ValueError) as error:
        example = {"rule": "moment_matching(tolerance=0.2, steps=6)"}.get(kind, "ancestral_corrected(step=0.5)")
        raise UsageError(f"{kind} {text!r}: {error}", hint=f"wanted a name with keywords, such as {example}") from None
    return partial(function, **keywords)


def name_of(function: Callable[..., Any], known: Mapping[str, Callable[..., Any]]) -> str:
    """What a report calls a function: its name, with the arguments it was given in alphabetical order."""
    if isinstance(function, partial):
        arguments = ", ".join(f"{key}={value!r}" for key, value in sorted(function.keywords.items()))
        return f"{name_of(function.func, known)}({arguments})"
    for name, one in known.items():
        if one is function:
            return name
    return getattr(function, "__name__", "custom")
