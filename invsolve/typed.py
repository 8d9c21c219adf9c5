"""Values from outside the program against the types they should have: arguments in a name, fields of a JSON file.

Only types that JSON and Python literals can express are known: None, bool, int, float, str, ``Literal``, tuples, lists,
dictionaries, ``Any`` and unions of them. Floats are finite, whole numbers may stand for floats, lists for tuples.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

LARGEST_INTEGER = 2**63 - 1

T = TypeVar("T")


def fits(value: Any, wanted: Any) -> bool:
    """Whether ``value`` is of the type ``wanted``; no value is of a type that is not listed above."""
    if isinstance(wanted, NewType):
        wanted = wanted.__supertype__
    if wanted is Any:
        return True
    if wanted is None or wanted is types.NoneType:
        return value is None
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER
    if wanted in (bool, str):
        return isinstance(value, wanted)
    return _fits_composed(value, get_origin(wanted), get_args(wanted))


def _fits_composed(value: Any, origin: Any, parts: tuple[Any, ...]) -> bool:
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if origin is list or (origin is tuple and parts[-1] is Ellipsis):
        return isinstance(value, list | tuple) and all(fits(one, parts[0]) for one in value)
    if origin is tuple:
        same = isinstance(value, list | tuple) and len(value) == len(parts)
        return same and all(fits(one, part) for one, part in zip(value, parts, strict=True))
    return False


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def describe(wanted: Any) -> str:
    """A type in words: "a whole number or None"."""
    words = {float: "a finite number", int: "a whole number", str: "a text", bool: "True or False"}
    if wanted in words:
        return words[wanted]
    if wanted is None or wanted is types.NoneType:
        return "None"
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part) for part in parts)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin is dict:
        return "named values"
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"({', '.join(map(describe, parts))})"
    if origin in (list, tuple):
        inner = dict.fromkeys(describe(part) for part in parts if part is not Ellipsis)
        return f"a list of: {', '.join(inner)}"
    return "something that cannot be written here"


def brief(value: Any, length: int = 60) -> str:
    """``repr(value)``, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, lists in lists in lists
        return f"{type(value).__name__} too long to show"
    return text if len(text) <= length else f"{text[:length]}..."


def first_misfit(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """A sentence about the first of ``values`` that is unknown or not of its ``wanted`` type; None if all are."""
    for name, value in values.items():
        if name not in wanted:
            return f"{brief(name)} is not known"
        if not fits(value, wanted[name]):
            return f"{name} is {brief(value)}, wanted {describe(wanted[name])}"
    return None


def network_config(cls: Callable[..., T], fields: Mapping[str, Any]) -> T:
    """A network's description, a dataclass ``cls``, of plain JSON: lists become tuples.

    Raises
    ------
    ValueError : unknown or missing fields, or values of other types.
    """
    if wrong := first_misfit(fields, get_type_hints(cls)):
        raise ValueError(f"the network's {wrong}")
    known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    try:
        return cls(**known)
    except TypeError:
        raise ValueError("the network's description lacks fields") from None
