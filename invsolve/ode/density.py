"""The exact likelihood of a picture under a prior, by the probability-flow ODE.

Song et al. 2021, section 4.3 and appendix D.2, eq. 39: along the ODE ``dx / du = x - D(x, sigma)``, u = log(sigma), the
log density falls by the divergence ``d - tr(dD/dx)``, so

    log p(x) = log N(x_T; center, sigma_max^2 + sigma_data^2) + integral of (d - tr dD/dx) du.

In the state u = alpha (x - c) / unit of another SDE the ODE, ``du / dt = f u - g^2 / 2 grad log p_t(u)``, has the divergence
``f d - g^2 / 2 (tr dD/dx - d) / std^2``, and log p(x) is log p(u) + d log(alpha / unit) at either end: the same number.

The trace is Hutchinson's estimate ``v' (dD/dx) v`` with Rademacher v (Hutchinson 1990; Grathwohl et al. 2019), several
per picture, whose spread is the Monte Carlo error; for small d it can be exact.

Pictures have 256 levels, densities have none: uniform noise one level wide makes the density's mean logarithm a lower
bound on the probability of the levels (Theis et al. 2016), given in bits per dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.models.precision import full_precision
from invsolve.models.score_model import ScoreModel
from invsolve.models.sde import SDEName, find_sde
from invsolve.ode.flow import integrate

LEVELS = 255
"""Steps between the 256 values of an 8-bit picture in [0, 1]."""

UNUSUAL = 3.0
"""Standard deviations from the validation pictures' mean beyond which a picture is called out of distribution."""


class Likelihood(NamedTuple):
    """Likelihood of B pictures."""

    bits_per_dimension: Tensor  # (B,)
    standard_error: Tensor  # (B,), Monte Carlo error of it; nan where one draw and one probe cannot tell
    log_density: Tensor  # (B,), nats, at the prior's lowest noise level
    network_calls: int  # forward passes; each has as many backward passes as there are probes


class Density(NamedTuple):
    """Estimates of one picture's log density, one for each probe."""

    values: Tensor  # (probes,), nats; (1,) where the trace is exact
    network_calls: int


def log_density(
    model: ScoreModel,
    x: Tensor,
    *,
    probes: int = 4,
    exact_trace: bool = False,
    generator: torch.Generator | None = None,
    center: float | Tensor = 0.5,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    sde: SDEName = "ve",
) -> Density:
    """log p(x) of one picture at the model's lowest noise level, in nats.

    Parameters
    ----------
    model : prior or posterior, differentiable in x.
    x : (1, C, H, W), in the model's units.
    probes : Rademacher vectors of the trace estimate, kept along the trajectory.
    exact_trace : sum over the basis instead: d backward passes per call, for small d.
    generator : draws the probes.
    center : mean of the model's law at sigma_max, where it counts as Gaussian.
    rtol, atol : bounds of a step's error.
    sde : whose state and time the ODE is followed in: "ve" (x itself, in log(sigma)), "edm", "vp" or "subvp".
    """
    process, first, last, d = find_sde(sde), model.sigma_min, model.sigma_max, x[0].numel()
    generator = generator or torch.Generator().manual_seed(0)
    if exact_trace:
        directions = torch.eye(d, dtype=x.dtype)
    else:
        directions = (torch.randint(0, 2, (probes, d), generator=generator) * 2 - 1).to(x.dtype)
    directions = directions.to(x.device).reshape(-1, *x.shape)
    calls = 0

    def velocity(state: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        t, u = process.time_of(sigma), state[:d].reshape(x.shape)
        with torch.enable_grad():
            here = process.picture(u, t).detach().requires_grad_()
            denoised = model.denoise(here, sigma)
            traces = quadratic_forms(denoised, here, directions)
        f, share = float(process.drift(t)), 0.5 * float(process.diffusion(t) / process.std(t)) ** 2
        divergence = f * d + share * (d - (traces.sum()[None] if exact_trace else traces))
        score = process.score((denoised.detach() - here.detach()) / sigma**2, t)
        return torch.cat([process.velocity(u, score, t).flatten(), divergence])

    unknowns = 1 if exact_trace else len(directions)
    t_first, t_last = process.time_of(first), process.time_of(last)
    state = torch.cat([process.state(x, t_first).flatten(), x.new_zeros(unknowns)])
    with full_precision():
        end = integrate(
            velocity, state, first, last, rtol=rtol, atol=atol,
            time=lambda sigma: float(process.time_of(sigma)), level=lambda t: float(process.sigma(t)),
        )  # fmt: skip
    variance = last**2 + model.sigma_data**2
    squares = (process.picture(end[:d].reshape(x.shape), t_last) - center).double().square().sum()
    prior_term = -0.5 * (squares / variance + d * math.log(2 * math.pi * variance))
    stretched = d * math.log(float(process.alpha(t_first) / process.alpha(t_last)))  # dx / du at both ends
    values = prior_term + end[d:].double() + stretched
    return Density(values.cpu(), calls)


def quadratic_forms(output: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """``v' J v`` for every direction v (K, *x.shape), J the Jacobian of ``output`` by ``x``; (K,)."""
    if len(directions) <= 16:  # one by one each takes least memory; hundreds are better done together
        products = [(torch.autograd.grad(output, x, v, retain_graph=True)[0] * v).sum() for v in directions]
        return torch.stack(products).detach()
    parts = []
    for chunk in directions.split(256):
        rows = torch.autograd.grad(output, x, chunk, retain_graph=True, is_grads_batched=True)[0]
        parts.append((rows * chunk).flatten(1).sum(dim=1).detach())
    return torch.cat(parts)


def likelihood(
    model: ScoreModel,
    pictures: Tensor,
    *,
    draws: int = 1,
    probes: int = 4,
    seed: int = 0,
    exact_trace: bool = False,
    dequantize: bool = True,
    center: float | Tensor = 0.5,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    sde: SDEName = "ve",
) -> Likelihood:
    """Bits per dimension of pictures, with their Monte Carlo error.

    Parameters
    ----------
    model : score model of pictures in [0, 1].
    pictures : (B, C, H, W) with values k / 255.
    draws : how often uniform noise one level wide is added; every draw has its own probes.
    probes, exact_trace, center, rtol, atol, sde : see :func:`log_density`.
    seed : picture k depends on (seed, k) only.
    dequantize : False takes the density at the picture itself, for data that are real numbers.

    Returns
    -------
    Likelihood. The standard error counts probes and draws; with one draw only the probes.
    """
    if draws < 1 or probes < 1:
        raise UsageError(f"{draws} draws, {probes} probes", hint="wanted at least 1 of each")
    model.check_size(pictures)
    model.check_rgb()
    d, logs, errors, calls = pictures[0].numel(), [], [], 0
    for k, picture in enumerate(pictures):
        generator = torch.Generator().manual_seed(1_000_003 * seed + k)
        estimates = []
        for _ in range(draws):
            u = torch.rand(picture.shape, generator=generator, dtype=torch.float64).to(picture) - 0.5
            noisy = picture + u / LEVELS if dequantize else picture
            found = log_density(
                model, noisy[None], probes=probes, exact_trace=exact_trace, generator=generator, center=center,
                rtol=rtol, atol=atol, sde=sde,
            )  # fmt: skip
            estimates.append(found.values)
            calls += found.network_calls
        values = torch.stack(estimates)
        logs.append(values.mean())
        # Probes of one draw share its noise: with several draws their means are the independent numbers.
        independent = values.mean(dim=1) if draws > 1 else values[0]
        spread = (
            independent.std() / math.sqrt(len(independent)) if len(independent) > 1 else values.new_tensor(math.nan)
        )
        errors.append(values.new_zeros(()) if exact_trace and not dequantize else spread)
    total = torch.stack(logs)
    per_dimension = 1 / (d * math.log(2))
    bits = -total * per_dimension + (math.log2(LEVELS) if dequantize else 0.0)
    return Likelihood(bits, torch.stack(errors) * per_dimension, total, calls)


def unusual(bits: float, validated: dict[str, float]) -> str | None:
    """How a picture's bits per dimension stand out from the validation pictures' (``mean``, ``std``), if they do.

    Both sides count: flat pictures are *more* likely than anything the prior was trained on (Nalisnick et al. 2019).
    """
    if not {"mean", "std"} <= set(validated):
        return None
    z = (bits - validated["mean"]) / validated["std"]
    if abs(z) <= UNUSUAL:
        return None
    return f"{abs(z):.1f} standard deviations {'less' if z > 0 else 'more'} likely than validation pictures"


def rank(bits: dict[str, float], errors: dict[str, float]) -> list[tuple[str, float, bool]]:
    """Priors from the likeliest to the least: (name, bits per dimension, whether it is within two errors of the best).

    Raises
    ------
    InputError : nothing to rank.
    """
    if not bits:
        raise InputError("no prior to rank", hint="give at least one")
    order = sorted(bits, key=lambda name: bits[name])
    best = order[0]

    def close(name: str) -> bool:
        both = [errors[n] for n in (name, best) if not math.isnan(errors[n])]
        return bits[name] - bits[best] <= 2 * math.sqrt(sum(e**2 for e in both))

    return [(name, bits[name], close(name)) for name in order]


def validated_bits(results: Sequence[Likelihood]) -> dict[str, float]:
    """Mean and standard deviation over validation pictures, for the card."""
    bits = torch.cat([result.bits_per_dimension for result in results])
    return {"mean": float(bits.mean()), "std": float(bits.std()), "pictures": float(len(bits))}
