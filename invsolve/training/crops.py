"""Crops of pictures for training and validation, scaled to the prior's units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.training.sources import Picture

MOST_OBLONG = 4.0
"""Aspect of the most oblong crops."""


def unit_scale(pictures: Sequence[Picture], white: float | None = None) -> float:
    """The stored value that means 1.0: 255 for uint8; 2000 for the CT archives' uint16 (HU + 1000)."""
    if white is not None:
        return white
    return 255.0 if pictures[0].dtype == np.uint8 else 2000.0


def halve(picture: Picture) -> Picture:
    """2 x 2 mean, odd edges dropped."""
    h, w = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    blocks = picture[:h, :w].reshape(h // 2, 2, w // 2, 2, -1)
    return np.rint(blocks.mean(axis=(1, 3))).astype(picture.dtype)


@dataclass(frozen=True)
class Augmentation:
    """How crops are varied.

    Parameters
    ----------
    orientations : "square" for all eight, "flips" for the four without transposing, "mirror" for left-right only
        (photographs have an up and a down).
    rotation, zoom : largest angle in degrees and range of the scale, of a random ``share`` of the crops; for data of
        few subjects.
    framing : least and largest side of a crop as shares of the picture's shorter side. What is larger than the crop
        wanted is shrunk to it, so that whole scenes fit; (0, 0) cuts crops of the wanted size without shrinking.
    aspects : width over height of crops; each batch has one of them, drawn anew. The shorter side is the size wanted.
        Others than 1 go with neither "square" orientations, which would turn them, nor rotation.

    Raises
    ------
    UsageError : aspects that are no such thing, or do not go with the rest.
    """

    orientations: Literal["square", "flips", "mirror"] = "square"
    rotation: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    share: float = 0.0
    framing: tuple[float, float] = (0.0, 0.0)
    aspects: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.aspects or not all(1 / MOST_OBLONG <= aspect <= MOST_OBLONG for aspect in self.aspects):
            raise UsageError(f"aspects {self.aspects}", hint=f"wanted some from {1 / MOST_OBLONG:g} to {MOST_OBLONG:g}")
        if set(self.aspects) != {1.0} and (self.orientations == "square" or self.share):
            raise UsageError("oblong crops that are turned", hint='wanted orientations="mirror" or "flips" and share=0')


Size = tuple[int, int]
"""Height and width."""


def crop_size(side: int, augmentation: Augmentation, rng: np.random.Generator, pictures: Sequence[Picture]) -> Size:
    """The size of a batch's crops: shorter side ``side``, one of the aspects at random.

    A square where none of ``pictures`` holds such a crop.
    """
    if len(augmentation.aspects) == 1 and augmentation.aspects[0] == 1:
        return side, side
    aspect = float(rng.choice(augmentation.aspects))
    size = round(side * max(1.0, 1 / aspect)), round(side * max(1.0, aspect))
    return size if any(_holds(picture, size) for picture in pictures) else (side, side)


def _holds(picture: Picture, size: Size) -> bool:
    return picture.shape[0] >= size[0] and picture.shape[1] >= size[1]


def check_shrinkable(picture: Picture, size: int) -> None:
    """Raise InputError unless ``picture`` (H, W, C) can be :func:`shrunk` to ``size`` pixels."""
    height, width = picture.shape[:2]
    if picture.dtype != np.uint8 or min(height, width) < size:
        raise InputError(
            f"a picture of {width} x {height}, {picture.dtype}", hint=f"wanted: uint8, {size} pixels or more"
        )


def shrunk(picture: Picture, size: int | Size, framing: float, position: tuple[float, float] = (0.5, 0.5)) -> Picture:
    """A part whose shorter side is ``framing`` of the picture's, at most shrunk (triangle filter), to ``size`` pixels.

    Parameters
    ----------
    picture : (H, W, C) uint8.
    size : height and width, or the side of a square. Where the picture is less oblong, the part is as large as fits.
    position : where the part lies between top and bottom, left and right, in [0, 1].

    Raises
    ------
    InputError : the picture is not uint8, or smaller than ``size``.
    """
    wanted = (size, size) if isinstance(size, int) else size
    check_shrinkable(picture, min(wanted))
    height, width = picture.shape[:2]
    scale = min(framing * min(height, width) / min(wanted), height / wanted[0], width / wanted[1])
    rows, columns = (max(side, round(scale * side)) for side in wanted)
    top, left = round(position[0] * (height - rows)), round(position[1] * (width - columns))
    part = picture[top : top + rows, left : left + columns]
    planes = [Image.fromarray(np.ascontiguousarray(part[..., c])) for c in range(part.shape[2])]
    resized = [np.asarray(plane.resize(wanted[::-1], Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(resized, axis=2)


Pixels = npt.NDArray[Any]
"""A crop, (height, width, C) in stored values."""


def _window(picture: Picture, size: Size, rng: np.random.Generator) -> Callable[[], Pixels]:
    """A random part of ``size``; pictures smaller than that are continued by reflection."""
    short_y, short_x = (max(0, wanted - n) for wanted, n in zip(size, picture.shape[:2], strict=True))
    top = int(rng.integers(picture.shape[0] + short_y - size[0] + 1))
    left = int(rng.integers(picture.shape[1] + short_x - size[1] + 1))

    def cut() -> Pixels:
        whole: Pixels = picture
        if short_y or short_x:
            whole = np.pad(picture, ((0, short_y), (0, short_x), (0, 0)), mode="symmetric")
        return whole[top : top + size[0], left : left + size[1]]

    return cut


def _rotated(picture: Picture, size: int, augmentation: Augmentation, rng: np.random.Generator) -> Callable[[], Pixels]:
    """A random part, rotated and zoomed by cubic interpolation; (size, size, C) float32 in stored values."""
    angle = math.radians(augmentation.rotation) * rng.uniform(-1, 1)
    zoom = math.exp(rng.uniform(*np.log(augmentation.zoom)))
    reach = (abs(math.cos(angle)) + abs(math.sin(angle))) / zoom
    outer = math.ceil(size * reach) + 4
    window = _window(picture, (outer, outer), rng)

    def cut() -> Pixels:
        c, s = math.cos(angle) / zoom * size / outer, math.sin(angle) / zoom * size / outer
        theta = torch.tensor([[[c, -s, 0.0], [s, c, 0.0]]], dtype=torch.float32)
        planes = torch.from_numpy(window().astype(np.float32)).permute(2, 0, 1)[None]
        grid = F.affine_grid(theta, [1, planes.shape[1], size, size], align_corners=False)
        turned = F.grid_sample(planes, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
        return turned[0].permute(1, 2, 0).numpy()

    return cut


def _oriented(cut: Callable[[], Pixels], orientations: str, rng: np.random.Generator) -> Callable[[], Pixels]:
    """What ``cut`` gives, in a random one of the orientations."""
    turns = int(rng.integers(4)) if orientations == "square" else 0
    upside_down = orientations == "flips" and bool(rng.integers(2))
    mirrored = bool(rng.integers(2))

    def turned() -> Pixels:
        crop = np.rot90(cut(), turns)
        crop = crop[::-1] if upside_down else crop
        return crop[:, ::-1] if mirrored else crop

    return turned


def _drawn(picture: Picture, size: Size, augmentation: Augmentation, rng: np.random.Generator) -> Callable[[], Pixels]:
    """A random crop of ``picture``. All that is random is drawn here; what is returned does the work on the pixels."""
    if augmentation.framing[1]:
        framing, position = rng.uniform(*augmentation.framing), (rng.random(), rng.random())
        cut: Callable[[], Pixels] = partial(shrunk, picture, size, framing, position)
    elif augmentation.share and rng.random() < augmentation.share:
        cut = _rotated(picture, size[0], augmentation, rng)
    else:
        cut = _window(picture, size, rng)
    return _oriented(cut, augmentation.orientations, rng)


def random_crops(
    pyramid: Sequence[Sequence[Picture]],
    scale_odds: Sequence[float],
    size: int | Size,
    count: int,
    rng: np.random.Generator,
    augmentation: Augmentation = Augmentation(),
) -> Tensor:
    """``count`` random crops of random pictures in random orientations: (count, C, height, width) in stored values.

    ``pyramid[k]`` holds the pictures at 1 / 2**k of their size, chosen with probability ``scale_odds[k]`` as far as
    they are no smaller than the crop there. Oblong crops are cut from pictures that hold them. The type is the stored one
    (uint16 as int32), float32 where crops may be rotated.
    """
    return numbered_crops(pyramid, scale_odds, size, count, rng, augmentation)[0]


def numbered_crops(
    pyramid: Sequence[Sequence[Picture]],
    scale_odds: Sequence[float],
    size: int | Size,
    count: int,
    rng: np.random.Generator,
    augmentation: Augmentation = Augmentation(),
    rows: slice = slice(None),
) -> tuple[Tensor, list[int]]:
    """:func:`random_crops` and the number of the picture that each was cut from, to look up its label.

    Of the ``count`` crops only those of ``rows`` are cut, and they are the same whatever the others are.
    """
    cuts: list[Callable[[], Pixels]] = []
    numbers: list[int] = []
    wanted = (size, size) if isinstance(size, int) else size
    oblong = wanted[0] != wanted[1]
    if oblong and not any(_holds(picture, wanted) for picture in pyramid[0]):
        raise InputError(f"no picture holds crops of {wanted[1]} x {wanted[0]} pixels", hint="give larger pictures")
    odds = np.asarray(scale_odds, dtype=float)
    for level in rng.choice(len(pyramid), size=count, p=odds / odds.sum()):
        number = int(rng.integers(len(pyramid[0])))
        while oblong and not _holds(pyramid[0][number], wanted):
            number = int(rng.integers(len(pyramid[0])))
        numbers.append(number)
        # Where a picture has become smaller than the crop, reflection would teach symmetric pictures: the next finer.
        while level > 0 and not _holds(pyramid[level][number], wanted):
            level -= 1
        cuts.append(_drawn(pyramid[level][number], wanted, augmentation, rng))
    crops = [cut() for cut in cuts[rows]]
    first = pyramid[0][0]
    stacked = np.stack(crops) if crops else np.empty((0, *wanted, first.shape[2]), first.dtype)
    stacked = np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))
    if augmentation.share:
        stacked = stacked.astype(np.float32, copy=False)
    stored = torch.from_numpy(stacked.astype(np.int32) if stacked.dtype == np.uint16 else stacked)
    return stored, numbers[rows]


def center_crops(pictures: Sequence[Picture], size: int, scale: float, framing: float = 0.0) -> Tensor:
    """The centre ``size`` x ``size`` of each picture that is large enough, (N, C, size, size) float32 in prior units.

    With a ``framing``, as much as that of the shorter side, shrunk to that size.
    """
    crops = []
    for picture in pictures:
        h, w = picture.shape[:2]
        if min(h, w) >= size:
            top, left = (h - size) // 2, (w - size) // 2
            part = shrunk(picture, size, framing) if framing else picture[top : top + size, left : left + size]
            crops.append(part.transpose(2, 0, 1))
    if not crops:
        raise InputError(f"no validation picture is at least {size} x {size} pixels", hint="add larger pictures")
    return torch.from_numpy(np.stack(crops).astype(np.float32) / np.float32(scale))
