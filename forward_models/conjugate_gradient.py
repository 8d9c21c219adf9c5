"""Conjugate gradients for symmetric positive (semi-)definite systems, batched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradient(
    matrix: Callable[[Tensor], Tensor], b: Tensor, start: Tensor, *, steps: int = 50, tolerance: float = 1e-6
) -> Tensor:
    """Solve M x = b for each image of a batch (Hestenes & Stiefel 1952).

    Parameters
    ----------
    matrix : applies M to a batch (B, ...).
    b : right-hand sides (B, ...).
    start : first guess (B, ...).
    steps : most iterations.
    tolerance : stop once every residual is below this share of its right-hand side's norm.
    """
    x = start
    r = b - matrix(x)
    p = r
    rr = _dot(r, r)
    goal = tolerance**2 * _dot(b, b)
    for step in range(steps):
        unfinished = rr > goal
        if step % _patience(b.device) == 0 and not bool(unfinished.any()):
            break
        mp = matrix(p)
        # An image that has converged stays as it is, so that it does not depend on the others of the batch.
        curvature = _dot(p, mp)
        alpha = torch.where(unfinished & (curvature > 0), rr / curvature, torch.zeros_like(rr))
        x = x + alpha * p
        r = r - alpha * mp
        rr_next = _dot(r, r)
        beta = torch.where(rr > 0, rr_next / rr, torch.zeros_like(rr))
        p = r + beta * p
        rr = rr_next
    return x


def short_conjugate_gradient(
    gram: Callable[[Tensor], Tensor], rho: Tensor, b: Tensor, *, steps: int = 50, tolerance: float = 1e-6
) -> Tensor:
    """u whose d = A'u solves ``(A'A + rho) d = A'b``: the iterates of :func:`conjugate_gradient` started at d = 0.

    Those are A' of combinations of b, A A'b, ..., so they can be followed by the combinations, which are as long as b; d is
    formed once. With d's residual A'r and direction A'p, ``|A'r|^2 = r'Gr`` and the curvature is ``Gp'(Gp + rho p)``, where
    G = A A'. It takes one product with G an iteration, as of G p follows from that of G r.

    Parameters
    ----------
    gram : applies A A' to a batch (B, ...).
    rho : not negative, (B, 1, ...) or one for all.
    b : what A d is to come near to (B, ...).
    steps : most iterations.
    tolerance : stop once every residual A'r is below this share of A'b.
    """
    u, r, p = torch.zeros_like(b), b, b
    gr = gp = gram(r)
    rr = _dot(r, gr)
    goal = tolerance**2 * rr
    for step in range(steps):
        unfinished = rr > goal
        if step % _patience(b.device) == 0 and not bool(unfinished.any()):
            break
        mp = gp + rho * p
        curvature = _dot(gp, mp)
        alpha = torch.where(unfinished & (curvature > 0), rr / curvature, torch.zeros_like(rr))
        u = u + alpha * p
        r = r - alpha * mp
        gr = gram(r)
        rr_next = _dot(r, gr)
        beta = torch.where(unfinished & (rr > 0), rr_next / rr, torch.zeros_like(rr))
        p, gp = r + beta * p, gr + beta * gp
        rr = torch.where(unfinished, rr_next, rr)
    return u


def _dot(u: Tensor, v: Tensor) -> Tensor:
    """Inner products of each image of a batch, (B, 1, ...)."""
    return (u * v).flatten(1).sum(dim=1).reshape(-1, *(1,) * (u.ndim - 1))


def _patience(device: torch.device) -> int:
    """Iterations between looks at whether all images have converged: on a GPU each look waits for all that was asked of it.

    An image that has converged is not changed by further iterations, so the result is the same.
    """
    return 1 if device.type == "cpu" else 4
