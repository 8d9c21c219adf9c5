"""Networks trained elsewhere, for any SDE of :mod:`invsolve.models.sde` and any prediction, as score models.

Such a network is asked with u(t) = alpha w + std z, w = (x0 - center) / unit the clean picture in its own units. Every
prediction is a linear map of the estimate of w, whatever alpha and std are:

========= ========================================== ==================================================
predicts  what the network says                      E[w | u]
========= ========================================== ==================================================
score     s = grad log p_t(u)                        (u + std^2 s) / alpha     (Robbins 1956; Efron 2011)
noise     e = E[z | u] = -std s (Ho et al. 2020)     (u - std e) / alpha
data      E[w | u]                                   itself
v         alpha e - std w (Salimans and Ho 2022)     (alpha u - std v) / (alpha^2 + std^2)
========= ========================================== ==================================================

and E[x0 | x] = center + unit E[w | u]. Discrete chains are covered by the label alone: alpha of VP is a function of the
noise level, 1 / sqrt(1 + level^2), whatever the betas were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import FunctionPrior, per_image
from invsolve.models.sde import SDE, Curve, SDEName, edm, find_sde, vp_by_level

Predicts = Literal["score", "noise", "data", "v"]

LEAST_ALPHA_BAR = 1e-7
"""Steps of a chain with less of the picture in them are left out: in single precision nothing of it is left."""


def foreign_prior(
    network: Callable[[Tensor, Tensor], Tensor],
    sde: SDEName | SDE,
    predicts: Predicts,
    *,
    label: Curve | None = None,
    device: torch.device | str = "cpu",
    **facts: Any,
) -> FunctionPrior:
    """A network of another SDE as a prior.

    Parameters
    ----------
    network : ``network(u, label)`` with u (B, C, H, W) and one label per image (B,), in u's type.
    sde : what it was trained for; ``vp(center=0.0, unit=1.0)`` and the like where its pictures are in [0, 1].
    predicts : "score", "noise", "data" or "v".
    label : what the network is told, as a function of time (B,); default the time itself. score_sde's VP and sub-VP
        networks want ``lambda t: 999 * t``, its VE networks ``sde.std``; DDPM's steps are :func:`chain_label`'s.
    device : where the network is.
    facts : fields of :class:`invsolve.models.score_model.PriorFacts`, ``channels`` among them; sigma_min and sigma_max
        default to the SDE's.

    Raises
    ------
    UsageError : no such SDE or prediction.
    """
    process = find_sde(sde)
    if predicts not in ("score", "noise", "data", "v"):
        raise UsageError(f"predicts {predicts!r}", hint="wanted 'score', 'noise', 'data' or 'v'")
    told: Curve = (lambda t: t) if label is None else label

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        t = process.time_of(sigma)
        u = process.state(x, t)
        said = network(u, told(t).to(x))
        alpha, std = per_image(process.alpha(t), x), per_image(process.std(t), x)
        if predicts == "score":
            clean = (u + std**2 * said) / alpha
        elif predicts == "noise":
            clean = (u - std * said) / alpha
        elif predicts == "v":
            clean = (alpha * u - std * said) / (alpha**2 + std**2)
        else:
            clean = said
        return process.center + process.unit * clean

    ends = {"sigma_min": float(process.sigma(process.end)), "sigma_max": float(process.sigma(process.start))}
    return FunctionPrior(denoise, device=device, **{**ends, **facts})


def chain_label(alphas_bar: Tensor, sde: SDE) -> Curve:
    """The step of a discrete VP chain at a time of ``sde``, for :func:`foreign_prior`; between steps, linear in log sigma.

    Parameters
    ----------
    alphas_bar : (N,), alpha^2 of the chain's steps 0 to N - 1, falling (DDPM's cumulative product).
    sde : a VP SDE, whose betas do not matter here.
    """
    if alphas_bar.ndim != 1 or not bool((alphas_bar.diff() < 0).all()) or not 0 < float(alphas_bar[-1]) < 1:
        raise UsageError(
            "alphas_bar is not a falling sequence in (0, 1)", hint="pass the cumulative product of 1 - beta"
        )
    logs = 0.5 * torch.log((1 - alphas_bar.double()) / alphas_bar.double())

    def label(t: Tensor) -> Tensor:
        table = logs.to(t)
        wanted = (sde.std(t) / sde.alpha(t)).log()
        above = torch.searchsorted(table, wanted.contiguous()).clamp(1, len(table) - 1)
        share = (wanted - table[above - 1]) / (table[above] - table[above - 1])
        return (above - 1 + share).clamp(0, len(table) - 1)

    return label


def chain_prior(
    network: Callable[[Tensor, Tensor], Tensor],
    alphas_bar: Tensor,
    predicts: Predicts,
    *,
    rounded: bool = False,
    per_step: float = 1.0,
    **facts: Any,
) -> FunctionPrior:
    """A network of a discrete VP chain of pictures in [-1, 1] as a prior of pictures in [0, 1], from its first step to its last.

    Parameters
    ----------
    network, predicts, facts : as of :func:`foreign_prior`.
    alphas_bar : as of :func:`chain_label`.
    rounded : ask with whole steps only.
    per_step : what the label rises by from step to step.
    """
    process, sigmas = vp_by_level(), chain_sigmas(alphas_bar)
    between = chain_label(alphas_bar, process)

    def label(t: Tensor) -> Tensor:
        return per_step * (between(t).round() if rounded else between(t))

    ends = {"sigma_min": float(sigmas[0]), "sigma_max": float(sigmas[-1])}
    return foreign_prior(network, process, predicts, label=label, **{**ends, **facts})


def chain_sigmas(alphas_bar: Tensor) -> Tensor:
    """The noise levels (N,) of a chain's steps, of pictures in [0, 1] that the chain knows in [-1, 1]; rising."""
    return 0.5 * ((1 - alphas_bar) / alphas_bar).sqrt()


def known_steps(alphas_bar: Tensor) -> Tensor:
    """A chain's steps without those that hold next to nothing of the picture.

    Raises
    ------
    ValueError : what is left is no falling chain of at least two steps.
    """
    chain = alphas_bar[alphas_bar > LEAST_ALPHA_BAR]
    if len(chain) < 2 or not bool((chain.diff() < 0).all()):
        raise ValueError("the betas do not make a falling chain of at least two steps")
    return chain


def edm_prior(
    network: Callable[[Tensor, Tensor], Tensor],
    sigma_data: float,
    ends: tuple[float, float],
    *,
    sign: float = 1.0,
    **facts: Any,
) -> FunctionPrior:
    """A network in the preconditioning of Karras et al. 2022, table 1, of pictures in [-1, 1] as a prior of pictures in [0, 1].

    Parameters
    ----------
    network : as of :func:`foreign_prior`, told log(level) / 4.
    sigma_data : that it was trained with, in [-1, 1].
    ends : smallest and largest level, in [-1, 1].
    sign : of c_out.
    """

    def data(u: Tensor, level: Tensor) -> Tensor:
        sigma = per_image(level, u)
        scale = (sigma**2 + sigma_data**2).rsqrt()
        said = network(scale * u, 0.25 * level.log())
        return (sigma_data * scale) ** 2 * u + sign * sigma * sigma_data * scale * said

    return foreign_prior(data, level_sde(*ends), "data", **facts)


def level_sde(low: float, high: float) -> SDE:
    """The noise level itself as time, of pictures in [-1, 1]."""
    return replace(edm(), center=0.5, unit=0.5, start=high, end=low)
