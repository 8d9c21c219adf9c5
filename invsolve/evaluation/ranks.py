"""Rank histograms: where among the samples does the truth lie? Flat for samples of the posterior.

A histogram that is high at both ends says that the samples differ too little, in the middle too much, on one side that
they lean (Hamill 2001, "Interpretation of rank histograms for verifying ensemble forecasts"). Flat is necessary, not
enough: values that lean either way in turn make a flat one too.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.evaluation.coverage import counted


def rank_histogram(
    samples: Tensor,
    truth: Tensor,
    generator: torch.Generator,
    *,
    where: Tensor | None = None,
    rounding: float = 0.0,
) -> Tensor:
    """Share of the true values above none, one, ... all n of the samples, (n + 1,) float64, of sum 1.

    Parameters
    ----------
    samples : (n, ...), two at least.
    truth : shaped as one sample.
    generator : breaks ties: a truth that equals j samples has each of their j + 1 places with the same chance.
    where : the values that count, broadcast to ``truth``; default all.
    rounding : samples no farther than this from the truth are ties: half a grey level where both are rounded.

    Raises
    ------
    UsageError : fewer than two samples.
    InputError : shapes differ, or no value counts.
    """
    drawn, true = counted(samples, truth, where)
    below = (drawn < true - rounding).sum(dim=0)
    ties = (drawn <= true + rounding).sum(dim=0) - below
    chance = torch.rand(len(true), generator=generator, dtype=torch.float64).to(drawn.device)
    ranks = below + (chance * (ties + 1)).floor().long()
    return torch.bincount(ranks, minlength=len(drawn) + 1).double().cpu() / len(true)


def ideal_ranks(count: int, *, antithetic: bool = False) -> Tensor:
    """The histogram of so many samples of the true posterior, (count + 1,) float64.

    Flat, 1 / (n + 1), for n independent ones. m pairs of opposite noise lie on both sides of the centre: where the
    posterior is symmetric, the truth's distance from it has each of m + 1 ranks among theirs with the same chance. It has j
    pairs inside with 1 / (m + 1), and is above m + j or m - j samples with half of that each; of an even number the middle
    place, which both sides share, has twice the others' share.

    Raises
    ------
    UsageError : fewer than two samples.
    """
    if count < 2:
        raise UsageError(f"{count} sample", hint="wanted at least 2")
    if not antithetic:
        return torch.full((count + 1,), 1 / (count + 1), dtype=torch.float64)
    pairs = count // 2
    ideal = torch.zeros(count + 1, dtype=torch.float64)
    for inside in range(pairs + 1):
        # An odd one without partner is inside too with (j + 1) / (m + 2), and else on either side of the centre.
        same_side = 0.5 + 0.5 * (inside + 1) / (pairs + 2) if count % 2 else 0.0
        for rank, above in ((pairs + inside, same_side), (pairs - inside, 1 - same_side if count % 2 else 0.0)):
            ideal[rank] += (1 - above) / (2 * (pairs + 1))
            if above:
                ideal[rank + 1] += above / (2 * (pairs + 1))
    return ideal


def rank_error(histogram: Tensor, ideal: Tensor) -> float:
    """Share of the true values that would have to have another rank: half the sum of |difference|, 0 ideal."""
    return float((histogram - ideal).abs().sum() / 2)


def rank_picture(
    histogram: Tensor, ideal: Tensor, *, title: str = "", width: int = 480, height: int = 320
) -> npt.NDArray[np.uint8]:
    """The histogram as bars (blue) and the ideal one as a line (orange), from 0 upwards, (H, W, 3)."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    left, right, top, bottom = 60, width - 16, 24, height - 36
    highest = _round_up(float(torch.maximum(histogram, ideal).max()))
    step = (right - left) / len(histogram)

    def across(rank: int) -> float:
        return left + rank * step

    def up(share: float) -> float:
        return bottom - share / highest * (bottom - top)

    for part in range(5):
        y = up(highest * part / 4)
        draw.line((left, y, right, y), fill=(225, 225, 225))
        draw.text((6, y - 6), f"{highest * part / 4:.3g}", fill="black")
    gap = min(1.0, step / 8)
    for rank, share in enumerate(histogram.tolist()):
        draw.rectangle((across(rank) + gap, min(up(share), bottom), across(rank + 1) - gap, bottom), fill=(31, 90, 180))
    corners = [(across(rank + side), up(share)) for rank, share in enumerate(ideal.tolist()) for side in (0, 1)]
    draw.line(corners, fill=(220, 120, 20), width=2)
    draw.rectangle((left, top, right, bottom), outline=(150, 150, 150))
    draw.text((left, 6), title or "share of the true values", fill=(31, 90, 180))
    draw.text((right - 130, 6), "if the posterior's", fill=(220, 120, 20))
    draw.text((left, bottom + 8), "below all samples", fill="black")
    draw.text((right - 110, bottom + 8), "above all samples", fill="black")
    return np.asarray(image)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return power * next(factor for factor in (1, 2, 4, 8, 10) if factor * power >= value * (1 - 1e-9))
