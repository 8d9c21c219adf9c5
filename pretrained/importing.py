"""From a folder that somebody else made to a prior of the user's own: read, measured on pictures, written with a card.

What is read: a folder of the diffusers library (``model_index.json`` with ``unet/`` and ``scheduler/``, or a bare ``UNet2DModel``
with the scheduler's configuration beside it), or a folder with card and weights as ``invsolve train`` writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from invsolve.cache import models_folder
from invsolve.errors import ModelError, OutputError, UsageError, first_line
from invsolve.files import read_json
from invsolve.models.error_spectrum import ErrorSpectrum, channel_mix, measure_error_spectrum
from invsolve.pretrained.card import Card, file_sha256
from invsolve.pretrained.diffusers_unet import (
    PROCESSES,
    SCHEDULER_FIELDS,
    DiffusersConfig,
    DiffusersDenoiser,
    empty_unet,
    import_diffusers,
)
from invsolve.pretrained.loading import (
    CARD,
    WEIGHTS,
    NetworkPrior,
    foreign_denoiser,
    load_prior,
    shipped_classifiers,
    shipped_priors,
    write_prior,
)
from invsolve.pretrained.weight_files import check_inside, read_weights, weight_files
from invsolve.typed import brief, fits

LEVELS = 13
"""Noise levels at which a card states the error."""

LARGEST_VALIDATED = 20.0
"""Above this noise level a denoiser says little more than the mean picture."""

RENAMED = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))
"""Parts of attention in older files of diffusers, and what they are called since."""

MIDPOINTS = 8
"""Noise levels between two steps of a chain at which the effect of rounding is measured."""


@dataclass(frozen=True)
class Imported:
    """A network as read, and what is known of it.

    Parameters
    ----------
    state : tensors by the names that the network has for them.
    card : without hash, as nothing is written yet.
    """

    denoiser: DiffusersDenoiser
    state: dict[str, Tensor]
    card: Card


def read_diffusers(path: Path, name: str, licence: str = "", source: dict[str, str] | None = None) -> Imported:
    """Read a folder of diffusers; nothing in it is run.

    Parameters
    ----------
    path : a folder with ``model_index.json``, or ``config.json`` of a UNet2DModel; or the file of weights in the latter.
    name, licence, source : for the card; the hashes of the files are added to ``source``.

    Raises
    ------
    ModelError : files are missing, damaged, programs, or describe a network that is not known here.
    """
    folder = path if path.is_dir() else path.parent
    if path != folder and not (folder / "config.json").exists():
        read_weights(path)  # says what is wrong with the file itself
        raise ModelError(
            f"there is no config.json beside {path}", hint="wanted a UNet2DModel's, as save_pretrained writes it"
        )
    unet_folder, scheduler_file = _parts(folder)
    config_file = check_inside(unet_folder / "config.json", folder)
    try:
        config = DiffusersConfig(_unet_fields(_object(config_file)), _scheduler_fields(_object(scheduler_file)))
        config.check()
        unet = empty_unet(config)
        wanted = {key: tuple(tensor.shape) for key, tensor in unet.state_dict().items()}
    except ValueError as error:
        raise ModelError(
            f"{folder}: {first_line(error)}", hint="docs/bring-your-own-prior.md says what can be imported"
        ) from None
    files = [check_inside(file, folder) for file in (weight_files(unet_folder) if path == folder else [path])]
    state = _fitting({key: value for file in files for key, value in read_weights(file).items()}, wanted, unet_folder)
    try:
        denoiser = foreign_denoiser(unet, {key: value.float() for key, value in state.items()}, config).eval()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}: {first_line(error)}", hint="the network does not fit its weights") from None
    hashes = {
        f"sha256 of {path.relative_to(folder)}": file_sha256(path) for path in [config_file, scheduler_file, *files]
    }
    stated = licence or _stated_licence(folder)
    card = Card(
        name=name,
        network={},
        units="RGB in [0, 1]" if config.channels == 3 else "grey in [0, 1]",
        sigma_min=denoiser.sigma_min,
        sigma_max=denoiser.sigma_max,
        validation_mse=[],
        sha256="",
        licence=stated or "not stated where it came from",
        knows="imported; not validated here",
        size=config.size,
        orientations="mirror",
        foreign=config.to_dict(),
        source={**(source or {"from": str(path)}), **hashes},
    )
    return Imported(denoiser, state, card)


def _parts(folder: Path) -> tuple[Path, Path]:
    """The folder of the network and the file of its scheduler's configuration."""
    index = folder / "model_index.json"
    if index.exists():
        parts = _object(check_inside(index, folder))
        if extra := sorted(parts.keys() & {"vae", "vqvae", "text_encoder", "transformer", "prior", "controlnet"}):
            raise ModelError(
                f"{folder} is a pipeline with {extra[0]}: its network does not know pictures, but what {extra[0]} makes of them",
                hint="import an unconditional model of pictures, such as a DDPMPipeline",
            )
        unet = parts.get("unet") or parts.get("model")
        if unet != ["diffusers", "UNet2DModel"]:
            raise ModelError(f"{folder}: its network is {brief(unet)}", hint="wanted ['diffusers', 'UNet2DModel']")
        named = folder / ("unet" if "unet" in parts else "model")
        part = named if named.exists() else folder  # older ones have all in one folder
        return check_inside(part, folder), check_inside(_scheduler_file(folder), folder)
    if not (folder / "config.json").exists():
        raise ModelError(
            f"{folder} has neither {CARD}, model_index.json nor config.json",
            hint="give a prior's folder, or one that diffusers' save_pretrained wrote",
        )
    return folder, check_inside(_scheduler_file(folder), folder)


def _scheduler_file(folder: Path) -> Path:
    for path in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if path.exists():
            return path
    raise ModelError(
        f"{folder} does not say which noise the network was trained for: no scheduler_config.json",
        hint="if it was DDPM's, diffusers.DDPMScheduler().save_pretrained(FOLDER) writes it",
    )


def _object(file: Path) -> dict[str, Any]:
    values = read_json(file, "configuration", ModelError)
    if not isinstance(values, dict):
        raise ModelError(f"{file} is not a configuration", hint="copy it again from the original")
    return values


def _unet_fields(stated: dict[str, Any]) -> dict[str, Any]:
    """The fields of a UNet2DModel's configuration; a ValueError for another network, or one that wants a class."""
    if stated.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ValueError(f"its network is a {brief(stated['_class_name'])}, wanted a UNet2DModel")
    if stated.get("num_class_embeds") is not None or stated.get("class_embed_type") is not None:
        raise ValueError("its network wants to be told a class, an unconditional one is wanted")
    fields = {name: value for name, value in stated.items() if not name.startswith("_")}
    size = fields.get("sample_size")
    if isinstance(size, list) and len(size) == 2:
        if size[0] != size[1]:
            raise ValueError(f"its pictures are {brief(size)} pixels, square ones are wanted")
        fields["sample_size"] = size[0]
    for blocks in ("down_block_types", "up_block_types"):  # as they were called once
        if fits(fields.get(blocks), list[str]):
            fields[blocks] = [block.removeprefix("UNetRes") for block in fields[blocks]]
    return fields


def _scheduler_fields(stated: dict[str, Any]) -> dict[str, Any]:
    """What a scheduler's configuration says of the training, with its class' own defaults."""
    name = stated.get("_class_name")
    if name not in PROCESSES:
        known = ", ".join(one.removesuffix("Scheduler") for one in PROCESSES)
        raise ValueError(f"its scheduler is {brief(name)}, wanted one of {known}")
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(getattr(import_diffusers(), name).__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    known_here = {key: value for key, value in (defaults | stated).items() if key in SCHEDULER_FIELDS}
    return {"class": name, **known_here}


def _fitting(state: dict[str, Tensor], wanted: dict[str, tuple[int, ...]], folder: Path) -> dict[str, Tensor]:
    """The tensors under the network's names, in half or single precision; a ModelError where they do not fit."""
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = key
        for old, new in RENAMED:
            name = name.replace(old, new) if name not in wanted else name
        if not tensor.is_floating_point():
            raise ModelError(f"{folder}: {brief(key)} has numbers of type {tensor.dtype}", hint="wanted real numbers")
        stored = tensor.float() if tensor.dtype not in (torch.float16, torch.bfloat16) else tensor
        found[name] = stored.contiguous()
    missing, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    wrong = [name for name, shape in wanted.items() if name in found and tuple(found[name].shape) != shape]
    if missing or surplus or wrong:
        what = (
            f"there is no {missing[0]}" if missing
            else f"{brief(surplus[0])} is no part of the network" if surplus
            else f"{wrong[0]} has shape {tuple(found[wrong[0]].shape)}, wanted {wanted[wrong[0]]}"
        )  # fmt: skip
        raise ModelError(f"the weights in {folder} do not fit config.json: {what}", hint="copy both from one place")
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


def validation_levels(card: Card) -> list[float]:
    """Noise levels at which an imported prior is measured, rising."""
    top = min(card.sigma_max, max(LARGEST_VALIDATED, 2 * card.sigma_min))
    return [float(sigma) for sigma in np.geomspace(card.sigma_min, top, LEVELS)]


@torch.no_grad()
def validated(
    imported: Imported,
    pictures: Tensor,
    what: str,
    device: torch.device,
    progress: Callable[[float], None] = lambda done: None,
    batch: int = 4,
) -> Imported:
    """With the denoising error on ``pictures`` (N, C, H, W) in the prior's units, per noise level and as a spectrum.

    ``what`` says which pictures, for the card; ``progress`` is told the share that is done.
    """
    sigma_data = float((pictures - pictures.mean(dim=(0, 2, 3), keepdim=True)).square().mean().sqrt())
    config = replace(imported.denoiser.config, sigma_data=float(f"{max(sigma_data, 1e-3):.4g}"))
    card = replace(imported.card, foreign=config.to_dict())
    prior = NetworkPrior(imported.denoiser, card, device)
    mix, there = channel_mix(prior.channels, rgb=True), pictures.to(device)
    sigmas, errors, parts = validation_levels(card), [], []
    for number, sigma in enumerate(sigmas):
        estimates: list[Tensor] = []

        def denoise(x: Tensor, level: Tensor, kept: list[Tensor] = estimates) -> Tensor:
            kept.append(prior.denoise(x, level))
            return kept[-1]

        parts.append(measure_error_spectrum(denoise, there, [sigma], mix, seed=number, batch=batch))
        errors.append((sigma, float((torch.cat(estimates) - there).square().mean())))
        progress((number + 1) / len(sigmas))
    spectrum = ErrorSpectrum(
        sigmas,
        parts[0].frequencies,
        [one.variances[0] for one in parts],
        [one.activities[0] for one in parts],
        [one.errors[0] for one in parts],
    )
    card = replace(
        card,
        validation_mse=errors,
        error_spectrum=spectrum.to_dict(),
        knows=f"imported; validated on {len(pictures)} pictures",
        training={"validated_on": len(pictures), "validation_pictures": what},
    )
    return replace(imported, card=card)


@torch.no_grad()
def label_rounding(denoiser: DiffusersDenoiser, pictures: Tensor, device: torch.device) -> list[tuple[float, float]]:
    """For the card: at noise levels halfway between two steps of a chain, the root mean square difference between what the
    network says asked with the half step and with the nearest whole one; empty for networks without steps.

    ``pictures`` (N, C, H, W) are clean ones, in [0, 1].
    """
    steps = denoiser.sigmas
    if steps is None:
        return []
    prior = denoiser.to(device).eval()
    rounded = DiffusersDenoiser(prior.unet, prior.config, rounded=True)
    found = []
    for k in np.unique(np.linspace(0, len(steps) - 2, MIDPOINTS).round().astype(int)):
        sigma = float((steps[k] * steps[k + 1]).sqrt())
        noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(int(k)))
        x, level = (pictures + sigma * noise).to(device), torch.full((len(pictures),), sigma, device=device)
        found.append((sigma, float((prior(x, level) - rounded(x, level)).square().mean().sqrt())))
    return found


def plain_pictures(config: DiffusersConfig) -> Tensor:
    """Where no pictures are named: one of even grey."""
    side = config.size or 64
    return torch.full((1, config.channels, side, side), 0.5)


def check_name(name: str, *, force: bool = False) -> Path:
    """The folder that an imported model of that name gets.

    Raises
    ------
    UsageError : not a name, or one of a shipped model.
    OutputError : there is one of that name, without ``force``.
    """
    folder = models_folder() / name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", name):
        raise UsageError(
            f"{brief(name)} is no name for a model", hint="letters, digits, - and _; choose one with --as NAME"
        )
    if name in (*shipped_priors(), *shipped_classifiers()):
        raise UsageError(f"{name} is the name of a shipped model", hint="choose another one with --as NAME")
    if folder.is_symlink() or folder.exists() and not force:
        raise OutputError(f"there is a model {name} already", hint="choose another name with --as, or --force")
    return folder


def install(imported: Imported, folder: Path) -> Card:
    """Write an imported network into ``folder``; its card, with the hash."""
    return write_prior(folder, save(imported.state), imported.card)


def install_own(source: Path, folder: Path, name: str) -> Card:
    """Copy a folder with card and weights, once all of it was checked; the card as written.

    Raises
    ------
    ModelError : as :func:`invsolve.pretrained.loading.load_prior`.
    """
    for part in (CARD, WEIGHTS):
        check_inside(source / part, source)
    prior = load_prior(source.absolute(), "cpu")
    content = (source / WEIGHTS).read_bytes()
    card = replace(prior.card, name=name, source={"from": str(source), **prior.card.source})
    written = write_prior(folder, content, card)
    if written.sha256 != prior.card.sha256:
        raise ModelError(f"{source} changed while it was copied", hint="import it again")
    return written


def verified(folder: Path) -> Card:
    """Check a prior's weights against its card, and that it denoises to finite pictures at every order of noise.

    Raises
    ------
    ModelError : they do not match, or what it says is not finite.
    """
    prior = load_prior(folder, "cpu")
    side = prior.size or 32
    for sigma in _some(prior.sigma_min, min(prior.sigma_max, 100.0)):
        noise = torch.randn(1, prior.channels, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            if not bool(torch.isfinite(prior.denoise(0.5 + sigma * noise, sigma)).all()):
                raise ModelError(f"{folder}: what it makes of noise {sigma:.3g} is not finite", hint="import it again")
    return prior.card


def _some(low: float, high: float) -> Sequence[float]:
    return [float(sigma) for sigma in np.geomspace(low, high, 3)]


def remove(name: str) -> Path:
    """Delete an imported model's files, and its folder if nothing else is in it; the folder.

    Raises
    ------
    UsageError : a shipped model, or none of that name.
    """
    if name in (*shipped_priors(), *shipped_classifiers()):
        raise UsageError(f"{name} came with invsolve", hint="only imported models can be removed")
    folder = models_folder() / name
    named = Path(name).name == name and name not in ("", ".", "..")
    if not named or folder.is_symlink() or not (folder / CARD).is_file():
        raise UsageError(f"there is no imported model {brief(name)}", hint="`invsolve models list` shows them")
    try:
        for path in (folder / CARD, folder / WEIGHTS, *folder.glob("model-" + "[0-9a-f]" * 12 + ".safetensors")):
            path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise OutputError(f"cannot remove {folder}: {error.strerror or error}", hint="check its permissions") from None
    return folder
