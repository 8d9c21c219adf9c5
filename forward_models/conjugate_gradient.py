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

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).flatten(1).sum(dim=1).reshape(-1, *(1,) * (u.ndim - 1))

    x = start
    r = b - matrix(x)
    p = r
    rr = dot(r, r)
    goal = tolerance**2 * dot(b, b)
    for step in range(steps):
        unfinished = rr > goal
        if step % _patience(b.device) == 0 and not bool(unfinished.any()):
            break
        mp = matrix(p)
        # An image that has converged stays as it is, so that it does not depend on the others of the batch.
        curvature = dot(p, mp)
        alpha = torch.where(unfinished & (curvature > 0), rr / curvature, torch.zeros_like(rr))
        x = x + alpha * p
        r = r - alpha * mp
        rr_next = dot(r, r)
        beta = torch.where(rr > 0, rr_next / rr, torch.zeros_like(rr))
        p = r + beta * p
        rr = rr_next
    return x


def _patience(device: torch.device) -> int:
    """Iterations between looks at whether all images have converged: on a GPU each look waits for all that was asked of it.

    An image that has converged is not changed by further iterations, so the result is the same.
    """
    return 1 if device.type == "cpu" else 4
