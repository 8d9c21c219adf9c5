"""Checkpoints of score_sde_pytorch: its NCSN++ and its score function, written out here once more, say the same."""

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

SIDE, BASE = 8, 16


def changed(x: Tensor, factor: str, line: tuple[float, ...] | None) -> Tensor:
    """Up or down by two; with a filter by zeros between pixels, padding and a convolution, as upfirdn2d does."""
    if line is None:
        return F.interpolate(x, scale_factor=2) if factor == "up" else F.avg_pool2d(x, 2)
    taps = torch.outer(torch.tensor(line), torch.tensor(line))
    taps = (taps / taps.sum())[None, None].repeat(x.shape[1], 1, 1, 1)
    more = len(line) - 2
    if factor == "down":
        x = F.pad(x, [(more + 1) // 2, more // 2] * 2)
        return F.conv2d(x, taps, groups=x.shape[1])[..., ::2, ::2]
    spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    spread[..., ::2, ::2] = x
    return F.conv2d(F.pad(spread, [(more + 1) // 2 + 1, more // 2] * 2), 4 * taps, groups=x.shape[1])


def group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(width // 4, 32), width, eps=1e-6)


class Projection(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(16 * torch.randn(width), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        angles = x[:, None] * self.W[None] * 2 * math.pi
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class NIN(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(torch.randn(width, width) / math.sqrt(width)), nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", x, self.W) + self.b[:, None, None]


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.GroupNorm_0 = group_norm(width)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (NIN(width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = self.NIN_0(h), self.NIN_1(h), self.NIN_2(h)
        weights = torch.einsum("bchw,bcij->bhwij", q, k) / math.sqrt(x.shape[1])
        weights = weights.flatten(3).softmax(dim=-1).reshape(weights.shape)
        return (x + self.NIN_3(torch.einsum("bhwij,bcij->bchw", weights, v))) / math.sqrt(2)


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, line: tuple[float, ...] | None, change: str = "") -> None:
        super().__init__()
        self.change, self.line = change, line
        self.GroupNorm_0, self.Conv_0 = group_norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.Dense_0 = nn.Linear(4 * BASE, outputs)
        self.GroupNorm_1, self.Conv_1 = group_norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs or change:
            self.Conv_2 = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = F.silu(self.GroupNorm_0(x))
        if self.change:
            h, x = changed(h, self.change, self.line), changed(x, self.change, self.line)
        h = self.Conv_0(h) + self.Dense_0(F.silu(temb))[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        return ((self.Conv_2(x) if hasattr(self, "Conv_2") else x) + h) / math.sqrt(2)


class DownConv(nn.Module):
    """Of the "residual" input pyramid: filtered, and then a strided convolution with the padding of both."""

    def __init__(self, inputs: int, outputs: int, line: tuple[float, ...] | None) -> None:
        super().__init__()
        assert line is not None
        self.line = line
        self.Conv2d_0 = nn.Conv2d(inputs, outputs, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        taps = torch.outer(torch.tensor(self.line), torch.tensor(self.line))
        taps = (taps / taps.sum())[None, None].repeat(x.shape[1], 1, 1, 1)
        return self.Conv2d_0(F.conv2d(F.pad(x, [2, 2, 2, 2]), taps, groups=x.shape[1]))


class Down(nn.Module):
    """Of the "input_skip" pyramid; has no weights, but a place of its own."""

    def __init__(self, line: tuple[float, ...] | None) -> None:
        super().__init__()
        self.line = line

    def forward(self, x: Tensor) -> Tensor:
        return changed(x, "down", self.line)


class Up(Down):
    def forward(self, x: Tensor) -> Tensor:
        return changed(x, "up", self.line)


class Combine(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.Conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.Conv(x) + y


class NCSNpp(nn.Module):
    def __init__(self, stated: dict[str, Any]) -> None:
        super().__init__()
        self.stated = stated
        line = (1.0, 3.0, 3.0, 1.0) if stated["fir"] else None
        self.mults, self.n, self.attended = stated["ch_mult"], stated["num_res_blocks"], stated["attn_resolutions"]
        self.into, self.out = stated["progressive_input"], stated["progressive"]
        fourier = self.fourier = stated["sde"] == "vesde" and stated.get("continuous", True)
        modules: list[nn.Module] = [Projection(BASE)] if fourier else []
        modules += [nn.Linear(BASE * (1 + fourier), 4 * BASE), nn.Linear(4 * BASE, 4 * BASE)]
        modules.append(nn.Conv2d(3, BASE, 3, padding=1))
        width, skips, shown, last = BASE, [BASE], 3, len(self.mults) - 1
        for level, mult in enumerate(self.mults):
            for _ in range(self.n):
                modules.append(ResBlock(width, mult * BASE, line))
                width = mult * BASE
                if SIDE // 2**level in self.attended:
                    modules.append(Attention(width))
                skips.append(width)
            if level < last:
                modules.append(ResBlock(width, width, line, "down"))
                if self.into == "input_skip":
                    modules += [Down(line), Combine(3, width)]
                elif self.into == "residual":
                    modules.append(DownConv(shown, width, line))
                    shown = width
                skips.append(width)
        modules += [ResBlock(width, width, line), Attention(width), ResBlock(width, width, line)]
        for level, mult in reversed(list(enumerate(self.mults))):
            for _ in range(self.n + 1):
                modules.append(ResBlock(width + skips.pop(), mult * BASE, line))
                width = mult * BASE
            if SIDE // 2**level in self.attended:
                modules.append(Attention(width))
            if self.out == "output_skip":
                modules += [Up(line)] if level < last else []
                modules += [group_norm(width), nn.Conv2d(width, 3, 3, padding=1)]
            if level:
                modules.append(ResBlock(width, width, line, "up"))
        if self.out == "none":
            modules += [group_norm(width), nn.Conv2d(width, 3, 3, padding=1)]
        self.all_modules = nn.ModuleList(modules)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        modules = iter(self.all_modules)
        fourier = self.fourier
        if fourier:
            temb = next(modules)(told.log())
        else:
            angles = told[:, None] * torch.exp(-math.log(10000) * torch.arange(BASE // 2) / (BASE // 2 - 1))[None]
            temb = torch.cat([angles.sin(), angles.cos()], dim=1)
        temb = next(modules)(temb)
        temb = next(modules)(F.silu(temb))
        x = x if self.stated["centered"] else 2 * x - 1
        hs, shown, last = [next(modules)(x)], x, len(self.mults) - 1
        for level in range(len(self.mults)):
            for _ in range(self.n):
                h = next(modules)(hs[-1], temb)
                h = next(modules)(h) if h.shape[-1] in self.attended else h
                hs.append(h)
            if level < last:
                h = next(modules)(hs[-1], temb)
                if self.into == "input_skip":
                    shown = next(modules)(shown)
                    h = next(modules)(shown, h)
                elif self.into == "residual":
                    h = shown = (next(modules)(shown) + h) / math.sqrt(2)
                hs.append(h)
        h = next(modules)(hs[-1], temb)
        h = next(modules)(h)
        h = next(modules)(h, temb)
        found: Tensor | None = None
        for level in reversed(range(len(self.mults))):
            for _ in range(self.n + 1):
                h = next(modules)(torch.cat([h, hs.pop()], dim=1), temb)
            h = next(modules)(h) if h.shape[-1] in self.attended else h
            if self.out == "output_skip":
                above = None if found is None else next(modules)(found)
                part = F.silu(next(modules)(h))
                part = next(modules)(part)
                found = part if above is None else above + part
            h = next(modules)(h, temb) if level else h
        if found is None:
            h = F.silu(next(modules)(h))
            found = next(modules)(h)
        return found / told[:, None, None, None] if fourier else found

    def denoised(self, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E[w | u] by Tweedie's formula from score_sde's score function, and alpha and std, all at time t."""
        kind = self.stated["sde"]
        if kind == "vesde":
            alpha, std = torch.ones(()), 0.01 * (50.0 / 0.01) ** t
            score = self(u, std.float().expand(len(u)))
        else:
            log_alpha = -0.25 * t**2 * 19.9 - 0.5 * t * 0.1
            alpha = log_alpha.exp()
            std = (1 - (2 * log_alpha).exp()).sqrt() if kind == "vpsde" else 1 - (2 * log_alpha).exp()
            score = -self(u, (999 * t).float().expand(len(u))) / std
        return (u.double() + std**2 * score) / alpha, alpha, std


STATED: dict[str, Any] = {
    "image_size": SIDE, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), "fir": True, "centered": False,
    "progressive": "none", "progressive_input": "residual", "sde": "vesde",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "NCSN++, CIFAR-10": {},
    "NCSN++, 256 and up": {
        "progressive": "output_skip", "progressive_input": "input_skip", "ch_mult": (1, 1, 2), "num_res_blocks": 2,
    },
    "DDPM++": {"sde": "vpsde", "fir": False, "centered": True, "progressive_input": "none", "attn_resolutions": (8, 4)},
    "sub-VP": {"sde": "subvpsde", "fir": False, "centered": True, "progressive_input": "none"},
}  # fmt: skip


def network(case: str) -> NCSNpp:
    torch.manual_seed(0)
    return NCSNpp(STATED | CASES[case]).eval()


def needed(made: NCSNpp) -> dict[str, Any]:
    """What a user has to say of such a file."""
    return {name: made.stated[name] for name in ("image_size", "sde", "fir")}


def read(path: Path, made: NCSNpp, **changes: Any) -> Imported:
    torch.save({f"module.{name}": tensor for name, tensor in made.state_dict().items()}, path / "model.pth")
    return read_model(path / "model.pth", About("song", stated=needed(made) | changes))


def pictures() -> Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def noise() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("case", CASES)
def test_the_published_network_says_the_same(case: str, tmp_path: Path) -> None:
    made = network(case)
    denoiser = read(tmp_path, made).denoiser
    center, unit = (0.5, 0.5) if made.stated["centered"] else (0.0, 1.0)
    for t in torch.linspace(1e-3, 1, 20, dtype=torch.float64):
        with torch.no_grad():
            _, alpha, std = made.denoised(pictures(), t)
            u = (alpha * (pictures() - center) / unit + std * noise()).float()
            theirs = center + unit * made.denoised(u, t)[0]
            level = unit * std / alpha
            ours = denoiser((center + unit * u.double() / alpha).float(), level.float().expand(2))
        torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=1e-5 * max(1.0, float(level)))


def test_the_averages_of_a_checkpoint_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole checkpoint, with optimizer and moving averages, imported by the command and loaded bit for bit."""
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    made = network("NCSN++, CIFAR-10")
    averages = [parameter.detach() for parameter in made.parameters() if parameter.requires_grad]
    state = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in made.state_dict().items()}
    state["module.all_modules.0.W"] = made.all_modules[0].W.detach()
    optimizer = torch.optim.Adam(made.parameters()).state_dict()
    checkpoint = {"optimizer": optimizer, "model": state, "ema": {"decay": 0.999, "shadow_params": averages}, "step": 7}
    torch.save(checkpoint, tmp_path / "checkpoint_24.pth")
    (tmp_path / "song.json").write_text(json.dumps(needed(made)))
    arguments = ["models", "import", tmp_path / "checkpoint_24.pth", "--config", tmp_path / "song.json"]
    app([str(part) for part in (*arguments, "--as", "song", "-q")], standalone_mode=False)
    card = Card.read(tmp_path / "models" / "song" / "card.json")
    assert (card.size, card.foreign["library"], card.sigma_max) == (SIDE, "score_sde", pytest.approx(50))
    direct = NetworkPrior(read(tmp_path, made).denoiser, card, torch.device("cpu"))
    loaded = load_prior("song", "cpu")
    for sigma in np.geomspace(loaded.sigma_min, loaded.sigma_max, 20):
        x = pictures() + float(sigma) * noise()
        assert torch.equal(loaded.denoise(x, float(sigma)), direct.denoise(x, float(sigma)))
    for wrong in (averages[1:], [*averages[:-1], torch.ones(5)], "none"):
        torch.save(checkpoint | {"ema": {"shadow_params": wrong}}, tmp_path / "checkpoint_24.pth")
        with pytest.raises(ModelError, match="averages do not fit"):
            read_model(tmp_path / "checkpoint_24.pth", About("song", stated=needed(made)))


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    made = network("DDPM++")
    for changes, message in (
        ({"sde": "vesde"}, "Fourier features is not known"),
        ({"sigma_min": 5.0, "sigma_max": 1.0}, "sigma_min and sigma_max"),
        ({"scale_by_sigma": True}, "scale_by_sigma with vpsde"),
        ({"continuous": False, "sde": "subvpsde"}, "discrete subvpsde is not known"),
        ({"continuous": False, "centered": False}, "discrete vpsde of pictures that are not centered"),
        ({"continuous": False, "num_scales": 1}, "num_scales 1 is out of range"),
        ({"continuous": "no"}, "continuous is 'no'"),
        ({"name": "ddpm"}, "model ddpm of these residual blocks"),
        ({"resblock_type": "ddpm"}, "resblock_type is 'ddpm'"),
        ({"image_size": 0}, "size"),
    ):
        with pytest.raises(ModelError, match=message):
            read(tmp_path, made, **changes)
    with pytest.raises(ModelError, match="do not say image_size, sde, fir"):
        read_model(tmp_path / "model.pth", About("song"))
    state = made.state_dict()
    for name in ("all_modules.3.Conv_0.weight", "all_modules.7.NIN_0.W", "all_modules.0.weight"):
        torch.save({key: value for key, value in state.items() if key != name}, tmp_path / "model.pth")
        with pytest.raises(ModelError):
            read_model(tmp_path / "model.pth", About("song", stated=needed(made)))
