"""``.npz`` archives of pictures, and of their labels: checked, or refused with a line that names the file."""

from __future__ import annotations

import io
import itertools
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsolve.errors import InputError, first_line
from invsolve.files import regular_file
from invsolve.training.decoding import decode

Array = npt.NDArray[Any]


def archive_pictures(path: Path, channels: int) -> list[npt.NDArray[np.uint8]] | list[npt.NDArray[np.uint16]]:
    """The pictures of an archive, (H, W, channels) each.

    Parameters
    ----------
    path : an ``.npz`` with ``images`` (N, H, W[, C]) uint8 or uint16, or with ``jpeg`` (bytes joined, uint8) and
        ``offsets`` (N + 1,), picture k being bytes offsets[k] to offsets[k + 1].
    channels : 1 or 3.

    Raises
    ------
    InputError : it cannot be read, or holds something else.
    """
    keys = _keys(path)
    if {"jpeg", "offsets"} <= keys:
        data, offsets = _arrays(path, ("jpeg", "offsets"))
        files = _files(path, data, offsets)
        return [decode(io.BytesIO(file), f"{path}, picture {k}", channels) for k, file in enumerate(files)]
    if "images" not in keys:
        raise InputError(f"{path} has keys {sorted(keys)}", hint="wanted: `images`, or `jpeg` with `offsets`")
    (images,) = _arrays(path, ("images",))
    if images.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: images are {images.dtype}", hint="wanted: uint8 or uint16")
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise InputError(f"{path}: images have shape {images.shape}", hint="wanted (N, H, W) or (N, H, W, channels)")
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[-1] != channels:
        raise InputError(
            f"{path}: images have {images.shape[-1]} channels, the preset wants {channels}",
            hint="choose another preset",
        )
    return list(images)


def archive_labels(path: Path, count: int) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """The ``labels`` of an archive of ``count`` pictures, (count,), and the ``classes`` that they number.

    Raises
    ------
    InputError : there are none, or they do not fit the pictures or each other.
    """
    keys = _keys(path)
    if not {"labels", "classes"} <= keys:
        raise InputError(f"{path} has keys {sorted(keys)}", hint="wanted: `labels` and `classes` too")
    labels, classes = _arrays(path, ("labels", "classes"))
    if classes.dtype.kind != "U" or classes.ndim != 1 or len(classes) < 2 or len(set(classes)) < len(classes):
        raise InputError(
            f"{path}: classes are {classes.dtype} of shape {classes.shape}",
            hint="wanted: two or more different names, as text",
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(f"{path}: labels are {labels.dtype} of shape {labels.shape}", hint="wanted: integers, (N,)")
    if len(labels) != count or labels.min() < 0 or labels.max() >= len(classes):
        span = f" from {labels.min()} to {labels.max()}" if len(labels) else ""
        raise InputError(
            f"{path}: {len(labels)} labels{span} for {count} pictures of {len(classes)} classes",
            hint="labels number the classes from 0, one per picture",
        )
    return labels.astype(np.int64), tuple(str(name) for name in classes)


def _files(path: Path, data: Array, offsets: Array) -> list[bytes]:
    """The picture files that ``offsets`` cut ``data`` into."""
    if data.dtype != np.uint8 or data.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.ndim != 1:
        raise InputError(
            f"{path}: jpeg is {data.dtype} of shape {data.shape}, offsets {offsets.dtype} of shape {offsets.shape}",
            hint="wanted: uint8 (bytes,) and integers (N + 1,)",
        )
    bounds = offsets.tolist()  # exact, where differences of unsigned numbers would wrap round
    rising = all(a < b for a, b in itertools.pairwise(bounds))
    if len(bounds) < 2 or not rising or bounds[0] < 0 or bounds[-1] > len(data):
        raise InputError(
            f"{path}: its offsets do not cut {len(data)} bytes into files",
            hint="wanted: N + 1 rising numbers, from 0 to the number of bytes",
        )
    whole = data.tobytes()
    return [whole[a:b] for a, b in itertools.pairwise(bounds)]


def _keys(path: Path) -> set[str]:
    regular_file(path, "data")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip archive")
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception as error:
        raise _unreadable(path, error) from error


def _arrays(path: Path, names: Sequence[str]) -> list[Array]:
    try:
        with warnings.catch_warnings(), np.load(path, allow_pickle=False) as archive:
            warnings.simplefilter("ignore")
            found = [archive[name] for name in names]
    except Exception as error:  # whatever zipfile, zlib and numpy make of damaged bytes, and too much for the memory
        raise _unreadable(path, error) from error
    if not all(isinstance(array, np.ndarray) for array in found):
        raise _unreadable(path, ValueError("it does not hold arrays"))
    return found


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"cannot read {path}: {first_line(error)}", hint="copy it again from the original")
