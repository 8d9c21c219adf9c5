"""Iterative least squares for CT: SIRT and CGLS.

Both take a sinogram (B, views, detectors) of line integrals in pixel lengths and return a slice (B, 1, H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.forward_models import LinearOperator


def sirt(operator: LinearOperator, y: Tensor, iterations: int = 200, *, non_negative: bool = True) -> Tensor:
    """Simultaneous iterative reconstruction (Gilbert 1972): x += C A' R (y - A x), with inverse row and column sums."""
    ones_x, ones_y = torch.ones(1, *operator.input_shape).to(y), torch.ones(1, *operator.output_shape).to(y)
    rows, columns = operator(ones_x), operator.T(ones_y)
    r = torch.where(rows > 1e-6, 1 / rows.clamp(min=1e-6), 0)
    c = torch.where(columns > 1e-6, 1 / columns.clamp(min=1e-6), 0)
    x = torch.zeros(len(y), *operator.input_shape).to(y)
    for _ in range(iterations):
        x = x + c * operator.T(r * (y - operator(x)))
        if non_negative:
            x = x.clamp(min=0)
    return x


def cgls(operator: LinearOperator, y: Tensor, iterations: int = 15) -> Tensor:
    """Conjugate gradients for least squares, stopped early (Hestenes & Stiefel 1952): the number is the regularizer."""
    x = torch.zeros(len(y), *operator.input_shape).to(y)
    r, s = y, operator.T(y)
    p, gamma = s, s.square().flatten(1).sum(dim=1)
    for _ in range(iterations):
        q = operator(p)
        alpha = gamma / q.square().flatten(1).sum(dim=1).clamp(min=1e-30)
        x = x + alpha[:, None, None, None] * p
        r = r - alpha.reshape(-1, *(1,) * (r.ndim - 1)) * q
        s = operator.T(r)
        previous, gamma = gamma, s.square().flatten(1).sum(dim=1)
        p = s + (gamma / previous.clamp(min=1e-30))[:, None, None, None] * p
    return x
