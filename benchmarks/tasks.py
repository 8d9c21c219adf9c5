"""Which rule and sampler serve a task best at 50, 100 and 200 network calls a sample, with the shipped priors.

    python benchmarks/tasks.py inpainting --data photos-val.npz
    python benchmarks/tasks.py colorization --data photos-val.npz
    python benchmarks/tasks.py ct --data ct-val.npz

Per row: PSNR of one sample and of the mean of n, the share of unmeasured values between the least and the largest sample
(ideal n / (n + 2) in pairs of opposite noise, (n - 1) / (n + 1) with --independent ones), and the samples' spread over
the error of their mean (ideal 1). Unmeasured are the missing pixels, all pixels of a grey picture, and the inside of the
body. Backward passes count as calls.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from common import centre_crops, machine, random_lines, random_pixels
from ct import CASES, measure, one_slice_per_patient
from PIL import Image

from invsolve import Posterior, colorize, inpaint, load_prior
from invsolve.ct.reconstruction import reconstruct_ct
from invsolve.errors import SolveError
from invsolve.evaluation.metrics import psnr
from invsolve.forward_models import projector
from invsolve.rules import MomentMatching, Rule
from invsolve.samplers import ancestral_corrected, renoising

BUDGETS = (50, 100, 200)
CROP = 128


class Method(NamedTuple):
    """A rule, a sampler, and the noise levels that use up each budget."""

    rule: str | Rule
    sampler: Any
    levels: tuple[int, int, int]


METHODS = {
    "proximal, renoising": Method("proximal", "renoising", (50, 100, 200)),
    "proximal, renoising .8": Method("proximal", partial(renoising, eta=0.8), (50, 100, 200)),
    "proximal, renoising .6": Method("proximal", partial(renoising, eta=0.6), (50, 100, 200)),
    "proximal, ancestral": Method("proximal", "ancestral", (50, 100, 200)),
    "proximal, multistep": Method("proximal", "multistep", (50, 100, 200)),
    "proximal, corrected .3": Method("proximal", ancestral_corrected, (25, 50, 100)),
    "proximal, corrected .5": Method("proximal", partial(ancestral_corrected, step=0.5), (25, 50, 100)),
    "moment matching, multistep": Method(
        partial(MomentMatching, tolerance=0.2, steps=6), "multistep", (8, 16, 32)
    ),
}  # fmt: skip


class Problem(NamedTuple):
    """A measurement: how to solve it, what is right, and which values the data left open."""

    solve: Callable[[Method, int], Posterior]  # method, levels
    truth: npt.NDArray[np.floating]  # (C, H, W)
    unmeasured: npt.NDArray[np.bool_]


def inpainting(options: argparse.Namespace) -> Iterator[Problem]:
    """Half of the pixels missing, or lines."""
    prior = load_prior(options.model or "photos", options.device)
    mask = random_lines if options.lines else random_pixels
    edge = slice((256 - CROP) // 2, (256 + CROP) // 2)
    for index, picture in enumerate(centre_crops(options.data, options.pictures)):
        truth, missing = picture[edge, edge] / np.float32(255), mask(index)[edge, edge]
        known = np.where(missing[..., None], 0, truth).astype(np.float32)

        def solve(method: Method, levels: int, known: Any = known, missing: Any = missing) -> Posterior:
            return inpaint(
                known, missing, prior, samples=options.samples, steps=levels, rule=method.rule, sampler=method.sampler,
                antithetic=not options.independent,
            )  # fmt: skip

        yield Problem(solve, truth.transpose(2, 0, 1), np.broadcast_to(missing, (3, *missing.shape)))


def colorization(options: argparse.Namespace) -> Iterator[Problem]:
    """Grey pictures."""
    prior = load_prior(options.model or "photos", options.device)
    for picture in centre_crops(options.data, options.pictures):
        grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32) / 255

        def solve(method: Method, levels: int, grey: Any = grey) -> Posterior:
            return colorize(
                grey, prior, samples=options.samples, steps=levels, rule=method.rule, sampler=method.sampler,
                antithetic=not options.independent,
            )  # fmt: skip

        truth = picture.transpose(2, 0, 1) / 255.0
        yield Problem(solve, truth, np.ones(truth.shape, bool))


def ct(options: argparse.Namespace) -> Iterator[Problem]:
    """23 views, photon noise."""
    prior, case = load_prior(options.model or "ct", options.device), CASES["photons"]
    operator = projector(case.geometry, prior.device)
    for index, one in enumerate(one_slice_per_patient(options.data)[: options.pictures]):
        truth, data, scale = measure(one, case, index)

        def solve(method: Method, levels: int, data: Any = data, scale: float = scale) -> Posterior:
            return reconstruct_ct(
                data, case.geometry, prior, samples=options.samples, steps=levels, i0=case.photons, scale=scale,
                rule=method.rule, sampler=method.sampler, operator=operator, antithetic=not options.independent,
            )  # fmt: skip

        yield Problem(solve, truth[None], truth[None] > 0.25)


TASKS = {"inpainting": inpainting, "colorization": colorization, "ct": ct}


def judge(posterior: Posterior, problem: Problem) -> dict[str, float]:
    """The figures of a row, for one measurement."""
    samples = posterior.samples[:, 0].numpy().astype(np.float64)
    mean, count, where = samples.mean(axis=0), len(samples), problem.unmeasured
    inside = (samples.min(axis=0) <= problem.truth) & (problem.truth <= samples.max(axis=0))
    # The truth's expected distance from the mean: the spread, and what the mean of so few still errs by.
    draws = samples.reshape(count // 2, 2, *mean.shape).mean(axis=1) if posterior.antithetic else samples
    of_mean = draws.var(axis=0, ddof=1) / len(draws)
    variance = (posterior.std[0].numpy().astype(np.float64) ** 2 + of_mean)[where].mean()
    return {
        "one": psnr(problem.truth, samples[0], data_range=1.0),
        "mean": psnr(problem.truth, mean, data_range=1.0),
        "inside": float(inside[where].mean()),
        "spread": float(np.sqrt(variance / ((problem.truth - mean)[where] ** 2).mean())),
        "calls": posterior.network_calls / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--independent", action="store_true", help="samples that are not in pairs of opposite noise")
    parser.add_argument("--lines", action="store_true", help="inpainting of lines instead of random pixels")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--budgets", type=int, nargs="+", choices=BUDGETS, default=BUDGETS)
    options = parser.parse_args()
    if options.samples < 4 or options.samples % 2:
        parser.error(f"{options.samples} samples: wanted an even number from 4 on")
    ideal = (options.samples - options.independent) / (options.samples + 2 - options.independent)
    print(machine(), vars(options), f"ideal inside: {ideal:.3f}")
    problems = list(TASKS[options.task](options))
    for budget in options.budgets:
        for name, method in METHODS.items():
            if name not in options.only:
                continue
            started = time.perf_counter()
            levels = method.levels[BUDGETS.index(budget)]
            try:
                found = [judge(problem.solve(method, levels), problem) for problem in problems]
            except SolveError as error:  # a pair that diverges is a row too
                print(f"{budget:>4} {name:<28} {error}", flush=True)
                continue
            means = {key: float(np.mean([figures[key] for figures in found])) for key in found[0]}
            seconds = time.perf_counter() - started
            print(
                f"{budget:>4} {name:<28} one {means['one']:.2f}  mean {means['mean']:.2f}  inside {means['inside']:.3f}"
                f"  spread {means['spread']:.2f}  calls {means['calls']:.0f}  {seconds / len(found):.1f} s",
                flush=True,
            )
            print(json.dumps({"task": options.task, "budget": budget, "method": name, **means}), flush=True)


if __name__ == "__main__":
    main()
