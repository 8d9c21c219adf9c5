"""Networks of NVlabs' EDM (Karras et al. 2022): SongUNet and DhariwalUNet in any of its four preconditionings.

They are published as pickles of whole programs, which are never opened here. Who trusts such a file converts it once, as
docs/bring-your-own-prior.md says: the state dict as safetensors, and the arguments that built the network as JSON under "edm"
in the file's metadata. With w = 2 p - 1 for pictures p in [0, 1], u = w + level z and level = 2 sigma:

============= ======================================= =================== ========================================
class         asked with                              told                E[w | u] from what it says, F
============= ======================================= =================== ========================================
VPPrecond     u / sqrt(1 + level^2)                   (M - 1) t(level)    u - level F
VEPrecond     u                                       log(level / 2)      u + level F
iDDPMPrecond  u / sqrt(1 + level^2)                   M - 1 - j           u - level F, variances dropped
EDMPrecond    u / sqrt(level^2 + s^2), s = sigma_data log(level) / 4      s^2 / (level^2 + s^2) u
                                                                          + level s / sqrt(level^2 + s^2) F
============= ======================================= =================== ========================================

t is the time of the VP SDE with beta_min and beta_max = beta_min + beta_d; j numbers the levels u_j of a chain from the largest
on, u_{j - 1}^2 = (u_j^2 + 1) / max(a_{j - 1} / a_j, C_1) - 1, a_j = sin^2(pi / 2 j / (M (1 + C_2))), between which the network
is asked linearly in log level. Source: the paper's table 1 and appendix C; github.com/NVlabs/edm, ``training/networks.py``.

Where no class is told, EDM's networks see the zero vector, which stands for "none" where they were trained with label_dropout.
The conditions of training augmentation are left out, as EDM does when it samples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from invsolve.models.foreign import chain_prior, chain_sigmas, edm_prior, foreign_prior, known_steps, level_sde
from invsolve.models.score_model import FunctionPrior, per_image
from invsolve.models.sde import vp
from invsolve.models.unet import UNetConfig
from invsolve.pretrained.foreign import Ask
from invsolve.typed import brief, first_misfit

MARK = "edm"
"""Of a safetensors file's metadata: the network's class and arguments, as JSON."""

Preconditioning = Literal["VPPrecond", "VEPrecond", "iDDPMPrecond", "EDMPrecond"]

PROCESS: dict[str, Any] = {
    "class": Preconditioning, "beta_d": float, "beta_min": float, "M": int, "epsilon_t": float, "sigma_min": float,
    "sigma_max": float, "C_1": float, "C_2": float, "sigma_data": float,
}  # fmt: skip

DEFAULTS: dict[str, dict[str, Any]] = {
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5},
    "VEPrecond": {"sigma_min": 0.02, "sigma_max": 100.0},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000},
    "EDMPrecond": {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5},
}
"""Of each preconditioning; EDMPrecond itself sets no bounds to the levels, its samplers take these."""

NETWORK: dict[str, Any] = {
    "img_resolution": int, "img_channels": int, "label_dim": int, "augment_dim": int, "model_channels": int,
    "channel_mult": list[int], "channel_mult_emb": int, "num_blocks": int, "attn_resolutions": list[int], "dropout": float,
    "label_dropout": float, "embedding_type": Literal["positional", "fourier"], "channel_mult_noise": int,
    "encoder_type": Literal["standard", "skip", "residual"], "decoder_type": Literal["standard", "skip"],
    "resample_filter": list[float], "model_type": Literal["SongUNet", "DhariwalUNet"], "use_fp16": bool,
}  # fmt: skip

LAYERS = {
    "map_layer0": "embed0", "map_layer1": "embed1", "map_label": "table", "map_noise.freqs": "frequencies",
    "out_norm": "out_norm.0", "out_conv": "out_conv.0",
}  # fmt: skip

MOST_STEPS = 100_000


def check_process(process: Mapping[str, Any]) -> None:
    """Raise a ValueError for what no preconditioning can have."""
    if wrong := first_misfit(process, PROCESS):
        raise ValueError(f"the process' {wrong}")
    kind = process.get("class")
    wanted = {"class", *DEFAULTS.get(str(kind), {})}
    if process.keys() != wanted:
        raise ValueError(f"the process of {brief(kind)} wants {sorted(wanted)}")
    positive = all(1e-9 < value < 1e6 for name, value in process.items() if name != "class")
    rising = process.get("sigma_min", 0.0) < process.get("sigma_max", 1.0)
    if not positive or not rising or not 2 <= process.get("M", 2) <= MOST_STEPS or process.get("epsilon_t", 0.5) >= 1:
        raise ValueError(f"the process of {kind} has numbers that are out of range")


def alphas_bar(process: Mapping[str, Any]) -> Tensor:
    """(N,), 1 / (1 + u_j^2) of iDDPM's levels from the smallest on: alpha^2 of a chain's steps, falling."""
    steps, least, shift = process["M"], process["C_1"], process["C_2"]
    share = torch.arange(steps + 1, dtype=torch.float64) / steps / (1 + shift)
    kept = torch.sin(math.pi / 2 * share) ** 2
    squares = [0.0]
    for j in range(steps, 0, -1):
        squares.append((squares[-1] + 1) / max(float(kept[j - 1] / kept[j]), least) - 1)
    return known_steps(1 / (1 + torch.tensor(squares[1:], dtype=torch.float64)))


def sigmas(process: Mapping[str, Any]) -> Tensor | None:
    return chain_sigmas(alphas_bar(process)) if process["class"] == "iDDPMPrecond" else None


def prior(ask: Ask, process: Mapping[str, Any], channels: int, *, rounded: bool) -> FunctionPrior:
    """The change of variables above."""
    kind: Preconditioning = process["class"]
    if kind == "iDDPMPrecond":
        return chain_prior(ask, alphas_bar(process), "noise", rounded=rounded, channels=channels)
    if kind == "VPPrecond":
        sde = vp(process["beta_min"], process["beta_min"] + process["beta_d"])
        ends: dict[str, Any] = {"sigma_min": float(sde.sigma(process["epsilon_t"])), "sigma_max": float(sde.sigma(1.0))}
        last = process["M"] - 1
        return foreign_prior(ask, sde, "noise", label=lambda t: last * t, channels=channels, **ends)
    levels = process["sigma_min"], process["sigma_max"]
    if kind == "EDMPrecond":
        return edm_prior(ask, process["sigma_data"], levels, channels=channels)

    def data(u: Tensor, level: Tensor) -> Tensor:
        return u + per_image(level, u) * ask(u, (0.5 * level).log())

    return foreign_prior(data, level_sde(*levels), "data", channels=channels)


def read(
    state: Mapping[str, Tensor], stated: Mapping[str, Any]
) -> tuple[UNetConfig, dict[str, Any], dict[str, Tensor], int | None]:
    """Network, process, tensors by the network's own names, and the row of its table that stands for no class.

    Parameters
    ----------
    state : a preconditioned network's state dict.
    stated : "class" and the arguments that built it, those of the network within among them.

    Raises
    ------
    ValueError : not such a network, or arguments that are not known here.
    """
    kind = stated.get("class")
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise ValueError(f"the network's class is {brief(kind)}, wanted one of {', '.join(DEFAULTS)}")
    own = {name: value for name, value in stated.items() if name in DEFAULTS[kind]}
    if kind == "EDMPrecond":  # 0 and infinity are its own bounds
        own = {"sigma_data": own["sigma_data"]} if "sigma_data" in own else {}
    process = {"class": kind, **DEFAULTS[kind], **own}
    check_process(process)
    rest = {name: value for name, value in stated.items() if name not in ("class", *PROCESS)}
    if wrong := first_misfit(rest, NETWORK):
        raise ValueError(f"the network's {wrong}")
    model = rest.get("model_type", "SongUNet" if kind in ("VPPrecond", "VEPrecond") else "DhariwalUNet")
    try:
        network = _network(rest, model, outputs=2 if kind == "iDDPMPrecond" else 1)
    except (KeyError, IndexError) as error:
        raise ValueError(f"the arguments lack {error}") from None
    network.check()
    null = network.classes - 1 if network.classes > stated.get("label_dim", 0) else None
    return network, process, _renamed(state, network, null), null


def _network(stated: Mapping[str, Any], model: str, outputs: int) -> UNetConfig:
    song = model == "SongUNet"
    base = stated.get("model_channels", 128 if song else 192)
    multiples = stated.get("channel_mult", [1, 2, 2, 2] if song else [1, 2, 3, 4])
    size, classes = stated["img_resolution"], stated.get("label_dim", 0)
    told_none = classes > 0 and stated.get("label_dropout", 0) > 0
    attended = stated.get("attn_resolutions", [16] if song else [32, 16, 8])
    return UNetConfig(
        kind="song" if song else "adm",
        size=size,
        channels=stated["img_channels"],
        outputs=outputs * stated["img_channels"],
        widths=tuple(base * multiple for multiple in multiples),
        blocks=stated.get("num_blocks", 4 if song else 3),
        attention=tuple(level for level in range(len(multiples)) if size >> level in attended),
        stem=base * (1 if song else multiples[0]),
        noise_width=base * (stated.get("channel_mult_noise", 1) if song else 1),
        embedding_width=base * stated.get("channel_mult_emb", 4),
        fourier=song and stated.get("embedding_type", "positional") == "fourier",
        encoder=stated.get("encoder_type", "standard") if song else "standard",
        decoder=stated.get("decoder_type", "standard") if song else "standard",
        filter=tuple(stated.get("resample_filter", [1, 1])) if song else (1, 1),
        scale_shift=not song,
        skip_scale=math.sqrt(0.5) if song else 1.0,
        heads=1 if song else None,
        head_channels=None if song else 64,
        epsilon=1e-6 if song else 1e-5,
        classes=classes + told_none,  # the last row is that of no class
    )


def _renamed(state: Mapping[str, Tensor], network: UNetConfig, null: int | None) -> dict[str, Tensor]:
    """The tensors by :class:`invsolve.models.unet.UNet`'s names; unknown ones keep theirs, and are found out later."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        inner = name.removeprefix("model.")
        if inner.endswith("resample_filter") or inner.startswith("map_augment.") or name == "u":
            continue  # made from the arguments, or of training only
        own, _, last = inner.rpartition(".")
        if inner == "map_noise.freqs":
            found["frequencies"] = tensor
        elif own == "map_label":
            continue
        else:
            found[f"{LAYERS.get(own) or _own_name(own, network)}.{last}"] = _in_order(tensor, own, network)
    if network.classes:
        found["table.weight"] = _table(state, network, null)
    return found


def _own_name(old: str, network: UNetConfig) -> str:
    """Where ``enc.32x32_block0.conv0`` and the like are here."""
    match = re.fullmatch(r"(enc|dec)\.(\d+)x\d+_([a-z_]+)(\d*)(\..+)?", old)
    sizes = [network.size >> level for level in range(len(network.widths))]
    if match is None or int(match[2]) not in sizes:
        return old
    level = sizes.index(int(match[2]))
    back, part, rest = len(sizes) - 1 - level, match[3], match[5] or ""
    if match[1] == "enc":
        homes = {"conv": "stem", "down": f"down.{level - 1}", "block": f"encoder.{level}.{match[4]}"}
        homes |= dict.fromkeys(("aux_skip", "aux_residual"), f"aux.{level - 1}")
    else:
        index = back if network.decoder == "skip" else 0
        homes = {"in": f"middle.{match[4]}", "up": f"up.{back - 1}", "block": f"decoder.{back}.{match[4]}"}
        homes |= {"aux_norm": f"out_norm.{index}", "aux_conv": f"out_conv.{index}"}
    return homes.get(part, old) + rest


def _in_order(tensor: Tensor, own: str, network: UNetConfig) -> Tensor:
    """Attention's tensors with all queries before all keys before all values; EDM has them channel by channel."""
    if not own.endswith(".qkv"):
        return tensor
    width = tensor.shape[0] // 3
    heads = network.heads_of(width)
    if 3 * width != tensor.shape[0] or not heads or width % heads:
        raise ValueError(f"{own} with {tensor.shape[0]} rows does not make heads of the stated number")
    return tensor.reshape(heads, width // heads, 3, *tensor.shape[1:]).movedim(2, 0).reshape(tensor.shape)


def _table(state: Mapping[str, Tensor], network: UNetConfig, null: int | None) -> Tensor:
    """What each class adds to the embedding, and last what none does; EDM multiplies a vector of zeros and a one."""
    classes = network.classes - (null is not None)
    weight, bias = state.get("model.map_label.weight"), state.get("model.map_label.bias")
    if weight is None or weight.ndim != 2 or weight.shape[1] != classes:
        raise ValueError(f"there is no table of {classes} classes")
    rows = weight.t().float() * (math.sqrt(classes) if network.kind == "song" else 1.0)
    if null is not None:
        rows = torch.cat([rows, torch.zeros_like(rows[:1])])
    return rows if bias is None else rows + bias.float()
