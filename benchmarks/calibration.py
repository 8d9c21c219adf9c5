"""How honest the samples are, and what puts them right: a factor for their intervals, a bound for the mean's PSNR.

Every picture or patient, a group, is left out of its own factor and its own bound. Beside them, whether the samples are
the posterior's: the fair CRPS, the ratio of spread to error, and the truth's rank among the samples.

    python benchmarks/calibration.py inpaint --data photos-val.npz --save inpaint.json
    python benchmarks/calibration.py ct --data ct-val.npz --rule 'moment_matching(tolerance=.2, steps=6)' \\
        --sampler multistep --steps 12 --save ct.json --keep ct-samples/ --ranks ct-ranks.png

``inpaint``: half of the pixels missing, centre crops, counted over the missing pixels. ``ct``: a scan of benchmarks/ct.py,
a slice per patient, counted inside the body. The file of ``--save`` is what the commands' ``--calibration`` takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from cases import centre_crops, inpainting_case, random_pixels
from ct import SCANS, ct_case, one_slice_per_patient, scan_of
from harness import SAMPLES, Case, Figures, Report, Result, Table, arguments, judged, mean_of, options_of, solved
from PIL import Image

from invsolve.atomic import write_files
from invsolve.evaluation.coverage import Reliability
from invsolve.evaluation.crps import crps, spread_skill
from invsolve.evaluation.ranks import ideal_ranks, rank_error, rank_histogram, rank_picture
from invsolve.forward_models import projector
from invsolve.options import INPAINTING, RECONSTRUCTION, SolveOptions
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.rules import rule_name
from invsolve.samplers import sampler_name
from invsolve.uncertainty.conformal import LEVEL, Calibration, learn_factor, leave_one_out, scores
from invsolve.uncertainty.intervals import attainable_interval
from invsolve.uncertainty.psnr_bound import Judged, PsnrBound, expected_error, learn_psnr_bound

SAMPLES_DRAWN = 19
CROP = 128


def pictures(chosen: argparse.Namespace, prior: NetworkPrior) -> Iterator[Case]:
    """Photographs with half of their pixels missing."""
    for index, picture in enumerate(centre_crops(chosen.data, chosen.cases, chosen.size or CROP)):
        yield inpainting_case(f"picture {index}", picture, random_pixels(index, len(picture)))


def slices(chosen: argparse.Namespace, prior: NetworkPrior) -> Iterator[Case]:
    """A slice of each patient."""
    how = scan_of(chosen.case, chosen.size)
    operator = projector(how.geometry, prior.device)
    for index, one in enumerate(one_slice_per_patient(chosen.data, chosen.size)[: chosen.cases]):
        yield ct_case(one, how, index, operator)


TASKS = {
    "inpaint": (pictures, INPAINTING, "photos", "the missing pixels"),
    "ct": (slices, RECONSTRUCTION, "ct", "the body's pixels"),
}


def keep(folder: Path, number: int, result: Result) -> None:
    """Samples, truth and what counts, to analyse again without solving again."""
    folder.mkdir(parents=True, exist_ok=True)
    where = result.where
    assert where is not None
    np.savez_compressed(
        folder / f"group-{number:02d}.npz",
        name=result.case.name,
        samples=result.posterior.samples.numpy(),
        truth=result.case.unit_truth.numpy(),
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


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, SolveOptions(samples=SAMPLES_DRAWN), model=None, count="--groups", cases=11)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--case", choices=SCANS, default="noiseless", help="of ct")
    parser.add_argument("--size", type=int, help=f"side of the centre crops; default {CROP}, and whole slices")
    parser.add_argument("--level", type=float, default=LEVEL)
    parser.add_argument("--guaranteed", action="store_true", help="with the correction for few groups; 9 at least")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="the calibration")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an .npz per group: samples, truth, what counts")
    parser.add_argument("--ranks", type=Path, metavar="FILE.png", help="the rank histogram over all groups")
    make, defaults, model, where = TASKS[parser.parse_known_args(argv)[0].task]
    parser.set_defaults(**{name: getattr(defaults, name) for name in ("steps", "rule", "sampler", "sigma_start")})
    chosen = parser.parse_args(argv)
    if min(chosen.samples, chosen.cases) < 2:
        parser.error(f"{chosen.samples} samples, {chosen.cases} groups: wanted 2 of each at least")
    if chosen.ranks and chosen.ranks.suffix.lower() != ".png":
        parser.error(f"--ranks {chosen.ranks} does not end in .png")
    prior, options = load_prior(chosen.model or model, chosen.device), options_of(chosen, defaults)
    report, table, generator = Report(chosen, prior), Table(), torch.Generator().manual_seed(0)
    groups: dict[str, Honesty] = {}
    problems, antithetic = [], False
    for number, result in enumerate(solved(make(chosen, prior), prior, options, baselines=False)):
        rows, name = judged(result), result.case.name
        groups[name] = one = honesty(result, rows[mean_of(options.samples)]["psnr"], generator)
        antithetic = result.posterior.antithetic
        apart = rank_error(one.ranks, ideal_ranks(options.samples, antithetic=antithetic))
        rows[SAMPLES] |= {"crps": one.crps, "rank_error": apart}
        table.add(result, rows)
        problems.append(result.case.task.problem)
        print(
            f"{name:>26}: covered {float((one.scores <= 1).double().mean()):.3f}  CRPS {one.crps:.5f}  "
            f"spread/skill {one.reliability.spread:.3f}  ranks off {apart:.3f}",
            flush=True,
        )
        if chosen.keep:
            keep(chosen.keep, number, result)
    report.add(chosen.task, table)

    interval_scores = {name: one.scores for name, one in groups.items()}
    bound = learn_psnr_bound({name: one.judged for name, one in groups.items()})
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
        problem={number: float(np.mean([one[number] for one in problems])) for number in problems[0]},
        where=where,
        guaranteed=chosen.guaranteed,
        psnr=bound,
    )
    figures, histogram, ideal = ensemble(groups, antithetic=antithetic)
    say_intervals(learned, attainable_interval(torch.zeros(options.samples, 1), LEVEL).level)
    say_psnr(bound)
    print(f"over all of {where}: " + ", ".join(f"{name} {value:.5f}" for name, value in figures.items()))
    if chosen.save:
        learned.save(chosen.save)
    if chosen.ranks:
        shown = Image.fromarray(rank_picture(histogram, ideal))
        write_files({chosen.ranks: lambda file: shown.save(file, "PNG")})
    report.finish(
        before=learned.before,
        after=learned.after,
        factor=learned.factor,
        groups=learned.groups,
        psnr={**bound.as_json(), "held": bound.held, "margin": bound.margin},
        ensemble={**figures, "ranks": histogram.tolist(), "ideal_ranks": ideal.tolist()},
    )


if __name__ == "__main__":
    main()
