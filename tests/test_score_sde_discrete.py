"""Checkpoints of score_sde_pytorch for discrete levels, and of its model "ddpm", written out here once more."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calling import call
from test_score_sde_files import NIN, SIDE, STATED, NCSNpp, noise, pictures
from torch import Tensor, nn

from invsolve.errors import ModelError
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.pretrained.imported import About
from invsolve.pretrained.importing import read_model

LEVELS = 40
BASE, MULTIPLES, BLOCKS, ATTENDED = 32, (1, 2), 2, (4,)


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


class Conv(nn.Module):
    """Of a change of resolution."""

    def __init__(self, width: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.Conv_0 = nn.Conv2d(width, width, 3, stride=1 + halves, padding=1 - halves)

    def forward(self, x: Tensor) -> Tensor:
        return self.Conv_0(F.pad(x, (0, 1, 0, 1)) if self.halves else x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.GroupNorm_0, self.Conv_0 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.Dense_0 = nn.Linear(4 * BASE, outputs)
        self.GroupNorm_1, self.Conv_1 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.NIN_0 = NIN(inputs)
            self.NIN_0.W = nn.Parameter(torch.randn(inputs, outputs) / math.sqrt(inputs))
            self.NIN_0.b = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.Conv_0(F.silu(self.GroupNorm_0(x))) + self.Dense_0(F.silu(temb))[..., None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        return (self.NIN_0(x) if hasattr(self, "NIN_0") else x) + h


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.GroupNorm_0 = norm(width)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (NIN(width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (part(h).flatten(2) for part in (self.NIN_0, self.NIN_1, self.NIN_2))
        weights = (q.transpose(1, 2) @ k / math.sqrt(x.shape[1])).softmax(dim=2)
        return x + self.NIN_3((v @ weights.transpose(1, 2)).reshape(x.shape))


class DDPM(nn.Module):
    def __init__(self, centered: bool) -> None:
        super().__init__()
        self.centered, width, skips = centered, BASE, [BASE]
        modules: list[nn.Module] = [nn.Linear(BASE, 4 * BASE), nn.Linear(4 * BASE, 4 * BASE)]
        modules.append(nn.Conv2d(3, BASE, 3, padding=1))
        for level, multiple in enumerate(MULTIPLES):
            for _ in range(BLOCKS):
                modules.append(ResBlock(width, multiple * BASE))
                width = multiple * BASE
                modules += [Attention(width)] if SIDE >> level in ATTENDED else []
                skips.append(width)
            if level < len(MULTIPLES) - 1:
                modules.append(Conv(width, halves=True))
                skips.append(width)
        modules += [ResBlock(width, width), Attention(width), ResBlock(width, width)]
        for level, multiple in reversed(list(enumerate(MULTIPLES))):
            for _ in range(BLOCKS + 1):
                modules.append(ResBlock(width + skips.pop(), multiple * BASE))
                width = multiple * BASE
            modules += [Attention(width)] if SIDE >> level in ATTENDED else []
            modules += [Conv(width, halves=False)] if level else []
        self.all_modules = nn.ModuleList([*modules, norm(width), nn.Conv2d(width, 3, 3, padding=1)])

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        modules = iter(self.all_modules)
        rates = torch.exp(-math.log(10000) / (BASE // 2 - 1) * torch.arange(BASE // 2))
        temb = next(modules)(torch.cat([(told[:, None] * rates).sin(), (told[:, None] * rates).cos()], dim=1))
        temb = next(modules)(F.silu(temb))
        h = next(modules)(x if self.centered else 2 * x - 1)
        skips = [h]
        for level in range(len(MULTIPLES)):
            for _ in range(BLOCKS):
                h = next(modules)(h, temb)
                h = next(modules)(h) if h.shape[-1] in ATTENDED else h
                skips.append(h)
            if level < len(MULTIPLES) - 1:
                h = next(modules)(h)
                skips.append(h)
        h = next(modules)(h, temb)
        h = next(modules)(h)
        h = next(modules)(h, temb)
        for level in reversed(range(len(MULTIPLES))):
            for _ in range(BLOCKS + 1):
                h = next(modules)(torch.cat([h, skips.pop()], dim=1), temb)
            h = next(modules)(h) if h.shape[-1] in ATTENDED else h
            h = next(modules)(h) if level else h
        h = F.silu(next(modules)(h))
        return next(modules)(h)


Level = tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]
"""Of a level: alpha, std, and minus std times the score from what the network says of u."""


def exploding(k: int) -> Level:
    sigma = torch.tensor(np.exp(np.linspace(np.log(50.0), np.log(0.01), LEVELS)))[k]

    def noise_of(said: Tensor, u: Tensor) -> Tensor:
        return -sigma * (said / sigma)  # the library divides by sigma to have a score

    return torch.ones((), dtype=torch.float64), sigma, noise_of


def preserving(k: int) -> Level:
    betas = [(0.1 + j / (LEVELS - 1) * 19.9) / LEVELS for j in range(LEVELS)]
    kept = torch.tensor(math.prod(1 - beta for beta in betas[: k + 1]), dtype=torch.float64)
    return kept.sqrt(), (1 - kept).sqrt(), lambda said, u: said


CASES: dict[str, dict[str, Any]] = {
    "NCSN++, SMLD": {"sde": "vesde", "fir": True},
    "DDPM++": {"sde": "vpsde", "fir": False, "centered": True, "progressive_input": "none"},
    "DDPM": {"sde": "vpsde", "name": "ddpm"},
    "DDPM, SMLD": {"sde": "vesde", "name": "ddpm"},
}


def network(case: str) -> nn.Module:
    torch.manual_seed(0)
    stated = CASES[case]
    if stated.get("name") == "ddpm":
        return DDPM(centered=stated["sde"] == "vpsde").eval()
    return NCSNpp(STATED | stated | {"continuous": False}).eval()


def needed(case: str) -> dict[str, Any]:
    """What a user has to say of such a file."""
    stated = {name: value for name, value in CASES[case].items() if name in ("sde", "fir", "name")}
    return {"image_size": SIDE, "continuous": False, "num_scales": LEVELS} | stated


def save(path: Path, made: nn.Module) -> Path:
    torch.save({f"module.{name}": tensor for name, tensor in made.state_dict().items()}, path / "model.pth")
    return path / "model.pth"


@pytest.mark.parametrize("case", CASES)
def test_the_published_network_says_the_same(case: str, tmp_path: Path) -> None:
    """At twenty of its own levels: Tweedie's formula with the library's score."""
    made = network(case)
    denoiser = read_model(save(tmp_path, made), About("song", stated=needed(case))).denoiser
    at, centered = (exploding, False) if CASES[case]["sde"] == "vesde" else (preserving, True)
    center, unit = (0.5, 0.5) if centered else (0.0, 1.0)
    assert denoiser.sigmas is not None and len(denoiser.sigmas) == LEVELS
    for k in np.linspace(0, LEVELS - 1, 20).round().astype(int):
        alpha, std, noise_of = at(int(k))
        u = (alpha * (pictures() - center) / unit + std * noise()).float()
        with torch.no_grad():
            clean = (u.double() - std * noise_of(made(u, torch.full((2,), float(k))), u)) / alpha
            level = unit * std / alpha
            ours = denoiser((center + unit * u.double() / alpha).float(), level.float().expand(2))
        theirs = (center + unit * clean).float()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, float(level)))


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command, with the card's effect of labels between the levels."""
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    made = network("DDPM")
    (tmp_path / "song.json").write_text(json.dumps(needed("DDPM")))
    file, config = save(tmp_path, made), tmp_path / "song.json"
    assert call(monkeypatch, "models", "import", file, "--config", config, "--as", "song", "-q") == 0
    loaded = load_prior("song", "cpu")
    found = read_model(file, About("song", stated=needed("DDPM"))).denoiser
    direct = NetworkPrior(found, loaded.card, torch.device("cpu"))
    assert len(loaded.card.label_rounding) == 8 and all(effect > 0 for _, effect in loaded.card.label_rounding)
    for sigma in np.geomspace(loaded.sigma_min, loaded.sigma_max, 20):
        x = pictures() + float(sigma) * noise()
        assert torch.equal(loaded.denoise(x, float(sigma)), direct.denoise(x, float(sigma)))


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    file = save(tmp_path, network("DDPM, SMLD"))
    for changes, message in (
        ({"continuous": True}, "a continuous vesde with no Fourier features"),
        ({"name": "ncsnpp"}, "a model ncsnpp of these residual blocks"),
        ({"num_scales": 10**9}, "num_scales 1000000000 is out of range"),
    ):
        with pytest.raises(ModelError, match=message):
            read_model(file, About("song", stated=needed("DDPM, SMLD") | changes))
    with pytest.raises(ModelError, match="do not say name"):
        read_model(file, About("song", stated={"image_size": SIDE, "sde": "vesde"}))
    state = network("NCSN++, SMLD").state_dict() | {"sigmas": torch.linspace(50, 0.01, LEVELS)}
    for sigmas, right in ((torch.logspace(math.log10(50), -2, LEVELS), True), (torch.linspace(9, 0.01, LEVELS), False)):
        torch.save(state | {"sigmas": sigmas}, file)
        stated = {name: value for name, value in needed("NCSN++, SMLD").items() if name != "num_scales"}
        if right:
            found = read_model(file, About("song", stated=stated)).denoiser.sigmas
            assert found is not None and len(found) == LEVELS
        else:
            with pytest.raises(ModelError, match="sigmas are not those"):
                read_model(file, About("song", stated=stated))
