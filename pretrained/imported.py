"""What was read of somebody else's model, and its card: common to all libraries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import ModelError, UsageError, first_line
from invsolve.pretrained.card import Card, file_sha256
from invsolve.pretrained.diffusers_unet import DiffusersConfig
from invsolve.pretrained.foreign import ForeignDenoiser, Window, in_units
from invsolve.pretrained.loading import foreign_denoiser
from invsolve.pretrained.published import PublishedNetwork
from invsolve.typed import brief

SEE = "docs/bring-your-own-prior.md says what can be imported"

CT_UNITS = "CT number n, HU = 2000 n - 1000"


@dataclass(frozen=True)
class About:
    """What a card says that no file of a model does.

    Parameters
    ----------
    name, licence, source : as on the card; the hashes of the files are added to ``source``.
    window : Hounsfield units at the ends of the network's range, for a prior of CT slices.
    null_class : the class that stood for none in training; None where the network was always told one, or the library says.
    stated : what the weights do not say of the network, by the library's own names.
    """

    name: str
    licence: str = ""
    source: Mapping[str, str] | None = None
    window: Window | None = None
    null_class: int | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """A network as read, and what is known of it.

    Parameters
    ----------
    state : tensors by the names that the network has for them.
    card : without hash, as nothing is written yet.
    """

    denoiser: ForeignDenoiser
    state: dict[str, Tensor]
    card: Card


def assembled(
    config: DiffusersConfig | PublishedNetwork,
    weights: Mapping[str, Tensor],
    path: Path,
    files: Iterable[Path],
    about: About,
) -> Imported:
    """The network with its weights, checked, and a card.

    Parameters
    ----------
    config : without what ``about`` says.
    weights : by the network's own names.
    path : what was imported.
    files : what was read of it.

    Raises
    ------
    ModelError : configuration and weights are not sound, or do not fit one another.
    UsageError : a window for a network of colour pictures.
    """
    folder = path if path.is_dir() else path.parent
    if about.window is not None and config.channels != 1:
        raise UsageError("--window: this network knows colour pictures", hint="it is for CT slices, of one channel")
    try:
        null = config.null_class if about.null_class is None else about.null_class
        sigma_data = float(f"{in_units(about.window)[1] * config.sigma_data:.4g}")
        config = replace(config, window=about.window, null_class=null, sigma_data=sigma_data)
        config.check()
        unet = config.empty_network()
        wanted = {key: tuple(tensor.shape) for key, tensor in unet.state_dict().items()}
    except ValueError as error:
        raise ModelError(f"{folder}: {first_line(error)}", hint=SEE) from None
    state = _fitting(weights, wanted, folder)
    try:
        denoiser = foreign_denoiser(unet, {key: value.float() for key, value in state.items()}, config).eval()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}: {first_line(error)}", hint="the network does not fit its weights") from None
    pictures = "RGB in [0, 1]" if config.channels == 3 else "grey in [0, 1]"
    card = Card(
        name=about.name,
        network={},
        units=pictures if about.window is None else CT_UNITS,
        sigma_min=denoiser.sigma_min,
        sigma_max=denoiser.sigma_max,
        validation_mse=[],
        sha256="",
        licence=about.licence or _stated_licence(folder) or "not stated where it came from",
        knows="imported; not validated here",
        size=config.size,
        orientations="mirror",
        foreign=config.to_dict(),
        source={
            **(about.source or {"from": str(path)}),
            **{f"sha256 of {file.relative_to(folder)}": file_sha256(file) for file in files},
        },
    )
    return Imported(denoiser, state, card)


def _fitting(state: Mapping[str, Tensor], wanted: dict[str, tuple[int, ...]], folder: Path) -> dict[str, Tensor]:
    """The tensors under the network's names, in half or single precision; a ModelError where they do not fit."""
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            raise ModelError(f"{folder}: {brief(key)} has numbers of type {tensor.dtype}", hint="wanted real numbers")
        stored = tensor.float() if tensor.dtype not in (torch.float16, torch.bfloat16) else tensor
        found[key] = stored.contiguous()
    missing, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    wrong = [name for name, shape in wanted.items() if name in found and tuple(found[name].shape) != shape]
    if missing or surplus or wrong:
        what = (
            f"there is no {missing[0]}" if missing
            else f"{brief(surplus[0])} is no part of the network" if surplus
            else f"{wrong[0]} has shape {tuple(found[wrong[0]].shape)}, wanted {wanted[wrong[0]]}"
        )  # fmt: skip
        raise ModelError(
            f"the weights in {folder} do not fit their description: {what}", hint="copy both from one place"
        )
    for name, tensor in found.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"the weights in {folder} are damaged: {name} is not finite", hint="copy them again")
    return found


def _stated_licence(folder: Path) -> str:
    """What the front matter of a README.md says, as hubs have it; empty if nothing."""
    readme = folder / "README.md"
    if not readme.is_file() or readme.stat().st_size > 2**20:
        return ""
    head = re.match(r"---\n(.*?)\n---", readme.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:\s*([\w.+-]{1,60})\s*$", head[1], re.MULTILINE) if head else None
    return found[1] if found else ""
