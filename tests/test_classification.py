"""Classification by likelihoods: the exact Bayes classifier of Gaussian classes, by the ODE."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from invsolve.errors import InputError
from invsolve.evaluation.classification import accuracy, class_posterior
from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.ode.density import likelihood


def classes() -> list[GaussianPrior]:
    """Three kinds of picture that overlap: dark, bright, and of more contrast."""
    eye = torch.eye(4, dtype=torch.float64)
    made = [
        GaussianPrior(torch.full((1, 2, 2), mean, dtype=torch.float64), variance * eye)
        for mean, variance in ((0.4, 0.01), (0.5, 0.01), (0.45, 0.04))
    ]
    for one in made:
        one.facts = replace(one.facts, sigma_min=0.005, sigma_max=50.0, sigma_data=0.2)
    return made


def test_by_the_ode_as_by_bayes_rule(generator: torch.Generator) -> None:
    kinds, shares = classes(), torch.tensor([0.5, 0.3, 0.2])
    x = torch.cat([kind.sample(2, generator) for kind in kinds])
    exact = torch.stack([kind.log_density(x, 0.005) for kind in kinds], dim=1)
    joint = exact.exp() * shares
    by_bayes = joint / joint.sum(dim=1, keepdim=True)
    found = [
        likelihood(kind, x, exact_trace=True, dequantize=False, rtol=1e-4, atol=1e-4).log_density for kind in kinds
    ]
    torch.testing.assert_close(class_posterior(torch.stack(found, dim=1), shares), by_bayes, atol=0.02, rtol=0)


def test_accuracy_is_that_of_the_best_classifier(generator: torch.Generator) -> None:
    """Two classes of one variance err with probability Phi(-distance / 2 std)."""
    dark, bright, _ = classes()
    x = torch.cat([dark.sample(4000, generator), bright.sample(4000, generator)])
    labels = torch.arange(2).repeat_interleave(4000)
    logs = torch.stack([kind.log_density(x, 0.005) for kind in (dark, bright)], dim=1)
    distance = 0.1 * 4**0.5 / math.sqrt(0.01 + 0.005**2)
    best = 0.5 * (1 + math.erf(distance / 2 / math.sqrt(2)))
    assert accuracy(class_posterior(logs), labels) == pytest.approx(best, abs=0.015)


def test_likelihoods_of_any_size_and_shares_of_none() -> None:
    logs = torch.tensor([[-5000.0, -5001.0], [3000.0, 9000.0]])
    found = class_posterior(logs)
    torch.testing.assert_close(found[0], torch.tensor([1.0, math.exp(-1)]).double() / (1 + math.exp(-1)))
    assert found[1].tolist() == [0.0, 1.0]
    assert class_posterior(logs, torch.tensor([1.0, 0.0]))[1].tolist() == [1.0, 0.0]


def test_smooth_classes_are_told_by_their_texture(generator: torch.Generator) -> None:
    """Same mean, same variance: only the correlations of neighbours differ, which no linear classifier sees."""
    kinds = [smooth_gaussian_prior((1, 6, 6), length=length) for length in (0.3, 1.5)]
    x = torch.cat([kind.sample(50, generator) for kind in kinds])
    logs = torch.stack([kind.log_density(x, 0.01) for kind in kinds], dim=1)
    assert accuracy(class_posterior(logs), torch.arange(2).repeat_interleave(50)) > 0.95


@pytest.mark.parametrize(
    ("logs", "shares"),
    [
        (torch.zeros(3), None),
        (torch.full((2, 2), math.nan), None),
        (torch.zeros(2, 2), torch.ones(3)),
        (torch.zeros(2, 2), torch.zeros(2)),
        (torch.zeros(2, 2), torch.tensor([1.0, -0.5])),
    ],
)
def test_what_is_no_probability_is_refused(logs: torch.Tensor, shares: torch.Tensor | None) -> None:
    with pytest.raises(InputError, match="wanted"):
        class_posterior(logs, shares)
