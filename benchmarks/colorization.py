"""Colorization against the colour table (mean chroma by luma and height, fitted on the training pictures) and grey.

python benchmarks/colorization.py --data photos-val.npz
python benchmarks/colorization.py --data photos-val.npz --whole
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cases import centre_crops, colorization_case, colour_difference
from harness import SAMPLES, Report, Result, Rows, arguments, judged, measure, options_of, save_sheet

from invsolve.evaluation.metrics import mean_chroma, score
from invsolve.options import COLORIZATION
from invsolve.pictures import Pixels
from invsolve.pretrained import find_prior, load_prior
from invsolve.tasks.baselines import ColourTable
from invsolve.training.sources import load_pictures


def with_truth_and_all_samples(result: Result) -> Rows:
    """Beside the estimates the truth for its chroma, and the samples' PSNR and chroma, averaged."""
    truth, rows = result.case.truth, judged(result)
    rows["truth"] = colour_difference(truth, truth)
    averaged = {
        "psnr": float(np.mean([score(truth, sample)["psnr"] for sample in result.samples])),
        "chroma": float(np.mean([mean_chroma(sample / 255) for sample in result.samples])),
    }
    rows[SAMPLES] = {**averaged, **rows.get(SAMPLES, {})}
    return rows


def strip(result: Result) -> list[Pixels]:
    """Truth, grey, colour table, three samples."""
    beside = [result.estimates[name] for name in ("grey", "colour table")]
    return [result.case.truth, *beside, *result.samples[:3]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, COLORIZATION, model="thumbnails")
    parser.set_defaults(samples=8)
    parser.add_argument("--whole", action="store_true", help="pictures of any shape, instead of the middle 256 x 256")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first results")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    table = ColourTable.load(find_prior("photos") / "colour-table.json")
    pictures = load_pictures(chosen.data)[: chosen.cases] if chosen.whole else centre_crops(chosen.data, chosen.cases)
    report = Report(chosen, prior)
    cases = (
        colorization_case(f"picture {index}", np.asarray(truth, np.uint8), table)
        for index, truth in enumerate(pictures)
    )
    options = options_of(chosen, COLORIZATION)
    report.add("colorization", measure(cases, prior, options, judge=with_truth_and_all_samples))
    report.finish()
    if chosen.show:
        save_sheet(chosen.show, map(strip, report.tables["colorization"].shown))


if __name__ == "__main__":
    main()
