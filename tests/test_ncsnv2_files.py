"""Checkpoints of NCSNv2: its RefineNets and its score function, written out here once more, say the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.cli.main import app
from invsolve.errors import ModelError
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.pretrained.card import Card
from invsolve.pretrained.imported import About, Imported
from invsolve.pretrained.importing import read_model

SIDE, WIDTH = 16, 4

ENCODERS: dict[str, list[tuple[str, int, int, str, int]]] = {
    "NCSNv2": [("res1", 1, 1, "", 1), ("res2", 1, 2, "pool", 1), ("res3", 2, 2, "wide", 2), ("res4", 2, 2, "wide", 4)],
    "NCSNv2Deeper": [
        ("res1", 1, 1, "", 1), ("res2", 1, 2, "pool", 1), ("res3", 2, 2, "pool", 1), ("res4", 2, 4, "wide", 2),
        ("res5", 4, 4, "wide", 4),
    ],
    "NCSNv2Deepest": [
        ("res1", 1, 1, "", 1), ("res2", 1, 2, "pool", 1), ("res3", 2, 2, "pool", 1), ("res31", 2, 2, "pool", 1),
        ("res4", 2, 4, "wide", 2), ("res5", 4, 4, "wide", 4),
    ],
}  # fmt: skip
DECODERS: dict[str, list[tuple[str, int, int]]] = {
    "NCSNv2": [("refine1", 2, 2), ("refine2", 2, 2), ("refine3", 2, 1), ("refine4", 1, 1)],
    "NCSNv2Deeper": [("refine1", 4, 4), ("refine2", 4, 2), ("refine3", 2, 2), ("refine4", 2, 1), ("refine5", 1, 1)],
    "NCSNv2Deepest": [
        ("refine1", 4, 4), ("refine2", 4, 2), ("refine31", 2, 2), ("refine3", 2, 2), ("refine4", 2, 1), ("refine5", 1, 1),
    ],
}  # fmt: skip


def random_state(name: str, channels: int = 3) -> dict[str, Tensor]:
    """A network's tensors, by the names that the library gives them."""
    state: dict[str, Tensor] = {}
    draw = torch.Generator().manual_seed(0)

    def conv(key: str, inputs: int, outputs: int, side: int = 3, bias: bool = True) -> None:
        scale = 1 / math.sqrt(inputs * side**2)
        state[f"{key}.weight"] = scale * torch.randn(outputs, inputs, side, side, generator=draw)
        if bias:
            state[f"{key}.bias"] = 0.1 * torch.randn(outputs, generator=draw)

    def norm(key: str, width: int) -> None:
        for part in ("alpha", "gamma", "beta"):
            state[f"{key}.{part}"] = (part != "beta") + 0.3 * torch.randn(width, generator=draw)

    def units(key: str, width: int, count: int) -> None:
        for i in range(1, count + 1):
            for j in (1, 2):
                conv(f"{key}.{i}_{j}_conv", width, width, bias=False)

    state["sigmas"] = torch.tensor(np.exp(np.linspace(np.log(50.0), np.log(0.01), 232))).float()
    conv("begin_conv", channels, WIDTH)
    for stage, a, b, change, _ in ENCODERS[name]:
        inputs, outputs = a * WIDTH, b * WIDTH
        conv(f"{stage}.0.conv1", inputs, inputs)
        conv(f"{stage}.0.conv2" + ".conv" * (change == "pool"), inputs, outputs)
        if change:
            pools = change == "pool"
            conv(f"{stage}.0.shortcut" + ".conv" * pools, inputs, outputs, side=1 if pools else 3)
        norm(f"{stage}.0.normalize1", inputs)
        norm(f"{stage}.0.normalize2", inputs)
        for part in ("conv1", "conv2"):
            conv(f"{stage}.1.{part}", outputs, outputs)
        for part in ("normalize1", "normalize2"):
            norm(f"{stage}.1.{part}", outputs)
    for number, (block, a, b) in enumerate(DECODERS[name]):
        inputs, outputs = a * WIDTH, b * WIDTH
        for k in range(2 if number else 1):
            units(f"{block}.adapt_convs.{k}", inputs, 2)
            if number:
                conv(f"{block}.msf.convs.{k}", inputs, outputs)
            conv(f"{block}.crp.convs.{k}", outputs, outputs, bias=False)
        if not number:
            conv(f"{block}.crp.convs.1", outputs, outputs, bias=False)
        units(f"{block}.output_convs", outputs, 3 if number == len(DECODERS[name]) - 1 else 1)
    norm("normalizer", WIDTH)
    conv("end_conv", WIDTH, channels)
    return state


def score(name: str, state: dict[str, Tensor], x: Tensor, sigma: Tensor, rescaled: bool = False) -> Tensor:
    """What the library's network says of x, the score at sigma."""

    def conv(key: str, h: Tensor, dilation: int = 1) -> Tensor:
        weight = state[f"{key}.weight"]
        margin = dilation * (weight.shape[-1] // 2)
        return F.conv2d(h, weight, state.get(f"{key}.bias"), padding=margin, dilation=dilation)

    def pooled(key: str, h: Tensor) -> Tensor:
        h = conv(f"{key}.conv", h)
        return (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4

    def norm(key: str, h: Tensor) -> Tensor:
        mean = h.mean(dim=(2, 3), keepdim=True)
        plain = (h - mean) / (h.var(dim=(2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        spread = (mean - mean.mean(dim=1, keepdim=True)) / (mean.var(dim=1, keepdim=True) + 1e-5).sqrt()
        alpha, gamma, beta = (state[f"{key}.{part}"][:, None, None] for part in ("alpha", "gamma", "beta"))
        return gamma * (plain + alpha * spread) + beta

    def residual(key: str, h: Tensor, change: str, dilation: int) -> Tensor:
        inner = conv(f"{key}.conv1", F.elu(norm(f"{key}.normalize1", h)), dilation)
        inner = F.elu(norm(f"{key}.normalize2", inner))
        if change == "pool":
            return pooled(f"{key}.shortcut", h) + pooled(f"{key}.conv2", inner)
        around = conv(f"{key}.shortcut", h, dilation) if change == "wide" else h
        return around + conv(f"{key}.conv2", inner, dilation)

    def units(key: str, h: Tensor, count: int) -> Tensor:
        for i in range(1, count + 1):
            h = h + conv(f"{key}.{i}_2_conv", F.elu(conv(f"{key}.{i}_1_conv", F.elu(h))))
        return h

    h, seen = conv("begin_conv", x if rescaled else 2 * x - 1), []
    for stage, _, _, change, dilation in ENCODERS[name]:
        h = residual(f"{stage}.1", residual(f"{stage}.0", h, change, dilation), "", dilation)
        seen.append(h)
    deeper: list[Tensor] = []
    for number, (block, _, _) in enumerate(DECODERS[name]):
        parts = [units(f"{block}.adapt_convs.{k}", part, 2) for k, part in enumerate([seen.pop(), *deeper])]
        h, size = parts[0], parts[0].shape[-2:]
        if number:
            fused = [conv(f"{block}.msf.convs.{k}", part) for k, part in enumerate(parts)]
            h = sum(F.interpolate(part, size, mode="bilinear", align_corners=True) for part in fused)
        h = F.elu(h)
        path = h
        for k in range(2):
            path = conv(f"{block}.crp.convs.{k}", F.max_pool2d(path, 5, 1, 2))
            h = h + path
        deeper = [units(f"{block}.output_convs", h, 3 if number == len(DECODERS[name]) - 1 else 1)]
    return conv("end_conv", F.elu(norm("normalizer", deeper[0]))) / sigma


def read(path: Path, state: dict[str, Tensor], **stated: Any) -> Imported:
    torch.save(state, path / "ncsn.pth")
    return read_model(path / "ncsn.pth", About("ncsn", stated={"image_size": SIDE} | stated))


def pictures(channels: int = 3, side: int = SIDE) -> Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(3))


def noise(channels: int = 3, side: int = SIDE) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("name", "channels", "rescaled", "side"),
    [*((name, 3, False, SIDE) for name in ENCODERS), ("NCSNv2", 1, True, SIDE), ("NCSNv2", 1, False, 28)],
)
def test_the_published_network_says_the_same(
    name: str, channels: int, rescaled: bool, side: int, tmp_path: Path
) -> None:
    """At twenty of its own levels: Tweedie's formula with the library's score. Of pictures of 28 x 28 the library sets
    ``adjust_padding``, which the dilated blocks that it is given to do not look at."""
    state = random_state(name, channels)
    denoiser = read(tmp_path, state, rescaled=rescaled, image_size=side).denoiser
    assert (denoiser.sigma_min, denoiser.sigma_max) == pytest.approx((0.005, 25.0) if rescaled else (0.01, 50.0))
    center, unit = (0.5, 0.5) if rescaled else (0.0, 1.0)
    for level in state["sigmas"][torch.linspace(0, 231, 20).round().long()]:
        u = (pictures(channels, side) - center) / unit + level * noise(channels, side)
        with torch.no_grad():
            theirs = center + unit * (u + level**2 * score(name, state, u, level, rescaled))
            ours = denoiser(center + unit * u, unit * level.expand(2))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, float(level)))


def test_the_averages_of_a_checkpoint_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    state = random_state("NCSNv2")
    model = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
    model["module.sigmas"] = state["sigmas"]
    averages = {name: tensor for name, tensor in state.items() if name != "sigmas"}
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict()
    torch.save([model, optimizer, 3, 100, averages], tmp_path / "checkpoint_100.pth")
    (tmp_path / "ncsn.json").write_text(json.dumps({"image_size": SIDE}))
    arguments = ["models", "import", tmp_path / "checkpoint_100.pth", "--config", tmp_path / "ncsn.json"]
    app([str(part) for part in (*arguments, "--as", "ncsn", "-q")], standalone_mode=False)
    card = Card.read(tmp_path / "models" / "ncsn" / "card.json")
    assert (card.size, card.foreign["library"]) == (SIDE, "ncsnv2")
    direct = NetworkPrior(read(tmp_path, state).denoiser, card, torch.device("cpu"))
    loaded = load_prior("ncsn", "cpu")
    for sigma in np.geomspace(loaded.sigma_min, loaded.sigma_max, 20):
        x = pictures() + float(sigma) * noise()
        assert torch.equal(loaded.denoise(x, float(sigma)), direct.denoise(x, float(sigma)))
    torch.save([model, optimizer, 3, 100, {"end_conv.bias": torch.ones(9)}], tmp_path / "checkpoint_100.pth")
    with pytest.raises(ModelError, match="averages do not fit"):
        read_model(tmp_path / "checkpoint_100.pth", About("ncsn", stated={"image_size": SIDE}))


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    state = random_state("NCSNv2Deeper")
    for missing, message in (("sigmas", "no sigmas"), ("res3.1.conv1.bias", r"there is no res3\.1\.conv1\.bias")):
        with pytest.raises(ModelError, match=message):
            read(tmp_path, {name: tensor for name, tensor in state.items() if name != missing})
    with pytest.raises(ModelError, match="nonlinearity is 'tanh'"):
        read(tmp_path, state, nonlinearity="tanh")
    with pytest.raises(ModelError, match="do not say image_size"):
        read_model(tmp_path / "ncsn.pth", About("ncsn"))
