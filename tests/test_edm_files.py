"""EDM's networks under their own names, written out here once more with their preconditioning, say the same as imported ones."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from invsolve.cli.main import app
from invsolve.errors import InvsolveError, ModelError
from invsolve.models.precision import full_precision
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.pretrained.card import Card
from invsolve.pretrained.imported import About, Imported
from invsolve.pretrained.importing import read_model

SIDE = 8


class Conv(nn.Module):
    """EDM's convolution: perhaps without weights, perhaps after a change of resolution (or before it, "fused")."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, change: str = "", line: Any = (1, 1), fused: bool = False
    ):
        super().__init__()
        self.change, self.kernel, self.fused = change, kernel, fused
        if kernel:
            self.weight = nn.Parameter(
                torch.randn(outputs, inputs, kernel, kernel) * 0.7 / math.sqrt(inputs * kernel**2)
            )
            self.bias = nn.Parameter(0.1 * torch.randn(outputs))
        taps = torch.tensor(line, dtype=torch.float32)
        taps = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
        self.register_buffer("resample_filter", taps if change else None)

    def forward(self, x: Tensor) -> Tensor:
        margin = 0 if not self.change else (self.resample_filter.shape[-1] - 1) // 2
        if self.fused:
            x = F.conv2d(x, self.weight, padding=1 + margin)
            x = F.conv2d(x, self.resample_filter.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1], stride=2)
            return x + self.bias[:, None, None]
        if self.change:
            taps = self.resample_filter.repeat(x.shape[1], 1, 1, 1)
            change = F.conv2d if self.change == "down" else F.conv_transpose2d
            taps = taps if self.change == "down" else 4 * taps
            x = change(x, taps, groups=x.shape[1], stride=2, padding=margin)
        return F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2) if self.kernel else x


def group_norm(width: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, width // 4), width, eps=eps)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kind: dict[str, Any], change: str = "", heads: int = 0) -> None:
        super().__init__()
        self.kind, self.heads, self.inputs = kind, heads, inputs
        eps, line = kind["eps"], kind["line"]
        self.norm0, self.conv0 = group_norm(inputs, eps), Conv(inputs, outputs, 3, change, line)
        self.affine = nn.Linear(kind["wide"], outputs * (1 + kind["film"]))
        self.norm1, self.conv1 = group_norm(outputs, eps), Conv(outputs, outputs, 3)
        self.skip = None
        if inputs != outputs or change:
            self.skip = Conv(inputs, outputs, int(inputs != outputs or not kind["film"]), change, line)
        if heads:
            self.norm2, self.qkv = group_norm(outputs, eps), Conv(outputs, 3 * outputs, 1)
            self.proj = Conv(outputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        told = self.affine(emb)[:, :, None, None]
        if self.kind["film"]:
            scale, shift = told.chunk(2, dim=1)
            h = F.silu(shift + self.norm1(h) * (scale + 1))
        else:
            h = F.silu(self.norm1(h + told))
        x = (self.conv1(h) + (x if self.skip is None else self.skip(x))) * self.kind["scale"]
        if not self.heads:
            return x
        rows = self.qkv(self.norm2(x)).reshape(len(x) * self.heads, x.shape[1] // self.heads, 3, -1)
        q, k, v = rows[:, :, 0], rows[:, :, 1], rows[:, :, 2]
        weights = torch.softmax(torch.einsum("ncq,nck->nqk", q, k / math.sqrt(q.shape[1])), dim=2)
        return (self.proj(torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape)) + x) * self.kind["scale"]


class Fourier(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(width // 2))


class EDMNetwork(nn.Module):
    """SongUNet or DhariwalUNet, by the arguments that EDM builds them with."""

    def __init__(self, a: dict[str, Any], outputs: int) -> None:
        super().__init__()
        self.a, self.song = a, a["model_type"] == "SongUNet"
        base, mults, size, n = a["model_channels"], a["channel_mult"], a["img_resolution"], a["num_blocks"]
        line, wide = a.get("resample_filter", (1, 1)), 4 * base
        kind = {"film": not self.song, "eps": 1e-6 if self.song else 1e-5, "wide": wide, "line": line}
        kind["scale"] = math.sqrt(0.5) if self.song else 1.0
        self.noise = base * a.get("channel_mult_noise", 1)
        if a.get("embedding_type") == "fourier":
            self.map_noise = Fourier(self.noise)
        told = self.noise if self.song else wide
        if a.get("label_dim"):
            self.map_label = nn.Linear(a["label_dim"], told, bias=self.song)
        self.map_augment = nn.Linear(9, self.noise, bias=False)
        self.map_layer0, self.map_layer1 = nn.Linear(self.noise, wide), nn.Linear(wide, wide)

        def heads(width: int, attends: bool) -> int:
            return int(attends) * (1 if self.song else width // 64)

        enc: dict[str, nn.Module] = {}
        channels, width, skips = a["img_channels"], base * (1 if self.song else mults[0]), []
        encoder, decoder, shown = a.get("encoder_type", "standard"), a.get("decoder_type", "standard"), channels
        for level, mult in enumerate(mults):
            side = size >> level
            name = f"{side}x{side}"
            if level == 0:
                enc[f"{name}_conv"] = Conv(channels, width, 3)
            else:
                enc[f"{name}_down"] = Block(width, width, kind, "down")
                if encoder == "skip":
                    enc[f"{name}_aux_down"] = Conv(channels, channels, 0, "down", line)
                    enc[f"{name}_aux_skip"] = Conv(channels, width, 1)
                elif encoder == "residual":
                    enc[f"{name}_aux_residual"] = Conv(shown, width, 3, "down", line, fused=True)
                    shown = width
            skips.append(width)
            for i in range(n):
                attends = side in a["attn_resolutions"]
                enc[f"{name}_block{i}"] = Block(width, base * mult, kind, heads=heads(base * mult, attends))
                width = base * mult
                skips.append(width)
        dec: dict[str, nn.Module] = {}
        for level, mult in reversed(list(enumerate(mults))):
            side = size >> level
            name = f"{side}x{side}"
            if level == len(mults) - 1:
                dec[f"{name}_in0"] = Block(width, width, kind, heads=heads(width, True))
                dec[f"{name}_in1"] = Block(width, width, kind)
            else:
                dec[f"{name}_up"] = Block(width, width, kind, "up")
            for i in range(n + 1):
                attends = side in a["attn_resolutions"] and (not self.song or i == n)
                dec[f"{name}_block{i}"] = Block(
                    width + skips.pop(), base * mult, kind, heads=heads(base * mult, attends)
                )
                width = base * mult
            if self.song and (decoder == "skip" or level == 0):
                if decoder == "skip" and level < len(mults) - 1:
                    dec[f"{name}_aux_up"] = Conv(outputs, outputs, 0, "up", line)
                dec[f"{name}_aux_norm"] = group_norm(width, 1e-6)
                dec[f"{name}_aux_conv"] = Conv(width, outputs, 3)
        self.enc, self.dec = nn.ModuleDict(enc), nn.ModuleDict(dec)
        if not self.song:
            self.out_norm, self.out_conv = group_norm(width, 1e-5), Conv(width, outputs, 3)

    def embed(self, label: Tensor, classes: Tensor | None) -> Tensor:
        count = self.noise // 2
        if self.a.get("embedding_type") == "fourier":
            angles = label[:, None] * (2 * math.pi * self.map_noise.freqs)
        else:
            angles = label[:, None] * (1 / 10000) ** (torch.arange(count) / (count - self.song))
        emb = torch.cat([angles.sin(), angles.cos()] if self.song else [angles.cos(), angles.sin()], dim=1)
        if self.song and classes is not None:
            emb = emb + self.map_label(classes * math.sqrt(classes.shape[1]))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if not self.song and classes is not None:
            emb = emb + self.map_label(classes)
        return F.silu(emb)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        emb, skips, shown = self.embed(label, classes), [], x
        for name, block in self.enc.items():
            if "aux_down" in name:
                shown = block(shown)
            elif "aux_skip" in name:
                x = skips[-1] = x + block(shown)
            elif "aux_residual" in name:
                x = skips[-1] = shown = (x + block(shown)) / math.sqrt(2)
            else:
                x = block(x, emb) if isinstance(block, Block) else block(x)
                skips.append(x)
        found, normed = None, x
        for name, block in self.dec.items():
            if "aux_up" in name:
                found = block(found)
            elif "aux_norm" in name:
                normed = block(x)
            elif "aux_conv" in name:
                found = block(F.silu(normed)) + (0 if found is None else found)
            else:
                x = block(x if block.inputs == x.shape[1] else torch.cat([x, skips.pop()], dim=1), emb)
        return self.out_conv(F.silu(self.out_norm(x))) if found is None else found


class Preconditioned(nn.Module):
    """One of EDM's four, with its network under "model"."""

    def __init__(self, a: dict[str, Any]) -> None:
        super().__init__()
        self.a = a
        self.model = EDMNetwork(a, a["img_channels"] * (2 if a["class"] == "iDDPMPrecond" else 1))
        if a["class"] == "iDDPMPrecond":
            u = [0.0]
            for j in range(1000, 0, -1):
                near, far = (math.sin(0.5 * math.pi * k / 1000 / 1.008) ** 2 for k in (j - 1, j))
                u.insert(0, math.sqrt((u[0] ** 2 + 1) / max(near / far, 0.001) - 1))
            self.register_buffer("u", torch.tensor(u))

    def forward(self, x: Tensor, sigma: Tensor, classes: Tensor | None = None) -> Tensor:
        kind, s = self.a["class"], sigma.reshape(-1, 1, 1, 1)
        if kind == "EDMPrecond":
            skip, out, scale = 0.25 / (s**2 + 0.25), s * 0.5 / (s**2 + 0.25).sqrt(), (s**2 + 0.25).rsqrt()
            label = sigma.log() / 4
        elif kind == "VEPrecond":
            skip, out, scale, label = 1, s, 1, (0.5 * sigma).log()
        else:
            skip, out, scale = 1, -s, (s**2 + 1).rsqrt()
            if kind == "VPPrecond":
                label = 999 * ((0.01 + 39.8 * (1 + sigma.double() ** 2).log()).sqrt() - 0.1).float() / 19.9
            else:
                label = 999 - (self.u[None] - sigma[:, None]).abs().argmin(dim=1).float()
        return skip * x + out * self.model(scale * x, label, classes)[:, : x.shape[1]]


BASE: dict[str, Any] = {
    "img_resolution": SIDE, "img_channels": 3, "label_dim": 0, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1,
    "attn_resolutions": [4], "dropout": 0.1, "model_type": "SongUNet",
}  # fmt: skip
NCSNPP = {
    "embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual", "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
ADM = {"model_type": "DhariwalUNet", "model_channels": 64, "channel_mult": [1, 2]}
CASES: dict[str, dict[str, Any]] = {
    "VP, DDPM++": {"class": "VPPrecond"},
    "VE, NCSN++": {"class": "VEPrecond", **NCSNPP},
    "EDM, NCSN++": {"class": "EDMPrecond", **NCSNPP, "sigma_data": 0.5},
    "EDM, skips": {
        "class": "EDMPrecond",
        "encoder_type": "skip",
        "decoder_type": "skip",
        "resample_filter": [1, 3, 3, 1],
    },
    "EDM, ADM": {"class": "EDMPrecond", **ADM},
    "iDDPM, ADM": {"class": "iDDPMPrecond", **ADM},
    "grey": {"class": "EDMPrecond", "img_channels": 1, "attn_resolutions": [8, 4], "num_blocks": 2},
}


def network(changes: dict[str, Any]) -> Preconditioned:
    torch.manual_seed(0)
    return Preconditioned(BASE | changes).eval()


def save(path: Path, made: Preconditioned) -> Path:
    """As docs/bring-your-own-prior.md says."""
    state = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    save_file(state, path / "edm.safetensors", metadata={"edm": json.dumps(made.a)})
    return path / "edm.safetensors"


def read(path: Path, made: Preconditioned, **about: Any) -> Imported:
    return read_model(save(path, made), About("edm", **about))


def pictures(channels: int = 3) -> Tensor:
    return torch.rand(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def noise(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("case", CASES)
def test_the_published_network_says_the_same(case: str, tmp_path: Path) -> None:
    made = network(CASES[case])
    found = read(tmp_path, made)
    channels, denoiser = found.denoiser.config.channels, found.denoiser
    if made.a["class"] == "iDDPMPrecond":  # rounds to its levels; fractions are our addition
        levels = made.u[torch.linspace(999, 12, 20).round().long()]
    else:
        levels = torch.tensor(np.geomspace(2 * denoiser.sigma_min, 2 * denoiser.sigma_max, 20), dtype=torch.float32)
    for level in levels:
        w = 2 * pictures(channels) - 1 + level * noise(channels)
        with torch.no_grad():
            theirs = 0.5 + 0.5 * made(w, level.expand(2))
            ours = denoiser(0.5 + 0.5 * w, 0.5 * level.expand(2))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, 0.5 * float(level)))


@pytest.mark.parametrize("model", ["SongUNet", "DhariwalUNet"])
def test_classes_and_guidance(model: str, tmp_path: Path) -> None:
    """No class is the zero vector, if the network was trained with it."""
    changes = {"class": "EDMPrecond", "label_dim": 5, **(ADM if model == "DhariwalUNet" else {})}
    made = network(changes | {"label_dropout": 0.1})
    found = read(tmp_path, made)
    prior = NetworkPrior(found.denoiser, found.card, torch.device("cpu"))
    assert (prior.classes, prior.guidable) == (5, True)
    level = torch.tensor([0.7, 0.7])
    w = 2 * pictures() - 1 + 0.7 * noise()
    with torch.no_grad(), full_precision():
        none, two = (0.5 + 0.5 * made(w, level, torch.eye(6)[row, :5].expand(2, 5)) for row in (5, 2))
        for ours, theirs in (
            (prior, none),
            (prior.of_class(2), two),
            (prior.of_class(2, guidance=3.0), none + 3.0 * (two - none)),
        ):
            torch.testing.assert_close(ours.denoise(0.5 + 0.5 * w, 0.35), theirs, rtol=0, atol=2e-5)
    assert (none - two).abs().max() > 1e-2
    plain = read(tmp_path, network(changes)).denoiser.config
    assert (plain.classes, plain.null_class) == (5, None)


def test_what_is_imported_denoises_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    made = network(CASES["EDM, NCSN++"])
    app(["models", "import", str(save(tmp_path, made)), "--as", "edm", "-q"], standalone_mode=False)
    card = Card.read(tmp_path / "models" / "edm" / "card.json")
    assert (card.size, card.foreign["library"], card.sigma_max) == (SIDE, "edm", 40.0)
    assert not card.label_rounding
    direct = NetworkPrior(read(tmp_path, made).denoiser, card, torch.device("cpu"))
    loaded = load_prior("edm", "cpu")
    for sigma in np.geomspace(loaded.sigma_min, loaded.sigma_max, 20):
        x = pictures() + float(sigma) * noise()
        assert torch.equal(loaded.denoise(x, float(sigma)), direct.denoise(x, float(sigma)))


def test_arguments_that_do_not_fit_are_said(tmp_path: Path) -> None:
    made = network(CASES["VP, DDPM++"])
    for change, message in (
        ({"class": "EDM2Precond"}, "class is 'EDM2Precond'"),
        ({"class": ["VPPrecond"]}, "class is "),
        ({"channel_mult": [], "model_type": "DhariwalUNet"}, "the arguments lack"),
        ({"model_type": "os.system"}, "model_type is 'os.system'"),
        ({"model_channels": 32}, "has shape"),
        ({"channel_mult": [1]}, "no part of the network|there is no"),
        ({"img_resolution": 10**9}, "size"),
        ({"num_blocks": 10**6}, "blocks"),
        ({"beta_d": -1.0}, "out of range"),
        ({"unheard_of": 1}, "'unheard_of' is not known"),
    ):
        made.a = BASE | CASES["VP, DDPM++"] | change
        with pytest.raises(ModelError, match=message):
            read(tmp_path, made)
    state = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    for text, message in (("{", "is not JSON"), ("[]", "class is None"), ("{}", "class is None")):
        save_file(state, tmp_path / "edm.safetensors", metadata={"edm": text})
        with pytest.raises(ModelError, match=message):
            read_model(tmp_path / "edm.safetensors", About("edm"))
    made.a, bare = BASE | CASES["VP, DDPM++"], torch.zeros(())
    for name in state:
        if name.endswith("qkv.weight"):
            save_file(state | {name: bare}, tmp_path / "edm.safetensors", metadata={"edm": json.dumps(made.a)})
            with pytest.raises(ModelError, match="does not hold the tensors"):
                read_model(tmp_path / "edm.safetensors", About("edm"))
    with pytest.raises(ModelError, match="leave it out"):
        read_model(tmp_path / "edm.safetensors", About("edm", stated={"image_size": 3}))


HOSTILE: tuple[Any, ...] = (-1, 0, [], {}, "x", [10**9, 10**9], ["x", "y"], None, True, 10**9)


def test_cards_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in one: a ModelError, before anything of the size it names is built."""
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    source = save(tmp_path, network({"class": "EDMPrecond", "label_dim": 3, "label_dropout": 0.1}))
    app(["models", "import", str(source), "--as", "edm", "-q"], standalone_mode=False)
    file = tmp_path / "models" / "edm" / "card.json"
    good = json.loads(file.read_text())
    places = [("network", name) for name in good["foreign"]["network"]]
    places += [("process", name) for name in good["foreign"]["process"]]
    for number, (part, name) in enumerate(places):
        for hostile in (HOSTILE[number % 10], HOSTILE[(number + 3) % 10], 10**9):
            changed = json.loads(json.dumps(good))
            changed["foreign"][part][name] = hostile
            file.write_text(json.dumps(changed))
            try:
                load_prior("edm", "cpu")
            except InvsolveError as error:
                assert isinstance(error, ModelError)
    for changed in (
        {"library": "os"},
        {"library": "score_sde"},
        {"network": {}},
        {"process": {}},
        {"extra": 1},
        {"window": [5, 1]},
        {"null_class": 9},
    ):
        file.write_text(json.dumps(good | {"foreign": good["foreign"] | changed}))
        with pytest.raises(ModelError):
            load_prior("edm", "cpu")


class Payload:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_nothing_runs(tmp_path: Path) -> None:
    """EDM's own pickles and other programs are refused, also deep in a checkpoint."""
    trace = tmp_path / "trace"
    file = tmp_path / "network.pt"
    for content in ({"ema": Payload(trace)}, {"model": {"module.all_modules.0.W": Payload(trace)}}):
        torch.save(content, file)
        with pytest.raises(ModelError, match="could run any code"):
            read_model(file, About("edm"))
    file.with_suffix(".pkl").write_bytes(pickle.dumps({"ema": Payload(trace)}))
    with pytest.raises(ModelError, match="unknown ending"):
        read_model(file.with_suffix(".pkl"), About("edm"))
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(file))
    with pytest.raises(ModelError, match="TorchScript, a program"):
        read_model(file, About("edm"))
    torch.save({"model": {"all_modules.0.W": torch.zeros(1).expand(2**38)}}, file)
    with pytest.raises(ModelError, match="more than are stored"):
        read_model(file, About("edm"))
    assert not trace.exists()
    pickle.loads(file.with_suffix(".pkl").read_bytes())
    assert trace.exists()
