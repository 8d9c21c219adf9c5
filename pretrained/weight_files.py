"""Files of weights that somebody else wrote, read as numbers: nothing in them is run.

A ``.safetensors`` file holds a header and numbers. A pickle (``.bin``, ``.pt``, ``.pth``, ``.ckpt``) is a program that builds
objects; ``torch.load(weights_only=True)`` runs only the few steps that build tensors, and is used here, when a model is
imported, and nowhere else. TorchScript and torch.export files are programs as a whole and are refused.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from invsolve.errors import ModelError, first_line
from invsolve.files import read_json, regular_file
from invsolve.typed import brief

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")
COPY_AGAIN = "copy it again from the original"
CONVERT = (
    "where you trust it, load its state dict in Python and store it with safetensors.torch.save_file "
    "(docs/bring-your-own-prior.md)"
)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's network: one, or the parts that an index names; safetensors before pickles.

    Raises
    ------
    ModelError : none, several that could be meant, or an index that names files elsewhere.
    """
    for name in NAMES:
        whole, index = folder / f"{name}.safetensors", folder / f"{name}.safetensors.index.json"
        if whole.exists() or whole.is_symlink():
            return [whole]
        if index.exists():
            return _parts(index)
    for endings in ((".safetensors",), PICKLES):
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in endings)
        if len(found) > 1:
            raise ModelError(
                f"{folder} has several files of weights: {', '.join(path.name for path in found)[:200]}",
                hint="leave the one that is meant in a folder of its own, beside config.json",
            )
        if found:
            return found
    raise ModelError(f"{folder} has no weights", hint=f"wanted a file such as {NAMES[0]}.safetensors")


def _parts(index: Path) -> list[Path]:
    """The files that an index of parts names."""
    listed = read_json(index, "index of weights", ModelError)
    parts = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts.values()):
        raise ModelError(f"{index} is not an index of weights: no weight_map", hint=COPY_AGAIN)
    for name in parts.values():
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{index} names the file {brief(name)}", hint="wanted safetensors files beside it, and none elsewhere"
            )
    return [index.parent / name for name in sorted(set(parts.values()))]


def check_inside(path: Path, folder: Path) -> Path:
    """``path``, if it lies in ``folder`` once links are followed; a snapshot of the hub's cache has its files in blobs.

    Raises
    ------
    ModelError : a link leads elsewhere.
    """
    homes = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        homes.append(folder.resolve().parents[1] / "blobs")
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        target = Path("/")
    if not any(target.is_relative_to(home) for home in homes):
        raise ModelError(
            f"{path} is a link that leads out of {folder}", hint="put the file itself there, if it is the one you mean"
        )
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, of the types they are stored in.

    Raises
    ------
    ModelError : no such file, damaged, a program, or not a flat dictionary of real tensors.
    """
    return _checked(path, read_checkpoint(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a file of weights holds: tensors by name, or, of a whole checkpoint, dictionaries and lists of them and numbers; a list
    by its places "0", "1" and so on.

    Raises
    ------
    ModelError : no such file, damaged, a program, or no dictionary of real tensors.
    """
    file = regular_file(path, "weights file", ModelError)
    if file.suffix.lower() == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, ValueError, RuntimeError, OSError, TypeError, KeyError) as error:
            raise ModelError(f"{file} is not a safetensors file: {first_line(error)}", hint=COPY_AGAIN) from error
    if file.suffix.lower() == ".pkl":
        raise ModelError(f"{file} has an unknown ending: a .pkl is a program, and is not opened", hint=CONVERT)
    if file.suffix.lower() not in (*PICKLES, ".pt2"):
        raise ModelError(f"{file} has an unknown ending", hint=f"wanted .safetensors or {', '.join(PICKLES)}")
    _check_archive(file)
    loaded = _unpickled(file)
    if isinstance(loaded, list):
        loaded = {str(place): part for place, part in enumerate(loaded)}
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(name, str) for name in loaded):
        raise ModelError(f"{file} holds a {type(loaded).__name__}, wanted a dictionary of tensors", hint=CONVERT)
    _check_stored(file, loaded, "")
    return loaded


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors; of other files nothing.

    Raises
    ------
    ModelError : damaged.
    """
    if path.suffix.lower() != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, ValueError, RuntimeError, OSError, TypeError, KeyError) as error:
        raise ModelError(f"{path} is not a safetensors file: {first_line(error)}", hint=COPY_AGAIN) from error


def _check_stored(file: Path, value: object, name: str) -> None:
    """Raise a ModelError for a tensor, however deep, that says it is larger than what is stored."""
    if isinstance(value, dict):
        for key, part in value.items():
            _check_stored(file, part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            _check_stored(file, part, name)
    elif isinstance(value, Tensor):
        real = value.layout == torch.strided and value.device.type == "cpu"
        if not real or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ModelError(
                f"{file}: {brief(name)} says it has {value.numel()} numbers, more than are stored", hint=COPY_AGAIN
            )


def _check_archive(file: Path) -> None:
    """Raise a ModelError for a zip archive that is a program, or that unpacks to more than it is."""
    try:
        if not zipfile.is_zipfile(file):
            return  # the older format, a bare pickle
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"cannot read {file}: {first_line(error)}", hint=COPY_AGAIN) from None
    names = ["/" + entry.filename for entry in entries]
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise ModelError(f"{file} is TorchScript, a program: loading it can run any code", hint=CONVERT)
    if any(name.endswith(("/archive_format", "/serialized_exported_program.json")) for name in names):
        raise ModelError(f"{file} is a torch.export archive, a program: loading it can run any code", hint=CONVERT)
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > file.stat().st_size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ModelError(
            f"{file} unpacks to {unpacked} bytes, more than the {file.stat().st_size} it has: torch never packs weights",
            hint="do not use it, or ask where it comes from",
        )


def _unpickled(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = first_line(error).partition("(1)")[0].strip()
        raise ModelError(
            f"{file} is a pickle with more in it than tensors, which could run any code: refused ({reason[:200]})",
            hint=CONVERT,
        ) from None
    except Exception as error:  # a damaged pickle fails in any way
        raise ModelError(f"cannot read {file}: {first_line(error)[:200]}", hint=COPY_AGAIN) from error


def _checked(file: Path, loaded: dict[str, Any]) -> dict[str, Tensor]:
    """A dictionary of tensors alone."""
    for name, tensor in loaded.items():
        if not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise ModelError(f"{file} holds a {kind} under {brief(name)}, wanted tensors alone", hint=CONVERT)
    return loaded
