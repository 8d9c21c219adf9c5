"""Scores of samples against closed forms: CRPS, spread over error, ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.evaluation.coverage import ideal_coverage, reliability
from invsolve.evaluation.crps import crps, spread_skill
from invsolve.evaluation.ranks import ideal_ranks, rank_error, rank_histogram, rank_picture

VALUES = 100_000


def draws(count: int, generator: torch.Generator, *, antithetic: bool = False, spread: float = 1.0) -> Tensor:
    """Samples (count, 1, 1, 1, VALUES) of a normal; 2m + 1 is minus 2m where they are pairs."""
    half = torch.randn(-(-count // 2), 1, 1, 1, VALUES, generator=generator)
    other = -half if antithetic else torch.randn(half.shape, generator=generator)
    return spread * torch.stack([half, other], dim=1).flatten(0, 1)[:count]


def truths(generator: torch.Generator) -> Tensor:
    return torch.randn(1, 1, 1, VALUES, generator=generator)


# -- CRPS -----------------------------------------------------------------------------------------------------------------
def gaussian_crps(truth: Tensor, spread: float) -> float:
    """Of N(0, spread^2), Gneiting & Raftery 2007, equation 21, averaged over the truths."""
    z = truth.double() / spread
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return float((spread * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))).mean())


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("count", [3, 4, 7, 20])
@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_crps_is_that_of_the_law_for_any_number_of_samples(
    count: int, spread: float, antithetic: bool, generator: torch.Generator
) -> None:
    truth = truths(generator)
    found = crps(draws(count, generator, antithetic=antithetic, spread=spread), truth, antithetic=antithetic)
    assert found == pytest.approx(gaussian_crps(truth, spread), abs=0.02)
    if antithetic and count < 20:  # the pairs' own differences would flatter
        wrong = crps(draws(count, generator, antithetic=True, spread=spread), truth)
        assert wrong < gaussian_crps(truth, spread) - 0.01


def test_crps_is_least_for_the_true_spread(generator: torch.Generator) -> None:
    truth = truths(generator)
    right, *wrong = (crps(draws(8, generator, spread=s), truth) for s in (1.0, 0.6, 1.6))
    assert right < min(wrong) - 0.02


def test_crps_by_hand() -> None:
    samples = torch.tensor([0.0, 1.0, 5.0, 2.0]).reshape(4, 1)
    apart = (1 + 5 + 2 + 4 + 1 + 3) / 6
    assert crps(samples, torch.tensor([3.0])) == pytest.approx((3 + 2 + 2 + 1) / 4 - apart / 2)
    between = (5 + 2 + 4 + 1) / 4  # 0 with 5 and 2, 1 with 5 and 2
    assert crps(samples, torch.tensor([3.0]), antithetic=True) == pytest.approx(2 - between / 2)
    assert crps(torch.ones(3, 2), torch.tensor([4.0, 1.0])) == pytest.approx(1.5)  # all alike: the absolute error
    assert crps(torch.ones(3, 2), torch.tensor([4.0, 1.0]), where=torch.tensor([True, False])) == pytest.approx(3)
    assert math.isnan(crps(samples[:2], torch.tensor([3.0]), antithetic=True))


# -- spread over error ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [2, 5, 12])
def test_spread_over_error_has_the_factor_of_few_samples(count: int, generator: torch.Generator) -> None:
    samples, truth = draws(count, generator), truths(generator)
    one = reliability(samples, truth)
    by_hand = math.sqrt((count + 1) / count) * float(
        samples.var(dim=0).mean().sqrt() / (samples.mean(dim=0) - truth).square().mean().sqrt()
    )
    assert spread_skill([one]) == pytest.approx(by_hand, rel=1e-5)
    assert by_hand == pytest.approx(1, abs=0.02)


def test_variances_are_averaged_not_ratios(generator: torch.Generator) -> None:
    """A group that errs ten times as much weighs a hundred times as much."""
    large = reliability(10 * draws(6, generator), 10 * truths(generator))
    small = reliability(3 * draws(6, generator), truths(generator))
    assert small.spread > 2
    assert spread_skill([large, small]) == pytest.approx(math.sqrt((100 + 9) / (100 + (9 / 6 + 1) * 6 / 7)), rel=0.02)
    assert math.isnan(spread_skill([reliability(torch.ones(2, 3), torch.ones(3))]))
    with pytest.raises(UsageError, match="no groups"):
        spread_skill([])


# -- ranks ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4, 7, 8])
def test_samples_of_the_posterior_have_the_ideal_histogram(
    count: int, antithetic: bool, generator: torch.Generator
) -> None:
    samples, truth = draws(count, generator, antithetic=antithetic), truths(generator)
    found, ideal = rank_histogram(samples, truth, generator), ideal_ranks(count, antithetic=antithetic)
    assert found.shape == ideal.shape == (count + 1,)
    assert float(ideal.sum()) == pytest.approx(1) and float(found.sum()) == pytest.approx(1)
    torch.testing.assert_close(found, ideal, atol=0.006, rtol=0)
    assert 1 - float(ideal[0] + ideal[-1]) == pytest.approx(ideal_coverage(count, antithetic=antithetic))
    assert rank_error(found, ideal) < 0.01


def test_ranks_show_what_is_wrong(generator: torch.Generator) -> None:
    truth, ideal = truths(generator), ideal_ranks(9)
    narrow = rank_histogram(draws(9, generator, spread=0.5), truth, generator)
    assert narrow[0] > 2 * ideal[0] and narrow[-1] > 2 * ideal[-1] and narrow[5] < ideal[5]
    wide = rank_histogram(draws(9, generator, spread=2.0), truth, generator)
    assert wide[0] < ideal[0] / 2 and wide[5] > ideal[5]
    low = rank_histogram(draws(9, generator) - 1, truth, generator)
    assert low[-1] > 3 * low[0]
    assert min(rank_error(wrong, ideal) for wrong in (narrow, wide, low)) > 0.1


def test_ties_are_broken_at_random(generator: torch.Generator) -> None:
    samples, truth = torch.zeros(4, VALUES), torch.zeros(VALUES)
    samples[0] = -1
    found = rank_histogram(samples, truth, generator)
    torch.testing.assert_close(found, torch.tensor([0, 0.25, 0.25, 0.25, 0.25]).double(), atol=0.006, rtol=0)
    again = [rank_histogram(samples, truth, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*again)
    samples[1] = 0.3
    assert float(rank_histogram(samples, truth, generator)[4]) == 0
    rounded = rank_histogram(samples, truth, generator, rounding=0.4)
    assert float(rounded[4]) == pytest.approx(0.25, abs=0.006)


def test_what_cannot_be_ranked_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="shape"):
        rank_histogram(torch.zeros(3, 2), torch.zeros(3), generator)
    with pytest.raises(InputError, match="no value"):
        crps(torch.zeros(3, 2), torch.zeros(2), where=torch.zeros(2))
    for refused in (lambda: crps(torch.zeros(1, 2), torch.zeros(2)), lambda: ideal_ranks(1)):
        with pytest.raises(UsageError, match="1 sample"):
            refused()


def test_bars_are_as_high_as_their_shares() -> None:
    histogram = torch.tensor([0.5, 0.0, 0.25, 0.25], dtype=torch.float64)
    picture = rank_picture(histogram, ideal_ranks(3))
    assert picture.shape == (320, 480, 3) and picture.dtype == np.uint8
    blue = (picture == (31, 90, 180)).all(axis=2)[30:280]  # without the title
    thirds = [int(blue[:, 60 + 101 * k + 50].sum()) for k in range(4)]
    assert thirds[1] == 0
    assert thirds[0] == pytest.approx(2 * thirds[2], abs=6) and thirds[2] == thirds[3]
