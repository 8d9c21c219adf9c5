"""State dicts of guided-diffusion's layout: the published network and chain, written out here once more, say the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from invsolve.cli.main import app
from invsolve.ct import reconstruct_ct
from invsolve.errors import InputError, ModelError, UsageError
from invsolve.forward_models import Geometry
from invsolve.models.precision import full_precision
from invsolve.models.unet import UNet
from invsolve.pretrained import NetworkPrior, guided_diffusion, load_prior
from invsolve.pretrained.card import Card
from invsolve.pretrained.imported import About, Imported
from invsolve.pretrained.importing import read_model

SIDE = 8


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, wide: int, film: bool, change: str = "") -> None:
        super().__init__()
        self.film, self.change = film, change
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(wide, (1 + film) * outputs))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[1](self.in_layers[0](x))
        if self.change == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.change == "up":
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.in_layers[2](h)
        told = self.emb_layers(emb)[:, :, None, None]
        if self.film:
            scale, shift = told.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + told)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm, self.qkv = nn.GroupNorm(32, width), nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        flat = x.flatten(2)
        rows, each = self.qkv(self.norm(flat)), x.shape[1] // self.heads
        found = []
        for head in range(self.heads):  # legacy: q, k, v of one head after another; new: all q, all k, all v
            first = [
                part * x.shape[1] + head * each if self.new_order else (3 * head + part) * each for part in range(3)
            ]
            q, k, v = (rows[:, k : k + each] for k in first)
            weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(each), dim=-1)
            found.append(v @ weights.transpose(1, 2))
        return (flat + self.proj_out(torch.cat(found, dim=1))).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2))


class Stem(nn.Conv2d):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class UNetModel(nn.Module):
    """guided-diffusion's network under its names; ``flags`` as of its scripts."""

    def __init__(self, flags: dict[str, Any], channels: int = 3, classes: int = 0) -> None:
        super().__init__()
        base, n, film = flags["num_channels"], flags["num_res_blocks"], flags["use_scale_shift_norm"]
        mults, wide = [float(m) for m in flags["channel_mult"].split(",")], 4 * base
        attended = [flags["image_size"] // int(r) for r in flags["attention_resolutions"].split(",")]
        self.base, whole = base, flags["resblock_updown"]
        self.time_embed = nn.Sequential(nn.Linear(base, wide), nn.SiLU(), nn.Linear(wide, wide))
        if classes:
            self.label_emb = nn.Embedding(classes, wide)

        def attention(width: int) -> Attention:
            per_head = flags.get("num_head_channels", -1)
            heads = width // per_head if per_head > 0 else flags["num_heads"]
            return Attention(width, heads, flags.get("use_new_attention_order", False))

        width = int(mults[0] * base)
        blocks: list[list[nn.Module]] = [[Stem(channels, width, 3, padding=1)]]
        skips, ds = [width], 1
        for level, mult in enumerate(mults):
            for _ in range(n):
                blocks.append([ResBlock(width, int(mult * base), wide, film)])
                width = int(mult * base)
                blocks[-1] += [attention(width)] if ds in attended else []
                skips.append(width)
            if level < len(mults) - 1:
                blocks.append([ResBlock(width, width, wide, film, "down") if whole else Down(width)])
                skips.append(width)
                ds *= 2
        self.input_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.middle_block = nn.ModuleList(
            [ResBlock(width, width, wide, film), attention(width), ResBlock(width, width, wide, film)]
        )
        blocks = []
        for level, mult in reversed(list(enumerate(mults))):
            for i in range(n + 1):
                blocks.append([ResBlock(width + skips.pop(), int(mult * base), wide, film)])
                width = int(mult * base)
                blocks[-1] += [attention(width)] if ds in attended else []
                if level and i == n:
                    blocks[-1].append(ResBlock(width, width, wide, film, "up") if whole else Up(width))
                    ds //= 2
        self.output_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        outputs = channels * (1 + flags["learn_sigma"])
        self.out = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        half = self.base // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)[None]
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        emb = emb if y is None else emb + self.label_emb(y)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            for part in block:
                x = part(x, emb)
            skips.append(x)
        for part in self.middle_block:
            x = part(x, emb)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], dim=1)
            for part in block:
                x = part(x, emb)
        return self.out(x)


FLAGS: dict[str, Any] = {
    "image_size": SIDE, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2", "attention_resolutions": "4",
    "num_head_channels": 16, "use_scale_shift_norm": True, "resblock_updown": True, "learn_sigma": True,
    "noise_schedule": "linear", "diffusion_steps": 1000, "use_fp16": False,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "256x256 uncond": {},
    "64x64": {"noise_schedule": "cosine", "use_new_attention_order": True, "num_res_blocks": 2},
    "fixed heads": {"num_head_channels": -1, "num_heads": 4, "resblock_updown": False, "use_scale_shift_norm": False},
    "512x512": {"channel_mult": "0.5,1", "num_channels": 64, "num_head_channels": 32, "attention_resolutions": "8,4"},
    "rescaled": {"diffusion_steps": 100, "rescale_timesteps": True, "learn_sigma": False, "attention_resolutions": "8,4"},
    "data": {"predict_xstart": True, "learn_sigma": False},
}  # fmt: skip


def network(flags: dict[str, Any], **options: Any) -> UNetModel:
    """With random weights everywhere, as those that start at zero would hide errors."""
    torch.manual_seed(0)
    made = UNetModel(flags, **options).eval()
    for parameter in made.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.7 / math.sqrt(parameter[0].numel()))
    return made


def alphas_bar(flags: dict[str, Any]) -> Tensor:
    """Of guided-diffusion's two schedules, step by step."""
    steps, kept = flags["diffusion_steps"], []
    for t in range(steps):
        if flags["noise_schedule"] == "linear":
            beta = 1000 / steps * (1e-4 + (0.02 - 1e-4) * t / (steps - 1))
        else:
            a, b = (math.cos((s / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for s in (t, t + 1))
            beta = min(1 - b / a, 0.999)
        kept.append((1 - beta) * (kept[-1] if kept else 1.0))
    return torch.tensor(kept, dtype=torch.float64)


def read(path: Path, unet: nn.Module, flags: dict[str, Any], **about: Any) -> Imported:
    torch.save(unet.state_dict(), path / "adm.pt")
    return read_model(path / "adm.pt", About("adm", stated=flags, **about))


def clean(channels: int = 3) -> Tensor:
    return 2 * torch.rand(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) - 1


def noise(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("case", CASES)
def test_the_published_network_says_the_same(case: str, tmp_path: Path) -> None:
    flags = FLAGS | CASES[case]
    unet, chain = network(flags), alphas_bar(flags)
    denoiser = read(tmp_path, unet, flags).denoiser
    steps = torch.linspace(0, int((chain > 1e-7).sum()) - 1, 20).round().long()
    scale = 1000 / flags["diffusion_steps"] if flags.get("rescale_timesteps") else 1
    for t in steps:
        alpha, std = chain[t].sqrt(), (1 - chain[t]).sqrt()
        u = (alpha * clean() + std * noise()).float()
        with torch.no_grad():
            said = unet(u, scale * t.expand(2).float())[:, :3]
            ours = denoiser((0.5 + 0.5 * u.double() / alpha).float(), (0.5 * std / alpha).float().expand(2))
        theirs = said if flags.get("predict_xstart") else (u.double() - std * said) / alpha
        level = float(0.5 * std / alpha)
        torch.testing.assert_close(ours, (0.5 + 0.5 * theirs).float(), rtol=0, atol=1e-5 * max(1.0, level))


def test_classes_and_guidance(tmp_path: Path) -> None:
    """Of a network with five classes and a sixth that stood for none."""
    unet, chain = network(FLAGS, classes=6), alphas_bar(FLAGS)
    found = read(tmp_path, unet, FLAGS | {"class_cond": True}, null_class=5)
    prior = NetworkPrior(found.denoiser, found.card, torch.device("cpu"))
    assert (prior.classes, prior.guidable) == (5, True)
    for t in (0, 300, 700):
        alpha, std = chain[t].sqrt(), (1 - chain[t]).sqrt()
        u = (alpha * clean() + std * noise()).float()
        x, sigma = (0.5 + 0.5 * u.double() / alpha).float(), float(0.5 * std / alpha)

        def theirs(row: int, u: Tensor = u, t: int = t, alpha: Tensor = alpha, std: Tensor = std) -> Tensor:
            said = unet(u, torch.full((2,), float(t)), torch.full((2,), row))[:, :3]
            return (0.5 + 0.5 * (u.double() - std * said) / alpha).float()

        with torch.no_grad(), full_precision():
            none, three = theirs(5), theirs(3)
            for ours, wanted in (
                (prior, none),
                (prior.of_class(3), three),
                (prior.of_class(3, guidance=2.5), none + 2.5 * (three - none)),
                (prior.of_class(3, guidance=0.0), none),
            ):
                torch.testing.assert_close(ours.denoise(x, sigma), wanted, rtol=0, atol=4e-5 * max(1.0, sigma))
    with pytest.raises(InputError, match="no class 5"):
        prior.of_class(5)


def test_a_network_that_wants_a_class_has_to_be_told_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    save_file(network(FLAGS, classes=4).state_dict(), tmp_path / "adm.safetensors")
    (tmp_path / "adm.json").write_text(json.dumps(FLAGS))
    run("models", "import", "adm.safetensors", "--config", "adm.json", "-q")
    prior = load_prior("adm", "cpu")
    assert (prior.classes, prior.guidable) == (4, False)
    with pytest.raises(ModelError, match="one of 4 classes"):
        prior.denoise(torch.rand(1, 3, SIDE, SIDE), 0.1)
    with pytest.raises(UsageError, match="always told a class"):
        prior.of_class(1, guidance=2.0)
    run("models", "verify", "adm")
    capsys.readouterr()
    run("generate", "--model", "adm", "--class", "2", "-n", "2", "--steps", "2", "-q")
    assert (tmp_path / "generate.2.png").exists()
    run("models", "import", "adm.safetensors", "--config", "adm.json", "--null-class", "3", "--as", "guided", "-q")
    run("generate", "--model", "guided", "--class", "1", "-n", "1", "--steps", "2", "-q", "--json")
    facts = json.loads(capsys.readouterr().out)
    assert (facts["rule"], facts["guidance"], facts["label"]) == ("class-conditional", 3.0, "1")
    for wrong in (["--class", "4"], ["--class", "bird"], ["--class", "2", "--guidance", "3"]):
        with pytest.raises((InputError, UsageError)):
            run("generate", "--model", "adm", *wrong, "-n", "2", "--steps", "2", "-q", "-o", "other.png")


def run(*arguments: str | Path) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_what_is_imported_denoises_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    flags = FLAGS | {"attention_resolutions": "4,2"}  # as published, which lists resolutions that no level has
    unet = network(flags)
    found = read(tmp_path, unet, flags)
    lines = (f"{name} = {json.dumps(value)}" for name, value in flags.items())
    (tmp_path / "adm.toml").write_text("\n".join(lines))
    run("models", "import", tmp_path / "adm.pt", "--config", tmp_path / "adm.toml", "--as", "adm", "-q")
    card = Card.read(tmp_path / "models" / "adm" / "card.json")
    assert (card.size, card.foreign["library"]) == (SIDE, "guided_diffusion")
    assert len(card.label_rounding) == 8 and "sha256 of adm.pt" in card.source
    direct, loaded = NetworkPrior(found.denoiser, card, torch.device("cpu")), load_prior("adm", "cpu")
    for sigma in np.geomspace(loaded.sigma_min, loaded.sigma_max, 20):
        x = 0.5 + 0.5 * clean() + float(sigma) * noise()
        assert torch.equal(loaded.denoise(x, float(sigma)), direct.denoise(x, float(sigma)))


PUBLISHED: dict[str, tuple[dict[str, Any], float]] = {
    "64x64": ({"num_channels": 192, "num_res_blocks": 3, "channel_mult": "1,2,3,4"}, 296),
    "128x128": (
        {
            "num_channels": 256,
            "num_res_blocks": 2,
            "channel_mult": "1,1,2,3,4",
            "num_heads": 4,
            "num_head_channels": -1,
        },
        422,
    ),
    "256x256": ({"num_channels": 256, "num_res_blocks": 2, "channel_mult": "1,1,2,2,4,4"}, 554),
    "512x512": ({"num_channels": 256, "num_res_blocks": 2, "channel_mult": "0.5,1,1,2,2,4,4"}, 559),
}
"""OpenAI's class-conditional models, and the millions of parameters they have (Dhariwal & Nichol 2021, appendix I)."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_are_read_off_their_shapes(name: str) -> None:
    """Of networks of their true size, without values."""
    changes, millions = PUBLISHED[name]
    flags = FLAGS | {
        "image_size": int(name.partition("x")[0]),
        "attention_resolutions": "32,16,8",
        "num_head_channels": 64,
    }
    flags |= changes
    with torch.device("meta"):
        theirs = UNetModel(flags, classes=1000).state_dict()
        config, _, state = guided_diffusion.read(theirs, flags | {"class_cond": True})
        ours = UNet(config).state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in ours.items()}
    assert sum(value.numel() for value in ours.values()) / 1e6 == pytest.approx(millions, abs=1.0)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "do not say image_size, noise_schedule, num_head_channels or num_heads"),
    "unknown": (FLAGS | {"colour": 1}, "'colour' is not known"),
    "width": (FLAGS | {"num_channels": 64}, "num_channels 64, the weights say 32"),
    "classes": (FLAGS | {"class_cond": True}, "class_cond True"),
    "attention": (FLAGS | {"attention_resolutions": "8"}, r"attention_resolutions .8., the weights say \[4\]"),
    "heads": (FLAGS | {"num_head_channels": 7}, "heads"),
    "steps": (FLAGS | {"diffusion_steps": 1}, "diffusion_steps"),
    "schedule": (FLAGS | {"noise_schedule": "sqrt"}, "noise_schedule is 'sqrt'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_configuration_that_does_not_fit_is_said(case: str, tmp_path: Path) -> None:
    stated, message = MISTAKES[case]
    with pytest.raises(ModelError, match=message):
        read(tmp_path, network(FLAGS), stated)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = network(FLAGS).state_dict()
    for change, message in (
        ({"extra.weight": torch.ones(1)}, "no part of the network"),
        ({"out.0.weight": torch.ones(5)}, "has shape"),
        ({"out.0.bias": torch.full((32,), math.nan)}, "not finite"),
        ({"step": 3}, "holds a int under step"),
    ):
        torch.save(state | change, tmp_path / "adm.pt")
        with pytest.raises(ModelError, match=message):
            read_model(tmp_path / "adm.pt", About("adm", stated=FLAGS))
    torch.save({name: value for name, value in state.items() if "middle" not in name}, tmp_path / "adm.pt")
    with pytest.raises(ModelError, match="there is no middle"):
        read_model(tmp_path / "adm.pt", About("adm", stated=FLAGS))
    torch.save({"weight": torch.ones(1)}, tmp_path / "adm.pt")
    with pytest.raises(ModelError, match="no library that is known here"):
        read_model(tmp_path / "adm.pt", About("adm"))


def test_slices_in_hounsfield_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-1 and 1 are -1000 and 3000 HU: the network is asked and heard in them, and ``ct`` takes it, but not without."""
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    flags = FLAGS | {"learn_sigma": False}
    unet, chain = network(flags, channels=1), alphas_bar(flags)
    torch.save(unet.state_dict(), "slices.pt")
    Path("slices.json").write_text(json.dumps(flags))
    for name, window in (("plain", ()), ("chest", ("--window", "-1000,3000"))):
        run("models", "import", "slices.pt", "--config", "slices.json", "--as", name, *window, "-q")
    prior = load_prior("chest", "cpu")
    assert prior.card.units == "CT number n, HU = 2000 n - 1000"
    assert prior.sigma_max == pytest.approx(2 * load_prior("plain", "cpu").sigma_max)
    for t in (0, 250, 600):
        alpha, std = chain[t].sqrt(), (1 - chain[t]).sqrt()
        w = clean(1) + std / alpha * noise(1)
        hu = -1000 + 4000 * (w + 1) / 2
        with torch.no_grad(), full_precision():
            theirs = -1000 + 2000 * (w - std / alpha * unet((alpha * w).float(), torch.full((2,), float(t))) + 1)
            ours = 2000 * prior.denoise(((hu + 1000) / 2000).float(), float(std / alpha)) - 1000
        torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=0.02 * max(1.0, float(std / alpha)))
    np.save("sinogram.npy", np.random.default_rng(0).uniform(0, 2, (6, SIDE)).astype(np.float32))
    run("ct", "sinogram.npy", "--model", "chest", "--steps", "2", "-n", "1", "-q")
    assert Path("sinogram.ct.npy").exists()
    with pytest.raises(ModelError, match="no Hounsfield units"):
        run("ct", "sinogram.npy", "--model", "plain", "--steps", "2", "-n", "1", "-q", "-f")
    geometry = Geometry(tuple(30.0 * np.arange(6)), SIDE, (SIDE, SIDE))
    with pytest.raises(ModelError, match="no Hounsfield units"):
        reconstruct_ct(np.load("sinogram.npy"), geometry, load_prior("plain", "cpu"), samples=1, steps=2)
    for wrong in ("1000,-1000", "5", "a,b", "0,inf"):
        with pytest.raises(UsageError, match="--window"):
            run("models", "import", "slices.pt", "--config", "slices.json", "--as", "other", "--window", wrong, "-q")
    torch.save(network(flags).state_dict(), "colours.pt")
    with pytest.raises(UsageError, match="colour"):
        run("models", "import", "colours.pt", "--config", "slices.json", "--window", "-1000,1000", "-q")
