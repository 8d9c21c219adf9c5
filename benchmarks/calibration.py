"""What the intervals cover before and after the conformal factor, each picture or patient left out of its own factor.

    python benchmarks/calibration.py inpaint --data photos-val.npz --save inpaint.json
    python benchmarks/calibration.py ct --data ct-val.npz --rule 'moment_matching(tolerance=.2, steps=6)' \\
        --sampler multistep --steps 12 --save ct.json --keep ct-samples/

``inpaint``: half of the pixels missing, centre crops, counted over the missing pixels. ``ct``: a scan of benchmarks/ct.py,
a slice per patient, counted inside the body. The file of ``--save`` is what the commands' ``--calibration`` takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from cases import centre_crops, inpainting_case, random_pixels
from ct import SCANS, ct_case, one_slice_per_patient, scan_of
from harness import Case, Report, Result, Table, arguments, judged, options_of, solved

from invsolve.forward_models import projector
from invsolve.options import SolveOptions
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.rules import rule_name
from invsolve.samplers import sampler_name
from invsolve.uncertainty.conformal import LEVEL, Calibration, learn_factor, leave_one_out, scores
from invsolve.uncertainty.intervals import attainable_interval

SOLVING = SolveOptions(samples=19)
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


TASKS = {"inpaint": (pictures, "photos", "the missing pixels"), "ct": (slices, "ct", "the body's pixels")}


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


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, SOLVING, model=None, count="--groups", cases=11)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--case", choices=SCANS, default="noiseless", help="of ct")
    parser.add_argument("--size", type=int, help=f"side of the centre crops; default {CROP}, and whole slices")
    parser.add_argument("--level", type=float, default=LEVEL)
    parser.add_argument("--guaranteed", action="store_true", help="with the correction for few groups; 9 at least")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="the calibration")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an .npz per group: samples, truth, what counts")
    chosen = parser.parse_args(argv)
    if min(chosen.samples, chosen.cases) < 2:
        parser.error(f"{chosen.samples} samples, {chosen.cases} groups: wanted 2 of each at least")
    make, model, where = TASKS[chosen.task]
    prior, options = load_prior(chosen.model or model, chosen.device), options_of(chosen, SOLVING)
    report, table = Report(chosen, prior), Table()
    groups, problems, level = {}, [], 0.0
    for number, result in enumerate(solved(make(chosen, prior), prior, options, baselines=False)):
        table.add(result, judged(result))
        interval = attainable_interval(result.posterior.samples, LEVEL)
        name, level = result.case.name, interval.level
        problems.append(result.case.task.problem)
        groups[name] = scores(interval, result.case.unit_truth, result.where)
        print(f"{name:>26}: covered {float((groups[name] <= 1).double().mean()):.3f}", flush=True)
        if chosen.keep:
            keep(chosen.keep, number, result)
    report.add(chosen.task, table)

    learned = Calibration(
        task=chosen.task,
        prior_sha256=prior.card.sha256,
        rule=rule_name(options.rule),
        sampler=sampler_name(options.sampler),
        steps=options.steps,
        samples=options.samples,
        level=chosen.level,
        factor=learn_factor(list(groups.values()), chosen.level, guaranteed=chosen.guaranteed),
        groups=leave_one_out(groups, chosen.level, guaranteed=chosen.guaranteed),
        problem={number: float(np.mean([one[number] for one in problems])) for number in problems[0]},
        where=where,
        guaranteed=chosen.guaranteed,
    )
    for one in learned.groups:
        print(f"{one.group:>26}: before {one.before:.3f}  after {one.after:.3f}  factor of the others {one.factor:.3f}")
    print(
        f"interval of {options.samples} samples, {level:.1%} if they were the posterior's, over {where}: {learned.before:.3f} "
        f"before, {learned.after:.3f} after (wanted {chosen.level:g}); factor {learned.factor:.3f}"
    )
    if chosen.save:
        learned.save(chosen.save)
    report.finish(before=learned.before, after=learned.after, factor=learned.factor, groups=learned.groups)


if __name__ == "__main__":
    main()
