"""The result of a volume on disk: a Zarr group that grows slice by slice, and can be gone on with.

While it grows it is called ``name.partial.zarr`` and says which slices are done; the name it was asked for it takes when
all of them are. A chunk of Zarr is written whole or not at all, and a slice is marked as done after its chunks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from invsolve.atomic import uninterrupted
from invsolve.distributed.extra import require
from invsolve.errors import OutputError
from invsolve.manifests import settings_hash

Array = npt.NDArray[Any]

HU = ("mean", "std", "low", "high")
"""Arrays (slices, height, width) in Hounsfield units, float32, a chunk for each slice."""

FACTS, SETTINGS = "invsolve", "settings"
"""Attributes of the group: what made it, and of that what must be the same to go on with it."""


class Begun(NamedTuple):
    """A store to be filled."""

    path: Path
    stamp: str  # of its settings, which whoever writes into it must know
    missing: list[int]  # slices that are not done yet


def partial_path(output: Path) -> Path:
    """Where a result grows."""
    return output.with_name(f"{output.stem}.partial{output.suffix}")


def begin(
    output: Path,
    shape: tuple[int, int, int],
    names: tuple[str, ...],
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    force: bool = False,
) -> Begun:
    """Make a store, or go on with the one that an earlier run with the same ``settings`` left.

    Parameters
    ----------
    output : the result's name, ending in ``.zarr``.
    shape : (slices, height, width).
    names : which of :data:`HU` it will hold.
    settings : everything that the values depend on.
    facts : provenance.
    force : replace a result that is there, once the new one is whole, and drop what a run with other settings began.

    Raises
    ------
    OutputError : the result is there, it was begun with other settings, or it cannot be written.
    """
    require("zarr")
    check_free(output, force=force)
    wanted = json.loads(json.dumps(dict(settings)))
    growing = partial_path(output)
    if growing.exists():
        found = _read_settings(growing)
        if found == wanted:
            return Begun(growing, settings_hash(wanted), _missing(growing))
        if not force:
            raise OutputError(
                f"{growing} was begun {_difference(found, wanted)}",
                hint="--force to begin again, -o for another name, or the same settings to go on with it",
            )
        shutil.rmtree(growing)
    try:
        _create(growing, shape, names, wanted, facts)
    except OSError as error:
        raise OutputError(f"cannot write {growing}: {error.strerror or error}", hint="choose another place") from None
    return Begun(growing, settings_hash(wanted), list(range(shape[0])))


def check_free(output: Path, *, force: bool) -> None:
    """Raise an OutputError for a result that is there already, or that is not called ``.zarr``."""
    if output.suffix.lower() != ".zarr":
        raise OutputError(f"output {output} does not end in .zarr", hint="volumes are written as Zarr groups")
    if output.exists() and not force:
        raise OutputError(f"{output} exists", hint="use --force to overwrite it, or -o for another name")


def _create(path: Path, shape: tuple[int, int, int], names: tuple[str, ...], settings: Any, facts: Any) -> None:
    """An empty store, which has its name only once it is complete."""
    import zarr

    staging = path.with_name(f".{uuid4().hex[:12]}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        group = zarr.open_group(staging, mode="w-")
        for name in names:
            made = group.create_array(name, shape=shape, chunks=(1, *shape[1:]), dtype="float32", fill_value=np.nan)
            made.attrs.update({"units": "HU", "axes": ["slice", "row", "column"]})
        for name, kind, fill in (("chi2", "float32", np.nan), ("done", "uint8", 0)):
            group.create_array(name, shape=shape[:1], chunks=(1,), dtype=kind, fill_value=fill)
        group.attrs.update({FACTS: dict(facts), SETTINGS: settings})
        staging.rename(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _read_settings(path: Path) -> Any:
    import zarr

    try:
        return zarr.open_group(path, mode="r").attrs[SETTINGS]
    except Exception:  # noqa: BLE001 - a damaged store fails in many ways, which all mean the same
        return None


def _difference(found: Any, wanted: Any) -> str:
    """In which setting two runs differ first."""
    if not isinstance(found, dict):
        return "by something else"
    for name in wanted.keys() | found.keys():
        before, now = found.get(name), wanted.get(name)
        if before != now:
            brief = all(len(str(value)) <= 60 for value in (before, now))
            return f"with {name} {before}, now it is {now}" if brief else f"with another {name}"
    return "otherwise"


def _missing(path: Path) -> list[int]:
    import zarr

    group: Any = zarr.open_group(path, mode="r")
    done = group["done"][:]
    return np.flatnonzero(np.asarray(done) == 0).tolist()


def write_slice(path: Path, stamp: str, number: int, images: Mapping[str, Array], chi2: float | None) -> None:
    """Write what was found of a slice, images (height, width) in HU by name, and mark it as done.

    Raises
    ------
    OutputError : the store is not there, or is another's: of a run that was stopped, a task may still be under way.
    """
    import zarr

    if not path.is_dir():
        raise OutputError(f"{path} is not there", hint="choose a place that every worker sees under the same path")
    group: Any = zarr.open_group(path, mode="r+")
    if settings_hash(group.attrs[SETTINGS]) != stamp:
        raise OutputError(
            f"{path} belongs to a run with other settings", hint="give each run a name of its own with -o"
        )
    for name, image in images.items():
        group[name][number] = image.astype(np.float32)
    if chi2 is not None:
        group["chi2"][number] = chi2
    group["done"][number] = 1


def finish(path: Path, output: Path, facts: Mapping[str, Any]) -> None:
    """Give a store of which all slices are done the result's name; what had it before goes.

    Raises
    ------
    OutputError : it cannot be renamed.
    """
    import zarr

    group: Any = zarr.open_group(path, mode="r+")
    old = output.with_name(f".{uuid4().hex[:12]}.part")
    try:
        group.attrs[FACTS] = {**group.attrs[FACTS], **facts}
        with uninterrupted():
            if output.exists():
                output.rename(old)
            path.rename(output)
        del zarr.open_group(output, mode="r+")["done"]
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}", hint="choose another place") from None
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)
