"""A prior of one size on its own kind of pictures: the middle quarter missing, and colours, beside the baselines.

    python benchmarks/flowers.py --data flowers64-val.npz --train flowers64-train.npz --show flowers/
    python benchmarks/flowers.py --data flowers64-val.npz --train flowers64-train.npz --sampler pc --rule replacement \\
        --steps 200

The square that is missing is half as wide as the picture. PSNR and SSIM over the whole picture and over the square alone;
coverage, spread and error of the samples over the square. The colour table (mean chroma by luma and height) is fitted on
the training pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cases import colorization_case, colour_difference, damaged, every_kth, inpainting_case
from harness import Array, Case, Figures, Report, Result, Rows, arguments, judged, measure, options_of, save_sheet

from invsolve.evaluation.metrics import score
from invsolve.options import SolveOptions
from invsolve.pictures import Pixels
from invsolve.pretrained import load_prior
from invsolve.tasks.baselines import ColourTable
from invsolve.training.sources import load_pictures

SOLVING = SolveOptions(samples=8)
"""The same for both tasks, so that one table can be set beside the other."""

COMPLETIONS = 5
GAP = 2


def middle(size: int) -> tuple[slice, slice]:
    """The centre square of half the picture's width."""
    return (slice(size // 4, size // 4 + size // 2),) * 2


def hole_figures(truth: Array, estimate: Array) -> Figures:
    """PSNR and SSIM of the picture, and of the square alone."""
    hole = middle(len(truth))
    inside = score(truth[hole], estimate[hole])
    return {**score(truth, estimate), "psnr in the hole": inside["psnr"], "ssim in the hole": inside["ssim"]}


def without_middle(name: str, truth: Pixels) -> Case:
    """The square missing."""
    missing = np.zeros(truth.shape[:2], bool)
    missing[middle(len(truth))] = True
    return inpainting_case(name, truth, missing, opencv=("OpenCV Telea",), judge=hole_figures)


def with_truth(result: Result) -> Rows:
    """Beside the estimates the truth, for its chroma."""
    return {**judged(result), "truth": colour_difference(result.case.truth, result.case.truth)}


def sheets(report: Report) -> dict[str, list[list[Pixels]]]:
    """Strips by the sheet's name: the estimates side by side, several completions, several colourings."""
    found: dict[str, list[list[Pixels]]] = {}
    if "inpainting" in report.tables:
        shown = report.tables["inpainting"].shown
        found["inpainting"] = [[r.case.truth, damaged(r.case), *r.estimates.values()] for r in shown]
        found["completions"] = [[r.case.truth, damaged(r.case), *r.samples[:COMPLETIONS]] for r in shown]
    if "colorization" in report.tables:
        shown = report.tables["colorization"].shown
        found["colorization"] = [
            [r.case.truth, r.estimates["grey"], r.estimates["colour table"], *r.samples[:3]] for r in shown
        ]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, SOLVING, model="flowers64")
    parser.add_argument("--train", required=True, help="training pictures, for the colour table: folder or .npz")
    parser.add_argument("--task", choices=("both", "inpainting", "colorization"), default="both")
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="pictures of the first results")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    pictures = {f"picture {index}": truth for index, truth in enumerate(every_kth(chosen.data, chosen.cases))}
    report, options = Report(chosen, prior), options_of(chosen, SOLVING)
    if chosen.task != "colorization":
        cases = (without_middle(name, truth) for name, truth in pictures.items())
        report.add("inpainting", measure(cases, prior, options))
    if chosen.task != "inpainting":
        table = ColourTable.fit([np.asarray(p, np.uint8) for p in load_pictures(chosen.train)])
        cases = (colorization_case(name, truth, table) for name, truth in pictures.items())
        report.add("colorization", measure(cases, prior, options, judge=with_truth))
    report.finish()
    if chosen.show:
        for name, strips in sheets(report).items():
            save_sheet(chosen.show / f"{name}.png", strips, gap=GAP, enlarge=1 if name == "inpainting" else 2)


if __name__ == "__main__":
    main()
