"""FID and KID on features whose distances are known."""

from __future__ import annotations

import pytest
import torch

from invsolve.errors import InputError
from invsolve.evaluation.sample_quality import Features, classifier_features, diversity, quality
from invsolve.models.network import NetworkConfig
from invsolve.models.noisy_classifier import NoisyClassifier
from invsolve.pretrained import Card, TrainedClassifier

pytest.importorskip("torchmetrics")


class Corner(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 0, 0]


CORNER = Features("corner pixel", Corner(), 3)


def pictures(count: int, mean: float, std: float, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(count, 3, 4, 4, generator=g, dtype=torch.float64)


def test_fid_is_the_distance_of_two_gaussians() -> None:
    """|m1 - m2|^2 + sum (s1 - s2)^2 for independent features."""
    found = quality(pictures(20_000, 0.4, 0.05, 0), pictures(20_000, 0.5, 0.08, 1), CORNER, batch=5000)
    assert found.fid == pytest.approx(3 * (0.1**2 + 0.03**2), rel=0.03)
    assert found.kid > 10 * found.kid_std > 0
    assert (found.pictures, found.features) == (20_000, "corner pixel")


def test_two_sets_of_one_law_are_close() -> None:
    found = quality(pictures(2000, 0.5, 0.1, 0), pictures(2000, 0.5, 0.1, 1), CORNER)
    assert 0 <= found.fid < 2e-4
    assert abs(found.kid) < 5 * found.kid_std + 1e-4
    state = torch.random.get_rng_state()
    again = quality(pictures(2000, 0.5, 0.1, 0), pictures(2000, 0.5, 0.1, 1), CORNER)
    assert again == found
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_network_is_named_and_labelled() -> None:
    network = NoisyClassifier(NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(0,)), 3)
    card = Card(
        name="small", network={}, units="", sigma_min=0.005, sigma_max=20.0, validation_mse=[], sha256="abcdef0123",
        kind="classifier", classes=["a", "b", "c"],
    )  # fmt: skip
    features = classifier_features(TrainedClassifier(network, card, torch.device("cpu")))
    found = quality(torch.rand(30, 3, 16, 16), torch.rand(30, 3, 16, 16), features)
    assert "small (abcdef01)" in found.features
    assert "not comparable" in found.features
    assert features(torch.rand(2, 3, 16, 16)).shape == (2, 16)


def test_diversity_is_a_mean_distance() -> None:
    assert diversity(torch.zeros(4, 3, 2, 2), CORNER) == 0
    two = torch.zeros(2, 3, 2, 2)
    two[1, 0] = 1
    assert diversity(two, CORNER) == pytest.approx(1)
    with pytest.raises(InputError, match="hundreds"):
        quality(two[:1], two, CORNER)
