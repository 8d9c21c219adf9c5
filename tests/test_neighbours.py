"""Nearest training pictures, and whether copies are told from new pictures of the same law."""

from __future__ import annotations

import pytest
import torch

from invsolve.errors import InputError, UsageError
from invsolve.evaluation.neighbours import memorisation, nearest


def drawn(count: int, seed: int) -> torch.Tensor:
    """Pictures (count, 1, 2, 2) of one law."""
    return 0.5 + 0.1 * torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_nearest_is_the_nearest() -> None:
    training, pictures = drawn(50, 0), drawn(7, 1)
    distances = (pictures[:, None] - training[None]).flatten(2).square().mean(dim=2).sqrt()
    for chunk in (4096, 8, 1):
        found = nearest(pictures, training, chunk=chunk)
        torch.testing.assert_close(found.distance, distances.amin(dim=1))
        assert torch.equal(found.number, distances.argmin(dim=1))


def test_bytes_are_levels_and_copies_are_at_distance_0() -> None:
    training = torch.randint(0, 256, (20, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = nearest(training[[3, 17]].float() / 255 + torch.tensor([0.0, 1e-4]).reshape(2, 1, 1, 1), training)
    assert found.number.tolist() == [3, 17]
    torch.testing.assert_close(found.distance, torch.tensor([0.0, 1e-4]), atol=1e-6, rtol=1e-2)


def test_new_pictures_of_the_law_are_not_copies() -> None:
    training = drawn(500, 0)
    samples, validation = (nearest(drawn(2000, seed), training).distance for seed in (1, 2))
    found = memorisation(samples, validation, threshold_share=0.05)
    assert found.copied == pytest.approx(0.05, abs=4 * (0.05 * 0.95 * 2 / 2000) ** 0.5)
    assert abs(found.nearer - 0.5) < 0.03
    assert abs(found.z) < 3
    assert found.samples_distance == pytest.approx(found.validation_distance, rel=0.1)


def test_copies_are_told() -> None:
    """A tenth of the samples are training pictures with a little noise."""
    training = drawn(500, 0)
    samples = drawn(2000, 1)
    samples[:200] = training[:200] + 1e-4 * drawn(200, 3)
    found = memorisation(nearest(samples, training).distance, nearest(drawn(2000, 2), training).distance)
    assert found.copied == pytest.approx(0.1 + 0.9 * 0.01, abs=0.015)
    assert found.z > 3


def test_the_share_nearer_is_counted_over_all_pairs() -> None:
    samples, validation = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0])
    found = memorisation(samples, validation)
    assert found.nearer == pytest.approx((2 + 1.5 + 1) / 6)  # the tie counts half
    swapped = memorisation(validation, samples)
    assert found.nearer + swapped.nearer == pytest.approx(1)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InputError, match="of one shape"):
        nearest(drawn(2, 0), torch.zeros(3, 1, 2, 3))
    with pytest.raises(InputError, match="at least one"):
        nearest(drawn(2, 0), drawn(0, 1))
    with pytest.raises(UsageError, match="two of each"):
        memorisation(torch.zeros(1), torch.zeros(5))
    with pytest.raises(UsageError, match="between 0 and 1"):
        memorisation(torch.zeros(3), torch.zeros(5), threshold_share=1.0)
