"""The Inception score on probabilities whose score is known."""

from __future__ import annotations

import math

import pytest
import torch

from invsolve.errors import InputError
from invsolve.evaluation.sample_quality import inception_score


def test_sure_and_of_all_classes_alike_is_the_number_of_classes() -> None:
    found = inception_score(torch.eye(5).repeat(40, 1), splits=4)
    assert found.score == pytest.approx(5)
    assert found.std == pytest.approx(0, abs=1e-9)


def test_the_least_is_one() -> None:
    assert inception_score(torch.full((20, 4), 0.25)).score == pytest.approx(1)
    one_class = torch.zeros(20, 4)
    one_class[:, 2] = 1
    assert inception_score(one_class).score == pytest.approx(1)


def test_a_classifier_that_is_right_with_probability_q() -> None:
    """exp(log K + q log q + (1 - q) log((1 - q) / (K - 1))) for K classes alike."""
    classes, q = 10, 0.7
    p = torch.full((classes, classes), (1 - q) / (classes - 1)).fill_diagonal_(q).repeat(10, 1)
    known = math.log(classes) + q * math.log(q) + (1 - q) * math.log((1 - q) / (classes - 1))
    assert inception_score(p).score == pytest.approx(math.exp(known), rel=1e-6)


def test_classes_of_unequal_shares_count_by_their_entropy() -> None:
    p = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(30, 1), torch.tensor([[0.0, 1.0]]).repeat(10, 1)])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    found = inception_score(p, splits=1)
    assert found.score == pytest.approx(math.exp(entropy))
    assert math.isnan(found.std)


def test_parts_are_scored_by_themselves() -> None:
    """Two halves of one class each: 1, where the whole would have 2."""
    p = torch.eye(2).repeat_interleave(10, dim=0)
    assert inception_score(p, splits=2).score == pytest.approx(1)
    assert inception_score(p, splits=1).score == pytest.approx(2)


def test_what_is_no_probability_is_refused() -> None:
    for wrong in (torch.ones(5, 3), torch.tensor([[1.5, -0.5]]), torch.ones(4), torch.full((4, 2), math.nan)):
        with pytest.raises(InputError, match="probabilities"):
            inception_score(wrong, splits=1)
    with pytest.raises(InputError, match="parts"):
        inception_score(torch.eye(3), splits=4)
