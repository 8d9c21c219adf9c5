"""How honest the samples are, and what puts them right: a factor for their intervals, a bound for the mean's PSNR.

Every picture or patient, a group, is left out of its own factor and its own bound. Beside them, whether the samples are
the posterior's: the fair CRPS, the ratio of spread to error, and the truth's rank among the samples.

    python benchmarks/calibration.py inpaint --data photos-val.npz --save inpaint.json
    python benchmarks/calibration.py ct --data ct-val.npz --rule 'moment_matching(tolerance=.2, steps=6)' \\
        --sampler multistep --steps 12 --save ct.json --keep ct-samples/ --ranks ct-ranks.png
    python benchmarks/calibration.py superres --case x4 --data photos-train.npz --spread --groups 20 --judge photos-val.npz \\
        --save superres-4.json
    python benchmarks/calibration.py mri --data mri-val.npz --groups 9 --learned mri.json

``inpaint``: half of the pixels missing, centre crops, counted over the missing pixels. ``superres``, ``deblur``, ``denoise``,
``dejpeg``: a case of benchmarks/restoration.py, centre crops, counted over all values. ``colorize``: photographs without their
colours, centre crops, counted over all values. ``ct``: a scan of benchmarks/ct.py, a slice per patient, counted inside the body.
``mri``: a scan of benchmarks/mri.py, slices spread over the file, counted in the head. The file of ``--save`` is what the
commands' ``--calibration`` takes; ``--judge`` tries it on pictures that it was not learned from, and ``--learned`` one of an
earlier run on those of ``--data``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from cases import SIZE, centre, centre_crops, colorization_case, every_kth, inpainting_case, random_pixels
from ct import SCANS, ct_case, one_slice_per_patient, scan_of, usual
from harness import SAMPLES, Case, Figures, Report, Result, Table, arguments, judged, mean_of, options_of, solved
from mri import SCANS as MRI_SCANS
from mri import mri_case, spread_slices
from PIL import Image
from restoration import TASKS as RESTORATIONS

from invsolve.atomic import write_files
from invsolve.evaluation.coverage import Reliability
from invsolve.evaluation.crps import crps, spread_skill
from invsolve.evaluation.ranks import ideal_ranks, rank_error, rank_histogram, rank_picture
from invsolve.forward_models import projector
from invsolve.options import COLORIZATION, INPAINTING, MRI, SolveOptions
from invsolve.pictures import Pixels
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.rules import rule_name
from invsolve.samplers import sampler_name
from invsolve.uncertainty.conformal import LEVEL, Calibration, covered, learn_factor, leave_one_out, scores
from invsolve.uncertainty.intervals import attainable_interval
from invsolve.uncertainty.psnr_bound import Judged, PsnrBound, expected_error, learn_psnr_bound

SAMPLES_DRAWN = 19
CROP, SMALL_CROP = 128, 64


def crops(chosen: argparse.Namespace, path: str, size: int) -> list[Pixels]:
    """The middle of the first pictures of a file, or of some spread over all of it."""
    if not chosen.spread:
        return centre_crops(path, chosen.cases, chosen.size or size)
    return [np.asarray(centre(one, chosen.size or size), np.uint8) for one in every_kth(path, chosen.cases)]


def pictures(chosen: argparse.Namespace, prior: NetworkPrior, path: str) -> Iterator[Case]:
    """Photographs with half of their pixels missing."""
    for index, picture in enumerate(crops(chosen, path, CROP)):
        yield inpainting_case(f"picture {index}", picture, random_pixels(index, len(picture)))


def restorations(chosen: argparse.Namespace, prior: NetworkPrior, path: str) -> Iterator[Case]:
    """Photographs made smaller, blurred, noisy or compressed."""
    make, _ = RESTORATIONS[chosen.case]
    for index, picture in enumerate(crops(chosen, path, SMALL_CROP)):
        yield make(f"picture {index}", picture, index)


def usual_restoration(case: str) -> SolveOptions:
    """How the command solves a case of benchmarks/restoration.py."""
    return RESTORATIONS[case][1]


def colourless(chosen: argparse.Namespace, prior: NetworkPrior, path: str) -> Iterator[Case]:
    """Photographs without their colours."""
    for index, picture in enumerate(crops(chosen, path, SIZE)):
        yield colorization_case(f"picture {index}", picture, index=index)


def slices(chosen: argparse.Namespace, prior: NetworkPrior, path: str) -> Iterator[Case]:
    """A slice of each patient."""
    how = scan_of(chosen.case, chosen.size)
    operator = projector(how.geometry, prior.device)
    for index, one in enumerate(one_slice_per_patient(path, chosen.size)[: chosen.cases]):
        yield ct_case(one, how, index, operator)


def scans(chosen: argparse.Namespace, prior: NetworkPrior, path: str) -> Iterator[Case]:
    """Slices of a head from part of k-space."""
    for index, one in enumerate(spread_slices(path, chosen.cases, chosen.size)):
        yield mri_case(f"slice {index}", one, MRI_SCANS[chosen.case], index)


class Kind(NamedTuple):
    """A task: its cases of a file, how a measurement is usually solved, by which prior, what counts, and its measurements, the first by default."""

    make: Callable[[argparse.Namespace, NetworkPrior, str], Iterator[Case]]
    usual: Callable[[str], SolveOptions]
    model: str
    where: str
    cases: tuple[str, ...]


TASKS = {
    "inpaint": Kind(pictures, lambda case: INPAINTING, "photos", "the missing pixels", ("half",)),
    "superres": Kind(restorations, usual_restoration, "photos", "all values", ("x4", "x2")),
    "deblur": Kind(restorations, usual_restoration, "photos", "all values", ("motion", "gaussian")),
    "denoise": Kind(restorations, usual_restoration, "photos", "all values", ("noise 0.1", "noise 0.2")),
    "dejpeg": Kind(restorations, usual_restoration, "photos", "all values", ("jpeg 20", "jpeg 10", "jpeg 40")),
    "colorize": Kind(colourless, lambda case: COLORIZATION, "thumbnails", "all values", ("grey",)),
    "ct": Kind(slices, usual, "ct", "the body's pixels", tuple(SCANS)),
    "mri": Kind(scans, lambda case: MRI, "mri", "the head's pixels", ("1 coil, R 3", *(name for name in MRI_SCANS if name != "1 coil, R 3"))),
}  # fmt: skip


def keep(folder: Path, number: int, result: Result) -> None:
    """Samples, truth and what counts, to analyse again without solving again."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = result.case.unit_truth
    where = torch.ones_like(truth) if result.where is None else result.where
    np.savez_compressed(
        folder / f"group-{number:02d}.npz",
        name=result.case.name,
        samples=result.posterior.samples.numpy(),
        truth=truth.numpy(),
        where=where.numpy(),
    )


class Honesty(NamedTuple):
    """What a group's samples say of how far they are from the truth, and how far they are."""

    scores: torch.Tensor  # (m,), of its intervals
    judged: Judged  # its mean
    reliability: Reliability
    crps: float  # in the units of x
    ranks: torch.Tensor  # (n + 1,)


def honesty(result: Result, psnr: float, generator: torch.Generator) -> Honesty:
    """Judge a group whose mean has this PSNR; the generator breaks ties of ranks."""
    samples, truth, where = result.posterior.samples, result.case.unit_truth, result.where
    antithetic = result.posterior.antithetic
    return Honesty(
        scores(attainable_interval(samples, LEVEL), truth, where),
        Judged(psnr, expected_error(samples, antithetic=antithetic)),
        result.reliability(),
        crps(samples, truth, where=where, antithetic=antithetic),
        rank_histogram(samples, truth, generator, where=where, rounding=result.case.rounding),
    )


def say_intervals(learned: Calibration, level: float) -> None:
    """Coverage by group and on average, each group by the factor of the others."""
    for one in learned.groups:
        print(f"{one.group:>26}: before {one.before:.3f}  after {one.after:.3f}  factor of the others {one.factor:.3f}")
    print(
        f"interval of {learned.samples} samples, {level:.1%} if they were the posterior's, over {learned.where}: "
        f"{learned.before:.3f} before, {learned.after:.3f} after (wanted {learned.level:g}); factor {learned.factor:.3f}"
    )


def say_psnr(bound: PsnrBound) -> None:
    """The mean's PSNR by group beside the bound that the others give."""
    for one in bound.groups:
        print(
            f"{one.group:>26}: mean {one.psnr:.2f} dB, at least {one.bound:.2f} by the others; "
            f"error {one.ratio:.3f} times the expected"
        )
    print(
        f"PSNR of the mean: above the others' bound in {bound.held:.3f} of {len(bound.groups)} groups, on average by "
        f"{bound.margin:.2f} dB; bound of all with {bound.level:.1%}: error at most {bound.ratio:.3f} times the expected"
    )


def ensemble(groups: dict[str, Honesty], *, antithetic: bool) -> tuple[Figures, torch.Tensor, torch.Tensor]:
    """Figures over all groups, each counting the same, and the rank histogram beside the ideal one."""
    histogram = torch.stack([one.ranks for one in groups.values()]).mean(dim=0)
    ideal = ideal_ranks(len(histogram) - 1, antithetic=antithetic)
    figures = {
        "crps": float(np.mean([one.crps for one in groups.values()])),
        "spread_skill": spread_skill([one.reliability for one in groups.values()]),
        "rank_error": rank_error(histogram, ideal),
    }
    return figures, histogram, ideal


class Judgement(NamedTuple):
    """Groups solved and judged."""

    groups: dict[str, Honesty]
    table: Table
    problem: dict[str, float]
    ranges: dict[str, tuple[float, float]]
    antithetic: bool


def judge_all(cases: Iterable[Case], prior: NetworkPrior, options: SolveOptions, folder: Path | None) -> Judgement:
    """Solve and judge every group, and say so one by one; ``folder`` keeps the samples."""
    groups: dict[str, Honesty] = {}
    problems, antithetic = [], False
    table, generator = Table(), torch.Generator().manual_seed(0)
    for number, result in enumerate(solved(cases, prior, options, baselines=False)):
        rows, name = judged(result), result.case.name
        groups[name] = one = honesty(result, rows[mean_of(options.samples)]["psnr"], generator)
        antithetic = result.posterior.antithetic
        apart = rank_error(one.ranks, ideal_ranks(options.samples, antithetic=antithetic))
        rows[SAMPLES] |= {"crps": one.crps, "rank_error": apart}
        table.add(result, rows)
        problems.append(result.case.task.problem)
        print(
            f"{name:>26}: covered {covered(one.scores):.3f}  CRPS {one.crps:.5f}  "
            f"spread/skill {one.reliability.spread:.3f}  ranks off {apart:.3f}",
            flush=True,
        )
        if folder:
            keep(folder, number, result)
    columns = {name: [float(one[name]) for one in problems] for name in problems[0]}
    problem = {name: float(np.mean(column)) for name, column in columns.items()}
    ranges = {name: (min(column), max(column)) for name, column in columns.items() if min(column) < max(column)}
    return Judgement(groups, table, problem, ranges, antithetic)


def tried(learned: Calibration, found: Judgement) -> Figures:
    """What the learned factor and bound do for groups that they were not learned from."""
    before = [covered(one.scores) for one in found.groups.values()]
    after = [covered(one.scores, learned.factor) for one in found.groups.values()]
    figures = {"before": float(np.mean(before)), "least_before": min(before), "most_before": max(before)}
    figures |= {"after": float(np.mean(after)), "least_after": min(after), "most_after": max(after)}
    print(
        f"judged on {len(after)} other groups: {figures['before']:.3f} before ({min(before):.3f} to {max(before):.3f}), "
        f"{figures['after']:.3f} after ({min(after):.3f} to {max(after):.3f})"
    )
    for end in (0, 1):
        if warning := learned.warning({**found.problem, **{name: ends[end] for name, ends in found.ranges.items()}}):
            print(f"warning: {warning}")
    if learned.psnr is not None:
        above = [one.judged.psnr - learned.psnr.at_least(one.judged.expected) for one in found.groups.values()]
        figures |= {"held": float(np.mean([gap >= 0 for gap in above])), "margin": float(np.mean(above))}
        print(f"PSNR of the mean above its bound in {figures['held']:.3f}, on average by {figures['margin']:.2f} dB")
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, SolveOptions(samples=SAMPLES_DRAWN), model=None, count="--groups", cases=11)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--case", help="the measurement; default the first of its task's: " + "; ".join(
        f"{name}: {', '.join(kind.cases)}" for name, kind in TASKS.items()
    ))  # fmt: skip
    parser.add_argument("--size", type=int, help=f"side of the centre crops; default {CROP} of inpaint, {SMALL_CROP} of "
                        f"other photographs ({SIZE} of colorize), and whole slices")  # fmt: skip
    parser.add_argument("--spread", action="store_true", help="photographs spread over the file, not its first")
    parser.add_argument("--judge", metavar="FILE", help="try what was learned on as many groups of this file")
    parser.add_argument(
        "--learned", type=Path, metavar="FILE.json", help="learn nothing, try this calibration on --data"
    )
    parser.add_argument("--level", type=float, default=LEVEL)
    parser.add_argument("--guaranteed", action="store_true", help="with the correction for few groups; 9 at least")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="the calibration")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an .npz per group: samples, truth, what counts")
    parser.add_argument("--ranks", type=Path, metavar="FILE.png", help="the rank histogram over all groups")
    first = parser.parse_known_args(argv)[0]
    kind = TASKS[first.task]
    case = first.case if first.case in kind.cases else kind.cases[0]
    defaults = kind.usual(case)
    parser.set_defaults(**{name: getattr(defaults, name) for name in ("steps", "rule", "sampler", "sigma_start")})
    parser.set_defaults(case=kind.cases[0])
    chosen = parser.parse_args(argv)
    if min(chosen.samples, chosen.cases) < 2:
        parser.error(f"{chosen.samples} samples, {chosen.cases} groups: wanted 2 of each at least")
    if chosen.learned and (chosen.save or chosen.judge):
        parser.error("--learned with --save or --judge: it learns nothing, and tries the file on --data")
    if chosen.case not in kind.cases:
        parser.error(f"--case {chosen.case!r} of {chosen.task}: wanted {', '.join(kind.cases)}")
    if chosen.ranks and chosen.ranks.suffix.lower() != ".png":
        parser.error(f"--ranks {chosen.ranks} does not end in .png")
    prior, options = load_prior(chosen.model or kind.model, chosen.device), options_of(chosen, defaults)
    known = None if chosen.learned is None else Calibration.load(chosen.learned)
    if known is not None:
        known.check(
            task=chosen.task, prior_sha256=prior.card.sha256, rule=rule_name(options.rule),
            sampler=sampler_name(options.sampler), steps=options.steps, samples=options.samples,
        )  # fmt: skip
    report, make = Report(chosen, prior), partial(kind.make, chosen, prior)
    found = judge_all(make(chosen.data), prior, options, chosen.keep)
    report.add(chosen.task, found.table)
    if known is not None:
        figures, *_ = ensemble(found.groups, antithetic=found.antithetic)
        report.finish(ensemble=figures, judged=tried(known, found))
        return

    interval_scores = {name: one.scores for name, one in found.groups.items()}
    bound = learn_psnr_bound({name: one.judged for name, one in found.groups.items()})
    learned = Calibration(
        task=chosen.task,
        prior_sha256=prior.card.sha256,
        rule=rule_name(options.rule),
        sampler=sampler_name(options.sampler),
        steps=options.steps,
        samples=options.samples,
        level=chosen.level,
        factor=learn_factor(list(interval_scores.values()), chosen.level, guaranteed=chosen.guaranteed),
        groups=leave_one_out(interval_scores, chosen.level, guaranteed=chosen.guaranteed),
        problem=found.problem,
        ranges=found.ranges,
        where=kind.where,
        guaranteed=chosen.guaranteed,
        psnr=bound,
    )
    figures, histogram, ideal = ensemble(found.groups, antithetic=found.antithetic)
    say_intervals(learned, attainable_interval(torch.zeros(options.samples, 1), LEVEL).level)
    say_psnr(bound)
    print(f"over all of {kind.where}: " + ", ".join(f"{name} {value:.5f}" for name, value in figures.items()))
    if chosen.save:
        learned.save(chosen.save)
    if chosen.ranks:
        shown = Image.fromarray(rank_picture(histogram, ideal))
        write_files({chosen.ranks: lambda file: shown.save(file, "PNG")})
    others: Figures = {}
    if chosen.judge:
        other = judge_all(make(chosen.judge), prior, options, None)
        report.add("judged", other.table)
        others = tried(learned, other)
    report.finish(
        before=learned.before,
        after=learned.after,
        factor=learned.factor,
        groups=learned.groups,
        psnr={**bound.as_json(), "held": bound.held, "margin": bound.margin},
        ensemble={**figures, "ranks": histogram.tolist(), "ideal_ranks": ideal.tolist()},
        judged=others,
    )


if __name__ == "__main__":
    main()
