"""The network: preconditioning, locality, any size, seamless tiles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from invsolve.errors import InputError
from invsolve.models.allocation import keep_freed_memory
from invsolve.models.network import Attention, EDMDenoiser, NetworkConfig, ResidualBlock
from invsolve.models.tiling import tiled
from invsolve.pretrained import Card, load_prior, save_prior
from invsolve.training.presets import PRESETS


def network(config: NetworkConfig) -> EDMDenoiser:
    torch.manual_seed(0)
    net = EDMDenoiser(config)
    for parameter in net.parameters():
        if float(parameter.detach().abs().sum()) == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval().requires_grad_(False)


CONFIGS = [
    NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,)),
    NetworkConfig(widths=(8, 8, 16), encoder_blocks=(1, 2, 1), decoder_blocks=(2, 1), normalize_from=0),
    NetworkConfig(stem=2, widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,), channels=1),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_nothing_beyond_the_receptive_radius_matters(config: NetworkConfig) -> None:
    net, radius = network(config), config.receptive_radius
    size = 2 * (radius // config.multiple + 2) * config.multiple
    x = torch.rand(1, config.channels, size, size)
    changed, middle = x.clone(), size // 2
    changed[..., : middle - radius, :] += 1
    changed[..., middle + radius + 1 :] += 1
    sigma = torch.tensor([0.3])
    assert torch.allclose(net(x, sigma)[..., middle, middle], net(changed, sigma)[..., middle, middle], atol=1e-6)
    nearer = x.clone()
    nearer[..., middle, middle + config.multiple] += 1
    assert not torch.allclose(net(x, sigma)[..., middle, middle], net(nearer, sigma)[..., middle, middle], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (32, 32), (33, 50)])
def test_any_size(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    assert network(CONFIGS[0])(x, torch.tensor([0.1, 2.0])).shape == x.shape


def test_tiles_are_seamless() -> None:
    config = CONFIGS[1]
    net, sigma = network(config), torch.tensor([0.2])
    x = torch.rand(1, 3, 120, 148)
    pieces = tiled(lambda part: net(part, sigma), x, core=32, overlap=config.receptive_radius, multiple=config.multiple)
    assert torch.allclose(pieces, net(x, sigma), atol=1e-5)
    too_little = tiled(lambda part: net(part, sigma), x, core=32, overlap=4, multiple=config.multiple)
    assert not torch.allclose(too_little, net(x, sigma), atol=1e-5)


def test_preconditioning_is_edm_table_1() -> None:
    config = CONFIGS[0]
    net = network(config)
    x, sigma = torch.rand(1, 3, 8, 8), torch.tensor([0.4])
    c_skip = 0.27**2 / (0.4**2 + 0.27**2)
    c_out, c_in = 0.4 * 0.27 / (0.4**2 + 0.27**2) ** 0.5, (0.4**2 + 0.27**2) ** -0.5
    raw = net.net(c_in * (x - 0.5), sigma.log() / 4)
    torch.testing.assert_close(net(x, sigma), 0.5 + c_skip * (x - 0.5) + c_out * raw)


def test_limits_of_the_denoiser() -> None:
    net = network(CONFIGS[0])
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(net(x, torch.tensor([1e-6])), x, atol=1e-4, rtol=0)


def test_shipped_architectures_fit_their_budget() -> None:
    for name, config in PRESETS.items():
        with torch.device("meta"):
            count = EDMDenoiser(config.network).parameters_count
        assert 55e6 < count < 65e6 if name == "large" else 2 * count < 8e6, name  # none is shipped that large


ATTENTIVE = NetworkConfig(widths=(8, 32), encoder_blocks=(1, 2), decoder_blocks=(1,), attention_from=1)


def test_attention_sees_the_whole_picture() -> None:
    net, x, sigma = network(ATTENTIVE), torch.rand(1, 3, 64, 64), torch.tensor([0.3])
    changed = x.clone()
    changed[..., 60:, 60:] += 1
    assert not torch.allclose(net(x, sigma)[..., 0, 0], net(changed, sigma)[..., 0, 0], atol=1e-6)
    assert not ATTENTIVE.local
    with pytest.raises(ValueError, match="whole picture"):
        _ = ATTENTIVE.receptive_radius


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    layer = Attention(64, head_width=32).double()
    torch.nn.init.normal_(layer.project.weight, std=0.1)
    x = torch.randn(2, 64, 3, 5, dtype=torch.float64)
    pixels = x.flatten(2).transpose(1, 2)
    normed = (pixels - pixels.mean(2, keepdim=True)) / (pixels.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    q, k, v = (normed @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, dim=2)
    heads = []
    for h in (slice(0, 32), slice(32, 64)):
        heads.append(torch.softmax(q[..., h] @ k[..., h].transpose(1, 2) / 32**0.5, dim=2) @ v[..., h])
    expected = pixels + torch.cat(heads, dim=2) @ layer.project.weight.T + layer.project.bias
    torch.testing.assert_close(layer(x).flatten(2).transpose(1, 2), expected)


def test_a_prior_with_attention_refuses_other_sizes(tmp_path: Path) -> None:
    card = Card(name="a", network={}, units="", sigma_min=0.01, sigma_max=9.0, validation_mse=[], sha256="", size=32)
    save_prior(tmp_path, network(ATTENTIVE), card)
    prior = load_prior(tmp_path, "cpu")
    assert prior.size == 32
    assert prior.denoise(torch.rand(2, 3, 32, 32), 0.1).shape == (2, 3, 32, 32)
    with pytest.raises(InputError, match="32 x 32 only"):
        prior.denoise(torch.rand(1, 3, 32, 40), 0.1)


def test_block_counts_are_checked() -> None:
    with pytest.raises(ValueError, match="encoder_blocks"):
        NetworkConfig(widths=(8, 16), encoder_blocks=(1,), decoder_blocks=(1,))


def test_large_pictures_are_tiled_without_a_seam(small_prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = load_prior(small_prior, "cpu")
    monkeypatch.setattr("invsolve.models.precision.native_bfloat16", lambda device: False)
    x = torch.rand(1, 3, 90, 70)
    whole = prior.denoise(x, 0.3)
    monkeypatch.setattr("invsolve.pretrained.network_prior.LEAST_CORE", 32)
    monkeypatch.setattr(prior, "pixels_at_once", 2000)
    torch.testing.assert_close(prior.denoise(x, 0.3), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [*CONFIGS, ATTENTIVE])
@pytest.mark.parametrize("low", [False, True])
def test_working_in_place_changes_nothing(config: NetworkConfig, low: bool) -> None:
    """Without a gradient blocks write into memory they no longer need: to the last bit what they say with one."""
    net, x = network(config), torch.rand(2, config.channels, 32, 32)
    before = x.clone()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        with torch.enable_grad():
            expected = net(x, torch.tensor([0.1, 1.0]))
        with torch.no_grad():
            features, embedding = net.net.encode(x, torch.tensor([0.1, 1.0]))
            kept = [feature.clone() for feature in features]
            found = net(x, torch.tensor([0.1, 1.0]))
            again = net(x, torch.tensor([0.1, 1.0]))
    assert torch.equal(found, expected) and torch.equal(again, expected)
    assert torch.equal(x, before)
    assert all(torch.equal(feature, copy) for feature, copy in zip(features, kept, strict=True))
    with torch.no_grad():  # a block leaves what it is given as it was
        block = next(part for part in net.net.encoder[0].children() if isinstance(part, ResidualBlock))
        given = features[0].float().clone()
        block(given, embedding.float())
        assert torch.equal(given, features[0].float())


def test_freed_memory_is_kept_unless_a_person_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            told.append((parameter, value))
            return 1

    monkeypatch.setattr("invsolve.models.allocation.ctypes.CDLL", lambda name: Library)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    assert keep_freed_memory.__wrapped__() and sorted(told) == [(-3, 2**28), (-1, 2**29)]
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert not keep_freed_memory.__wrapped__() and len(told) == 2
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    monkeypatch.setattr("invsolve.models.allocation.ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory.__wrapped__()
