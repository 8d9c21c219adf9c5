"""deepinv 0.5.0's DPS and DiffPIR on super-resolution, deblurring and denoising with our weights and our operators, tuned,
beside ours and classical methods in one run.

    pip install deepinv==0.5.0 bm3d
    python benchmarks/restoration_peers.py --data photos-val.npz --tune photos-train.npz --only x4
    python benchmarks/restoration_peers.py --data photos-val.npz --tune photos-train.npz --only motion
    python benchmarks/restoration_peers.py --data photos-val.npz --tune photos-train.npz --only "noise 0.1"

Everything gets the same number of network calls per sample (--calls), but for denoising, where ours takes 8. deepinv's weights are
chosen on training pictures by the PSNR of one sample; ours are the defaults. DPS also passes each call's gradient through the
network, which takes about twice as long again. deepinv's samples are independent, ours come in pairs of opposite noise: where
samples are the posterior's, the range of 8 independent ones holds 0.78.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import deepinv
import numpy as np
import torch
from cases import blurred, centre, centre_crops, every_kth, noisy, reduced
from ct_peers import Denoiser, Peer, diffpir, dps, physics_of
from harness import Array, Case, Figures, Report, Result, Rows, arguments, judged, measure, options_of, save_sheet
from restoration import SINGLE, TASKS

from invsolve.evaluation.coverage import reliability
from invsolve.evaluation.metrics import score
from invsolve.forward_models import Blur, Downsample, Identity, LinearOperator, motion_psf
from invsolve.options import AUTO, SUPERRESOLUTION, SolveOptions
from invsolve.pictures import Pixels, channels_last, to_pixels
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.tasks.restoration import ROUNDING, planes

SIZE = 64
START = 1.0
"""First noise level of DPS; on a training picture 10 was no better with any weight that worked at all."""

IN_SHEET = 4
KINDS = ("DPS", "DiffPIR")


class Problem(NamedTuple):
    """A picture as the peers see it."""

    y: torch.Tensor  # (1, ...)
    operator: LinearOperator
    noise: float
    margins: tuple[int, int]  # rows and columns of the scene before the picture's first


def enlarging(truth: Pixels, index: int) -> Problem:
    return Problem(planes(reduced(truth, 4)), Downsample((3, *truth.shape[:2]), 4), ROUNDING, (0, 0))


def deblurring(truth: Pixels, index: int) -> Problem:
    """The scene is a PSF wider than the picture, as our own method takes it."""
    psf = motion_psf(9, 30)
    (rows, columns), (height, width) = truth.shape[:2], psf.shape
    operator = Blur(psf, (3, rows + height - 1, columns + width - 1), "valid")
    before = (height - 1 - height // 2, width - 1 - width // 2)
    return Problem(planes(blurred(truth, psf, 0.01, index)), operator, 0.01, before)


def denoising(truth: Pixels, index: int) -> Problem:
    return Problem(planes(noisy(truth, 0.1, index)), Identity((3, *truth.shape[:2])), 0.1, (0, 0))


PROBLEMS: dict[str, Callable[[Pixels, int], Problem]] = {"x4": enlarging, "motion": deblurring, "noise 0.1": denoising}
"""By the name of the task in benchmarks/restoration.py, which makes the same measurements."""


def candidates(denoiser: Denoiser, calls: int) -> dict[str, Peer]:
    """Every setting of the tuning, by a name that starts with its kind."""
    return {
        **{
            f"DPS norm, weight {w:g}": dps(denoiser, "norm", w, START, calls + 1)
            for w in (10, 30, 100, 300, 1000)
        },
        **{
            f"DPS annealed, weight {w:g}": dps(denoiser, "annealed", w, START, calls + 1)
            for w in (0.3, 0.6, 1, 2, 4)
        },
        **{
            f"DiffPIR, zeta {z:g}, lambda {g:g}": diffpir(denoiser, 0.05, z, g, calls)
            for z in (0.3, 0.6, 0.8, 1.0) for g in (1.0, 7.0, 20.0, 100.0)
        },
    }  # fmt: skip


def samples_of(peer: Peer, problem: Problem, truth: Pixels, count: int) -> torch.Tensor:
    """(n, 1, 3, H, W), what the picture shows of each sample; a run that diverged is grey."""
    norm, (top, left) = problem.operator.norm, problem.margins
    y = (problem.y / norm).expand(count, *problem.y.shape[1:]).contiguous()
    found = peer(y, physics_of(problem.operator, problem.noise / norm)).detach().float()
    found = torch.nan_to_num(found, nan=0.5, posinf=1.0, neginf=0.0)
    return found[:, None, :, top : top + truth.shape[0], left : left + truth.shape[1]]


def tuned(peers: dict[str, Peer], make: Callable[[Pixels, int], Problem], pictures: Sequence[Pixels]) -> dict[str, str]:
    """The best setting of each kind on these pictures, by the mean PSNR of one sample."""
    scores: dict[str, float] = {}
    for name, peer in peers.items():
        found = [samples_of(peer, make(truth, 100 + k), truth, 1) for k, truth in enumerate(pictures)]
        pairs = zip(pictures, found, strict=True)
        scores[name] = float(np.mean([_judge(truth, one[0, 0])["psnr"] for truth, one in pairs]))
        print(f"tuning  {name:<40} {scores[name]:.2f} dB", flush=True)
    of_kind = {kind: [name for name in scores if name.startswith(kind)] for kind in KINDS}
    return {kind: max(names, key=lambda name: scores[name]) for kind, names in of_kind.items() if names}


def _judge(truth: Pixels, picture: torch.Tensor) -> Figures:
    return score(truth, to_pixels(channels_last(picture)))


def rows_of(result: Result, peers: dict[str, Peer], make: Callable[[Pixels, int], Problem], count: int) -> Rows:
    """Our figures, and those of the peers on the same measurement."""
    rows, truth = judged(result), np.asarray(result.case.truth, np.uint8)
    problem = make(truth, int(result.case.name.split()[-1]))
    for kind, peer in peers.items():
        started = time.perf_counter()
        samples = samples_of(peer, problem, truth, count)
        rows[f"{kind}, {count} times"] = {"seconds": time.perf_counter() - started, "of ours": result.seconds}
        result.estimates[f"{kind}, one sample"] = to_pixels(channels_last(samples[0, 0]))
        rows[f"{kind}, one sample"] = _judge(truth, samples[0, 0])
        if count > 1:
            rows[f"{kind}, mean of {count}"] = _judge(truth, samples.mean(dim=0)[0])
            rows[f"{kind}, samples"] = reliability(samples, result.case.unit_truth)._asdict()
    return rows


def strip(result: Result) -> list[Pixels]:
    """Truth, and every estimate."""
    return [np.asarray(picture, np.uint8) for picture in (result.case.truth, *result.estimates.values())]


def cases_of(
    name: str, pictures: Sequence[Pixels], prior: NetworkPrior, options: SolveOptions
) -> list[Callable[[], Case]]:
    """Every picture's measurement, our single estimate beside the classical ones."""

    def one(index: int) -> Case:
        case = TASKS[name][0](f"picture {index}", pictures[index], index)
        classical = case.baselines

        def baselines() -> dict[str, Array]:
            found = case.task.solve(prior, replace(options, samples=1, sampler=AUTO))
            return {**classical(), SINGLE: channels_last(found.samples[0, 0])}

        return replace(case, baselines=baselines)

    return [partial(one, index) for index in range(len(pictures))]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, SUPERRESOLUTION, model="photos", own=("steps", "sampler", "rule", "sigma_start"))
    parser.set_defaults(samples=8)
    parser.add_argument("--tune", required=True, help="training pictures")
    parser.add_argument("--tuned-on", type=int, default=3, metavar="N", help="how many of them, spread over the file")
    parser.add_argument(
        "--calls", type=int, default=SUPERRESOLUTION.steps, help="of the network, for one sample of a peer"
    )
    parser.add_argument("--only", choices=PROBLEMS, nargs="+", default=list(PROBLEMS))
    parser.add_argument("--peers", default="", metavar="TEXT", help="of the settings, those whose name contains this")
    parser.add_argument("--size", type=int, default=SIZE, help="side of the centre crops, a multiple of 4")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first results")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, "cpu")
    known = candidates(Denoiser(prior), chosen.calls)
    known = {name: peer for name, peer in known.items() if chosen.peers in name}
    training = [np.asarray(centre(one, chosen.size), np.uint8) for one in every_kth(chosen.tune, chosen.tuned_on)]
    pictures = centre_crops(chosen.data, chosen.cases, chosen.size)
    report = Report(chosen, prior, deepinv=deepinv.__version__)
    best: dict[str, Any] = {}
    for name in chosen.only:
        options = options_of(chosen, TASKS[name][1])
        best[name] = tuned(known, PROBLEMS[name], training)
        peers = {kind: known[setting] for kind, setting in best[name].items()}
        judge = partial(rows_of, peers=peers, make=PROBLEMS[name], count=chosen.samples)
        cases = (make() for make in cases_of(name, pictures, prior, options))
        report.add(name, measure(cases, prior, options, judge=judge))
        print(f"tuned: {best[name]}")
    report.finish(tuned=best)
    if chosen.show:
        shown = [result for table in report.tables.values() for result in table.shown[:IN_SHEET]]
        save_sheet(chosen.show, map(strip, shown))


if __name__ == "__main__":
    main()
