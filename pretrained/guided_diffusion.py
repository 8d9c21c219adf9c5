"""State dicts of OpenAI's guided-diffusion (ADM), as published and as its many descendants write them.

The network is told the step t of a chain and shown u = alpha w + std z, w = 2 p - 1 for pictures p in [0, 1]. It says the noise
(or w itself, with ``predict_xstart``), and behind it, with ``learn_sigma``, variances, which are dropped:

    E[w | u] = (u - std F) / alpha,    level = std / alpha = 2 sigma,    alpha = 1 / sqrt(1 + level^2)

Betas of N steps: ``linear`` from 0.1 / N to 20 / N; ``cosine`` 1 - a(t + 1) / a(t), at most 0.999, with
a(t) = cos^2((t / N + 0.008) / 1.008 pi / 2). With ``rescale_timesteps`` the network is told 1000 t / N. Respacing is the sampler's
business. Sources: Nichol & Dhariwal 2021 (2102.09672), Dhariwal & Nichol 2021 (2105.05233); github.com/openai/guided-diffusion:
``unet.py``, ``script_util.py``, ``gaussian_diffusion.py``, ``respace.py``.

diffusers' UNet2DModel holds only some of these networks (not those with a fixed number of heads, nor those whose first level is
narrower than their embedding), so all of them become :class:`invsolve.models.unet.UNet`, which holds every one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from invsolve.models.foreign import chain_prior, chain_sigmas, known_steps
from invsolve.models.score_model import FunctionPrior
from invsolve.models.unet import UNetConfig
from invsolve.pretrained.foreign import Ask
from invsolve.typed import first_misfit

MARK = "time_embed.0.weight"
"""A tensor by which such files are known."""

MOST_STEPS = 100_000

PROCESS: dict[str, Any] = {
    "noise_schedule": Literal["linear", "cosine"],
    "diffusion_steps": int,
    "predict_xstart": bool,
    "rescale_timesteps": bool,
}

FLAGS: dict[str, Any] = {
    "image_size": int,
    "num_channels": int,
    "num_res_blocks": int,
    "num_heads": int,
    "num_heads_upsample": int,
    "num_head_channels": int,
    "attention_resolutions": str | list[int],
    "channel_mult": str | list[float],
    "class_cond": bool,
    "learn_sigma": bool,
    "use_scale_shift_norm": bool,
    "resblock_updown": bool,
    "use_new_attention_order": bool,
    **PROCESS,
    **dict.fromkeys(
        ("dropout", "use_fp16", "use_checkpoint", "timestep_respacing", "use_kl", "rescale_learned_sigmas"), Any
    ),
}
"""What ``--config`` may state, by the names of guided-diffusion's own flags; the last ones do not matter here."""

BLOCK = {
    "in_layers.0": "norm0", "in_layers.2": "conv0", "emb_layers.1": "affine", "out_layers.0": "norm1", "out_layers.3": "conv1",
    "skip_connection": "skip",
}  # fmt: skip
ATTENTION = {"norm": "norm2", "qkv": "qkv", "proj_out": "proj"}


def check_process(process: Mapping[str, Any]) -> None:
    """Raise a ValueError for what no chain can have."""
    if wrong := first_misfit(process, PROCESS):
        raise ValueError(f"the process' {wrong}")
    if process.keys() != PROCESS.keys() or not 2 <= process["diffusion_steps"] <= MOST_STEPS:
        raise ValueError(f"the process wants {sorted(PROCESS)}, and 2 to {MOST_STEPS} diffusion_steps")


def alphas_bar(process: Mapping[str, Any]) -> Tensor:
    """(N,), alpha^2 of the steps, falling."""
    steps = process["diffusion_steps"]
    if process["noise_schedule"] == "linear":
        betas = torch.linspace(0.1 / steps, min(20.0 / steps, 1.0), steps, dtype=torch.float64)
    else:
        share = torch.arange(steps + 1, dtype=torch.float64) / steps
        kept = torch.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
    return known_steps(torch.cumprod(1 - betas, dim=0))


def sigmas(process: Mapping[str, Any]) -> Tensor:
    return chain_sigmas(alphas_bar(process))


def prior(ask: Ask, process: Mapping[str, Any], channels: int, *, rounded: bool) -> FunctionPrior:
    """The change of variables above."""
    return chain_prior(
        ask,
        alphas_bar(process),
        "data" if process["predict_xstart"] else "noise",
        rounded=rounded,
        per_step=1000.0 / process["diffusion_steps"] if process["rescale_timesteps"] else 1.0,
        channels=channels,
    )


def read(
    state: Mapping[str, Tensor], stated: Mapping[str, Any]
) -> tuple[UNetConfig, dict[str, Any], dict[str, Tensor]]:
    """Network, process and tensors by the network's own names.

    Parameters
    ----------
    state : as guided-diffusion stores it.
    stated : what the shapes do not say: image_size, noise_schedule and num_head_channels or num_heads at least, see
        :data:`FLAGS`. Where they say it, it has to agree.

    Raises
    ------
    ValueError : no such network, or something is missing or contradicts the shapes.
    """
    if wrong := first_misfit(stated, FLAGS):
        raise ValueError(f"--config: {wrong}")
    per_head = stated.get("num_head_channels", -1) > 0
    lacking = [name for name in ("image_size", "noise_schedule") if name not in stated]
    lacking += ["num_head_channels or num_heads"] if not per_head and "num_heads" not in stated else []
    if lacking:
        raise ValueError(f"the weights do not say {', '.join(lacking)}: state them with --config FILE")
    if not per_head and stated.get("num_heads_upsample", -1) not in (-1, stated["num_heads"]):
        raise ValueError("num_heads_upsample other than num_heads is not known here")
    network = _network(state, stated)
    process = {
        "noise_schedule": stated["noise_schedule"],
        "diffusion_steps": stated.get("diffusion_steps", 1000),
        "predict_xstart": stated.get("predict_xstart", False),
        "rescale_timesteps": stated.get("rescale_timesteps", False),
    }
    check_process(process)
    return network, process, _renamed(state, network, new_order=stated.get("use_new_attention_order", False))


def _network(state: Mapping[str, Tensor], stated: Mapping[str, Any]) -> UNetConfig:
    """The architecture, read from names and shapes; a ValueError where they are not of such a network."""
    shape = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        ends = [k for k in range(_count(shape, "output_blocks")) if _up(shape, k) is not None]
        levels = len(ends) + 1
        total = _count(shape, "input_blocks")
        blocks = ends[0] if ends else total - 1
        if total != levels * (blocks + 1):
            raise ValueError(f"{total} input_blocks do not make {levels} levels of {blocks} blocks")
        firsts = [1 + level * (blocks + 1) for level in range(levels)]
        widths = tuple(shape[f"input_blocks.{k}.0.out_layers.3.weight"][0] for k in firsts)
        attention = tuple(level for level, k in enumerate(firsts) if f"input_blocks.{k}.1.qkv.weight" in shape)
        stem, channels = shape["input_blocks.0.0.weight"][:2]
        embedding, noise = shape[MARK]
        network = UNetConfig(
            kind="adm",
            size=stated["image_size"],
            channels=channels,
            outputs=shape["out.2.weight"][0],
            widths=widths,
            blocks=blocks,
            attention=attention,
            stem=stem,
            noise_width=noise,
            embedding_width=embedding,
            resample_blocks=not ends or "in_layers.0.weight" in str(_up(shape, ends[0])),
            scale_shift=shape["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * widths[0],
            heads=None if stated.get("num_head_channels", -1) > 0 else stated["num_heads"],
            head_channels=stated["num_head_channels"] if stated.get("num_head_channels", -1) > 0 else None,
            group=1,
            classes=shape["label_emb.weight"][0] if "label_emb.weight" in shape else 0,
        )
    except (KeyError, IndexError) as error:
        raise ValueError(f"the weights are not those of guided-diffusion's UNetModel: no {error}") from None
    network.check()
    _compare(network, stated)
    return network


def _count(shape: Mapping[str, Any], part: str) -> int:
    return 1 + max((int(name.split(".")[1]) for name in shape if name.startswith(f"{part}.")), default=-1)


def _up(shape: Mapping[str, Any], k: int) -> str | None:
    """The first tensor of what doubles the resolution behind an output block; None if nothing does."""
    names = [f"output_blocks.{k}.{j}.{first}" for j in (1, 2) for first in ("in_layers.0.weight", "conv.weight")]
    return next((name for name in names if name in shape), None)


def _compare(network: UNetConfig, stated: Mapping[str, Any]) -> None:
    """Raise a ValueError where flags contradict what the shapes say."""

    def numbers(flag: str) -> list[float] | None:
        value = stated.get(flag) or None
        return [float(part) for part in value.split(",")] if isinstance(value, str) else value

    resolutions, multiples = numbers("attention_resolutions"), numbers("channel_mult")
    attended = sorted(network.size // 2**level for level in network.attention)
    found = {
        "num_channels": (stated.get("num_channels"), network.noise_width),
        "num_res_blocks": (stated.get("num_res_blocks"), network.blocks),
        "class_cond": (stated.get("class_cond"), network.classes > 0),
        "learn_sigma": (stated.get("learn_sigma"), network.outputs == 2 * network.channels),
        "use_scale_shift_norm": (stated.get("use_scale_shift_norm"), network.scale_shift),
        "resblock_updown": (stated.get("resblock_updown"), network.resample_blocks if len(network.widths) > 1 else None),
        "channel_mult": (multiples, [width / network.noise_width for width in network.widths]),
        # ones below the last level's resolution attend nowhere
        "attention_resolutions": (
            resolutions and sorted(r for r in resolutions if r in [network.size // 2**k for k in range(len(network.widths))]),
            attended,
        ),
    }  # fmt: skip
    for flag, (said, read_off) in found.items():
        if said is not None and read_off is not None and said != read_off:
            raise ValueError(f"--config says {flag} {stated[flag]!r}, the weights say {read_off}")


def _renamed(state: Mapping[str, Tensor], network: UNetConfig, *, new_order: bool) -> dict[str, Tensor]:
    """The tensors by :class:`invsolve.models.unet.UNet`'s names; unknown ones keep theirs, and are found out later."""
    homes = {"time_embed.0": "embed0", "time_embed.2": "embed1", "label_emb": "table", "input_blocks.0.0": "stem",
             "out.0": "out_norm.0", "out.2": "out_conv.0"}  # fmt: skip
    levels, n = len(network.widths), network.blocks
    for level in range(levels):
        first, back = 1 + level * (n + 1), levels - 1 - level
        for i in range(n):
            homes |= _block(f"input_blocks.{first + i}", f"encoder.{level}.{i}")
        if level:
            homes |= _resampling(f"input_blocks.{first - 1}.0", f"down.{level - 1}", "op")
        for i in range(n + 1):
            homes |= _block(f"output_blocks.{level * (n + 1) + i}", f"decoder.{level}.{i}")
        if level < levels - 1:
            place = 2 if back in network.attention else 1
            homes |= _resampling(f"output_blocks.{level * (n + 1) + n}.{place}", f"up.{level}", "conv")
    homes |= (
        _res("middle_block.0", "middle.0") | _res("middle_block.2", "middle.1") | _att("middle_block.1", "middle.0")
    )
    found = {}
    for name, tensor in state.items():
        stem, _, last = name.rpartition(".")
        found[f"{homes.get(stem, stem)}.{last}"] = _in_order(tensor, name, network, new_order)
    return found


def _res(old: str, new: str) -> dict[str, str]:
    return {f"{old}.{part}": f"{new}.{own}" for part, own in BLOCK.items()}


def _att(old: str, new: str) -> dict[str, str]:
    return {f"{old}.{part}": f"{new}.{own}" for part, own in ATTENTION.items()}


def _block(old: str, new: str) -> dict[str, str]:
    return _res(f"{old}.0", new) | _att(f"{old}.1", new)


def _resampling(old: str, new: str, conv: str) -> dict[str, str]:
    return _res(old, new) | {f"{old}.{conv}": f"{new}.conv"}


def _in_order(tensor: Tensor, name: str, network: UNetConfig, new_order: bool) -> Tensor:
    """Attention's tensors as 1 x 1 convolutions, with all queries before all keys before all values."""
    if ".qkv." in name and not new_order:
        width = tensor.shape[0] // 3
        heads = network.heads_of(width)
        if 3 * width != tensor.shape[0] or not heads or width % heads:
            raise ValueError(f"{name} with {tensor.shape[0]} rows does not make heads of the stated number")
        tensor = tensor.reshape(heads, 3, width // heads, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)
    return tensor[..., None] if tensor.ndim == 3 else tensor
