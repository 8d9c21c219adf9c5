"""Colorization against the colour table (mean chroma by luma and height, fitted on the training pictures) and grey.

python benchmarks/colorization.py --data photos-val.npz
python benchmarks/colorization.py --data photos-val.npz --whole
python benchmarks/colorization.py --data photos-val.npz --hints 5
python benchmarks/colorization.py --data photos-val.npz --reference own

With ``--hints N``, N discs of the true colours, 7 pixels wide, at random positions; beside it the same hints spread by
least squares (Levin et al. 2004). With ``--reference``, the mean colours by luma of the picture itself ("own") or of the
next one ("next"); the rows then say how far means by luma are from the reference's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cases import centre_crops, colorization_case, colour_difference, hint_points
from harness import SAMPLES, Case, Report, Result, Rows, arguments, judged, measure, options_of, save_sheet

from invsolve.evaluation.metrics import mean_chroma, score
from invsolve.options import COLORIZATION, HINTED_COLORIZATION
from invsolve.pictures import Pixels
from invsolve.pretrained import find_prior, load_prior
from invsolve.tasks.baselines import ColourTable
from invsolve.tasks.colorization import BASELINE, SCRIBBLES
from invsolve.tasks.hints import LEAST_SHARE, check_reference
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


def distance(result: Result, reference: Pixels) -> Rows:
    """Of every estimate, how far its mean Cb and Cr are from the reference's: rms over the luma both have in common."""
    wanted = check_reference(reference / np.float32(255))
    rows: Rows = {}
    for name, estimate in {"truth": result.case.truth, **result.estimates}.items():
        if name == "grey":
            continue
        found = check_reference(estimate / np.float32(255))
        both = (found.share >= LEAST_SHARE) & (wanted.share >= LEAST_SHARE)
        off = (found.mean - wanted.mean).square().mean(dim=0)[both]
        rows[name] = {"from reference": float((off * found.share[both]).sum() / found.share[both].sum()) ** 0.5}
    return rows


def strip(result: Result) -> list[Pixels]:
    """Truth, grey, the best classical method, three samples."""
    best = SCRIBBLES if SCRIBBLES in result.estimates else BASELINE
    beside = [result.estimates[name] for name in ("grey", best)]
    return [result.case.truth, *beside, *result.samples[:3]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, COLORIZATION, model="thumbnails")
    parser.set_defaults(samples=8, steps=None, sampler=None, rule=None)
    parser.add_argument("--whole", action="store_true", help="pictures of any shape, instead of the middle 256 x 256")
    parser.add_argument("--hints", type=int, default=0, metavar="N", help="discs of true colours, default none")
    parser.add_argument("--reference", choices=("own", "next"), help="a picture with colours like those wanted")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first results")
    chosen = parser.parse_args(argv)
    steered = chosen.hints or chosen.reference
    defaults = HINTED_COLORIZATION if steered else COLORIZATION
    for name in ("steps", "sampler", "rule"):
        if getattr(chosen, name) is None:
            setattr(chosen, name, getattr(defaults, name))
    prior = load_prior(chosen.model, chosen.device)
    table = ColourTable.load(find_prior("photos") / "colour-table.json")
    pictures = load_pictures(chosen.data)[: chosen.cases] if chosen.whole else centre_crops(chosen.data, chosen.cases)
    truths = [np.asarray(picture, np.uint8) for picture in pictures]
    references = {"own": truths, "next": [*truths[1:], truths[0]]}.get(chosen.reference)

    def case(index: int) -> Case:
        truth = truths[index]
        hints = hint_points(truth, chosen.hints, index) if chosen.hints else None
        reference = None if references is None else references[index] / np.float32(255)
        return colorization_case(f"picture {index}", truth, table, hints=hints, reference=reference, index=index)

    def judge(result: Result) -> Rows:
        rows = with_truth_and_all_samples(result)
        if references is None:
            return rows
        apart = distance(result, references[int(result.case.name.split()[-1])])
        return {name: {**figures, **apart.get(name, {})} for name, figures in rows.items()}

    report = Report(chosen, prior)
    report.add("colorization", measure(map(case, range(len(truths))), prior, options_of(chosen, defaults), judge=judge))
    report.finish()
    if chosen.show:
        save_sheet(chosen.show, map(strip, report.tables["colorization"].shown))


if __name__ == "__main__":
    main()
