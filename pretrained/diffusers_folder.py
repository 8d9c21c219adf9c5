"""Folders as the diffusers library writes them: ``model_index.json`` with ``unet/`` and ``scheduler/``, or a bare
``UNet2DModel`` with the scheduler's configuration beside it."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from invsolve.errors import ModelError, UsageError, first_line
from invsolve.files import read_json
from invsolve.pretrained.diffusers_unet import PROCESSES, SCHEDULER_FIELDS, DiffusersConfig, import_diffusers
from invsolve.pretrained.imported import SEE, About, Imported, assembled
from invsolve.pretrained.loading import CARD
from invsolve.pretrained.weight_files import check_inside, read_weights, weight_files
from invsolve.typed import brief, fits

RENAMED = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))
"""Parts of attention in older files of diffusers, and what they are called since."""


def read_diffusers(path: Path, about: About) -> Imported:
    """Read a folder of diffusers; nothing in it is run.

    Parameters
    ----------
    path : a folder with ``model_index.json``, or ``config.json`` of a UNet2DModel; or the file of weights in the latter.
    about : what the card says that no file does.

    Raises
    ------
    ModelError : files are missing, damaged, programs, or describe a network that is not known here.
    UsageError : a configuration was stated, though there is one already.
    """
    if about.stated:
        raise UsageError("--config: a folder of diffusers has its own", hint="leave it out")
    folder = path if path.is_dir() else path.parent
    unet_folder, scheduler_file = _parts(folder)
    config_file = check_inside(unet_folder / "config.json", folder)
    try:
        config = DiffusersConfig(_unet_fields(_object(config_file)), _scheduler_fields(_object(scheduler_file)))
        config.check()
        wanted = config.empty_network().state_dict().keys()
    except ValueError as error:
        raise ModelError(f"{folder}: {first_line(error)}", hint=SEE) from None
    files = [check_inside(file, folder) for file in (weight_files(unet_folder) if path == folder else [path])]
    state = {key: value for file in files for key, value in read_weights(file).items()}
    return assembled(config, _renamed(state, wanted), path, [config_file, scheduler_file, *files], about)


def _renamed(state: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The tensors by today's names."""
    found = {}
    for key, tensor in state.items():
        name = key
        for old, new in RENAMED:
            name = name.replace(old, new) if name not in wanted else name
        found[name] = tensor
    return found


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
    """The fields of a UNet2DModel's configuration; a ValueError for another network, or one told classes by vectors."""
    if stated.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ValueError(f"its network is a {brief(stated['_class_name'])}, wanted a UNet2DModel")
    if stated.get("class_embed_type") is not None:
        raise ValueError(f"its network is told classes as {brief(stated['class_embed_type'])}, wanted by number")
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
