"""Files of weights of other libraries than diffusers: which library's they are, and what is beside the weights in them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from invsolve.errors import InputError, ModelError, UsageError, first_line
from invsolve.files import read_json, regular_file
from invsolve.pretrained import edm, edm2, guided_diffusion, ncsnv2, score_sde
from invsolve.pretrained.imported import SEE, About, Imported, assembled
from invsolve.pretrained.published import PublishedNetwork
from invsolve.pretrained.weight_files import check_inside, read_checkpoint, read_metadata, weight_files

LARGEST_CONFIG = 2**20


def read_published(path: Path, about: About) -> Imported:
    """Read a file of guided-diffusion's, EDM's, EDM2's, score_sde's or NCSNv2's; nothing in it is run.

    Parameters
    ----------
    path : the file of weights, or a folder with that one.
    about : what the card says that no file does; ``stated`` for what the weights do not say.

    Raises
    ------
    ModelError : the file is missing, damaged, a program, or holds no network that is known here.
    """
    folder = path if path.is_dir() else path.parent
    files = weight_files(path) if path.is_dir() else [path]
    if len(files) > 1:
        raise ModelError(
            f"{folder} has weights in {len(files)} parts", hint="wanted one file, or a folder of diffusers"
        )
    file = check_inside(files[0], folder)
    checkpoint, arguments = read_checkpoint(file), read_metadata(file).get(edm.MARK)
    try:
        config, weights = _described(checkpoint, arguments, about.stated)
    except ValueError as error:
        raise ModelError(f"{file}: {first_line(error)}", hint=SEE) from None
    except (LookupError, TypeError, RuntimeError) as error:  # tensors of other dimensions than their names promise
        raise ModelError(
            f"{file} does not hold the tensors that its names promise: {first_line(error)}", hint=SEE
        ) from None
    return assembled(config, weights, path, [file], about)


def _described(
    checkpoint: Mapping[str, Any], arguments: str | None, stated: Mapping[str, Any]
) -> tuple[PublishedNetwork, dict[str, Tensor]]:
    """The network and its tensors by its own names; a ValueError where it is none that is known here."""
    if arguments is not None:
        if stated:
            raise ValueError("--config: the file says how its network was built; leave it out")
        built = _arguments(arguments)
        if built.get("class") == edm2.CLASS:
            magnitudes, process, weights = edm2.read(_tensors(checkpoint), built)
            return PublishedNetwork("edm2", magnitudes, process), weights
        network, process, weights, null = edm.read(_tensors(checkpoint), built)
        return PublishedNetwork("edm", network, process, null_class=null), weights
    state = _model_of(checkpoint)
    if guided_diffusion.MARK in state:
        network, process, weights = guided_diffusion.read(_tensors(state), stated)
        return PublishedNetwork("guided_diffusion", network, process), weights
    if any(name.startswith(score_sde.MARK) for name in state):
        network, process, weights = score_sde.read(_tensors(state), stated)
        return PublishedNetwork("score_sde", network, process), weights
    if ncsnv2.MARK in state:
        refinenet, process, weights = ncsnv2.read(_tensors(state), stated)
        return PublishedNetwork("ncsnv2", refinenet, process), weights
    raise ValueError(
        "these are weights of no library that is known here: there is neither config.json beside them (diffusers), nor "
        f"'{edm.MARK}' in their metadata (EDM), nor a tensor {guided_diffusion.MARK} (guided-diffusion), "
        f"{score_sde.MARK}* (score_sde) or {ncsnv2.MARK} (NCSNv2)"
    )


def _model_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a whole checkpoint's model, or of a state dict."""
    if "model" in checkpoint:
        return score_sde.averaged(checkpoint)
    if "0" in checkpoint:
        return ncsnv2.averaged(checkpoint)
    return {name.removeprefix("module."): value for name, value in checkpoint.items()}


def _tensors(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """A flat dictionary of tensors; a ValueError for anything else in it."""
    other = next((name for name, value in checkpoint.items() if not isinstance(value, Tensor)), None)
    if other is not None:
        raise ValueError(f"it holds a {type(checkpoint[other]).__name__} under {other[:80]}, wanted tensors alone")
    return dict(checkpoint)


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{edm.MARK}' in its metadata is not JSON: {first_line(error)}") from None
    return found if isinstance(found, dict) else {}


def read_stated(file: Path) -> dict[str, Any]:
    """A ``--config`` file, .toml or .json: what a network's weights do not say, by its library's own names.

    Raises
    ------
    InputError : no such file, or not one of named values.
    UsageError : another ending.
    """
    if file.suffix.lower() == ".json":
        found = read_json(file, "configuration")
    elif file.suffix.lower() == ".toml":
        try:
            content = regular_file(file, "configuration").read_bytes()[: LARGEST_CONFIG + 1]
            found = tomllib.loads(content.decode("utf-8")) if len(content) <= LARGEST_CONFIG else None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{file} is not TOML: {first_line(error)}", hint="wanted lines such as image_size = 64"
            ) from None
    else:
        raise UsageError(f"--config {file.name}: unknown ending", hint="wanted .toml or .json")
    if not isinstance(found, dict):
        raise InputError(f"{file} is not a configuration", hint="wanted named values, such as image_size = 64")
    return found
