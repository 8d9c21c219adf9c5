"""Samplers: free functions ``sampler(model, x, sigmas, noise, *, callback=None) -> x``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from torch import Tensor

from invsolve.errors import UsageError
from invsolve.samplers.corrected import ancestral_corrected
from invsolve.samplers.daps import daps
from invsolve.samplers.heun import heun_sde, ode
from invsolve.samplers.info import Callback, StepInfo
from invsolve.samplers.langevin import annealed_langevin
from invsolve.samplers.multistep import multistep
from invsolve.samplers.ode_adaptive import ode_adaptive
from invsolve.samplers.predictor_corrector import predictor_corrector
from invsolve.samplers.renoising import ancestral, renoising
from invsolve.samplers.reverse_sde import reverse_sde
from invsolve.samplers.split_gibbs import split_gibbs
from invsolve.samplers.twisted import twisted

Sampler = Callable[..., Tensor]

SAMPLERS: dict[str, Sampler] = {
    "renoising": renoising,
    "ancestral": ancestral,
    "ancestral_corrected": ancestral_corrected,
    "multistep": multistep,
    "langevin": annealed_langevin,
    "split_gibbs": split_gibbs,
    "daps": daps,
    "twisted": twisted,
    "pc": predictor_corrector,
    "reverse_sde": reverse_sde,
    "heun_sde": heun_sde,
    "ode": ode,
    "ode_adaptive": ode_adaptive,
}


def find_sampler(name: str) -> Sampler:
    """A sampler by name: the built-in ones, then those that installed packages offer under ``invsolve.samplers``."""
    if name in SAMPLERS:
        return SAMPLERS[name]
    for entry in entry_points(group="invsolve.samplers", name=name):
        loaded: Any = entry.load()
        return loaded
    raise UsageError(f"unknown sampler {name!r}", hint=f"known samplers: {', '.join(SAMPLERS)}")


__all__ = [
    "SAMPLERS",
    "Callback",
    "Sampler",
    "StepInfo",
    "ancestral",
    "ancestral_corrected",
    "annealed_langevin",
    "daps",
    "find_sampler",
    "heun_sde",
    "multistep",
    "ode",
    "ode_adaptive",
    "predictor_corrector",
    "renoising",
    "reverse_sde",
    "split_gibbs",
    "twisted",
]
