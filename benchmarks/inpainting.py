"""Inpainting against scikit-image's biharmonic and OpenCV's Telea and Navier-Stokes, on the same masks in one run.

python benchmarks/inpainting.py --data photos-val.npz
python benchmarks/inpainting.py --data photos-val.npz --size 128
python benchmarks/inpainting.py --data skimage --size 128

``--data skimage``: photographs of scikit-image, shrunk to a shorter side of 256. "alone": the single sample that the command
makes where it is asked for one, which is another sampler's than those of several.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from cases import MASKS, OPENCV, SIZE, centre_crops, damaged, inpainting_case, skimage_crops
from harness import Case, Report, Result, arguments, measure, options_of, save_sheet

from invsolve.options import INPAINTING
from invsolve.pictures import Pixels
from invsolve.pretrained import load_prior

IN_SHEET = 3


def strip(result: Result) -> list[Pixels]:
    """Truth, damaged, biharmonic, one sample, mean."""
    biharmonic = [result.estimates[name] for name in ("biharmonic",) if name in result.estimates]
    return [result.case.truth, damaged(result.case), *biharmonic, *list(result.estimates.values())[-2:]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, INPAINTING, model="photos")
    parser.set_defaults(samples=8)
    parser.add_argument("--only", choices=MASKS, nargs="+", default=list(MASKS))
    parser.add_argument("--size", type=int, default=SIZE, help="of the pictures' centres, default 256")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first results")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    pictures = (
        skimage_crops(chosen.cases, chosen.size)
        if chosen.data == "skimage"
        else centre_crops(chosen.data, chosen.cases, chosen.size)
    )
    report, options = Report(chosen, prior), options_of(chosen, INPAINTING)
    alone = options_of(argparse.Namespace(**{**vars(chosen), "samples": 1}), INPAINTING)
    for name in chosen.only:

        def cases(name: str = name) -> Iterator[Case]:
            return (
                inpainting_case(f"picture {index}", truth, MASKS[name](index, len(truth)), opencv=tuple(OPENCV))
                for index, truth in enumerate(pictures)
            )

        report.add(name, measure(cases(), prior, options))
        if options.samples > 1:
            report.add(f"{name}, alone", measure(cases(), prior, alone, baselines=False))
    report.finish()
    if chosen.show:
        tables = [report.tables[name] for name in chosen.only]
        save_sheet(chosen.show, [strip(result) for table in tables for result in table.shown[:IN_SHEET]])


if __name__ == "__main__":
    main()
