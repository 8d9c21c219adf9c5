"""Networks of NVlabs' EDM2 (Karras et al. 2024) for pictures: those of latents are refused.

They come as EDM's do (:mod:`invsolve.pretrained.edm`): converted by who trusts the pickle, the arguments in the file's metadata
under "edm", with the class "Precond". With w = 2 p - 1 for pictures p in [0, 1], u = w + level z, level = 2 sigma, s = sigma_data:

    E[w | u] = s^2 / (level^2 + s^2) u + level s / sqrt(level^2 + s^2) F(u / sqrt(level^2 + s^2), log(level) / 4)

A layer's stored weights are normalised and scaled whenever it is used: row v becomes gain v / (|v| + eps sqrt(n)) of n numbers, with
eps = 1e-4 (equations 47 and 66). That is done here, once. A class is a row of the table, which the network multiplies by a vector
of zeros and sqrt(classes). Source: the paper, 2312.02696; github.com/NVlabs/edm2, ``training/networks_edm2.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from invsolve.models.edm2 import EPSILON, EDM2Config
from invsolve.models.foreign import edm_prior
from invsolve.models.score_model import FunctionPrior
from invsolve.pretrained.foreign import Ask
from invsolve.typed import first_misfit

CLASS = "Precond"
"""By which its arguments are known from EDM's."""

PROCESS: dict[str, Any] = {"sigma_data": float, "sigma_min": float, "sigma_max": float}

USUAL = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
"""The network itself sets no bounds to the levels, its sampler takes these."""

NETWORK: dict[str, Any] = {
    "class": str, "img_resolution": int, "img_channels": int, "label_dim": int, "use_fp16": bool, "sigma_data": float,
    "logvar_channels": int, "model_channels": int, "channel_mult": list[int], "channel_mult_noise": int | None,
    "channel_mult_emb": int | None, "num_blocks": int, "attn_resolutions": list[int], "label_balance": float,
    "concat_balance": float, "resample_filter": list[float], "channels_per_head": int, "dropout": float, "res_balance": float,
    "attn_balance": float, "clip_act": float | None,
}  # fmt: skip

PARTS = {
    "conv_res0": "conv0",
    "conv_res1": "conv1",
    "conv_skip": "skip",
    "emb_linear": "affine",
    "attn_qkv": "qkv",
    "attn_proj": "proj",
}


def check_process(process: Mapping[str, Any]) -> None:
    """Raise a ValueError for what no such network can have."""
    if wrong := first_misfit(process, PROCESS):
        raise ValueError(f"the process' {wrong}")
    if process.keys() != PROCESS.keys() or not 1e-9 < process["sigma_min"] < process["sigma_max"] < 1e6:
        raise ValueError(f"the process wants {sorted(PROCESS)}, the levels rising")
    if not 1e-6 < process["sigma_data"] < 1e6:
        raise ValueError("the process' sigma_data is out of range")


def sigmas(process: Mapping[str, Any]) -> None:
    """There are no steps."""


def prior(ask: Ask, process: Mapping[str, Any], channels: int, *, rounded: bool) -> FunctionPrior:
    """The change of variables above."""
    levels = process["sigma_min"], process["sigma_max"]
    return edm_prior(ask, process["sigma_data"], levels, channels=channels)


def read(
    state: Mapping[str, Tensor], stated: Mapping[str, Any]
) -> tuple[EDM2Config, dict[str, Any], dict[str, Tensor]]:
    """Network, process and tensors by the network's own names.

    Parameters
    ----------
    state : a preconditioned network's state dict.
    stated : the arguments that built it.

    Raises
    ------
    ValueError : not such a network, one of latents, or arguments that are not known here.
    """
    if wrong := first_misfit(stated, NETWORK):
        raise ValueError(f"the network's {wrong}")
    if stated.get("img_channels") not in (1, 3):
        raise ValueError(f"a network of {stated.get('img_channels')} channels knows latents, and not pictures")
    process = USUAL | ({"sigma_data": stated["sigma_data"]} if "sigma_data" in stated else {})
    check_process(process)
    try:
        network = _network(stated)
    except KeyError as error:
        raise ValueError(f"the arguments lack {error}") from None
    except IndexError:
        raise ValueError("the network's channel_mult is empty") from None
    network.check()
    return network, process, _renamed(state, network)


def _network(stated: Mapping[str, Any]) -> EDM2Config:
    base, size = stated.get("model_channels", 192), stated["img_resolution"]
    widths = tuple(base * multiple for multiple in stated.get("channel_mult", [1, 2, 3, 4]))
    noise, embedding = stated.get("channel_mult_noise"), stated.get("channel_mult_emb")
    attended = stated.get("attn_resolutions", [16, 8])
    return EDM2Config(
        size=size,
        channels=stated["img_channels"],
        widths=widths,
        blocks=stated.get("num_blocks", 3),
        attention=tuple(level for level in range(len(widths)) if size >> level in attended),
        noise_width=widths[0] if noise is None else base * noise,
        embedding_width=max(widths) if embedding is None else base * embedding,
        filter=tuple(stated.get("resample_filter", [1, 1])),
        head_channels=stated.get("channels_per_head", 64),
        label_balance=stated.get("label_balance", 0.5),
        concat_balance=stated.get("concat_balance", 0.5),
        residual_balance=stated.get("res_balance", 0.3),
        attention_balance=stated.get("attn_balance", 0.3),
        clip=stated.get("clip_act", 256.0),
        classes=stated["label_dim"],
    )


def _renamed(state: Mapping[str, Tensor], network: EDM2Config) -> dict[str, Tensor]:
    """The tensors by :class:`invsolve.models.edm2.EDM2UNet`'s names; unknown ones keep theirs, and are found out later."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        inner = name.removeprefix("unet.")
        own, _, last = inner.rpartition(".")
        if inner.startswith("logvar_") or last in ("emb_gain", "out_gain"):
            continue  # of training only, or taken into the weights below
        if own == "emb_fourier":
            found[{"freqs": "frequencies"}.get(last, last)] = tensor
        elif own == "emb_label":
            found["table.weight"] = math.sqrt(network.classes) * normalised(tensor).t()
        elif own == "out_conv":
            found["out_conv.weight"] = normalised(tensor, state["unet.out_gain"])
        else:
            gain = state[f"unet.{own.rpartition('.')[0]}.emb_gain"] if own.endswith("emb_linear") else None
            weight = normalised(tensor, gain)
            found[f"{_own_name(own, network)}.{last}"] = _in_order(weight, network) if own.endswith("qkv") else weight
    return found


def normalised(weight: Tensor, gain: Tensor | None = None) -> Tensor:
    """A layer's weights as they are used, see above."""
    rows = weight.double().flatten(1)
    used = rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + EPSILON * math.sqrt(rows.shape[1]))
    return (used if gain is None else gain.double() * used).reshape(weight.shape).float()


def _in_order(weight: Tensor, network: EDM2Config) -> Tensor:
    """Attention's with all queries before all keys before all values; EDM2 has them channel by channel."""
    heads = weight.shape[0] // 3 // network.head_channels
    return weight.reshape(heads, network.head_channels, 3, -1).movedim(2, 0).reshape(weight.shape)


def _own_name(old: str, network: EDM2Config) -> str:
    """Where ``enc.32x32_block0.conv_res0`` and the like are here."""
    if old == "emb_noise":
        return "embed"
    match = re.fullmatch(r"(enc|dec)\.(\d+)x\d+_([a-z]+)(\d*)(?:\.([a-z_0-9]+))?", old)
    sizes = [network.size >> level for level in range(len(network.widths))]
    if match is None or int(match[2][:9]) not in sizes:
        return old
    level, part = sizes.index(int(match[2])), match[3]
    back = len(sizes) - 1 - level
    if match[1] == "enc":
        homes = {"conv": "stem", "down": f"down.{level - 1}", "block": f"encoder.{level}.{match[4]}"}
    else:
        homes = {"in": f"middle.{match[4]}", "up": f"up.{back - 1}", "block": f"decoder.{back}.{match[4]}"}
    home = homes.get(part, old)
    return home if match[5] is None else f"{home}.{PARTS.get(match[5], match[5])}"
