"""Phase retrieval: a detector far away sees how strong each frequency is, and not its phase."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import InputError


class PhaseRetrieval:
    """y = |F P x|: magnitudes of the unitary DFT of the picture, padded with zeros; (B, C, H, W) -> (B, C, H', W').

    Not linear; |J| <= 1. Units are those of x; frequency 0 stands at (0, 0). With an oversampling of 2 or more the picture is
    determined up to its sign, to turning it by half a turn, and to shifts (Hayes 1982): what tells these apart is the prior.
    Where a magnitude is 0 its gradient counts as 0. Source: Fienup 1982; Chung et al. 2023 take it with ``dps``.

    Parameters
    ----------
    oversampling : H' / H and W' / W, at least 1; the padded sizes are rounded up.
    """

    def __init__(self, oversampling: float = 2.0) -> None:
        if not 1 <= oversampling < float("inf"):
            raise InputError(f"oversampling {oversampling}", hint="wanted a number from 1 on")
        self.oversampling = oversampling

    def __call__(self, x: Tensor) -> Tensor:
        height, width = (-int(-self.oversampling * n // 1) for n in x.shape[-2:])
        return torch.fft.fft2(x, s=(height, width), norm="ortho").abs()
