"""Pictures for training and validation: folders, ``.npz`` archives, torchvision data sets.

Everything is kept as uint8 (H, W, C) in memory, or uint16 for CT archives, and scaled to the prior's units crop by crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from invsolve.cache import cache_folder
from invsolve.errors import InputError
from invsolve.training.archives import archive_labels, archive_pictures
from invsolve.training.decoding import SUFFIXES, folder_pictures

Picture = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


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
    path, pictures = Path(source), list[Picture]()
    if _is_folder(path):
        pictures += folder_pictures(path, channels)
    elif path.suffix == ".npz":
        pictures += archive_pictures(path, channels)
    else:
        pictures += _from_torchvision(str(source), channels)
    if not pictures:
        raise InputError(f"no picture found in {source}", hint=f"accepted endings: {' '.join(sorted(SUFFIXES))}")
    return pictures


def mixed(sources: Sequence[Sequence[Picture]]) -> list[Picture]:
    """The pictures of all sources, those of small ones repeated so that every source is drawn about as often."""
    most = max(len(source) for source in sources)
    return [picture for source in sources for picture in list(source) * round(most / len(source))]


def held_out_indices(count: int, share: float = 0.03) -> range:
    """Which of ``count`` pictures to keep for validation when no validation set is given: every k-th.

    Raises
    ------
    InputError : fewer than two pictures.
    """
    if count < 2:
        raise InputError(f"{count} picture", hint="training and validation need at least 2")
    return range(0, count, min(count, max(2, round(1 / share))))


class Split(NamedTuple):
    """What a prior is trained and validated on."""

    different: int  # how many training pictures, repeated ones counted once
    training: list[Picture]  # those of small sources repeated, see mixed
    held_out: list[Picture]


def load_split(sources: Sequence[str], validation: str | None, channels: int) -> Split:
    """The pictures of all ``sources``, and those of ``validation``, by default a share of each source.

    Raises
    ------
    InputError : as :func:`load_pictures`, or the pictures have different depths.
    """
    parts = [load_pictures(source, channels) for source in sources]
    held_out = [] if validation is None else load_pictures(validation, channels)
    if len({part[0].dtype for part in [*parts, held_out] if part}) > 1:
        raise InputError("there are 8-bit and 16-bit pictures", hint="train and validate on one kind")
    if validation is None:  # before mixing: what is repeated in training must not come up again in validation
        chosen = [held_out_indices(len(part)) for part in parts]
        held_out = [part[i] for part, some in zip(parts, chosen, strict=True) for i in some]
        parts = [
            [picture for i, picture in enumerate(part) if i not in some]
            for part, some in zip(parts, chosen, strict=True)
        ]
    return Split(sum(map(len, parts)), mixed(parts), held_out)


class Labelled(NamedTuple):
    """Pictures with what they show."""

    pictures: list[Picture]
    labels: npt.NDArray[np.int64]  # (N,), numbers into classes
    classes: tuple[str, ...]

    def part(self, indices: Sequence[int]) -> Labelled:
        """Some of the pictures, with their labels."""
        return Labelled([self.pictures[i] for i in indices], self.labels[list(indices)], self.classes)


def load_labelled_split(source: str, validation: str | None, channels: int) -> tuple[Labelled, Labelled]:
    """Pictures to train on and to validate with, by default a share of the same.

    Raises
    ------
    InputError : as :func:`load_labelled`, or the two have other classes or depths.
    """
    known = load_labelled(source, channels)
    if validation is None:
        held_out = held_out_indices(len(known.pictures))
        return known.part([i for i in range(len(known.pictures)) if i not in held_out]), known.part(held_out)
    other = load_labelled(validation, channels)
    if other.classes != known.classes:
        raise InputError(f"--val has the classes {other.classes}", hint=f"wanted {known.classes}, in this order")
    if other.pictures[0].dtype != known.pictures[0].dtype:
        raise InputError("there are 8-bit and 16-bit pictures", hint="train and validate on one kind")
    return known, other


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
    if _is_folder(path):
        return _labelled_by_folder(path, channels)
    if path.suffix != ".npz":
        raise InputError(f"{source} has no labels", hint="give an .npz with `labels` and `classes`, or a folder")
    pictures = load_pictures(path, channels)
    return Labelled(pictures, *archive_labels(path, len(pictures)))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no permission, or no name that a file could have
        return False


def _labelled_by_folder(path: Path, channels: int) -> Labelled:
    try:
        folders = sorted(p for p in path.iterdir() if p.is_dir())
    except OSError as error:
        raise InputError(f"cannot look into {path}: {error.strerror}", hint="make it readable") from None
    groups = [folder_pictures(folder, channels) for folder in folders]
    if sum(bool(group) for group in groups) < 2:
        raise InputError(f"{path} has no two sub-folders with pictures", hint="wanted: one sub-folder per class")
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return Labelled([p for group in groups for p in group], labels, tuple(folder.name for folder in folders))


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
    mode = "L" if channels == 1 else "RGB"
    pictures = (np.asarray(dataset[i][0].convert(mode)) for i in range(len(dataset)))
    return [picture.reshape(*picture.shape[:2], channels) for picture in pictures]
