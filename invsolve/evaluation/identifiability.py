"""Are codes the data's or the network's? The codes that two networks give the same pictures, compared.

The probability-flow ODE, and with it the code of a picture, depends on the data's law alone: two networks that both know
the score must give one code (Song et al. 2021, section 4.3 and appendix D.5, who correlate the codes of two
architectures dimension by dimension).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.errors import InputError


class CodeCorrelation(NamedTuple):
    """Correlation over n pictures of what two networks say, dimension by dimension."""

    same: Tensor  # (d,) float64, both encode the same pictures; 1 ideal
    unrelated: Tensor  # (d,) the second's pictures are others: what chance gives, about 1 / sqrt(n)
    difference: float  # rms difference of the codes of one picture over their rms length; 0 ideal, sqrt(2) unrelated


def code_correlation(first: Tensor, second: Tensor) -> CodeCorrelation:
    """Pearson correlation of every dimension of two sets of codes (n, ...), row k of both from picture k.

    Beside it that of the first set with the second's rows moved by one: codes of unrelated pictures.

    Raises
    ------
    InputError : shapes differ, or fewer than three pictures.
    """
    if first.shape != second.shape or len(first) < 3:
        raise InputError(
            f"codes {tuple(first.shape)} and {tuple(second.shape)}",
            hint="wanted codes of the same three or more pictures from both",
        )
    a, b = first.flatten(1).double(), second.flatten(1).double()
    difference = (a - b).square().mean() / (0.5 * (a.square().mean() + b.square().mean()))
    return CodeCorrelation(_correlation(a, b), _correlation(a, b.roll(1, dims=0)), float(difference.sqrt()))


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of every column of (n, d), (d,); NaN where one does not vary."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    return (a * b).sum(dim=0) / (a.square().sum(dim=0) * b.square().sum(dim=0)).sqrt()


def mean_correlation(correlation: Tensor) -> float:
    """Mean over the dimensions that vary."""
    return float(torch.nanmean(correlation))
