r"""Square holes too wide to be known from their edges: are they filled near the truth, and with as much detail?

    python benchmarks/wide_holes.py --data photos-val.npz --size 128 --holes 64 --place centre \
        --pictures 8 --samples 2

PSNR and SSIM are over the hole. A blur has the best of both, so three figures ask what a viewer would: the distance from
the truth in the features of a classifier of 32 x 32 pictures, of the hole and its surroundings shrunk to that size
(layout) and of the hole's own parts of 32 x 32 (texture); and the gradient, the root mean square difference of
neighbouring pixels in grey levels, which should be the truth's. The ways compared are samplers. Look
at the picture (``--show``) too: detail that belongs to nothing pleases some of these figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cases import SIZE, centre_crops, damaged, inpainting_case
from harness import ONE_SAMPLE, Array, Case, Figures, Report, Table, arguments, measure, options_of, save_sheet
from skimage.metrics import structural_similarity
from torch import Tensor

from invsolve.evaluation.sample_quality import Features, classifier_features
from invsolve.options import INPAINTING
from invsolve.pictures import Missing, Pixels
from invsolve.pretrained import load_classifier, load_prior

SEEN = 32
"""Side of the pictures that the judge knows."""

WAYS = ("renoising", "redrawing")
"""Full re-noising goes for the mean; the default draws one of the pictures that fit, the finer resolutions given the coarser."""


@dataclass(frozen=True)
class Hole:
    """A square hole in a square picture."""

    top: int
    left: int
    side: int
    size: int

    @classmethod
    def at(cls, place: str, index: int, side: int, size: int) -> Hole:
        """In the centre, or ``random``: anywhere with an eighth of the picture's side, or what there is, around it."""
        margin = min(size // 8, (size - side) // 2)
        middle = ((size - side) // 2,) * 2
        drawn = np.random.default_rng([4, index, side]).integers(margin, size - side - margin + 1, 2)
        top, left = middle if place == "centre" else (int(drawn[0]), int(drawn[1]))
        return cls(top, left, side, size)

    @property
    def inside(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)

    @property
    def around(self) -> tuple[slice, slice]:
        """The hole with half its side around it, as far as the picture goes."""
        margin = self.side // 2
        rows, columns = (
            slice(max(0, a - margin), min(self.size, a + self.side + margin)) for a in (self.top, self.left)
        )
        return rows, columns

    @property
    def missing(self) -> Missing:
        missing = np.zeros((self.size, self.size), bool)
        missing[self.inside] = True
        return missing

    def parts(self, picture: Pixels) -> list[Array]:
        """The hole's parts of 32 x 32, or the whole of a smaller one."""
        side = min(SEEN, self.side)
        starts = range(0, self.side - side + 1, side)
        inside = picture[self.inside]
        return [inside[a : a + side, b : b + side] for a in starts for b in starts]


def seen(pictures: Sequence[Array]) -> Tensor:
    """Grey levels (h, w, 3) as the judge takes them, (N, 3, 32, 32) in [0, 1]."""
    planes = [torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32) / 255)[None] for picture in pictures]
    return torch.cat([F.interpolate(x, size=(SEEN, SEEN), mode="bilinear", antialias=True) for x in planes])


def gradient(picture: Array) -> float:
    """Root mean square difference of neighbouring pixels, in grey levels."""
    levels = picture.astype(np.float64)
    squares = [np.square(np.diff(levels, axis=axis)).mean() for axis in (0, 1)]
    return float(np.sqrt(np.mean(squares)))


@dataclass(frozen=True)
class Judge:
    """All figures of an estimate of one hole."""

    hole: Hole
    features: Features

    def __call__(self, truth: Pixels, estimate: Pixels) -> Figures:
        a, b = truth / 255, estimate.reshape(truth.shape) / 255
        inside = self.hole.inside
        _, similar = structural_similarity(
            a,
            b,
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        return {
            "psnr": float(-10 * np.log10(max(np.square(a - b)[inside].mean(), 1e-12))),
            "ssim": float(similar[inside].mean()),
            "layout": self.distance([truth[self.hole.around]], [estimate[self.hole.around]]),
            "texture": self.distance(self.hole.parts(truth), self.hole.parts(estimate)),
            "gradient": gradient(estimate[inside]),
        }

    def distance(self, truth: Sequence[Array], estimate: Sequence[Array]) -> float:
        """Mean distance in the judge's features."""
        return float((self.features(seen(truth)) - self.features(seen(estimate))).norm(dim=1).mean())


def cases(pictures: Sequence[Pixels], side: int, place: str, features: Features) -> Iterator[Case]:
    """A hole in each picture."""
    for index, truth in enumerate(pictures):
        hole = Hole.at(place, index, side, len(truth))
        yield inpainting_case(
            f"picture {index}", truth, hole.missing, opencv=("OpenCV Telea",), judge=Judge(hole, features)
        )


def strip(first: Table, others: Sequence[Table], number: int) -> list[Pixels]:
    """Truth, damaged, biharmonic, one sample of every way."""
    shown = first.shown[number]
    ways = [table.shown[number].estimates[ONE_SAMPLE] for table in (first, *others)]
    return [shown.case.truth, damaged(shown.case), shown.estimates["biharmonic"], *ways]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, INPAINTING, model="photos", own=("sampler",))
    parser.set_defaults(samples=8)
    parser.add_argument("--holes", type=int, nargs="+", default=[64, 128], help="sides in pixels, default 64 128")
    parser.add_argument("--place", choices=("centre", "random"), default="random")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), metavar="SAMPLER")
    parser.add_argument("--size", type=int, default=SIZE, help="of the pictures' centres, default 256")
    parser.add_argument("--judge", default="cifar10-judge", help="name or folder of a classifier")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first results")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    features = classifier_features(load_classifier(chosen.judge, prior.device))
    pictures = centre_crops(chosen.data, chosen.cases, chosen.size)
    report, strips = Report(chosen, prior, judge=features.name), []
    for side in chosen.holes:
        tables: list[Table] = []
        for sampler in chosen.ways:
            options = replace(options_of(chosen, INPAINTING), sampler=sampler)
            table = measure(cases(pictures, side, chosen.place, features), prior, options, baselines=not tables)
            if not tables:
                for index, truth in enumerate(pictures):
                    inside = Hole.at(chosen.place, index, side, len(truth)).inside
                    table.put({"truth": {"gradient": gradient(truth[inside])}})
            report.add(f"{side}, {sampler}", table)
            tables.append(table)
        strips += [strip(tables[0], tables[1:], number) for number in range(len(tables[0].shown))]
    report.finish()
    if chosen.show:
        save_sheet(chosen.show, strips)


if __name__ == "__main__":
    main()
