"""What benchmarks say of samples, on laws where it is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.evaluation.coverage import ideal_coverage, reliability

VALUES = 200_000


def draws(count: int, antithetic: bool, generator: torch.Generator) -> Tensor:
    """Samples (count, 1, 1, 1, VALUES) of a standard normal; 2m + 1 is minus 2m where they are pairs."""
    if not antithetic:
        return torch.randn(count, 1, 1, 1, VALUES, generator=generator)
    half = torch.randn(-(-count // 2), 1, 1, 1, VALUES, generator=generator)
    return torch.stack([half, -half], dim=1).flatten(0, 1)[:count]


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_samples_of_the_posterior_are_found_reliable(count: int, antithetic: bool, generator: torch.Generator) -> None:
    truth = torch.randn(1, 1, 1, VALUES, generator=generator)
    found = reliability(draws(count, antithetic, generator), truth, antithetic=antithetic)
    assert found.ideal == ideal_coverage(count, antithetic=antithetic)
    assert found.coverage == pytest.approx(found.ideal, abs=0.005)
    if not (antithetic and count % 2):  # the mean of an odd number errs by the one without a partner
        assert found.spread == pytest.approx(1, abs=0.01)
    assert found.std == pytest.approx(1, abs=0.01)


def test_samples_too_close_are_found_too_sure(generator: torch.Generator) -> None:
    truth = torch.randn(1, 1, 1, VALUES, generator=generator)
    found = reliability(0.5 * draws(8, True, generator), truth, antithetic=True)
    assert found.spread == pytest.approx(0.5, abs=0.01) and found.coverage < found.ideal - 0.1


def test_a_truth_rounded_to_8_bits_is_inside_samples_that_are_exact(generator: torch.Generator) -> None:
    exact = torch.rand(1, 3, 8, 8, generator=generator)
    rounded = (exact * 255).round() / 255
    samples = torch.stack([exact - 1e-6, exact + 1e-6])
    assert reliability(samples, rounded, rounding=0.5 / 255).coverage == 1
    assert reliability(samples, rounded).coverage < 0.1
    # It errs by the rounding, evenly within half a step, and by nothing else.
    assert reliability(samples, rounded, rounding=0.5 / 255).spread == pytest.approx(1, abs=0.1)


def test_only_what_counts_is_counted() -> None:
    samples = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1).expand(2, 1, 3, 2, 2)
    truth = torch.full((1, 3, 2, 2), 0.5)
    truth[..., 0, 0] = 2.0
    where = torch.ones(1, 2, 2, dtype=torch.bool)
    where[0, 0, 0] = False
    assert reliability(samples, truth).coverage == 0.75
    assert reliability(samples, truth, where=where).coverage == 1


def test_what_cannot_be_judged_is_refused() -> None:
    samples = torch.zeros(4, 1, 1, 2, 2)
    with pytest.raises(InputError, match=r"truth has shape \(1, 2, 2\), a sample \(1, 1, 2, 2\)"):
        reliability(samples, torch.zeros(1, 2, 2))
    with pytest.raises(InputError, match="no value counts"):
        reliability(samples, torch.zeros(1, 1, 2, 2), where=torch.zeros(2, 2))
    with pytest.raises(UsageError, match="1 sample"):
        reliability(samples[:1], torch.zeros(1, 1, 2, 2))
