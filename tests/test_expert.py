"""A denoiser of two networks: who counts where, what is saved and read, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from invsolve.errors import ModelError
from invsolve.models.expert import ExpertDenoiser, Levels
from invsolve.models.ffdnet import RECEPTIVE_RADIUS, FFDNet
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.pretrained import Card, load_prior
from invsolve.pretrained.loading import save_prior
from invsolve.training.export import initial_weights
from invsolve.training.presets import TrainingConfig

LEVELS: Levels = (0.02, 0.06, 0.25, 0.29)
CONFIG = NetworkConfig(widths=(8, 8, 8), encoder_blocks=(1, 1, 2), decoder_blocks=(1, 1))


def two_networks() -> ExpertDenoiser:
    torch.manual_seed(0)
    network = ExpertDenoiser(EDMDenoiser(CONFIG), FFDNet(), LEVELS).eval()
    torch.nn.init.normal_(network.general.net.conv_out.weight, std=0.1)
    return network.requires_grad_(False)


def saved(folder: Path, network: ExpertDenoiser) -> Card:
    card = Card("two", {}, "RGB in [0, 1]", 0.005, 20.0, [(0.1, 0.01)], "0" * 64)
    return save_prior(folder, network, card)


def test_each_network_counts_where_the_levels_say() -> None:
    network = two_networks()
    x = torch.rand(5, 3, 16, 16)
    middle = (0.02 * 0.06) ** 0.5
    sigma = torch.tensor([0.01, middle, 0.1, (0.25 * 0.29) ** 0.5, 0.5])
    assert torch.allclose(network.weight(sigma), torch.tensor([0.0, 0.5, 1.0, 0.5, 0.0]), atol=1e-5)
    general, expert = network.general(x, sigma), network.expert(x, sigma.reshape(-1, 1, 1, 1))
    mixed = network(x, sigma)
    assert torch.allclose(mixed[[0, 4]], general[[0, 4]], atol=1e-6)
    assert torch.allclose(mixed[2], expert[2], atol=1e-6)
    assert torch.allclose(mixed[1], 0.5 * (general + expert)[1], atol=1e-5)


def test_a_batch_of_one_level_is_the_batch_picture_by_picture() -> None:
    network = two_networks()
    x, sigma = torch.rand(2, 3, 17, 18), torch.tensor([0.1, 0.4])
    each = torch.cat([network(x[k : k + 1], sigma[k : k + 1]) for k in range(2)])
    assert torch.allclose(network(x, sigma), each, atol=1e-5)


def test_the_expert_sees_no_farther_than_its_radius() -> None:
    torch.manual_seed(0)
    expert, size = FFDNet().eval(), 4 * RECEPTIVE_RADIUS
    x = torch.rand(1, 3, size, size, requires_grad=True)
    expert(x, 0.1)[..., size // 2, size // 2].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum(dim=(0, 1)).nonzero()
    assert (seen - size // 2).abs().max() <= RECEPTIVE_RADIUS


def test_both_networks_are_saved_under_one_hash_and_read_again(tmp_path: Path) -> None:
    network = two_networks()
    saved(tmp_path, network)
    prior = load_prior(tmp_path, "cpu")
    x, sigma = torch.rand(1, 3, 16, 16), torch.tensor([0.03])
    assert prior.card.expert == {"levels": list(LEVELS)}
    assert torch.allclose(prior.denoise(x, 0.03), network(x, sigma), atol=2e-3)


def test_training_goes_on_from_the_general_network(tmp_path: Path) -> None:
    network = two_networks()
    saved(tmp_path, network)
    weights = initial_weights(str(tmp_path), TrainingConfig(network=CONFIG))
    assert set(weights) == set(network.general.state_dict())


@pytest.mark.parametrize("levels", [[], [0.1, 0.2, 0.3], [0.1, 0.1, 0.2, 0.3], [-0.1, 0.1, 0.2, 0.3]])
def test_cards_with_other_levels_are_refused(tmp_path: Path, levels: list[float]) -> None:
    saved(tmp_path, two_networks())
    card = json.loads((tmp_path / "card.json").read_text())
    card["expert"] = {"levels": levels}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="expert"):
        load_prior(tmp_path, "cpu")


def test_an_expert_of_colour_pictures_goes_with_no_grey_network() -> None:
    grey = EDMDenoiser(NetworkConfig(channels=1, widths=(8, 8, 8), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1)))
    with pytest.raises(ValueError, match="RGB"):
        ExpertDenoiser(grey, FFDNet(), LEVELS)


@pytest.mark.parametrize("low", [False, True])
def test_ffdnet_rectifies_within_its_convolutions(low: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What oneDNN does in one pass is what the layers do one after the other, to the last bit."""
    torch.manual_seed(0)
    net, x = FFDNet().eval().requires_grad_(False), torch.rand(2, 3, 21, 18)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        with torch.enable_grad():
            apart = net(x, 0.1)
        with torch.no_grad():
            together = net(x, 0.1)
            monkeypatch.setattr("invsolve.models.post_ops.POINTWISE", None)
            without = net(x, 0.1)
    small = torch.nn.functional.pixel_unshuffle(torch.nn.functional.pad(x, (0, 0, 0, 1), mode="replicate"), 2)
    level = torch.full((2, 1, *small.shape[-2:]), 0.1)
    layered = torch.nn.functional.pixel_shuffle(net.model(torch.cat([small, level], dim=1)), 2)[..., :21, :]
    torch.testing.assert_close(apart.float(), layered, atol=0.05 if low else 1e-6, rtol=0)
    assert torch.equal(without, apart)
    torch.testing.assert_close(together, apart, atol=1e-3 if low else 1e-6, rtol=0)
