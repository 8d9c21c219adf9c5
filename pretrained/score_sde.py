"""Checkpoints of score_sde_pytorch (Song et al. 2021): NCSN++, DDPM++ and DDPM, trained for a continuous SDE or for N levels.

Pictures p are in [0, 1]. The SDE runs in w = 2 p - 1 where the configuration says ``data.centered``, else in w = p, and the
network, which wants [-1, 1], is shown 2 u - 1. With u = alpha w + std z:

====== ====== ================================ ========= =========================================
sde    alpha  std                              told      E[w | u] from what it says, F
====== ====== ================================ ========= =========================================
vesde  1      s_min (s_max / s_min)^t          log std   u + std F; without scale_by_sigma u + std^2 F
vpsde  e^-B/2 sqrt(1 - e^-B)                   999 t     (u - std F) / alpha
subvp  e^-B/2 1 - e^-B                         999 t     (u - std F) / alpha
====== ====== ================================ ========= =========================================

B(t) = t (beta_min + t (beta_max - beta_min) / 2). Networks trained for N levels (``training.continuous`` false) know k = 0, ...,
N - 1, between which they are asked linearly in log std:

====== ============================================================ ========
sde    alpha and std of level k                                     told
====== ============================================================ ========
vesde  1, and s_max (s_min / s_max)^(k / (N - 1)): k = 0 is noisiest k
vpsde  alpha^2 the product of 1 - beta_j, j up to k; std^2 the rest;  k
       beta_j = (beta_min + j / (N - 1) (beta_max - beta_min)) / N
====== ============================================================ ========

The checkpoint's exponential moving average is taken where there is one.
Sources: the paper's appendices B, C and H; github.com/yang-song/score_sde_pytorch: ``models/ncsnpp.py``, ``models/layerspp.py``,
``models/utils.py`` (get_score_fn), ``sde_lib.py``, ``models/ema.py``, ``models/ddpm.py``, ``models/layers.py``.

Its networks are the SongUNet of :class:`invsolve.models.unet.UNet` under other names; the model "ddpm" changes resolution by
convolutions and does not scale its sums. Not known here: an NCSN++ with the blocks of that model, and "residual" outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from invsolve.models.foreign import chain_prior, chain_sigmas, foreign_prior, known_steps
from invsolve.models.score_model import FunctionPrior, per_image
from invsolve.models.sde import subvp, ve, vp
from invsolve.models.unet import UNetConfig
from invsolve.pretrained.foreign import Ask
from invsolve.typed import first_misfit

MARK = "all_modules."
"""What all of its tensors' names begin with."""

LEAST_TIME = 1e-5
"""Below it the networks were not trained."""

MOST_LEVELS = 100_000

PROCESS: dict[str, Any] = {
    "sde": Literal["vesde", "vpsde", "subvpsde"], "centered": bool, "scale_by_sigma": bool, "sigma_min": float,
    "sigma_max": float, "beta_min": float, "beta_max": float,
}  # fmt: skip

DISCRETE: dict[str, Any] = {**PROCESS, "num_scales": int}
"""Of networks trained for so many levels."""

STATED: dict[str, Any] = {
    **DISCRETE,
    "name": Literal["ncsnpp", "ddpm"],
    "image_size": int,
    "fir": bool,
    "fir_kernel": list[float],
    "skip_rescale": bool,
    "continuous": bool,
    "resamp_with_conv": Literal[True],
    "resblock_type": Literal["biggan"],
    "progressive": Literal["none", "output_skip"],
    "progressive_input": Literal["none", "input_skip", "residual"],
    "progressive_combine": Literal["sum"],
}
"""What ``--config`` may state, by the names of score_sde's own configuration."""

BLOCK = {
    "GroupNorm_0": "norm0",
    "Conv_0": "conv0",
    "Dense_0": "affine",
    "GroupNorm_1": "norm1",
    "Conv_1": "conv1",
    "Conv_2": "skip",
    "NIN_0": "skip",
}

CHANGE = {"Conv_0.weight", "Conv_0.bias"}
"""What a module of DDPM's that changes the resolution has."""

Module = dict[str, Tensor]
"""One of ``all_modules``: its tensors by name."""


def check_process(process: Mapping[str, Any]) -> None:
    """Raise a ValueError for what no such SDE can have."""
    if wrong := first_misfit(process, DISCRETE):
        raise ValueError(f"the process' {wrong}")
    if process.keys() not in (PROCESS.keys(), DISCRETE.keys()):
        raise ValueError(f"the process wants {sorted(PROCESS)}")
    if not 1e-6 < process["sigma_min"] < process["sigma_max"] < 1e6:
        raise ValueError("the process' sigma_min and sigma_max are out of range")
    if not 0 < process["beta_min"] < process["beta_max"] <= 50:
        raise ValueError("the process' beta_min and beta_max are out of range")
    if process["sde"] != "vesde" and process["scale_by_sigma"]:
        raise ValueError(f"scale_by_sigma with {process['sde']} is not known here")
    if "num_scales" not in process:
        return
    if not 2 <= process["num_scales"] <= MOST_LEVELS:
        raise ValueError(f"the process' num_scales {process['num_scales']} is out of range")
    if process["sde"] == "subvpsde" or process["sde"] == "vpsde" and not process["centered"]:
        of = "" if process["centered"] else " of pictures that are not centered"
        raise ValueError(f"a discrete {process['sde']}{of} is not known here")
    if process["sde"] == "vpsde":
        alphas_bar(process)


def alphas_bar(process: Mapping[str, Any]) -> Tensor:
    """(N,), alpha^2 of a discrete vpsde's levels, falling."""
    count = process["num_scales"]
    betas = torch.linspace(process["beta_min"] / count, process["beta_max"] / count, count, dtype=torch.float64)
    return known_steps(torch.cumprod(1 - betas.clamp(max=1.0), dim=0))


def sigmas(process: Mapping[str, Any]) -> Tensor | None:
    """The levels of a discrete process in [0, 1], rising."""
    if "num_scales" not in process:
        return None
    if process["sde"] == "vpsde":
        return chain_sigmas(alphas_bar(process))
    _, unit = _pictures(process)
    low, high = math.log(process["sigma_min"]), math.log(process["sigma_max"])
    return unit * torch.linspace(low, high, process["num_scales"], dtype=torch.float64).exp()


def prior(ask: Ask, process: Mapping[str, Any], channels: int, *, rounded: bool) -> FunctionPrior:
    """The change of variables above."""
    if process["sde"] == "vesde":
        return _exploding(ask, process, channels, rounded=rounded)
    if "num_scales" in process:
        return chain_prior(ask, alphas_bar(process), "noise", rounded=rounded, channels=channels)
    center, unit = _pictures(process)
    make = vp if process["sde"] == "vpsde" else subvp
    sde = make(process["beta_min"], process["beta_max"], center=center, unit=unit)
    ends: dict[str, Any] = {"sigma_min": float(sde.sigma(LEAST_TIME)), "sigma_max": float(sde.sigma(1.0))}
    return foreign_prior(
        lambda u, label: ask(_shown(u, process), label),
        sde, "noise", label=lambda t: 999 * t, channels=channels, **ends,
    )  # fmt: skip


def _exploding(ask: Ask, process: Mapping[str, Any], channels: int, *, rounded: bool) -> FunctionPrior:
    least, most, count = process["sigma_min"], process["sigma_max"], process.get("num_scales")
    center, unit = _pictures(process)
    sde = ve(least, most, center=center, unit=unit)

    def told(level: Tensor) -> Tensor:
        if count is None:
            return level.log()
        step = (count - 1) * (math.log(most) - level.double().log()) / math.log(most / least)
        return (step.round() if rounded else step).clamp(0, count - 1).to(level)

    def data(u: Tensor, level: Tensor) -> Tensor:
        std = per_image(level, u)
        return u + (std if process["scale_by_sigma"] else std**2) * ask(_shown(u, process), told(level))

    return foreign_prior(data, sde, "data", label=sde.std, channels=channels)


def _pictures(process: Mapping[str, Any]) -> tuple[float, float]:
    """What w = 0 is, and how far w = 1 is from it."""
    return (0.5, 0.5) if process["centered"] else (0.0, 1.0)


def _shown(u: Tensor, process: Mapping[str, Any]) -> Tensor:
    return u if process["centered"] else 2 * u - 1


def averaged(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a whole checkpoint: of its "model", where there is an "ema" with the averages in place of parameters.

    Raises
    ------
    ValueError : it has averages that do not fit its model.
    """
    model = checkpoint.get("model")
    stored = model if isinstance(model, dict) else {}
    state = {name.removeprefix("module."): value for name, value in stored.items() if isinstance(name, str)}
    ema = checkpoint.get("ema")
    averages = ema.get("shadow_params") if isinstance(ema, dict) else None
    if averages is None:
        return state
    trained = [name for name in state if name.startswith(MARK) and not name.endswith(".W") or ".NIN_" in name]
    fits = isinstance(averages, list) and len(averages) == len(trained)
    if not fits or any(
        not isinstance(mean, Tensor) or mean.shape != getattr(state[name], "shape", None)
        for name, mean in zip(trained, averages, strict=True)
    ):
        raise ValueError("the checkpoint's averages do not fit its model")
    return state | dict(zip(trained, averages, strict=True))


def read(
    state: Mapping[str, Tensor], stated: Mapping[str, Any]
) -> tuple[UNetConfig, dict[str, Any], dict[str, Tensor]]:
    """Network, process and tensors by the network's own names.

    Parameters
    ----------
    state : "all_modules.0.weight" and so on.
    stated : what the shapes do not say: image_size, sde and fir at least, see :data:`STATED`; what else is not stated is as in
        the published configurations.

    Raises
    ------
    ValueError : no such network, or something is missing or contradicts the shapes.
    """
    if wrong := first_misfit(stated, STATED):
        raise ValueError(f"--config: {wrong}")
    modules = _modules(state)
    ddpm = any(module.keys() == CHANGE for module in modules)
    needed = ("image_size", "sde", "name" if ddpm else "fir")
    if lacking := [name for name in needed if name not in stated]:
        raise ValueError(f"the weights do not say {', '.join(lacking)}: state them with --config FILE")
    if ddpm != (stated.get("name") == "ddpm"):
        raise ValueError(f"a model {stated['name']} of these residual blocks is not known here")
    process = _process(state, stated)
    try:
        network = _network(modules, stated, ddpm=ddpm)
    except (KeyError, IndexError, StopIteration):
        raise ValueError("the weights are those of no NCSN++ with BigGAN's residual blocks, and of no DDPM") from None
    network.check()
    continuous = "num_scales" not in process
    if network.fourier != (stated["sde"] == "vesde" and continuous):
        kind = "continuous" if continuous else "discrete"
        features = f"{'' if network.fourier else 'no '}Fourier features"
        raise ValueError(f"a {kind} {stated['sde']} with {features} is not known here (--config: continuous)")
    return network, process, _renamed(modules, network)


def _process(state: Mapping[str, Tensor], stated: Mapping[str, Any]) -> dict[str, Any]:
    exploding, levels = stated["sde"] == "vesde", state.get("sigmas")
    usual = {"centered": not exploding, "scale_by_sigma": exploding, "sigma_min": 0.01, "sigma_max": 50.0,
             "beta_min": 0.1, "beta_max": 20.0}  # fmt: skip
    process = {name: stated.get(name, usual.get(name)) for name in PROCESS}
    if not stated.get("continuous", True):
        process["num_scales"] = stated.get("num_scales", 1000 if levels is None else len(levels))
    check_process(process)
    if exploding and levels is not None and "num_scales" in process:
        found = levels.double().flatten()
        wanted = torch.tensor([process["sigma_max"], process["sigma_min"]]).to(found)
        if len(found) != process["num_scales"] or not torch.allclose(found[[0, -1]], wanted, rtol=1e-3):
            raise ValueError("the weights' sigmas are not those of num_scales, sigma_min and sigma_max")
    return process


def _modules(state: Mapping[str, Tensor]) -> list[Module]:
    """``all_modules`` in order; those without tensors leave no trace."""
    numbered: dict[int, Module] = {}
    for name, tensor in state.items():
        _, number, rest = [*name.split(".", 2), "", ""][:3]
        if name == "sigmas":
            continue
        if not name.startswith(MARK) or not number.isdecimal():
            raise ValueError(f"{name[:80]} is no part of an NCSN++")
        numbered.setdefault(int(number), {})[rest] = tensor
    return [numbered[number] for number in sorted(numbered)]


def _network(modules: list[Module], stated: Mapping[str, Any], *, ddpm: bool) -> UNetConfig:
    """The architecture, read off the modules."""
    fourier = "W" in modules[0]
    embed, stem = modules[fourier]["weight"], modules[fourier + 2]["weight"]
    widths: list[int] = []
    attention: list[int] = []
    blocks, count, encoder = 0, 0, "standard"
    rest = iter(modules[fourier + 3 :])
    width = stem.shape[0]
    while True:  # the encoder, level by level: each but the last ends in a block that halves
        module = next(rest)
        if "NIN_3.W" in module:
            if count == blocks + 1 and blocks:  # the middle: a block more, and attention
                break
            attention.append(len(widths))
        elif "Conv2d_0.weight" in module or "Conv.weight" in module:
            encoder = "residual" if "Conv2d_0.weight" in module else "skip"
        else:
            outputs = module["Conv_0.weight"].shape[0]
            if module.keys() == CHANGE or outputs == width and "Conv_2.weight" in module:
                blocks = blocks or count
                widths.append(width)
                count = 0
            else:
                count, width = count + 1, outputs
    widths.append(width)
    filters = tuple(stated.get("fir_kernel", [1, 3, 3, 1])) if stated.get("fir", False) else (1, 1)
    norms = sum("weight" in module and module["weight"].ndim == 1 for module in modules)
    attended = tuple(sorted({level for level in attention if level < len(widths)}))
    return UNetConfig(
        kind="song",
        size=stated["image_size"],
        channels=stem.shape[1],
        outputs=modules[-1]["weight"].shape[0],
        widths=tuple(widths),
        blocks=blocks,
        attention=attended,
        stem=stem.shape[0],
        noise_width=embed.shape[1],
        embedding_width=embed.shape[0],
        fourier=fourier,
        encoder=encoder,  # type: ignore[arg-type]
        decoder="skip" if norms > 1 else "standard",
        filter=filters,
        resample_blocks=not ddpm,
        corner=ddpm,
        scale_shift=False,
        skip_scale=math.sqrt(0.5) if stated.get("skip_rescale", not ddpm) else 1.0,
        group=1 if ddpm else 4,
        epsilon=1e-6,
    )


def _order(network: UNetConfig) -> Iterator[tuple[str, str]]:
    """The kind and our name of each module that has tensors, in score_sde's order."""
    levels, change = len(network.widths), "block" if network.resample_blocks else "change"
    if network.fourier:
        yield "fourier", ""
    yield from (("plain", "embed0"), ("plain", "embed1"), ("plain", "stem"))
    for level in range(levels):
        for i in range(network.blocks):
            yield "block", f"encoder.{level}.{i}"
            if level in network.attention:
                yield "attention", f"encoder.{level}.{i}"
        if level < levels - 1:
            yield change, f"down.{level}"
            if network.encoder != "standard":
                yield "aux", f"aux.{level}"
    yield from (("block", "middle.0"), ("attention", "middle.0"), ("block", "middle.1"))
    for number, level in enumerate(reversed(range(levels))):
        for i in range(network.blocks + 1):
            yield "block", f"decoder.{number}.{i}"
        if level in network.attention:
            yield "attention", f"decoder.{number}.{network.blocks}"
        if network.decoder == "skip":
            yield from (("plain", f"out_norm.{number}"), ("plain", f"out_conv.{number}"))
        if level > 0:
            yield change, f"up.{number}"
    if network.decoder == "standard":
        yield from (("plain", "out_norm.0"), ("plain", "out_conv.0"))


def _renamed(modules: list[Module], network: UNetConfig) -> dict[str, Tensor]:
    """The tensors by :class:`invsolve.models.unet.UNet`'s names; a ValueError where the modules are of other kinds."""
    order = list(_order(network))
    if len(order) != len(modules):
        raise ValueError(f"{len(modules)} modules where an NCSN++ of this shape has {len(order)}")
    found: dict[str, Tensor] = {}
    for (kind, home), module in zip(order, modules, strict=True):
        try:
            found |= _module(kind, home, module)
        except (KeyError, RuntimeError):
            raise ValueError(f"where {home or 'the embedding'} should be there is {sorted(module)[:3]}") from None
    return found


def _module(kind: str, home: str, module: Module) -> dict[str, Tensor]:
    if kind == "fourier":
        return {"frequencies": module["W"]}
    if kind == "attention":  # NIN: a matrix from channels in to channels out
        matrices = [module[f"NIN_{k}.W"].t() for k in range(4)]
        biases = [module[f"NIN_{k}.b"] for k in range(4)]
        return {
            f"{home}.norm2.weight": module["GroupNorm_0.weight"],
            f"{home}.norm2.bias": module["GroupNorm_0.bias"],
            f"{home}.qkv.weight": torch.cat(matrices[:3])[..., None, None],
            f"{home}.qkv.bias": torch.cat(biases[:3]),
            f"{home}.proj.weight": matrices[3][..., None, None],
            f"{home}.proj.bias": biases[3],
        }
    renamed = {}
    for name, tensor in module.items():
        part, _, last = name.rpartition(".")
        if last == "W":
            renamed[f"{home}.{BLOCK[part]}.weight"] = tensor.t()[..., None, None]
        elif kind == "block":
            renamed[f"{home}.{BLOCK[part]}.{'bias' if last == 'b' else last}"] = tensor
        elif kind == "change":
            renamed[f"{home}.conv.{last}"] = tensor
        else:
            renamed[f"{home}.{last}"] = tensor
    return renamed
