"""invsolve: imaging inverse problems solved with one score model.

>>> from invsolve import load_prior, inpaint, colorize, solve, condition, Posterior
>>> from invsolve import forward_models, samplers

Names are imported on first use, so ``import invsolve`` alone is quick and loads neither torch nor a projector.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from invsolve import _moved
from invsolve._version import __version__

if TYPE_CHECKING:
    from invsolve import forward_models, samplers
    from invsolve.ct.reconstruction import reconstruct_ct
    from invsolve.posterior import Posterior
    from invsolve.pretrained.loading import load_classifier, load_prior
    from invsolve.rules import condition
    from invsolve.solver import solve
    from invsolve.tasks.colorization import colorize
    from invsolve.tasks.deblurring import deblur
    from invsolve.tasks.dejpeg import dejpeg
    from invsolve.tasks.denoising import denoise
    from invsolve.tasks.generation import generate, sample
    from invsolve.tasks.inpainting import inpaint
    from invsolve.tasks.stroke import stroke
    from invsolve.tasks.superresolution import superres

_HOMES = {
    "load_prior": "invsolve.pretrained.loading",
    "load_classifier": "invsolve.pretrained.loading",
    "solve": "invsolve.solver",
    "condition": "invsolve.rules",
    "Posterior": "invsolve.posterior",
    "inpaint": "invsolve.tasks.inpainting",
    "colorize": "invsolve.tasks.colorization",
    "superres": "invsolve.tasks.superresolution",
    "deblur": "invsolve.tasks.deblurring",
    "dejpeg": "invsolve.tasks.dejpeg",
    "denoise": "invsolve.tasks.denoising",
    "reconstruct_ct": "invsolve.ct.reconstruction",
    "sample": "invsolve.tasks.generation",
    "generate": "invsolve.tasks.generation",
    "stroke": "invsolve.tasks.stroke",
}
_MODULES = ("forward_models", "samplers")

__all__ = [
    "Posterior",
    "__version__",
    "colorize",
    "condition",
    "deblur",
    "dejpeg",
    "denoise",
    "forward_models",
    "generate",
    "inpaint",
    "load_classifier",
    "load_prior",
    "reconstruct_ct",
    "sample",
    "samplers",
    "solve",
    "stroke",
    "superres",
]

_moved.install()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"invsolve.{name}")
    raise AttributeError(f"module 'invsolve' has no attribute {name!r}")
