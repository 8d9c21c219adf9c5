"""Inpainting against scikit-image's biharmonic and OpenCV's Telea and Navier-Stokes, on the same masks in one run.

python benchmarks/inpainting.py --data photos-val.npz
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cases import MASKS, OPENCV, centre_crops, damaged, inpainting_case
from harness import Report, Result, arguments, measure, options_of, save_sheet

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
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first results")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    pictures = centre_crops(chosen.data, chosen.cases)
    report = Report(chosen, prior)
    for name in chosen.only:
        cases = (
            inpainting_case(f"picture {index}", truth, MASKS[name](index, len(truth)), opencv=tuple(OPENCV))
            for index, truth in enumerate(pictures)
        )
        report.add(name, measure(cases, prior, options_of(chosen, INPAINTING)))
    report.finish()
    if chosen.show:
        shown = [result for table in report.tables.values() for result in table.shown[:IN_SHEET]]
        save_sheet(chosen.show, map(strip, shown))


if __name__ == "__main__":
    main()
