"""Memorisation: are samples nearer to the training pictures than new real pictures are?

A prior that has learned a law draws pictures as far from its training set as validation pictures are; one that has
learned the pictures by heart draws copies. So each sample's distance to its nearest training picture is judged by those of
the validation pictures (Meehan et al. 2020, "A non-parametric test to detect data-copying in generative models"; nearest
neighbours stand beside the samples in the appendix of Song & Ermon 2019). A share of samples nearer than nearly all
validation pictures is what memorisation looks like; a simple flat sample is near to everything, as flat pictures are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError

COPIED = 0.01
"""Share of the validation pictures that are as near as a sample must be to count as copied."""


class Neighbours(NamedTuple):
    """The nearest training picture of each of n pictures."""

    distance: Tensor  # (n,), float32, root mean square over the values
    number: Tensor  # (n,), which training picture


class Memorisation(NamedTuple):
    """How samples stand to the training pictures, validation pictures being the yardstick."""

    copied: float  # share of samples nearer than all but ``threshold_share`` of the validation pictures
    expected: float  # that share for new pictures of the same law: ``threshold_share``
    nearer: float  # probability that a sample is nearer than a validation picture, ties half; 0.5 ideal
    z: float  # its distance from 0.5 in standard errors (Mann & Whitney 1947); far above 2: memorised
    samples_distance: float  # medians
    validation_distance: float


def nearest(pictures: Tensor, training: Tensor, *, chunk: int = 4096) -> Neighbours:
    """Nearest of the ``training`` pictures by Euclidean distance, given as the root mean square over the values.

    Parameters
    ----------
    pictures : (n, ...), pixels in [0, 1] or features; any shape but for the first axis.
    training : (m, ...), of the same shape and kind; ``uint8`` counts as levels of [0, 1].
    chunk : training pictures compared at a time, which bounds the memory.

    Raises
    ------
    InputError : shapes differ, or one is empty.
    """
    if pictures.shape[1:] != training.shape[1:] or 0 in (len(pictures), len(training)):
        raise InputError(
            f"{tuple(pictures.shape)} beside training pictures {tuple(training.shape)}",
            hint="wanted at least one of each, of one shape",
        )
    own = _rows(pictures)
    centre = own.mean(dim=0)
    least, number = own.new_full((len(own),), float("inf")), torch.zeros(len(own), dtype=torch.long, device=own.device)
    for start in range(0, len(training), chunk):
        # |b|^2 - 2 ab orders the distances from a, by one product of matrices; centred, it loses little to rounding.
        rows = _rows(training[start : start + chunk]) - centre
        found, index = (rows.square().sum(dim=1) - 2 * (own - centre) @ rows.T).min(dim=1)
        closer = found < least
        least, number = torch.where(closer, found, least), torch.where(closer, index + start, number)
    # The distance itself would be lost where it is small, as that of copies is.
    parts = zip(own.split(chunk), number.split(chunk), strict=True)
    distances = [(part - _rows(training[which])).square().mean(dim=1).sqrt() for part, which in parts]
    return Neighbours(torch.cat(distances), number)


def memorisation(samples: Tensor, validation: Tensor, *, threshold_share: float = COPIED) -> Memorisation:
    """Judge the distances of samples to their nearest training pictures by those of validation pictures.

    Parameters
    ----------
    samples, validation : (n,) and (m,), ``distance`` of :func:`nearest`.
    threshold_share : a sample counts as copied when it is nearer than this quantile of ``validation``.

    Raises
    ------
    UsageError : fewer than two of either, or a share outside (0, 1).
    """
    if min(len(samples), len(validation)) < 2 or not 0 < threshold_share < 1:
        raise UsageError(
            f"{len(samples)} samples, {len(validation)} validation pictures, share {threshold_share}",
            hint="wanted two of each or more, and a share between 0 and 1",
        )
    a, b = samples.double(), validation.double()
    n, m = len(a), len(b)
    order = b.sort().values
    below, to = torch.searchsorted(order, a, right=False), torch.searchsorted(order, a, right=True)
    nearer = float(1 - (below + to).double().mean() / (2 * m))
    deviation = ((n + m + 1) / (12 * n * m)) ** 0.5
    copied = float((a < b.quantile(threshold_share)).double().mean())
    return Memorisation(
        copied, threshold_share, nearer, (nearer - 0.5) / deviation, float(a.median()), float(b.median())
    )


def _rows(pictures: Tensor) -> Tensor:
    """(n, values) in float32."""
    rows = pictures.flatten(1)
    return rows.float() / 255 if rows.dtype == torch.uint8 else rows.float()
