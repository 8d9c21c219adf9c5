"""Priors with an energy: a symmetric Jacobian, the gradient of a scalar, and all that other priors can."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from invsolve.cli.main import app
from invsolve.errors import ModelError, UsageError
from invsolve.models.energy import EnergyDenoiser, make_denoiser
from invsolve.models.gaussian import smooth_gaussian_prior
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.precision import full_precision
from invsolve.models.tiling import tiled
from invsolve.pretrained import Card, load_prior, save_prior
from invsolve.rules.conditioned import denoise_with_jacobian
from invsolve.training.loss import denoising_loss
from invsolve.training.presets import PRESETS

LOCAL = NetworkConfig(channels=2, widths=(6, 8), encoder_blocks=(1, 1), decoder_blocks=(1,), energy=True)
ATTENTIVE = replace(LOCAL, widths=(6, 32), attention_from=1)
CONFIGS = pytest.mark.parametrize(
    "config", [LOCAL, ATTENTIVE, replace(LOCAL, stem=2)], ids=["local", "attention", "stem"]
)


def network(config: NetworkConfig) -> EDMDenoiser:
    torch.manual_seed(0)
    net = make_denoiser(config)
    for parameter in net.parameters():  # what starts at zero would hide errors
        if float(parameter.detach().abs().sum()) == 0:
            torch.nn.init.normal_(parameter, std=0.2)
    return net.double().eval().requires_grad_(False)


def picture(generator: torch.Generator, *size: int) -> Tensor:
    return torch.rand(*size, generator=generator, dtype=torch.float64)


@CONFIGS
def test_the_jacobian_is_symmetric(config: NetworkConfig, generator: torch.Generator) -> None:
    x, sigma = picture(generator, 1, 2, 3, 5), torch.tensor([0.4], dtype=torch.float64)

    def skew(net: EDMDenoiser) -> float:
        jacobian = torch.autograd.functional.jacobian(lambda x: net(x, sigma), x).reshape(30, 30)
        return float((jacobian - jacobian.T).norm() / jacobian.norm())

    assert skew(network(config)) < 1e-12
    assert skew(network(replace(config, energy=False))) > 0.01


@CONFIGS
def test_the_score_is_the_slope_of_the_energy(config: NetworkConfig, generator: torch.Generator) -> None:
    net = network(config)
    assert isinstance(net, EnergyDenoiser)
    x, v = picture(generator, 3, 2, 6, 7), picture(generator, 3, 2, 6, 7)
    sigma = torch.tensor([0.01, 0.3, 8.0], dtype=torch.float64)
    s = sigma[:, None, None, None]
    h = 1e-4 * s
    slope = (net.energy(x + h * v, sigma) - net.energy(x - h * v, sigma)) / (2 * h.flatten())
    expected = ((x - net(x, sigma)) / s**2 * v).flatten(1).sum(dim=1)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


def test_before_its_first_step_it_is_the_gaussians(generator: torch.Generator) -> None:
    net = make_denoiser(LOCAL)
    x, sigma = torch.rand(2, 2, 8, 8, generator=generator), torch.tensor([0.05, 2.0])
    plain = make_denoiser(replace(LOCAL, energy=False))
    torch.testing.assert_close(net(x, sigma), plain(x, sigma))
    assert isinstance(net, EnergyDenoiser) and not isinstance(plain, EnergyDenoiser)
    expected = (x - 0.5).square().flatten(1).sum(dim=1) / (2 * (sigma**2 + 0.27**2))
    torch.testing.assert_close(net.energy(x, sigma), expected)


@CONFIGS
def test_it_denoises_wherever_others_do(config: NetworkConfig, generator: torch.Generator) -> None:
    net = network(config)
    x, sigma = picture(generator, 2, 2, 6, 6), torch.tensor([0.1, 1.0], dtype=torch.float64)
    wanted = net(x, sigma)
    assert not wanted.requires_grad
    with torch.no_grad():
        assert torch.equal(net(x, sigma), wanted)
        assert not net(x.clone().requires_grad_(), sigma).requires_grad
    with torch.inference_mode():
        assert torch.equal(net(x.clone(), sigma.clone()), wanted)
    leaf = x.clone().requires_grad_()
    assert net(leaf, sigma).requires_grad
    assert torch.autograd.gradcheck(lambda x: net(x, sigma), leaf, eps=1e-5, atol=1e-6, fast_mode=True)


@CONFIGS
def test_every_weight_learns(config: NetworkConfig, generator: torch.Generator) -> None:
    net = network(config).float().train().requires_grad_(True)
    x0, z = torch.rand(2, 2, 8, 8, generator=generator), torch.randn(2, 2, 8, 8, generator=generator)
    denoising_loss(net, x0, torch.tensor([0.1, 1.0]), z, "edm").backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())
    assert sum(float(p.grad.abs().sum()) > 0 for p in net.parameters()) == len(list(net.parameters()))  # type: ignore[union-attr]


def test_it_sees_twice_as_far_and_tiles_are_seamless(generator: torch.Generator) -> None:
    net, radius = network(LOCAL), LOCAL.receptive_radius
    assert radius == 2 * replace(LOCAL, energy=False).receptive_radius
    sigma, middle = torch.tensor([0.3], dtype=torch.float64), 24
    x = picture(generator, 1, 2, 48, 48)
    changed = x.clone()
    changed[..., : middle - radius, :] += 1
    changed[..., middle + radius + 1 :] += 1
    a, b = (net(one, sigma)[..., middle, middle] for one in (x, changed))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    x = picture(generator, 1, 2, 90, 70)
    pieces = tiled(lambda part: net(part, sigma), x, core=32, overlap=radius, multiple=LOCAL.multiple)
    torch.testing.assert_close(pieces, net(x, sigma), rtol=0, atol=1e-12)


def test_it_learns_the_energy_of_a_gaussian(generator: torch.Generator) -> None:
    """Differences between pictures' energies come out as those of the closed form, which no white Gaussian has."""
    torch.manual_seed(0)
    prior = smooth_gaussian_prior((1, 8, 8))
    net = EnergyDenoiser(NetworkConfig(channels=1, widths=(16, 32), encoder_blocks=(1, 1), decoder_blocks=(1,)))
    sigma = torch.full((64,), 0.3)
    test = prior.sample(64, generator).float() + 0.3 * torch.randn(64, 1, 8, 8, generator=generator)

    def agreement() -> float:
        with torch.no_grad():
            found = net.energy(test, sigma)
        both = torch.stack([found.double(), -prior.log_density(test.double(), 0.3)])
        return float(torch.corrcoef(both)[0, 1])

    def error() -> float:
        with torch.no_grad():
            return float((net(test, sigma) - prior.denoise(test.double(), 0.3).float()).square().mean())

    before, at_first = agreement(), error()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(50):
        x0 = prior.sample(64, generator).float()
        loss = denoising_loss(net, x0, sigma, torch.randn(x0.shape, generator=generator), "edm")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(before, agreement(), at_first, error())
    assert agreement() > 0.97 > before + 0.05
    assert error() < 0.2 * at_first


CARD = Card("e", {}, "RGB in [0, 1]", 0.005, 20.0, [(0.005, 2.4e-5), (0.1, 5e-3), (20.0, 0.07)], "")
RGB = replace(LOCAL, channels=3)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path, generator: torch.Generator) -> None:
    net = network(RGB).float()
    card = save_prior(tmp_path, net, CARD)
    assert card.network["energy"] is True
    prior = load_prior(tmp_path, "cpu")
    x = torch.rand(2, 3, 12, 13, generator=generator)
    net.load_state_dict({name: value.half().float() for name, value in net.state_dict().items()})
    with full_precision():
        torch.testing.assert_close(prior.denoise(x, 0.3), net(x, torch.full((2,), 0.3)), rtol=1e-5, atol=1e-5)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(prior.energy(leaf, 0.3).sum(), leaf)
    with full_precision():
        torch.testing.assert_close(x - 0.3**2 * slope, prior.denoise(x, 0.3), rtol=1e-5, atol=1e-5)
    # Noise levels that the prior does not know are the nearest it does, as in denoise.
    torch.testing.assert_close(prior.energy(x, 1e-9), prior.energy(x, torch.tensor([0.005, 0.005])))
    _, transposed = denoise_with_jacobian(prior, x, 0.3)
    v = torch.randn(x.shape, generator=generator)
    with full_precision():
        h = 1e-2
        forwards = (prior.denoise(x + h * v, 0.3) - prior.denoise(x - h * v, 0.3)) / (2 * h)
    assert float((transposed(v) - forwards).norm() / forwards.norm()) < 0.03


def test_priors_without_an_energy_say_so(small_prior: Path) -> None:
    with pytest.raises(ModelError, match="--energy"):
        load_prior(small_prior, "cpu").energy(torch.zeros(1, 3, 8, 8), 0.1)


def test_channels_of_their_own_scale_have_no_energy(tmp_path: Path) -> None:
    per_channel = replace(RGB, sigma_data=(0.2, 0.3, 0.3))
    with pytest.raises(ValueError, match="one sigma_data"):
        EnergyDenoiser(per_channel)
    with pytest.raises(UsageError, match="such as photos"):
        replace(PRESETS["thumbnails"], network=replace(PRESETS["thumbnails"].network, energy=True))
    save_prior(tmp_path, network(RGB).float(), CARD)
    fields = json.loads((tmp_path / "card.json").read_text())
    for value, message in (([0.2, 0.3, 0.3], "one sigma_data"), (0.2, None)):
        fields["network"]["sigma_data"] = value
        (tmp_path / "card.json").write_text(json.dumps(fields))
        if message is None:
            load_prior(tmp_path, "cpu")
        else:
            with pytest.raises(ModelError, match=message):
                load_prior(tmp_path, "cpu")


def test_commands_take_it(tmp_path: Path) -> None:
    """Trained from the command line, it repairs by a rule that differentiates it, and has a likelihood."""
    y, x = np.mgrid[:40, :40]
    waves = [127 + 120 * np.sin(x / (4 + k) + y / 5 + k) for k in range(8)]
    np.savez(tmp_path / "data.npz", images=np.stack([np.stack([w] * 3, axis=2) for w in waves]).astype(np.uint8))
    Image.fromarray(np.stack([waves[0]] * 3, axis=2)[:16, :16].astype(np.uint8)).save(tmp_path / "picture.png")
    Image.fromarray(255 * np.eye(16, dtype=np.uint8)).save(tmp_path / "mask.png")
    model, run = tmp_path / "model", CliRunner().invoke
    shared = ["--model", str(model), "--device", "cpu", "-q"]
    trained = run(app, ["train", str(tmp_path / "data.npz"), "--preset", "tiny", "--energy", "--steps", "3", "--batch",
                        "2", "-q", "-o", str(model)])  # fmt: skip
    assert trained.exit_code == 0, trained.exception
    assert load_prior(model, "cpu").card.network["energy"] is True
    for rule in ("wiener", "dps", "moment_matching"):
        output = tmp_path / f"{rule}.png"
        done = run(app, ["inpaint", str(tmp_path / "picture.png"), "--mask", str(tmp_path / "mask.png"), "--rule", rule,
                         "--sampler", "ancestral", "--steps", "2", "-o", str(output), *shared])  # fmt: skip
        assert done.exit_code == 0, done.exception
        assert Image.open(output).size == (16, 16)
    done = run(app, ["likelihood", str(tmp_path / "picture.png"), "--probes", "1", *shared])
    assert done.exit_code == 0, done.exception
