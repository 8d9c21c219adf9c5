"""Codes of two models of one law agree, those of others do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from invsolve.errors import InputError
from invsolve.evaluation.identifiability import code_correlation, mean_correlation
from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.ode.latent import encode


def prior(std: float = 0.25, length: float = 1.0) -> GaussianPrior:
    made = smooth_gaussian_prior((1, 4, 4), std=std, length=length)
    made.facts = replace(made.facts, sigma_min=0.005, sigma_max=50.0)
    return made


def test_correlation_is_pearsons() -> None:
    a, b = (torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    mixed = 0.6 * a + 0.8 * b
    expected = [
        torch.corrcoef(torch.stack([x, y]))[0, 1] for x, y in zip(a.flatten(1).T, mixed.flatten(1).T, strict=True)
    ]
    found = code_correlation(a, mixed)
    torch.testing.assert_close(found.same, torch.stack(expected).double(), rtol=1e-4, atol=1e-5)
    assert abs(mean_correlation(found.unrelated)) < 3 / 50**0.5
    assert code_correlation(a, a).difference == 0
    assert code_correlation(a, b).difference == pytest.approx(2**0.5, rel=0.15)


def test_codes_are_the_laws_and_not_the_models(generator: torch.Generator) -> None:
    """A model learned from finitely many pictures gives nearly the true law's codes; one of another law does not."""
    true = prior()
    pictures = true.sample(4000, generator)
    learned = GaussianPrior(pictures.mean(dim=0), torch.cov(pictures.flatten(1).T))
    learned.facts = true.facts
    x = true.sample(60, generator)
    codes = encode(true, x, rtol=1e-4, atol=1e-4)
    found = code_correlation(codes, encode(learned, x, rtol=1e-4, atol=1e-4))
    assert float(found.same.min()) > 0.99
    assert found.difference < 0.1
    white = code_correlation(codes, encode(prior(length=0.05), x, rtol=1e-4, atol=1e-4))
    assert mean_correlation(white.same) < 0.9 * mean_correlation(found.same)
    assert white.difference > 3 * found.difference


def test_codes_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InputError, match="three or more"):
        code_correlation(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(InputError, match="same"):
        code_correlation(torch.zeros(4, 3), torch.zeros(4, 2))
    flat = torch.rand(5, 2) * torch.tensor([1.0, 0.0])
    assert mean_correlation(code_correlation(flat, flat).same) == pytest.approx(1)
