"""Super-resolution, deblurring, denoising and JPEG restoration beside classical methods, on the same measurements in one run.

    pip install bm3d
    python benchmarks/restoration.py --data photos-val.npz
    python benchmarks/restoration.py --data photos-val.npz --size 96 --first 10 --pictures 6 --only x4 gaussian
    python benchmarks/restoration.py --data photos-val.npz --size 64 --pictures 20 --only "jpeg 10" "jpeg 20" "jpeg 40"

Rows: what a classical method makes of it; "invsolve single estimate", what the command makes of it by default; one sample of
several, which are draws of the posterior, and their mean; how often the range of the samples holds the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cases import SIZE, centre_crops, deblurring_case, dejpeg_case, denoising_case, superresolution_case
from harness import Array, Case, Report, Result, arguments, measure, options_of, save_sheet

from invsolve.forward_models import gaussian_psf, motion_psf
from invsolve.options import AUTO, DEBLURRING, DEJPEG, DENOISING, SUPERRESOLUTION, WIDE_SUPERRESOLUTION, SolveOptions
from invsolve.pictures import Pixels, channels_last
from invsolve.pretrained import load_prior

SINGLE = "invsolve single estimate"
IN_SHEET = 3

Make = Callable[[str, Pixels, int], Case]

TASKS: dict[str, tuple[Make, SolveOptions]] = {
    "x2": (lambda name, truth, index: superresolution_case(name, truth, 2), SUPERRESOLUTION),
    "x4": (lambda name, truth, index: superresolution_case(name, truth, 4), WIDE_SUPERRESOLUTION),
    "gaussian": (lambda name, truth, index: deblurring_case(name, truth, gaussian_psf(1.6), 0.01, index), DEBLURRING),
    "motion": (lambda name, truth, index: deblurring_case(name, truth, motion_psf(9, 30), 0.01, index), DEBLURRING),
    "noise 0.1": (lambda name, truth, index: denoising_case(name, truth, 0.1, index), DENOISING),
    "noise 0.2": (lambda name, truth, index: denoising_case(name, truth, 0.2, index), DENOISING),
    "jpeg 10": (lambda name, truth, index: dejpeg_case(name, truth, 10), DEJPEG),
    "jpeg 20": (lambda name, truth, index: dejpeg_case(name, truth, 20), DEJPEG),
    "jpeg 40": (lambda name, truth, index: dejpeg_case(name, truth, 40), DEJPEG),
}
"""Bicubic reduction; blur by a Gaussian of 1.6 pixels and by a motion of 9 pixels at 30 degrees, with noise of 0.01; noise; JPEG
of three qualities, 4:2:0."""


def strip(result: Result) -> list[Pixels]:
    """Truth, and every estimate."""
    return [result.case.truth, *result.estimates.values()]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, SUPERRESOLUTION, model="photos")
    parser.set_defaults(samples=8, steps=None, sampler=None, rule=None)
    parser.add_argument("--only", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--size", type=int, default=SIZE, help="side of the centre crops, a multiple of 4")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="leave out the first N pictures")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first results")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    pictures = centre_crops(chosen.data, chosen.first + chosen.cases, chosen.size)[chosen.first :]
    report = Report(chosen, prior)
    asked = {name: getattr(chosen, name) for name in ("steps", "sampler", "rule") if getattr(chosen, name) is not None}

    def single(case: Case, options: SolveOptions) -> dict[str, Array]:
        found = case.task.solve(prior, replace(options, samples=1, sampler=asked.get("sampler", AUTO)))
        return {SINGLE: channels_last(found.samples[0, 0])}

    for name in chosen.only:
        make, defaults = TASKS[name]
        for field in ("steps", "sampler", "rule"):
            setattr(chosen, field, asked.get(field, getattr(defaults, field)))
        options = options_of(chosen, defaults)

        def case(index: int, make: Make = make, options: SolveOptions = options) -> Case:
            made = make(f"picture {chosen.first + index}", pictures[index], chosen.first + index)
            classical = made.baselines
            return replace(made, baselines=lambda: {**classical(), **single(made, options)})

        report.add(name, measure(map(case, range(len(pictures))), prior, options))
    report.finish()
    if chosen.show:
        shown = [result for table in report.tables.values() for result in table.shown[:IN_SHEET]]
        save_sheet(chosen.show, map(strip, shown))


if __name__ == "__main__":
    main()
