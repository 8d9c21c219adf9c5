"""Networks of EDM2, converted: the published layout, written out here once more from its state dict, says the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calling import call
from safetensors.torch import save_file
from torch import Tensor

from invsolve.errors import InvsolveError, ModelError
from invsolve.models.precision import full_precision
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.pretrained.imported import About, Imported
from invsolve.pretrained.importing import read_model

SIDE = 8
PLAIN: dict[str, Any] = {
    "class": "Precond", "img_resolution": SIDE, "img_channels": 3, "label_dim": 0, "use_fp16": True, "sigma_data": 0.5,
    "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 2, "attn_resolutions": [4], "channels_per_head": 16,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "classes": {"label_dim": 5, "label_balance": 0.4},
    "everything stated": {
        "img_channels": 1, "channel_mult": [1, 1, 2], "channel_mult_noise": 2, "channel_mult_emb": 3, "num_blocks": 1,
        "attn_resolutions": [8, 2], "concat_balance": 0.3, "res_balance": 0.45, "attn_balance": 0.2, "clip_act": 1.5,
        "resample_filter": [1, 3, 3, 1], "sigma_data": 0.7, "dropout": 0.1, "logvar_channels": 16,
    },
}  # fmt: skip


def blocks_of(a: dict[str, Any]) -> list[tuple[str, str, int, int, str, bool]]:
    """Of every block: half, name, channels in and out, change of resolution, whether it attends; in the library's order."""
    widths = [a["model_channels"] * m for m in a["channel_mult"]]
    found: list[tuple[str, str, int, int, str, bool]] = []
    width, skips, last = widths[0], [widths[0]], len(widths) - 1
    for level, out in enumerate(widths):
        at = f"{SIDE >> level}x{SIDE >> level}"
        if level:
            found.append(("enc", f"{at}_down", width, width, "down", False))
            skips.append(width)
        for k in range(a["num_blocks"]):
            found.append(("enc", f"{at}_block{k}", width, out, "", SIDE >> level in a["attn_resolutions"]))
            width = out
            skips.append(width)
    for level in reversed(range(len(widths))):
        at = f"{SIDE >> level}x{SIDE >> level}"
        if level == last:
            found += [("dec", f"{at}_in{k}", width, width, "", k == 0) for k in (0, 1)]
        else:
            found.append(("dec", f"{at}_up", width, width, "up", False))
        for k in range(a["num_blocks"] + 1):
            attends = SIDE >> level in a["attn_resolutions"]
            found.append(("dec", f"{at}_block{k}", width + skips.pop(), widths[level], "", attends))
            width = widths[level]
    return found


def random_state(a: dict[str, Any]) -> dict[str, Tensor]:
    """A network's tensors by the library's names, none of them of the magnitude that it gives them when it is used."""
    draw, state, widths = torch.Generator().manual_seed(0), {}, [a["model_channels"] * m for m in a["channel_mult"]]
    noise = a["model_channels"] * a["channel_mult_noise"] if "channel_mult_noise" in a else widths[0]
    emb = a["model_channels"] * a["channel_mult_emb"] if "channel_mult_emb" in a else max(widths)

    def weight(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = 1.7 * torch.randn(*shape, generator=draw)

    state["unet.out_gain"] = torch.tensor(0.8)
    for name, count in (("unet.emb_fourier", noise), ("logvar_fourier", 16)):
        state[f"{name}.freqs"] = 2 * math.pi * torch.randn(count, generator=draw)
        state[f"{name}.phases"] = 2 * math.pi * torch.rand(count, generator=draw)
    weight("logvar_linear", 1, 16)
    weight("unet.emb_noise", emb, noise)
    if a["label_dim"]:
        weight("unet.emb_label", emb, a["label_dim"])
    weight(f"unet.enc.{SIDE}x{SIDE}_conv", widths[0], a["img_channels"] + 1, 3, 3)
    for half, name, inputs, outputs, _, attends in blocks_of(a):
        key = f"unet.{half}.{name}"
        state[f"{key}.emb_gain"] = torch.randn((), generator=draw)
        weight(f"{key}.conv_res0", outputs, outputs if half == "enc" else inputs, 3, 3)
        weight(f"{key}.emb_linear", outputs, emb)
        weight(f"{key}.conv_res1", outputs, outputs, 3, 3)
        if inputs != outputs:
            weight(f"{key}.conv_skip", outputs, inputs, 1, 1)
        if attends:
            weight(f"{key}.attn_qkv", 3 * outputs, outputs, 1, 1)
            weight(f"{key}.attn_proj", outputs, outputs, 1, 1)
    weight("unet.out_conv", a["img_channels"], widths[0], 3, 3)
    return state


def denoised(a: dict[str, Any], state: dict[str, Tensor], x: Tensor, level: Tensor, classes: Tensor) -> Tensor:
    """The library's D(x; level), told rows of zeros and ones, in [-1, 1]."""

    def unit(h: Tensor, dims: list[int]) -> Tensor:
        size = math.prod(h.shape[dim] for dim in dims)
        return h / (1e-4 + h.square().sum(dim=dims, keepdim=True).sqrt() / math.sqrt(size))

    def layer(name: str, h: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        stored = state[f"{name}.weight"]
        used = unit(stored, list(range(1, stored.ndim))) * gain / math.sqrt(stored[0].numel())
        return h @ used.t() if used.ndim == 2 else F.conv2d(h, used, padding=used.shape[-1] // 2)

    def act(h: Tensor) -> Tensor:
        return h * torch.sigmoid(h) / 0.596

    def mixed(p: Tensor, q: Tensor, t: float) -> Tensor:
        return ((1 - t) * p + t * q) / math.sqrt((1 - t) ** 2 + t**2)

    def changed(h: Tensor, change: str) -> Tensor:
        line = torch.tensor(a.get("resample_filter", [1, 1]), dtype=torch.float32)
        taps = torch.outer(line, line) / line.sum() ** 2
        taps, pad = taps[None, None].repeat(h.shape[1], 1, 1, 1), (len(line) - 1) // 2
        if change == "down":
            return F.conv2d(h, taps, groups=h.shape[1], stride=2, padding=pad)
        if change == "up":
            return F.conv_transpose2d(h, 4 * taps, groups=h.shape[1], stride=2, padding=pad)
        return h

    def attention(key: str, h: Tensor, heads: int) -> Tensor:
        y = layer(f"{key}.attn_qkv", h).reshape(len(h), heads, -1, 3, h.shape[2] * h.shape[3])
        q, k, v = unit(y, [2]).unbind(3)
        weights = torch.einsum("nhcq,nhck->nhqk", q, k / math.sqrt(q.shape[2])).softmax(dim=3)
        return layer(f"{key}.attn_proj", torch.einsum("nhqk,nhck->nhcq", weights, v).reshape(h.shape))

    sigma, data = level.reshape(-1, 1, 1, 1), a["sigma_data"]
    angles = torch.outer(level.log() / 4, state["unet.emb_fourier.freqs"]) + state["unet.emb_fourier.phases"]
    emb = layer("unet.emb_noise", angles.cos() * math.sqrt(2))
    if a["label_dim"]:
        emb = mixed(emb, layer("unet.emb_label", classes * math.sqrt(a["label_dim"])), a.get("label_balance", 0.5))
    emb = act(emb)
    h = x / (data**2 + sigma**2).sqrt()
    h = layer(f"unet.enc.{SIDE}x{SIDE}_conv", torch.cat([h, torch.ones_like(h[:, :1])], dim=1))
    skips = [h]
    for half, name, inputs, outputs, change, attends in blocks_of(a):
        key, t = f"unet.{half}.{name}", a.get("concat_balance", 0.5)
        if half == "dec" and "block" in name:
            other = skips.pop()
            both = math.sqrt((h.shape[1] + other.shape[1]) / ((1 - t) ** 2 + t**2))
            h = torch.cat(
                [both / math.sqrt(h.shape[1]) * (1 - t) * h, both / math.sqrt(other.shape[1]) * t * other], dim=1
            )
        h = changed(h, change)
        around = layer(f"{key}.conv_skip", h) if inputs != outputs else h
        h = unit(around, [1]) if half == "enc" else h
        y = layer(f"{key}.conv_res0", act(h))
        y = act(y * (1 + layer(f"{key}.emb_linear", emb, state[f"{key}.emb_gain"]))[..., None, None])
        y = layer(f"{key}.conv_res1", y)
        h = mixed(h if half == "enc" else around, y, a.get("res_balance", 0.3))
        if attends:
            h = mixed(h, attention(key, h, outputs // a["channels_per_head"]), a.get("attn_balance", 0.3))
        h = h.clamp(-a.get("clip_act", 256), a.get("clip_act", 256))
        if half == "enc":
            skips.append(h)
    said = layer("unet.out_conv", h, state["unet.out_gain"])
    scale = (sigma**2 + data**2).sqrt()
    return (data / scale) ** 2 * x + sigma * data / scale * said


def save(path: Path, a: dict[str, Any], state: dict[str, Tensor] | None = None) -> Path:
    """As docs/bring-your-own-prior.md says that such files are converted."""
    file = path / "edm2.safetensors"
    save_file(random_state(a) if state is None else state, file, metadata={"edm": json.dumps(a)})
    return file


def read(path: Path, a: dict[str, Any], state: dict[str, Tensor] | None = None) -> Imported:
    return read_model(save(path, a, state), About("edm2"))


def pictures(channels: int = 3) -> Tensor:
    return torch.rand(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def noise(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("case", CASES)
def test_the_published_network_says_the_same(case: str, tmp_path: Path) -> None:
    a = PLAIN | CASES[case]
    state, channels, found = random_state(a), a["img_channels"], read(tmp_path, a)
    denoiser = found.denoiser.of_class(2) if a["label_dim"] else found.denoiser
    assert (denoiser.sigma_min, denoiser.sigma_max) == pytest.approx((0.001, 40.0))
    classes = torch.eye(5)[2].expand(2, 5)
    for level in torch.tensor(np.geomspace(0.0021, 79.9, 20)).float():
        w = 2 * pictures(channels) - 1 + level * noise(channels)
        with torch.no_grad():
            theirs = 0.5 + 0.5 * denoised(a, state, w, level.expand(2), classes)
            ours = denoiser(0.5 + 0.5 * w, 0.5 * level.expand(2))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, 0.5 * float(level)))
    w, level = 2 * pictures(channels) - 1 + noise(channels), torch.ones(2)
    wide = a | {"clip_act": 1e9}
    apart = denoised(wide, state, w, level, classes) - denoised(a, state, w, level, classes)
    assert bool(apart.abs().max() > 1e-2) == ("clip_act" in a)  # or the limit would not have been tested


def test_what_is_imported_denoises_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    a = PLAIN | CASES["classes"]
    assert call(monkeypatch, "models", "import", save(tmp_path, a), "--as", "edm2", "-q") == 0
    loaded = load_prior("edm2", "cpu")
    assert (loaded.size, loaded.card.foreign["library"], loaded.classes, loaded.guidable) == (SIDE, "edm2", 5, False)
    direct = NetworkPrior(read(tmp_path, a).denoiser, loaded.card, torch.device("cpu"))
    for sigma in np.geomspace(loaded.sigma_min, loaded.sigma_max, 20):
        x = pictures() + float(sigma) * noise()
        one, two = (prior.of_class(1).denoise(x, float(sigma)) for prior in (loaded, direct))
        assert torch.equal(one, two)
    with full_precision(), pytest.raises(ModelError, match="one of 5 classes"):
        loaded.denoise(pictures(), 0.1)


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    for change, message in (
        ({"img_channels": 4}, "of 4 channels knows latents"),
        ({"unheard_of": 1}, "'unheard_of' is not known"),
        ({"model_channels": 20}, "head_channels"),
        ({"channel_mult": []}, "channel_mult is empty"),
        ({"channel_mult": [1]}, "no part of the network|there is no"),
        ({"img_resolution": 10**9}, "size"),
        ({"num_blocks": 10**6}, "blocks"),
        ({"num_blocks": 3}, "there is no"),
        ({"label_dim": 4}, "there is no table"),
        ({"res_balance": 2.0}, "residual_balance"),
        ({"sigma_data": -1.0}, "sigma_data is out of range"),
        ({"clip_act": "none"}, "clip_act"),
    ):
        with pytest.raises(ModelError, match=message):
            read(tmp_path, PLAIN | change, random_state(PLAIN))
    a = {name: value for name, value in PLAIN.items() if name != "label_dim"}
    with pytest.raises(ModelError, match="lack 'label_dim'"):
        read(tmp_path, a, random_state(PLAIN))
    state = random_state(PLAIN)
    state["unet.enc.8x8_block0.conv_res0.weight"] = torch.zeros(())
    with pytest.raises(ModelError):
        read(tmp_path, PLAIN, state)
    with pytest.raises(ModelError, match="does not hold the tensors"):
        read(
            tmp_path, PLAIN, {name: part for name, part in random_state(PLAIN).items() if not name.endswith("out_gain")}
        )


HOSTILE: tuple[Any, ...] = (-1, 0, [], {}, "x", [10**9, 10**9], None, True, 10**9)


def test_cards_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in one: a ModelError, before anything of the size it names is built."""
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    assert call(monkeypatch, "models", "import", save(tmp_path, PLAIN), "--as", "edm2", "-q") == 0
    file = tmp_path / "models" / "edm2" / "card.json"
    good = json.loads(file.read_text())
    for part in ("network", "process"):
        for number, name in enumerate(good["foreign"][part]):
            for hostile in (HOSTILE[number % 9], HOSTILE[(number + 4) % 9], 10**9):
                changed = json.loads(json.dumps(good))
                changed["foreign"][part][name] = hostile
                file.write_text(json.dumps(changed))
                try:
                    load_prior("edm2", "cpu")
                except InvsolveError as error:
                    assert isinstance(error, ModelError)
