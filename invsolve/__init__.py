"""invsolve: imaging inverse problems solved with one score model.

>>> from invsolve import load_prior, inpaint, colorize, solve, condition, Posterior
>>> from invsolve import forward_models, samplers

Names are imported on first use, so ``import invsolve`` alone is quick and loads neither torch nor a projector.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from invsolve._version import __version__

if TYPE_CHECKING:
    from invsolve import forward_models, samplers
    from invsolve.colorization import colorize
    from invsolve.generation import generate, sample
    from invsolve.inpainting import inpaint
    from invsolve.posterior import Posterior
    from invsolve.pretrained.loading import load_classifier, load_prior
    from invsolve.rules import condition
    from invsolve.solver import solve

_HOMES = {
    "load_prior": "invsolve.pretrained.loading",
    "load_classifier": "invsolve.pretrained.loading",
    "solve": "invsolve.solver",
    "condition": "invsolve.rules",
    "Posterior": "invsolve.posterior",
    "inpaint": "invsolve.inpainting",
    "colorize": "invsolve.colorization",
    "sample": "invsolve.generation",
    "generate": "invsolve.generation",
}
_MODULES = ("forward_models", "samplers")

__all__ = [
    "Posterior",
    "__version__",
    "colorize",
    "condition",
    "forward_models",
    "generate",
    "inpaint",
    "load_classifier",
    "load_prior",
    "sample",
    "samplers",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"invsolve.{name}")
    raise AttributeError(f"module 'invsolve' has no attribute {name!r}")
