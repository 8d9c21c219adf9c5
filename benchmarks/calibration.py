"""What the intervals cover before and after the conformal factor, each picture or patient left out of its own factor.

    python benchmarks/calibration.py inpaint --data photos-val.npz --save inpaint.json
    python benchmarks/calibration.py ct --data ct-val.npz --rule 'moment_matching(tolerance=.2, steps=6)' \\
        --sampler multistep --steps 12 --save ct.json --keep ct-samples/

``inpaint``: half of the pixels missing, centre crops, counted over the missing pixels. ``ct``: a case of benchmarks/ct.py,
a slice per patient, counted inside the body. The file of ``--save`` is what the commands' ``--calibration`` takes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import centre_crops, machine, random_pixels
from ct import CASES, Case, measure, one_slice_per_patient, scan
from torch import Tensor

from invsolve import Posterior, inpaint, load_prior
from invsolve.ct.reconstruction import reconstruct_ct
from invsolve.evaluation.metrics import psnr
from invsolve.forward_models import projector
from invsolve.rules import rule_name
from invsolve.samplers import sampler_name
from invsolve.uncertainty.conformal import LEVEL, Calibration, learn_factor, leave_one_out, scores
from invsolve.uncertainty.intervals import attainable_interval

BODY = 0.25
"""n of the body's edge: -500 HU."""


class Group(NamedTuple):
    """A picture or patient: its samples (n, 1, C, H, W), truth (1, C, H, W), and the values that count (1, 1 or C, H, W)."""

    name: str
    posterior: Posterior
    truth: Tensor
    where: Tensor
    problem: dict[str, float]


def pictures(options: argparse.Namespace, prior: Any) -> Iterator[Group]:
    """Half of the pixels of photographs, solved."""
    size = options.size or 128
    for index, picture in enumerate(centre_crops(options.data, options.groups, size)):
        missing = random_pixels(index, size)
        unit = picture.astype(np.float32) / 255
        posterior = inpaint(
            np.where(missing[..., None], 0, unit).astype(np.float32), missing, prior, samples=options.samples,
            steps=options.steps, rule=options.rule, sampler=options.sampler,
        )  # fmt: skip
        truth, where = torch.from_numpy(unit).permute(2, 0, 1)[None], torch.from_numpy(missing)[None, None]
        yield Group(f"picture {index}", posterior, truth, where, {"missing": 0.5, "noise": 0.0})


def slices(options: argparse.Namespace, prior: Any) -> Iterator[Group]:
    """A slice of each patient, solved."""
    case = CASES[options.case]
    if options.size is not None:
        case = Case(scan(case.geometry.views, options.size), case.photons)
    operator = projector(case.geometry, prior.device)
    problem = {"views": float(case.geometry.views), "noise": 0.0, "photons": case.photons or 0.0}
    for index, one in enumerate(one_slice_per_patient(options.data)[: options.groups]):
        if options.size is not None:
            edge = (one.n.shape[0] - options.size) // 2
            one = one._replace(n=one.n[edge : edge + options.size, edge : edge + options.size])
        truth, data, factor = measure(one, case, index)
        posterior = reconstruct_ct(
            data, case.geometry, prior, samples=options.samples, steps=options.steps, i0=case.photons, scale=factor,
            rule=options.rule, sampler=options.sampler, operator=operator,
        )  # fmt: skip
        known = torch.from_numpy(np.ascontiguousarray(truth))[None, None]
        where = (known > BODY) | (posterior.samples.amax(dim=0) > BODY)
        yield Group(one.patient, posterior, known, where, problem)


TASKS = {"inpaint": (pictures, "the missing pixels"), "ct": (slices, "the body's pixels")}


def quality(group: Group) -> tuple[float, float]:
    """PSNR in dB of one sample and of the mean, over the whole picture."""
    truth, *estimates = (
        image[0].permute(1, 2, 0).squeeze(-1).numpy()
        for image in (group.truth, group.posterior.samples[0], group.posterior.mean)
    )
    one, mean = (psnr(truth, estimate, data_range=1.0) for estimate in estimates)
    return one, mean


def keep(folder: Path, number: int, group: Group) -> None:
    """Samples, truth and what counts, to analyse again without solving again."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"samples": group.posterior.samples, "truth": group.truth, "where": group.where}
    np.savez_compressed(
        folder / f"group-{number:02d}.npz", name=group.name, **{name: array.numpy() for name, array in arrays.items()}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", required=True, help="validation pictures, or slices like ct-val.npz")
    parser.add_argument("--model", help="default: photos or ct")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--case", choices=CASES, default="noiseless", help="of ct")
    parser.add_argument("--size", type=int, help="side of the centre crops; default 128, and whole slices")
    parser.add_argument("--groups", type=int, default=11, help="pictures or patients")
    parser.add_argument("--samples", type=int, default=19)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rule", default="proximal")
    parser.add_argument("--sampler", default="renoising")
    parser.add_argument("--level", type=float, default=LEVEL)
    parser.add_argument("--guaranteed", action="store_true", help="with the correction for few groups; 9 at least")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="the calibration")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an .npz per group: samples, truth, what counts")
    options = parser.parse_args()
    prior = load_prior(options.model or {"inpaint": "photos", "ct": "ct"}[options.task], options.device)
    solve_groups, where = TASKS[options.task]
    print(machine(), {k: str(v) for k, v in vars(options).items()}, prior.card.sha256[:12], flush=True)

    found: dict[str, Tensor] = {}
    qualities, problem, level = [], {}, 0.0
    for number, group in enumerate(solve_groups(options, prior)):
        interval = attainable_interval(group.posterior.samples, LEVEL)
        found[group.name] = scores(interval, group.truth, group.where)
        qualities.append(quality(group))
        problem, level = group.problem, interval.level
        print(
            f"{group.name:>26}: one sample {qualities[-1][0]:.2f} dB  mean {qualities[-1][1]:.2f} dB  "
            f"covered {float((found[group.name] <= 1).double().mean()):.3f}  {group.posterior.network_calls} calls",
            flush=True,
        )
        if options.keep:
            keep(options.keep, number, group)

    lines = leave_one_out(found, options.level, guaranteed=options.guaranteed)
    learned = Calibration(
        task=options.task, prior_sha256=prior.card.sha256, rule=rule_name(options.rule), sampler=sampler_name(options.sampler),
        steps=options.steps, samples=options.samples, level=options.level,
        factor=learn_factor(list(found.values()), options.level, guaranteed=options.guaranteed),
        groups=lines, problem=problem, where=where, guaranteed=options.guaranteed,
    )  # fmt: skip
    for line in lines:
        print(
            f"{line.group:>26}: before {line.before:.3f}  after {line.after:.3f}  factor of the others {line.factor:.3f}"
        )
    one, mean = np.mean(qualities, axis=0)
    print(
        f"interval of {options.samples} samples, {level:.1%} if they were the posterior's, over {where}: {learned.before:.3f} "
        f"before, {learned.after:.3f} after (wanted {options.level:g}); factor {learned.factor:.3f}; PSNR {one:.2f} dB for "
        f"one sample, {mean:.2f} dB for the mean of {options.samples}"
    )
    if options.save:
        learned.save(options.save)
    figures = {"before": learned.before, "after": learned.after, "factor": learned.factor, "groups": lines}
    print(json.dumps({"task": options.task, "rule": learned.rule, **figures, "psnr": [float(one), float(mean)]}))


if __name__ == "__main__":
    main()
