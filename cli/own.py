"""Rules, samplers and operators of a user's own, given as ``module:name``: loaded, checked, and blamed for what they
raise."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from invsolve.errors import InvsolveError, UsageError
from invsolve.forward_models import LinearOperator
from invsolve.models.score_model import ScoreModel
from invsolve.rules import RULES
from invsolve.samplers import SAMPLERS
from invsolve.typed import brief

RULE = "wanted a function or class called as rule(prior, forward_model, y) that makes a score model"
SAMPLER = "wanted a function called as sampler(model, x, sigmas, noise) that returns a tensor shaped as x"
OPERATOR = "wanted a LinearOperator, or a function without arguments that returns one"


class OwnCodeError(UsageError):
    """Somebody's own rule, sampler or operator is none, or raised something."""


def load_object(path: str) -> Any:
    """``module:name``, the working folder included in the search.

    Raises
    ------
    OwnCodeError : no such module or name, or the module raised something.
    """
    module, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        if module in _modules(error) or not isinstance(error, ImportError | AttributeError | TypeError | ValueError):
            raise _raised(f"importing {module}", error) from error
        hint = "wanted module:name of something that can be imported"
        raise OwnCodeError(f"cannot load {brief(path, 200)}: {error}", hint=hint) from error


def own_rule(path: str) -> Callable[..., ScoreModel]:
    """A rule given as ``module:name``, whose result is checked; one of this package's as it is."""
    found = load_object(path)
    if any(found is known for known in RULES.values()):
        return found
    _check_called_with(3, found, path, "rule", RULE)

    def rule(prior: Any, forward_model: Any, y: Any) -> ScoreModel:
        made = found(prior, forward_model, y)
        if not isinstance(made, ScoreModel):
            raise OwnCodeError(f"your rule {path} returned {_kind(made)}", hint=RULE)
        return made

    rule.__name__ = getattr(found, "__name__", "custom")
    return rule


def own_sampler(path: str) -> Callable[..., Tensor]:
    """A sampler given as ``module:name``, whose result is checked; one of this package's as it is."""
    found = load_object(path)
    if any(found is known for known in SAMPLERS.values()):
        return found
    _check_called_with(4, found, path, "sampler", SAMPLER)

    def sampler(model: Any, x: Any, sigmas: Any, noise: Any, **options: Any) -> Tensor:
        made = found(model, x, sigmas, noise, **options)
        if not isinstance(made, Tensor) or made.shape != x.shape:
            raise OwnCodeError(f"your sampler {path} returned {_kind(made)} for x of {tuple(x.shape)}", hint=SAMPLER)
        return made

    sampler.__name__ = getattr(found, "__name__", "custom")
    return sampler


def own_operator(path: str) -> LinearOperator:
    """A linear operator given as ``module:name``, or what a function of that name returns."""
    made = load_object(path)
    if not isinstance(made, LinearOperator):
        _check_called_with(0, made, path, "operator", OPERATOR)
        with blame({path: "operator"}):
            made = made()
    if not isinstance(made, LinearOperator):
        raise OwnCodeError(f"your operator {path} is {_kind(made)}", hint=OPERATOR)
    return made


@contextmanager
def blame(own: dict[str, str]) -> Iterator[None]:
    """Turn whatever is raised within into an OwnCodeError that names the user's own code.

    ``own`` maps ``module:name`` to what it is. Of several it is the one whose module raised; where none did, as for a
    tensor of a wrong shape over which something falls later, all of them.
    """
    try:
        yield
    except (InvsolveError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if not own or "out of memory" in str(error):
            raise
        homes = {path: path.partition(":")[0] for path in own}
        inner = next((module for module in reversed(_modules(error)) if module in homes.values()), None)
        guilty = [f"{kind} {path}" for path, kind in own.items() if inner in (None, homes[path])]
        raise _raised(f"your {' or '.join(guilty)}", error) from error


def _modules(error: BaseException) -> list[str]:
    """The modules that an error went through, the one that raised it last."""
    return [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]


def _raised(what: str, error: BaseException) -> OwnCodeError:
    reason = f": {error}" if str(error) else ""
    return OwnCodeError(f"{what} raised {type(error).__name__}{reason}", hint="run again with -vv for the traceback")


def _check_called_with(count: int, found: Any, path: str, kind: str, wanted: str) -> None:
    """An OwnCodeError unless ``found`` can be called with ``count`` arguments. Nothing is called to find that out."""
    try:
        inspect.signature(found).bind(*[None] * count)
        known = not inspect.isbuiltin(found)  # such as os.abort, which would take this program along
    except (TypeError, ValueError):
        known = False
    if not known:
        raise OwnCodeError(f"{path} is no {kind}: it is {_kind(found)}", hint=wanted)


def _kind(found: Any) -> str:
    """What somebody's object is: "the function loads(s, *, cls=None)", "a float"."""
    shape = getattr(found, "shape", None)
    if isinstance(shape, tuple):
        return f"a {type(found).__name__} of shape {tuple(shape)}"
    if inspect.isclass(found) or inspect.isroutine(found):
        try:
            arguments = str(inspect.signature(found))
        except (TypeError, ValueError):
            arguments = "(...)"
        shown = arguments if len(arguments) <= 100 else f"{arguments[:100]}..."
        return f"the {'class' if inspect.isclass(found) else 'function'} {found.__name__}{shown}"
    return f"a {type(found).__name__}"
