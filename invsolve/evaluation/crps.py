"""The continuous ranked probability score of samples, and the ratio of their spread to their error.

Of a forecast by samples the CRPS says how far the truth is from them, less how far they are from one another: in the
units of x, the smaller the better, for one sample the absolute error. It is least for samples of the true law, so a
sampler gains nothing by being too sure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.evaluation.coverage import Reliability, counted


def crps(samples: Tensor, truth: Tensor, *, where: Tensor | None = None, antithetic: bool = False) -> float:
    """Mean fair CRPS: ``E|X - t| - E|X - X'| / 2``, both without bias for any number of samples.

    With the n^2 differences of n samples among themselves counted, the zeros too, few samples would seem worse than many
    of the same law; counting the n (n - 1) of different samples mends that (Ferro 2014, "Fair scores for ensemble
    forecasts"; the unbiased estimator of Zamo & Naveau 2018, "Estimation of the continuous ranked probability score with
    limited information"). So the score is that of the samples' law, and for a value by itself may be below 0.

    Parameters
    ----------
    samples : (n, ...), two at least.
    truth : shaped as one sample.
    where : the values that count, broadcast to ``truth``; default all.
    antithetic : samples 2m and 2m + 1 come from noise of opposite sign: they are farther apart than two independent
        draws, and their difference does not count. Of a single pair nothing remains: NaN.

    Raises
    ------
    UsageError : fewer than two samples.
    InputError : shapes differ, or no value counts.
    """
    drawn, true = counted(samples, truth, where)
    count = len(drawn)
    pairs = count // 2 if antithetic else 0
    differences = count * (count - 1) // 2 - pairs
    if differences == 0:
        return math.nan
    # Of sorted samples the k-th is subtracted from n - 1 - k of them and k are subtracted from it.
    weights = 2 * torch.arange(count, dtype=torch.float64) - (count - 1)
    apart = weights.to(drawn.device) @ drawn.sort(dim=0).values
    if pairs:
        apart = apart - (drawn[0 : 2 * pairs : 2] - drawn[1 : 2 * pairs : 2]).abs().sum(dim=0)
    return float(((drawn - true).abs().mean(dim=0) - apart / (2 * differences)).mean())


def spread_skill(groups: Sequence[Reliability]) -> float:
    """Expected over found rms error of the mean, over all groups: 1 ideal, below it too sure.

    The mean of n samples errs by the truth's variance and by its own, an n-th of that: the samples' rms standard
    deviation times sqrt((n + 1) / n) is what its rms error should be (Fortin, Abaza, Anctil & Turcotte 2014, "Why should
    ensemble spread match the RMSE of the ensemble mean?"); of samples in pairs the mean's own variance is that of the
    pairs' means. Variances are averaged, every group counting the same, and not the groups' ratios;
    NaN where nothing errs.

    Raises
    ------
    UsageError : no groups.
    """
    if not groups:
        raise UsageError("no groups", hint="wanted at least 1 picture or patient")
    found = sum(one.error**2 for one in groups)
    return math.sqrt(sum((one.spread * one.error) ** 2 for one in groups) / found) if found > 0 else math.nan
