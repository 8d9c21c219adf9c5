"""The pictures that ``invsolve models import --validate`` measures on, and their classes where the network has to be told one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from invsolve.errors import InputError
from invsolve.typed import brief

if TYPE_CHECKING:
    from torch import Tensor

    from invsolve.pretrained.foreign import ForeignConfig
    from invsolve.training.sources import Labelled, Picture


class Examples(NamedTuple):
    """Clean pictures."""

    pictures: Tensor  # (N, C, H, W), in the prior's units
    labels: list[int] | None  # the network's number of each one's class; None where it need not be told


def examples_for(config: ForeignConfig, source: str, count: int) -> Examples:
    """At most ``count`` pictures, spread over all: whole ones shrunk to the network's size, or parts where it takes any.

    Parameters
    ----------
    config : of the network. If it always was told a class, the source has to say them: see :func:`class_numbers`.
    source : a folder, or an ``.npz``; of one sub-folder per class, or with ``labels`` and ``classes``, where those matter.

    Raises
    ------
    InputError : there are not two pictures that are large enough, or of the wrong kind, or of unknown classes.
    """
    from invsolve.training.crops import center_crops, unit_scale

    pictures, labels = _loaded(config, source)
    if config.window is not None and pictures and pictures[0].dtype == "uint8":
        raise InputError(
            f"{source} has pictures, and this network knows CT slices",
            hint="wanted an .npz of slices in n, with HU = 2000 n - 1000",
        )
    side = config.size or min(256, min(min(picture.shape[:2]) for picture in pictures))
    large = [k for k, picture in enumerate(pictures) if min(picture.shape[:2]) >= side]
    some = large[:: max(1, -(-len(large) // count))]
    if len(some) < 2:
        raise InputError(
            f"{source} has {len(large)} pictures of {side} x {side} pixels or more", hint="validation needs at least 2"
        )
    chosen = [pictures[k] for k in some]
    whole = config.size is not None and chosen[0].dtype == "uint8"
    crops = center_crops(chosen, side, unit_scale(chosen), framing=1.0 if whole else 0.0)
    return Examples(crops, None if labels is None else [labels[k] for k in some])


def _loaded(config: ForeignConfig, source: str) -> tuple[list[Picture], list[int] | None]:
    """All pictures, with their classes' numbers where the network always was told one."""
    from invsolve.training.sources import load_labelled, load_pictures

    if not config.classes or config.null_class is not None:
        return load_pictures(source, config.channels), None
    try:
        known = load_labelled(source, config.channels)
    except InputError as error:
        raise InputError(
            f"this network has to be told a class: {error.message}",
            hint="wanted one sub-folder of pictures per class, or an .npz with `labels` and `classes`",
        ) from None
    return known.pictures, _network_labels(known, config.classes, source)


def _network_labels(known: Labelled, classes: int, source: str) -> list[int]:
    numbers = class_numbers(known.classes, classes, source)
    return [numbers[label] for label in known.labels]


def class_numbers(names: tuple[str, ...], classes: int, source: str) -> list[int]:
    """The network's numbers of the classes of these ``names``.

    Names that are numbers are the network's own. Other names number its ``classes`` in the order in which they come, which of
    sub-folders is that of the alphabet (as torchvision's ``ImageFolder`` has it), and all of them have to be there.

    Raises
    ------
    InputError : too few or too many, a number that the network does not have, or one twice.
    """
    if all(name.isascii() and name.isdecimal() for name in names):
        numbers = [int(name[:20]) for name in names]
        if max(numbers) >= classes or len(set(numbers)) < len(numbers):
            raise InputError(
                f"{source} has the classes {brief(', '.join(names))}",
                hint=f"this network has 0 to {classes - 1}, each once",
            )
        return numbers
    if len(names) != classes:
        raise InputError(
            f"{source} has {len(names)} classes, and this network {classes}",
            hint=f"name those that there are by the network's numbers, 0 to {classes - 1}, as in {source}/7",
        )
    return list(range(classes))
