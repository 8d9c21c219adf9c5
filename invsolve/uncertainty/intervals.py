"""Reading a posterior: intervals, what the data determined and what the prior invented, whether the misfit is credible."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import LinearOperator


def interval(samples: Tensor, level: float = 0.9) -> tuple[Tensor, Tensor]:
    """Pixelwise interval between two order statistics, of probability ``level`` or a little more.

    The interval from the r-th smallest to the r-th largest of n samples of a perfect posterior holds the truth with
    probability ``1 - 2 r / (n + 1)``: from the smallest to the largest of 19, 90 %. Quantiles interpolated between few
    samples are narrower than they say.

    Parameters
    ----------
    samples : (n, ...).

    Returns
    -------
    Lower and upper bound, shaped as one sample.

    Raises
    ------
    UsageError : too few samples for that level.
    """
    if not 0 < level < 1:
        raise UsageError(f"level {level}", hint="wanted a probability between 0 and 1")
    count = len(samples)
    rank = math.floor((1 - level) / 2 * (count + 1) + 1e-9)
    if rank < 1:
        needed = math.ceil(2 / (1 - level) - 1 - 1e-9)
        raise UsageError(f"{count} samples for a {level:.0%} interval", hint=f"wanted at least {needed} samples")
    ordered = samples.sort(dim=0).values
    return ordered[rank - 1], ordered[count - rank]


class Interval(NamedTuple):
    """Pixelwise bounds and centre, each shaped as one sample, and the probability they have for a perfect posterior."""

    low: Tensor
    center: Tensor  # the samples' median: never outside the bounds, as a mean can be
    high: Tensor
    level: float


def attainable_interval(samples: Tensor, level: float = 0.9) -> Interval:
    """The :func:`interval` of probability ``level``, or the widest one that so few samples have.

    From the smallest to the largest of n samples it is ``(n - 1) / (n + 1)``: 78 % of eight, a third of two. The
    probability it has is part of the result, so that nobody takes it for ``level``. It is stated for independent samples;
    of antithetic pairs it is a little more, up to ``n / (n + 2)``.

    Parameters
    ----------
    samples : (n, ...).

    Raises
    ------
    UsageError : a single sample, which has no interval.
    """
    count = len(samples)
    if count < 2:
        raise UsageError(f"{count} sample for an interval", hint="wanted at least 2 samples; 19 for 90%")
    low, high = interval(samples, min(level, (count - 1) / (count + 1)))
    rank = max(1, math.floor((1 - level) / 2 * (count + 1) + 1e-9))
    ordered = samples.sort(dim=0).values
    center = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return Interval(low, center, high, 1 - 2 * rank / (count + 1))


def coverage(samples: Tensor, truth: Tensor, level: float = 0.9, where: Tensor | None = None) -> float:
    """Share of the pixels of ``truth`` inside their :func:`interval`.

    Parameters
    ----------
    samples : (n, B, C, H, W).
    truth : (B, C, H, W).
    where : the pixels that count, broadcast to ``truth``: give what the data left open (missing pixels, the inside of
        a body), or the easy rest hides what the interval is worth.
    """
    low, high = interval(samples, level)
    inside = (truth >= low) & (truth <= high)
    if where is None:
        return float(inside.double().mean())
    return float(inside[where.bool().expand_as(inside)].double().mean())


def split(operator: LinearOperator, x: Tensor) -> tuple[Tensor, Tensor]:
    """x as (what A sees, what A is blind to): ``A^+ A x`` and the rest, both shaped as ``x`` (B, C, H, W)."""
    seen = operator.pinv(operator(x))
    return seen, x - seen


def standard_deviation(samples: Tensor, *, antithetic: bool = False) -> Tensor:
    """Pointwise standard deviation, shaped as one sample; zeros for one sample. Its square is unbiased.

    Parameters
    ----------
    samples : (n, ...).
    antithetic : samples 2m and 2m + 1 come from noise of opposite sign. Dividing by n - 1 would then overestimate, since
        the samples err on both sides of the mean; instead ``var x = E[d^2] + var a`` with the pairs' half differences d
        and means a, which are uncorrelated. One pair says nothing about var a (small where the sampler is nearly
        affine) and leaves it out; so does the last of an odd number of samples.
    """
    if len(samples) < 2:
        return torch.zeros_like(samples[0])
    if not antithetic:
        return samples.std(dim=0)
    first, second = samples[0 : len(samples) // 2 * 2 : 2], samples[1::2]
    variance = ((first - second) / 2).square().mean(dim=0)
    if len(first) > 1:
        variance = variance + ((first + second) / 2).var(dim=0)
    return variance.sqrt()


def variance_of_mean(samples: Tensor, *, antithetic: bool = False) -> Tensor:
    """Pointwise variance of the mean of the samples (n, ...), shaped as one sample; zeros where it is not known.

    ``antithetic`` as in :func:`standard_deviation`: what varies is then the pairs' means, of which one pair says nothing,
    and the last of an odd number of samples is left out.
    """
    draws = samples
    if antithetic:
        draws = samples[: len(samples) // 2 * 2].unflatten(0, (-1, 2)).mean(dim=1)
    if len(draws) < 2:
        return torch.zeros_like(samples[0])
    return draws.var(dim=0) / len(draws)


def split_std(operator: LinearOperator, samples: Tensor, *, antithetic: bool = False) -> tuple[Tensor, Tensor]:
    """Standard deviation of the samples' data part and of their null-space part, (B, C, H, W) each.

    The first is noise of the measurement, the second what the prior filled in, sample by sample another way. Computed
    from the deviations from the mean, so that an iterative pseudo-inverse need not be more exact than they are large.
    ``antithetic`` as in :func:`standard_deviation`.
    """
    deviations = samples - samples.mean(dim=0)
    seen = []
    for part in deviations.flatten(0, 1).split(8):  # an operator's batch costs little more than one image
        seen.append(split(operator, part.to(operator.device))[0].to(samples.device))
    data = torch.cat(seen).reshape(deviations.shape)
    return standard_deviation(data, antithetic=antithetic), standard_deviation(deviations - data, antithetic=antithetic)


def prior_share(data_std: Tensor, prior_std: Tensor) -> float:
    """Share of the samples' variance that lies where the data say nothing: of the two parts of :func:`split_std`.

    0 where nothing was invented, 1 for exact measurements, NaN where the samples do not differ at all.
    """
    data, prior = (float(part.double().square().sum()) for part in (data_std, prior_std))
    return prior / (data + prior) if data + prior > 0 else math.nan


def determined(operator: LinearOperator, *, probes: int = 32, seed: int = 0) -> Tensor:
    """How much of each pixel the data determine, (C, H, W): the diagonal of ``A^+ A``, 0 invented to 1 measured.

    Estimated with random signs (Hutchinson 1990; Bekas et al. 2007), unclipped; exact where A^+ A is diagonal.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(operator.input_shape, device=operator.device)
    for _ in range(probes):
        signs = torch.randint(0, 2, (1, *operator.input_shape), generator=generator).float() * 2 - 1
        signs = signs.to(operator.device)
        total += (signs * operator.pinv(operator(signs)))[0]
    return total / probes


LEAST_OF_AN_ESTIMATE = 0.6
"""Chi-squared per value. A picture deblurred with the noise it has comes to 0.78 to 0.95, one whose noise is said to be half as much
again to 0.45 (docs/lab/restoration.md)."""


def misfit_warning(chi2: Tensor, measured_values: int) -> str | None:
    """A sentence when the samples' misfit does not go with the noise level given; None when it does.

    Of a posterior sample and its measurement, chi-squared per value is distributed as for the truth: mean 1, standard
    deviation sqrt(2 / m). Beyond four of those and 10 % it is a finding. One sample is made as the best estimate, no draw: nearer to
    the posterior's mean it takes up some of the noise, and only below :data:`LEAST_OF_AN_ESTIMATE` that is a finding.
    """
    if chi2.numel() == 0 or measured_values < 1:
        return None
    value = float(chi2.mean())
    room = max(4 * math.sqrt(2 / measured_values), 0.1)
    least = 1 - room if len(chi2) > 1 else min(1 - room, LEAST_OF_AN_ESTIMATE)
    if least <= value <= 1 + room:
        return None
    if not value > 1:
        return (
            f"the samples fit the measurement too well (chi-squared per value {value:.2f}, expected 1): the noise is "
            "smaller than given, or the rule fits noise"
        )
    return (
        f"the samples do not fit the measurement (chi-squared per value {value:.2f}, expected 1): the noise is larger "
        "than given, the forward model is wrong, or the prior does not know such pictures"
    )
