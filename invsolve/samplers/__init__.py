"""Samplers: free functions ``sampler(model, x, sigmas, noise, *, callback=None) -> x``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from invsolve.named import find, name_of
from invsolve.samplers.corrected import ancestral_corrected
from invsolve.samplers.daps import daps
from invsolve.samplers.heun import heun_sde, ode
from invsolve.samplers.info import Callback, Needs, StepInfo, calls_per_level, expected_calls, needs, needs_of
from invsolve.samplers.langevin import annealed_langevin
from invsolve.samplers.multistep import multistep
from invsolve.samplers.ode_adaptive import ode_adaptive
from invsolve.samplers.posterior_mean import posterior_mean
from invsolve.samplers.predictor_corrector import predictor_corrector
from invsolve.samplers.redrawing import redrawing
from invsolve.samplers.renoising import ancestral, renoising
from invsolve.samplers.reverse_sde import reverse_sde
from invsolve.samplers.sde_adaptive import sde_adaptive
from invsolve.samplers.split_gibbs import split_gibbs
from invsolve.samplers.twisted import twisted

Sampler = Callable[..., Tensor]

SAMPLERS: dict[str, Sampler] = {
    "renoising": renoising,
    "redrawing": redrawing,
    "ancestral": ancestral,
    "ancestral_corrected": ancestral_corrected,
    "multistep": multistep,
    "langevin": annealed_langevin,
    "split_gibbs": split_gibbs,
    "daps": daps,
    "twisted": twisted,
    "pc": predictor_corrector,
    "reverse_sde": reverse_sde,
    "sde_adaptive": sde_adaptive,
    "heun_sde": heun_sde,
    "ode": ode,
    "ode_adaptive": ode_adaptive,
    "posterior_mean": posterior_mean,
}


def find_sampler(sampler: str | Sampler) -> Sampler:
    """A sampler by name, with arguments where any follow; see :func:`invsolve.named.find`. A function is one already."""
    return find("sampler", sampler, SAMPLERS, arguments=4) if isinstance(sampler, str) else sampler


def sampler_name(sampler: str | Sampler) -> str:
    """What a report calls a sampler: its name, with the arguments it was given in alphabetical order."""
    if isinstance(sampler, str):
        return sampler_name(find_sampler(sampler)) if sampler.endswith(")") else sampler
    return name_of(sampler, SAMPLERS)


__all__ = [
    "SAMPLERS",
    "Callback",
    "Needs",
    "Sampler",
    "StepInfo",
    "ancestral",
    "ancestral_corrected",
    "annealed_langevin",
    "calls_per_level",
    "daps",
    "expected_calls",
    "find_sampler",
    "heun_sde",
    "multistep",
    "needs",
    "needs_of",
    "ode",
    "ode_adaptive",
    "posterior_mean",
    "predictor_corrector",
    "redrawing",
    "renoising",
    "reverse_sde",
    "sampler_name",
    "sde_adaptive",
    "split_gibbs",
    "twisted",
]
