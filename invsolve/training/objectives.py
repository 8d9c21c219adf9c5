"""Score-matching objectives: five ways to fit ``s(x) ~ grad log p(x)`` without knowing p's normalisation.

All but the first need samples of p only, and differ from ``1/2 E |s - grad log p|^2`` by a constant that does not
depend on s (Hyvarinen 2005):

    implicit, exact trace      tr(ds/dx) + 1/2 |s|^2                         Hyvarinen 2005, eq. 4
    implicit, Hutchinson       v' (ds/dx) v + 1/2 |s|^2                      Hutchinson 1990
    sliced                     v' (ds/dx) v + 1/2 (v' s)^2                   Song et al. 2019a, eq. 7
    sliced, variance reduced   v' (ds/dx) v + 1/2 |s|^2                      Song et al. 2019a, eq. 8 (SSM-VR)

with E[v v'] = 1. Hutchinson's estimate of the implicit objective *is* SSM-VR: two names, one formula, kept once. The
denoising objective (Vincent 2011) needs clean pictures and the noise: ``1/2 |s(x0 + sigma z) + z / sigma|^2``.

A score is any differentiable function of x (B, ...) with values shaped as x, each image's own. Every objective returns
one number per image, (B,), in a graph that a gradient step can follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import Sigma, per_image

Score = Callable[[Tensor], Tensor]


def denoising(score: Score, x0: Tensor, sigma: Sigma, z: Tensor) -> Tensor:
    """``1/2 |s(x0 + sigma z) + z / sigma|^2``, (B,): the score of the noisy law (Vincent 2011, eq. 11)."""
    s = per_image(sigma, x0)
    return 0.5 * (score(x0 + s * z) + z / s).square().flatten(1).sum(dim=1)


def implicit(score: Score, x: Tensor) -> Tensor:
    """``tr(ds/dx) + 1/2 |s|^2``, (B,), with d backward passes for the trace."""
    x = _leaf(x)
    s = score(x)
    flat = s.flatten(1)
    trace = x.new_zeros(len(x))
    for k in range(flat.shape[1]):
        trace = trace + _gradient(flat[:, k].sum(), x).flatten(1)[:, k]
    return trace + 0.5 * flat.square().sum(dim=1)


def sliced(
    score: Score, x: Tensor, directions: Tensor, *, variance_reduced: bool = True, weight: Tensor | None = None
) -> Tensor:
    """Sliced score matching, (B,), with one backward pass per direction.

    Parameters
    ----------
    x : (B, ...).
    directions : (M, B, ...), M directions per image with E[v v'] = 1; see :func:`draw_directions`.
    variance_reduced : |s|^2 in place of its projections' (v' s)^2: SSM-VR, or the implicit objective with Hutchinson's
        trace.
    weight : Lambda, positive, broadcast to ``x``: what is minimised is ``1/2 (s - grad log p)' Lambda (s - grad log p)``, up
        to a constant. One unless given.
    """
    x = _leaf(x)
    # tr(Lambda ds/dx) + 1/2 s' Lambda s is the objective of r s, with r^2 = Lambda, along directions r v.
    root = x.new_ones(()) if weight is None else weight.sqrt()
    s = root * score(x)
    total = x.new_zeros(len(x))
    for v in directions:
        projected = (s * v).flatten(1).sum(dim=1)
        curvature = (_gradient(projected.sum(), x) * root * v).flatten(1).sum(dim=1)
        total = total + curvature + (0 if variance_reduced else 0.5 * projected.square())
    mean = total / len(directions)
    return mean + 0.5 * s.flatten(1).square().sum(dim=1) if variance_reduced else mean


def draw_directions(
    x: Tensor, count: int, kind: Literal["gaussian", "rademacher"], generator: torch.Generator
) -> Tensor:
    """``count`` random directions per image, (count, *x.shape): standard normal, or random signs."""
    shape = (count, *x.shape)
    if kind == "gaussian":
        return torch.randn(shape, generator=generator, dtype=x.dtype).to(x.device)
    if kind == "rademacher":
        return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(x)
    raise UsageError(f"unknown directions {kind!r}", hint="wanted gaussian or rademacher")


def likelihood_weight(sigma: Tensor, probability_density: Tensor) -> Tensor:
    """Weight of ``1/2 |s + z / sigma|^2`` that makes the expectation over p(sigma) a bound on the log likelihood.

    Song et al. 2021b, "Maximum likelihood training of score-based diffusion models", theorem 1: lambda = g^2. With the
    noise level as time g^2 = 2 sigma, and levels drawn from p(sigma) count 1 / p(sigma) each. With p log-uniform this is
    NCSN's lambda = sigma^2 up to a factor.

    Parameters
    ----------
    sigma : (B,).
    probability_density : p(sigma), (B,).
    """
    return 2 * sigma / probability_density


def _leaf(x: Tensor) -> Tensor:
    return x if x.requires_grad else x.detach().requires_grad_()


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    # A score that does not depend on x has a zero Jacobian, not an undefined one.
    found = torch.autograd.grad(value, x, create_graph=True, allow_unused=True)[0] if value.requires_grad else None
    return torch.zeros_like(x) if found is None else found
