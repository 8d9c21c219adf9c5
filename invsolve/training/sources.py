"""Pictures for training and validation: folders, ``.npz`` archives, torchvision data sets.

Everything is kept as uint8 (H, W, C) in memory, or uint16 for CT archives, and scaled to the prior's units crop by crop.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image

from invsolve.cache import cache_folder
from invsolve.errors import InputError

Picture = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def load_pictures(source: str | Path, channels: int = 3) -> list[Picture]:
    """Read every picture of ``source`` as uint8 or uint16 arrays (H, W, channels).

    Parameters
    ----------
    source : a folder of images (searched recursively), an ``.npz`` with ``images`` (N, H, W[, C]) or with ``jpeg``
        (bytes joined) and ``offsets`` (N + 1,), or the name of a torchvision data set such as ``CIFAR10``.
    channels : 1 or 3; picture files are converted, arrays must have as many.

    Raises
    ------
    InputError : the source does not exist, holds no picture, or one cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        pictures = _from_folder(path, channels)
    elif path.suffix == ".npz":
        pictures = _from_npz(path, channels)
    else:
        pictures = _from_torchvision(str(source), channels)
    if not pictures:
        raise InputError(
            f"no picture found in {source}", hint=f"accepted endings: {' '.join(sorted(PICTURE_SUFFIXES))}"
        )
    return pictures


def mixed(sources: Sequence[Sequence[Picture]]) -> list[Picture]:
    """The pictures of all sources, those of small ones repeated so that every source is drawn about as often."""
    most = max(len(source) for source in sources)
    return [picture for source in sources for picture in list(source) * round(most / len(source))]


class Labelled(NamedTuple):
    """Pictures with what they show."""

    pictures: list[Picture]
    labels: npt.NDArray[np.int64]  # (N,), numbers into classes
    classes: tuple[str, ...]


def load_labelled(source: str | Path, channels: int = 3) -> Labelled:
    """Read pictures with their classes.

    Parameters
    ----------
    source : an ``.npz`` as for :func:`load_pictures` that also holds ``labels`` (N,) and ``classes`` (K,), or a folder
        with one sub-folder of pictures per class.

    Raises
    ------
    InputError : as :func:`load_pictures`, or there are no classes.
    """
    path = Path(source)
    if path.is_dir():
        folders = sorted(p for p in path.iterdir() if p.is_dir())
        groups = [_from_folder(folder, channels) for folder in folders]
        if sum(bool(group) for group in groups) < 2:
            raise InputError(f"{path} has no two sub-folders with pictures", hint="wanted: one sub-folder per class")
        labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        return Labelled([p for group in groups for p in group], labels, tuple(folder.name for folder in folders))
    if path.suffix != ".npz":
        raise InputError(f"{source} has no labels", hint="give an .npz with `labels` and `classes`, or a folder")
    pictures = load_pictures(path, channels)
    with np.load(path, allow_pickle=False) as archive:
        if "labels" not in archive or "classes" not in archive:
            raise InputError(f"{path} has keys {sorted(archive.keys())}", hint="wanted: `labels` and `classes` too")
        labels, classes = archive["labels"].astype(np.int64), tuple(str(name) for name in archive["classes"])
    if len(labels) != len(pictures) or labels.min() < 0 or labels.max() >= len(classes):
        raise InputError(
            f"{path}: {len(labels)} labels up to {labels.max()} for {len(pictures)} pictures of {len(classes)} classes",
            hint="labels number the classes from 0, one per picture",
        )
    return Labelled(pictures, labels, classes)


def _convert(image: Image.Image, channels: int) -> Picture:
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels)


def _from_folder(folder: Path, channels: int) -> list[Picture]:
    pictures = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES):
        try:
            with Image.open(path) as image:
                pictures.append(_convert(image, channels))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error}", hint="remove it from the folder or repair it") from error
    return pictures


def _from_npz(path: Path, channels: int) -> list[Picture]:
    if not path.is_file():
        raise InputError(f"no such file: {path}", hint="check the path of the data")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "jpeg" in archive and "offsets" in archive:
                data, offsets = archive["jpeg"].tobytes(), archive["offsets"]
                files = [data[a:b] for a, b in itertools.pairwise(offsets)]
                return [_convert(Image.open(io.BytesIO(f)), channels) for f in files]
            if "images" in archive:
                images: npt.NDArray[Any] = archive["images"]
            else:
                raise InputError(
                    f"{path} has keys {sorted(archive.keys())}", hint="wanted: `images`, or `jpeg` with `offsets`"
                )
    except InputError:
        raise
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"cannot read {path}: {error}", hint="copy it again from the original") from error
    if images.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: images are {images.dtype}", hint="wanted: uint8 or uint16")
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[-1] != channels:
        raise InputError(
            f"{path}: images have {images.shape[-1]} channels, the preset wants {channels}",
            hint="choose another preset",
        )
    return list(images)


def _from_torchvision(name: str, channels: int) -> list[Picture]:
    import torchvision

    if not hasattr(torchvision.datasets, name):
        raise InputError(
            f"{name} is neither a folder, an .npz file nor a torchvision data set",
            hint="give a folder of images, an .npz, or a name such as CIFAR10",
        )
    factory: Any = getattr(torchvision.datasets, name)
    root = cache_folder() / "datasets"
    try:
        dataset = factory(root=str(root), download=True)
    except (TypeError, RuntimeError, OSError) as error:
        raise InputError(
            f"torchvision could not provide {name}: {error}", hint="download it by hand and give the folder"
        ) from error
    return [_convert(dataset[i][0], channels) for i in range(len(dataset))]
