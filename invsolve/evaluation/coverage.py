"""Whether samples differ as much as they err: the figures of a benchmark, where the truth is known.

Intervals for a picture whose truth is not known are in :mod:`invsolve.uncertainty`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.uncertainty.intervals import standard_deviation, variance_of_mean


class Reliability(NamedTuple):
    """How the samples of one or several images stand to the truth."""

    coverage: float  # share of the true values between the least and the largest sample
    ideal: float  # that share for samples of the true posterior
    spread: float  # expected over found rms distance of the truth from the mean; ideal 1, less is too sure
    std: float  # rms standard deviation of the samples, in the units of x
    error: float  # rms distance of the truth from their mean


def ideal_coverage(count: int, *, antithetic: bool = False) -> float:
    """Share of true values that the range of so many samples of the true posterior holds.

    ``(n - 1) / (n + 1)`` for n independent ones. Pairs of opposite noise lie on both sides of the centre, which leaves
    fewer true values outside: ``n / (n + 2)`` for an even number, where the posterior is symmetric.

    Raises
    ------
    UsageError : fewer than two samples, which have no range.
    """
    if count < 2:
        raise UsageError(f"{count} sample", hint="wanted at least 2: one sample has no range")
    if not antithetic:
        return (count - 1) / (count + 1)
    pairs = count // 2
    # An odd one has no partner: where it is the farthest from the centre, it covers a truth that is second on its side.
    unpaired = 1 / (2 * (pairs + 1) * (pairs + 2)) if count % 2 else 0.0
    return pairs / (pairs + 1) + unpaired


def reliability(
    samples: Tensor, truth: Tensor, *, where: Tensor | None = None, rounding: float = 0.0, antithetic: bool = False
) -> Reliability:
    """Judge the range and the spread of samples by the truth.

    The truth's expected squared distance from the mean of n samples is the posterior's variance and the mean's own
    (Fortin, Abaza, Anctil & Turcotte 2014, "Why should ensemble spread match the RMSE of the ensemble mean?"). Of a
    single pair of opposite noise the mean's own is not known, and is left out.

    Parameters
    ----------
    samples : (n, B, C, H, W) or (n, ...), two at least.
    truth : shaped as one sample.
    where : the values that count, broadcast to ``truth``: give what the data left open. Default all.
    rounding : half the step to which the truth is rounded, in the units of x: ``0.5 / 255`` for 8 bits.
    antithetic : samples 2m and 2m + 1 come from noise of opposite sign.

    Raises
    ------
    UsageError : fewer than two samples.
    InputError : shapes differ, or no value counts.
    """
    drawn, true = counted(samples, truth, where)
    ideal = ideal_coverage(len(samples), antithetic=antithetic)
    inside = (drawn.amin(dim=0) - rounding <= true) & (true <= drawn.amax(dim=0) + rounding)
    variance = standard_deviation(drawn, antithetic=antithetic).square().mean()
    expected = variance + variance_of_mean(drawn, antithetic=antithetic).mean() + rounding**2 / 3
    error = (true - drawn.mean(dim=0)).square().mean().sqrt()
    return Reliability(
        float(inside.double().mean()), ideal, float(expected.sqrt() / error), float(variance.sqrt()), float(error)
    )


def counted(samples: Tensor, truth: Tensor, where: Tensor | None) -> tuple[Tensor, Tensor]:
    """The values that count of the samples, (n, m), and of the truth, (m,), float64.

    Raises
    ------
    UsageError, InputError : fewer than two samples; shapes differ, or no value counts.
    """
    if samples.shape[1:] != truth.shape:
        raise InputError(
            f"the truth has shape {tuple(truth.shape)}, a sample {tuple(samples.shape[1:])}",
            hint="give the truth of the same picture",
        )
    if len(samples) < 2:
        raise UsageError(f"{len(samples)} sample", hint="wanted at least 2: one sample has no range")
    chosen = torch.ones_like(truth, dtype=torch.bool) if where is None else where.bool().expand_as(truth)
    if not chosen.any():
        raise InputError("no value counts", hint="`where` is true nowhere")
    return samples[:, chosen].double(), truth[chosen].double()
