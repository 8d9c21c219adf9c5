"""How much of drawn scratches ``invsolve inpaint --scratches`` finds, and how much of what it finds is one.

    python benchmarks/scratches.py --data skimage
    python benchmarks/scratches.py --data photos-val.npz --alone --show scratches.png
    python benchmarks/scratches.py --data photos-val.npz --alone --grey

Six scratches on each photograph: curves of 80 to 300 pixels at random places, bright or dark, with soft edges and a strength that
wanders along them. Recall is the share of their pixels that is marked, precision the share of marked pixels that lie within 3
pixels of one, both over all photographs. "Marked without any" is the share of the undamaged photographs that is marked: wires, masts
and edges. Beside it stands the ridge filter of Sato et al. 1998 on the photograph, marked where it is above the threshold that gives
the best harmonic mean of both, which nobody knows who has no truth; specks are left out as ours are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from cases import SKIMAGE, centre
from PIL import Image
from scipy import ndimage
from skimage import data
from skimage.filters import sato
from skimage.measure import label, regionprops

from invsolve.atomic import write_files
from invsolve.cli.files import encode_picture
from invsolve.tasks.scratches import SHORTEST, find_scratches
from invsolve.training.sources import load_pictures

Unit = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
WIDTHS, STRENGTHS = (3,), (0.1, 0.2, 0.4)
NEAR = 3
SCRATCHES = 6
THRESHOLDS = tuple(0.005 * 1.3**step for step in range(16))


def photographs(source: str, size: int) -> list[Unit]:
    """(H, W, 3) in [0, 1], the middle ``size`` x ``size`` where they are larger."""
    if source != "skimage":
        return [centre(picture, size) / 255 for picture in load_pictures(source)]
    loaded = [getattr(data, name)() for name in SKIMAGE]
    return [centre(one[0] if isinstance(one, tuple) else one, size)[..., :3] / 255 for one in loaded]


def curve(shape: tuple[int, ...], rng: np.random.Generator) -> Unit:
    """Points (n, 2) of a curve of 80 to 300 pixels, four to a pixel, that bends a little."""
    length, angle = rng.uniform(80, min(300, 0.9 * min(shape[:2]))), rng.uniform(0, np.pi)
    along = np.arange(0, length, 0.25)
    turned = angle + np.cumsum(rng.normal(0, 1e-3, along.size)) + rng.normal(0, 1e-3) * along
    points = np.cumsum(0.25 * np.stack([np.sin(turned), np.cos(turned)], 1), 0)
    room = np.array(shape[:2]) - np.ptp(points, axis=0)
    return np.asarray(points - points.min(0) + rng.uniform(0, 1, 2) * np.maximum(room, 0))


def scratched(picture: Unit, width: float, strength: float, rng: np.random.Generator) -> tuple[Unit, Mask]:
    """The photograph with scratches, and where they are."""
    shape, added, truth = picture.shape[:2], np.zeros(picture.shape[:2]), np.zeros(picture.shape[:2], bool)
    for _ in range(SCRATCHES):
        points = curve(shape, rng)
        rows, columns = np.clip(np.rint(points).astype(int), 0, np.array(shape) - 1).T
        line = np.zeros(shape, bool)
        line[rows, columns] = True
        away, (i, j) = ndimage.distance_transform_edt(~line, return_indices=True)
        wander = np.zeros(shape)
        wander[rows, columns] = 1 + 0.3 * np.sin(np.arange(len(points)) / 40 + rng.uniform(0, 6))
        cover = np.clip((width + 1) / 2 - away, 0, 1) * wander[i, j]  # one pixel of soft edge
        added += cover * strength * rng.choice((-1, 1))
        truth |= (width + 1) / 2 - away > 0.5
    return np.clip(picture + added[..., None], 0, 1), truth


def ridges(picture: Unit, threshold: float) -> Mask:
    """Sato's filter of both signs above a threshold, without what is shorter than ours may be."""
    grey = picture.mean(axis=2)
    answer = np.maximum(*(sato(grey, sigmas=(1.0, 2.0), black_ridges=black) for black in (True, False)))
    found = label(answer > threshold, connectivity=2)
    long = [one.label for one in regionprops(found) if one.axis_major_length >= SHORTEST]
    return np.asarray(np.isin(found, long))


class Counts(NamedTuple):
    """Pixels over all photographs."""

    true: int
    found: int
    hits: int  # of the true ones that are marked
    right: int  # of the marked ones that are near a true one

    @property
    def recall(self) -> float:
        return self.hits / max(self.true, 1)

    @property
    def precision(self) -> float:
        return self.right / max(self.found, 1)

    @property
    def mean(self) -> float:
        return 2 * self.recall * self.precision / max(self.recall + self.precision, 1e-9)


def counted(find: Callable[[Unit], Mask], cases: Sequence[tuple[Unit, Mask]]) -> Counts:
    parts = []
    for picture, truth in cases:
        found = find(picture)
        near = ndimage.distance_transform_edt(~truth) <= NEAR
        parts.append((truth.sum(), found.sum(), (truth & found).sum(), (near & found).sum()))
    return Counts(*(int(sum(column)) for column in zip(*parts, strict=True)))


def rows(pictures: Sequence[Unit], widths: Sequence[int], strengths: Sequence[float], compare: bool) -> Iterator[str]:
    for width in widths:
        for strength in strengths:
            rng = np.random.default_rng(0)
            cases = [scratched(picture, width, strength, rng) for picture in pictures]
            ours = counted(find_scratches, cases)
            line = f"| {width} | {strength} | {ours.recall:.2f} | {ours.precision:.2f} |"
            if compare:
                tried = (counted(lambda p, t=t: ridges(p, t), cases) for t in THRESHOLDS)  # type: ignore[misc]
                best = max(tried, key=lambda counts: counts.mean)
                line += f" {best.recall:.2f} | {best.precision:.2f} |"
            yield line


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="skimage", help="skimage, or an archive of pictures")
    parser.add_argument("--cases", type=int, help="the first so many")
    parser.add_argument("--size", type=int, default=512, help="of the pictures' middles")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS, help="shares of the full range")
    parser.add_argument("--grey", action="store_true", help="the photographs without their colours")
    parser.add_argument("--alone", action="store_true", help="without the ridge filter, which takes most of the time")
    parser.add_argument(
        "--show", type=Path, metavar="FILE.png", help="the first photograph: scratched, and what is marked in red"
    )
    chosen = parser.parse_args(arguments)
    pictures = photographs(chosen.data, chosen.size)[: chosen.cases]
    if chosen.grey:
        pictures = [np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2) for picture in pictures]
    clean = counted(find_scratches, [(picture, np.zeros(picture.shape[:2], bool)) for picture in pictures])
    pixels = sum(picture.shape[0] * picture.shape[1] for picture in pictures)
    print(f"{len(pictures)} photographs; marked without any: {clean.found / pixels:.2%}", flush=True)
    print("| width | strength | recall | precision |" + ("" if chosen.alone else " Sato's recall | precision |"))
    for row in rows(pictures, chosen.widths, chosen.strengths, not chosen.alone):
        print(row, flush=True)
    if chosen.show:
        first, _ = scratched(pictures[0], 3, 0.2, np.random.default_rng(0))
        red: Any = np.where(find_scratches(first)[..., None], (0.86, 0.08, 0.24), 0.5 + first / 2)
        sheet = np.rint(255 * np.concatenate([first, red], 1)).astype(np.uint8)
        write_files({chosen.show: encode_picture(np.asarray(Image.fromarray(sheet)), chosen.show, {})})


if __name__ == "__main__":
    main()
