"""invsolve and deepinv with the same weights, operator and data, classical methods beside them, in one run, turn by turn.

    pip install deepinv==0.5.0
    python benchmarks/peers.py inpainting --data photos-val.npz --tune photos-train.npz --output peers/
    python benchmarks/peers.py ct --data ct-val.npz --tune ct-train.npz --output peers/

Half of the pixels of 128 x 128 pictures missing, or slices of 256 x 256 from 23 views. Every method is run with several numbers of
network calls on every case, one method after the other, so that a busy machine is busy for all. deepinv's constants are tuned
on a training case, ours are the commands' defaults; its estimates get the known pixels back, which ours keep. A backward pass
counts as a call. ``--output`` gets ``peers-TASK.md``, ``.json`` and charts: PSNR against calls and against seconds, and what our
cost grows with: pixels, views, samples, batch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import deepinv
import numpy as np
import torch
from cases import centre_crops, inpainting_case, random_pixels
from charts import Points, chart
from ct import Scan, Slice, ct_case, one_slice_per_patient, scan, simulate
from ct_peers import Denoiser, physics_of
from deepinv.optim import L2
from deepinv.physics import GaussianNoise, Inpainting
from deepinv.sampling import DDRM, DiffPIR, DPSDataFidelity, PosteriorDiffusion, VarianceExplodingDiffusion
from deepinv.sampling.sde_solver import AncestralSolver
from harness import Array, Case, machine
from torch import Tensor

from invsolve.atomic import write_files
from invsolve.forward_models import projector
from invsolve.forward_models.projector import AstraProjector
from invsolve.options import EXACT_RECONSTRUCTION, INPAINTING, SolveOptions
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.samplers.sigmas import karras

Solve = Callable[["Problem"], Array]
"""An estimate (H, W[, C]) in the task's units."""

TUNING_CALLS = 50
CALLS = (10, 20, 50, 100)
OURS = {"inpainting": ((6, 1), (12, 1), (24, 1), (6, 4), (12, 4), (12, 8), (24, 8)),
        "ct": ((5, 1), (10, 1), (20, 1), (50, 1), (10, 4), (20, 4), (50, 8))}  # fmt: skip
"""Noise levels and samples."""

CROP, TUNED_ON = 128, 3
SIRT_ITERATIONS = 150


class Problem(NamedTuple):
    """A case as deepinv sees it."""

    case: Case
    y: Tensor
    physics: Callable[[float], Any]  # from the noise that a method is told of
    shape: tuple[int, ...]  # (1, C, H, W)
    finish: Callable[[Array], Array]  # what is judged of an estimate (C, H, W)
    classical: dict[str, Callable[[], Array]]


class Method(NamedTuple):
    """A way of solving with so many calls."""

    name: str
    calls: int
    solve: Solve


class Constants(NamedTuple):
    """What is tuned of deepinv's methods."""

    sigma: float  # the noise that it is told of
    first: float  # zeta, eta, or a weight
    second: float = 0.0


def picture_problem(truth: Array, index: int) -> Problem:
    """Half of the pixels missing."""
    missing = random_pixels(index, len(truth))
    known = torch.from_numpy(~missing)[None].float()
    y = known * torch.from_numpy(truth / np.float32(255)).permute(2, 0, 1)[None]
    shape = tuple(y.shape)
    case = inpainting_case(f"picture {index}", truth, missing)

    def physics(sigma: float) -> Any:
        return Inpainting(img_size=shape[1:], mask=known.expand(shape[1:]).clone(), noise_model=GaussianNoise(sigma))

    def finish(x: Array) -> Array:
        return np.where(missing[..., None], x.transpose(1, 2, 0), truth / np.float32(255))

    return Problem(
        case, y, physics, shape, finish, {"scikit-image, biharmonic": lambda: case.task.baselines()["biharmonic"]}
    )


def slice_problem(one: Slice, how: Scan, index: int) -> Problem:
    """A slice from few views, without noise."""
    operator = projector(how.geometry)
    truth, data, _ = simulate(one, how, index)
    y = torch.from_numpy(data)[None] / operator.norm
    case = ct_case(one, how, index, operator)
    astra = AstraProjector(how.geometry)  # ASTRA's own operator goes with it, so it is kept

    def iterated(method: str, count: int) -> Array:
        pixel = how.geometry.pixel_size
        found = astra._projector.reconstruct(method, data.ravel() * pixel, iterations=count)
        return np.asarray(found).reshape(truth.shape)

    classical = {
        "ASTRA, SIRT": partial(iterated, "SIRT", SIRT_ITERATIONS),
        "ASTRA, CGLS": partial(iterated, "CGLS", 20),
        "invsolve, TV": lambda: case.baselines()["TV"],
    }
    return Problem(
        case,
        y,
        lambda sigma: physics_of(operator, sigma / operator.norm),
        (1, 1, *truth.shape),
        lambda x: x[0],
        classical,
    )


# -- deepinv's methods ----------------------------------------------------------------------------------------------------------


def diffpir(denoiser: Denoiser, calls: int, chosen: Constants, problem: Problem) -> Array:
    torch.manual_seed(1)  # it draws from the global generator
    physics = problem.physics(chosen.sigma)
    solver = DiffPIR(denoiser, L2(), sigma=chosen.sigma, max_iter=calls, zeta=chosen.first, lambda_=chosen.second)
    with torch.no_grad():
        return problem.finish(solver(problem.y, physics)[0].float().numpy())


def ddrm(denoiser: Denoiser, calls: int, chosen: Constants, problem: Problem) -> Array:
    torch.manual_seed(1)
    levels = karras(calls - 1, 0.005, 1.0).numpy()
    solver = DDRM(denoiser, sigmas=levels, eta=chosen.first, etab=chosen.second)
    with torch.no_grad():
        return problem.finish(solver(problem.y.clone(), problem.physics(chosen.sigma))[0].float().numpy())


def dps(denoiser: Denoiser, calls: int, chosen: Constants, problem: Problem) -> Array:
    sampler = PosteriorDiffusion(
        data_fidelity=DPSDataFidelity(denoiser=denoiser, weight=chosen.first, guidance="annealed", clip=None),
        denoiser=denoiser,
        sde=VarianceExplodingDiffusion(sigma_max=2.0, alpha=1.0),
        solver=AncestralSolver(t_start=1.0, t_end=0.0, num_steps=calls // 2, rng=torch.Generator().manual_seed(1)),
        dtype=torch.float32,
    )
    estimate = sampler(problem.y, problem.physics(chosen.sigma), x_init=problem.shape, seed=1)
    return problem.finish(estimate.detach()[0].float().numpy())


GRIDS: dict[str, dict[str, list[Constants]]] = {
    "inpainting": {
        "DiffPIR": [Constants(s, z, g) for s, z, g in itertools.product((0.005, 0.02), (0.3, 1.0), (1.0, 7.0))],
        "DDRM": [Constants(0.005, eta, 1.0) for eta in (0.5, 0.85, 1.0)],
        "DPS": [Constants(0.01, weight) for weight in (1.0, 3.0, 10.0)],
    },
    "ct": {
        "DiffPIR": [
            Constants(s, z, g)
            for s, z, g in (
                (0.02, 1.0, 7.0),
                (0.02, 0.3, 7.0),
                (0.02, 1.0, 1.0),
                (0.02, 1.0, 0.2),
                (0.005, 1.0, 1.0),
                (0.1, 1.0, 7.0),
            )
        ],
        "DPS": [Constants(0.02, weight) for weight in (0.3, 1.0, 3.0, 10.0)],
    },
}
KINDS: dict[str, Callable[[Denoiser, int, Constants, Problem], Array]] = {"DiffPIR": diffpir, "DDRM": ddrm, "DPS": dps}


def ours(prior: NetworkPrior, options: SolveOptions, levels: int, samples: int, problem: Problem) -> Array:
    """Our mean, of one sample or several."""
    posterior = problem.case.task.solve(prior, options, steps=levels, samples=samples)
    mean = posterior.mean[0].numpy()
    return mean[0] if len(mean) == 1 else mean.transpose(1, 2, 0)


class Point(NamedTuple):
    """A method's figures over the cases."""

    name: str
    calls: int
    psnr: float
    ssim: float
    seconds: float


def judge(problem: Problem, estimate: Array) -> dict[str, float]:
    case = problem.case
    return case.judge(case.truth, case.stored(np.nan_to_num(estimate).astype(np.float32)))


def tuned(denoiser: Denoiser, grids: dict[str, list[Constants]], problem: Problem, calls: int) -> dict[str, Constants]:
    """The constants of each kind that serve the training case best."""
    best = {}
    for kind, grid in grids.items():
        scores = {}
        for constants in grid:
            try:
                scores[constants] = judge(problem, KINDS[kind](denoiser, calls, constants, problem))["psnr"]
            except RuntimeError as error:
                print(f"{kind}, {constants}: {error}")
                scores[constants] = -np.inf
        best[kind] = max(scores, key=lambda constants: scores[constants])
        print(f"tuned {kind}: {best[kind]}, {scores[best[kind]]:.2f} dB", flush=True)
    return best


def measure(problems: Sequence[Problem], methods: Sequence[Method]) -> list[Point]:
    """Every method on every case, in turn; means of PSNR and SSIM, medians of the seconds."""
    figures: dict[tuple[str, int], list[dict[str, float]]] = {}
    for problem in problems:
        classical = [Method(name, 0, lambda _, run=run: run()) for name, run in problem.classical.items()]  # type: ignore[misc]
        for method in [*classical, *methods]:
            started = time.perf_counter()
            estimate = method.solve(problem)
            seconds = time.perf_counter() - started
            figures.setdefault((method.name, method.calls), []).append({**judge(problem, estimate), "seconds": seconds})
        print(f"{problem.case.name} done", flush=True)
    return [
        Point(
            name, calls, *(float(np.mean([f[what] for f in found])) for what in ("psnr", "ssim")),
            float(np.median([f["seconds"] for f in found])),
        )
        for (name, calls), found in figures.items()
    ]  # fmt: skip


NEARLY = 0.05
"""dB below its best at which a peer is as good, and may be quicker."""


def verdict(points: Sequence[Point]) -> dict[str, float]:
    """How much quicker than deepinv's best we reach its PSNR, and how much better we are in its time."""
    peers = [p for p in points if p.name.startswith("deepinv")]
    own = [p for p in points if p.name.startswith("invsolve") and p.calls]
    best = max(p.psnr for p in peers)
    peer = min((p for p in peers if p.psnr >= best - NEARLY), key=lambda p: p.seconds)
    reaching = [p.seconds for p in own if p.psnr >= peer.psnr]
    within = [p.psnr for p in own if p.seconds <= peer.seconds]
    return {
        "deepinv_psnr": peer.psnr,
        "deepinv_seconds": peer.seconds,
        "times_faster_at_its_psnr": peer.seconds / min(reaching) if reaching else float("nan"),
        "db_more_in_its_time": max(within) - peer.psnr if within else float("nan"),
    }


def seconds_of(problem: Problem, prior: NetworkPrior, options: SolveOptions, rounds: int) -> float:
    """Median seconds of three noise levels."""
    found = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        problem.case.task.solve(prior, options, steps=3)
        found.append(time.perf_counter() - started)
    return float(np.median(found[1:]))


def costs(
    task: str, prior: NetworkPrior, options: SolveOptions, sized: Callable[[int], Problem], viewed: Callable[[int], Problem] | None,
    size: int, rounds: int,
) -> dict[str, Points]:  # fmt: skip
    """Seconds of three levels against pixels, in squares that lie on the axis of the others, views, samples and batch."""
    one = replace(options, samples=1)
    sides = [side for side in (64, 128, 192, 256) if side <= 2 * size]
    found: dict[str, Points] = {
        "squares of 64 x 64, 1 sample": [
            ((side / 64) ** 2, seconds_of(sized(side), prior, one, rounds)) for side in sides
        ],
        "samples, in batches of 8": [
            (n, seconds_of(sized(size), prior, replace(options, samples=n), rounds)) for n in (1, 2, 4, 8)
        ],
        "batch, 8 samples": [
            (n, seconds_of(sized(size), prior, replace(options, samples=8, batch=n), rounds)) for n in (1, 2, 4, 8)
        ],
    }
    if viewed is not None:
        found["views, 1 sample"] = [(n, seconds_of(viewed(n), prior, one, rounds)) for n in (10, 23, 45, 90)]
    return found


def curves(points: Iterable[Point], across: str) -> dict[str, Points]:
    """PSNR against calls or seconds, by method."""
    found: dict[str, Any] = {}
    for point in points:
        if point.calls or across == "seconds":
            found.setdefault(point.name, []).append((getattr(point, across), point.psnr))
    return found


def markdown(task: str, points: Sequence[Point], found: dict[str, float], scaling: dict[str, Points]) -> str:
    rows = [f"| {p.name} | {p.calls or ''} | {p.psnr:.2f} | {p.ssim:.3f} | {p.seconds:.2f} |" for p in points]
    lines = [f"# {task}", "", "| | calls | PSNR | SSIM | seconds |", "| --- | --- | --- | --- | --- |", *rows, ""]
    lines.append(
        f"deepinv's best, {found['deepinv_psnr']:.2f} dB in {found['deepinv_seconds']:.2f} s: reached "
        f"{found['times_faster_at_its_psnr']:.1f} times faster; in its time {found['db_more_in_its_time']:+.2f} dB."
    )
    for name, values in scaling.items():
        lines += ["", f"Seconds of three levels against {name}: " + ", ".join(f"{x:g}: {y:.3f}" for x, y in values)]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=OURS)
    parser.add_argument("--data", required=True, help="what no prior was trained on")
    parser.add_argument("--tune", required=True, help="what deepinv's constants are tuned on")
    parser.add_argument("--model", default=None)
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--size", type=int, default=None, help=f"side; default {CROP} of pictures, 256 of slices")
    parser.add_argument("--calls", type=int, nargs="+", default=CALLS, help="of deepinv's methods")
    parser.add_argument("--ours", nargs="+", default=None, metavar="LEVELSxSAMPLES", help="such as 10x1 20x4")
    parser.add_argument("--rounds", type=int, default=3, help="of timing what the cost grows with; 0 leaves it out")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    chosen = parser.parse_args(argv)
    photos = chosen.task == "inpainting"
    prior = load_prior(chosen.model or ("photos" if photos else "ct"), "cpu")
    denoiser, options = Denoiser(prior), INPAINTING if photos else EXACT_RECONSTRUCTION
    size = chosen.size or (CROP if photos else 256)

    def problems(data: str, count: int, side: int, views: int = 23) -> list[Problem]:
        if photos:
            return [picture_problem(p, index) for index, p in enumerate(centre_crops(data, count, side))]
        how = Scan(scan(views, side), None)
        slices = one_slice_per_patient(data, None if side == 256 else side)[:count]
        return [slice_problem(one, how, index) for index, one in enumerate(slices)]

    print(machine(), {"deepinv": deepinv.__version__}, vars(chosen), prior.card.sha256[:12], flush=True)
    trained = problems(chosen.tune, TUNED_ON + 1, size)[-1]
    best = tuned(denoiser, GRIDS[chosen.task], trained, min(TUNING_CALLS, max(chosen.calls)))
    methods = [
        Method(f"deepinv, {kind}", calls, partial(KINDS[kind], denoiser, calls, constants))
        for kind, constants in best.items()
        for calls in chosen.calls
    ]
    sizes = [tuple(map(int, one.split("x"))) for one in chosen.ours] if chosen.ours else OURS[chosen.task]
    methods += [
        Method(
            f"invsolve, mean of {n}" if n > 1 else "invsolve, one sample",
            levels * n,
            partial(ours, prior, options, levels, n),
        )
        for levels, n in sizes
    ]
    points = measure(problems(chosen.data, chosen.cases, size), methods)
    found = verdict(points)
    viewed = None if photos else lambda views: problems(chosen.data, 1, size, views)[0]
    scaling: dict[str, Points] = {}
    if chosen.rounds:
        scaling = costs(
            chosen.task, prior, options, lambda side: problems(chosen.data, 1, side)[0], viewed, size, chosen.rounds
        )
    text = markdown(chosen.task, points, found, scaling)
    print(text)
    stem = chosen.output / f"peers-{chosen.task}"
    record = {
        "machine": machine(), "deepinv": deepinv.__version__, "prior": prior.card.sha256[:12],
        "constants": {kind: constants._asdict() for kind, constants in best.items()},
        "points": [point._asdict() for point in points], "verdict": found, "costs": scaling,
    }  # fmt: skip
    chosen.output.mkdir(parents=True, exist_ok=True)
    write_files(
        {stem.with_suffix(".md"): text.encode(), stem.with_suffix(".json"): json.dumps(record, indent=1).encode()}
    )
    for across in ("calls", "seconds"):
        title = f"{chosen.task}: PSNR in dB against {across if across == 'seconds' else 'network calls'}"
        chart(stem.with_name(f"{stem.name}-{across}.png"), title, across, "dB", curves(points, across))
    if scaling:
        title = f"{chosen.task}: seconds of three levels"
        chart(stem.with_name(f"{stem.name}-cost.png"), title, "number", "s", scaling, log_up=True)


if __name__ == "__main__":
    main()
