"""Does a budget hold? Seconds that tasks take over those that they were given, and what these bought.

    python benchmarks/budget.py inpainting colorization --data photos-val.npz --budgets 10 18
    python benchmarks/budget.py ct --data ct-val.npz --budgets 50 80
    python benchmarks/budget.py inpainting colorization ct --commands --budgets 30 60
    python benchmarks/budget.py --levels 4 6 8 12 24 48

The first picture or slice, 128 x 128 (slices 256 x 256, 23 views), by the task's Python function: loading is not counted. With
``--commands`` by the command, from its start to the end of its process, on the pictures of the examples folder (256 x 256, and a
slice of 258 x 258 from 60 views). On a machine that is busy the time is kept by spacing the levels anew: *walked* is how many
there were for each that was planned. ``--levels`` computes nothing: ladders of so many levels, planned at a second each, are walked on a
clock of their own, on which levels take 0.5 to 3 seconds from any of them on, give or take 15 %.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import centre_crops, colorization_case, inpainting_case, random_pixels
from ct import SCANS, ct_case, one_slice_per_patient
from harness import Case, machine
from torch import Tensor

from invsolve.atomic import write_files
from invsolve.errors import UsageError
from invsolve.forward_models import projector
from invsolve.models.score_model import FunctionPrior
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.samplers import SAMPLERS, StepInfo
from invsolve.samplers.noise import SeededNoise
from invsolve.samplers.pace import Pace, paced
from invsolve.samplers.sigmas import karras

MODELS = {"inpainting": "photos", "colorization": "thumbnails", "ct": "ct"}
CROP = 128

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
COMMANDS = {
    "inpainting": ("inpaint", EXAMPLES / "astronaut-damaged.png", "--mask", EXAMPLES / "astronaut-mask.png"),
    "colorization": ("colorize", EXAMPLES / "cat-grey.png"),
    "ct": ("ct", EXAMPLES / "sinogram.npy"),
}

Ran = Callable[[float], dict[str, Any]]
"""A task within so many seconds, and what it bought.

Raises
------
UsageError : they are too few.
"""


def case_of(task: str, data: str, size: int) -> Case:
    """The first measurement of a file."""
    if task == "ct":
        how = SCANS["noiseless"]
        return ct_case(one_slice_per_patient(data)[0], how, 0, projector(how.geometry))
    picture = centre_crops(data, 1, size)[0]
    if task == "colorization":
        return colorization_case("first", picture)
    return inpainting_case("first", picture, random_pixels(0, len(picture)))


def run_function(case: Case, prior: NetworkPrior, budget: float) -> dict[str, Any]:
    """By the task's function."""
    posterior = case.task.solve(prior, budget=budget)
    return {**posterior.settings, "samples": len(posterior.samples)}


def run_command(task: str, model: str | None, budget: float) -> dict[str, Any]:
    """By the command, in a process of its own."""
    chosen = () if model is None else ("--model", model)
    with tempfile.TemporaryDirectory() as folder:
        told = (*COMMANDS[task], *chosen, "--budget", f"{budget}s", "-o", folder, "--device", "cpu", "--json", "-q")
        done = subprocess.run(
            [sys.executable, "-m", "invsolve", *map(str, told)], check=False, capture_output=True, text=True
        )
    if done.returncode:
        raise UsageError(done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


SPEEDS = (0.5, 0.8, 1.0, 1.1, 1.2, 1.33, 1.5, 2.0, 3.0)
"""Seconds of a level on a machine that is not as it was planned for."""

JITTER = 0.15


class Clock:
    """Tells the time that was spent on it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def walked_in(levels: int, speed: float, begins: int, jitter: Sequence[float]) -> float:
    """Seconds over those planned of a ladder whose levels take ``speed`` seconds from ``begins`` on."""
    clock = Clock()
    pace = Pace(float(levels), clock=clock)
    taken = itertools.count()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        number = next(taken)
        clock.now += (speed if number >= begins else 1.0) * jitter[number % len(jitter)]
        return torch.zeros_like(x)

    def note(info: StepInfo) -> None:
        pace.note(info.step / info.steps)

    prior, start = FunctionPrior(denoise, channels=1), torch.zeros(1, 1, 2, 2)
    paced(SAMPLERS["renoising"], prior, start, karras(levels), SeededNoise([0]), pace, callback=note)
    return clock.now / levels


def simulate(levels: int) -> dict[str, float]:
    """Of all speeds, each from the first to the last level on: how late a run may end."""
    jitter = np.random.default_rng(0).uniform(1 - JITTER, 1 + JITTER, 8 * levels).tolist()
    begins = range(0, levels, max(1, levels // 6))
    shares = np.array([walked_in(levels, speed, first, jitter) for speed in SPEEDS for first in begins])
    return {
        "levels": levels,
        "more than 10 % late": float((shares > 1.1).mean()),
        "latest": float(shares.max()),
        "earliest": float(shares.min()),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", choices=[*MODELS, []], metavar="TASK", help=", ".join(MODELS))
    parser.add_argument("--levels", type=int, nargs="+", default=[], help="of ladders on a clock of their own")
    parser.add_argument("--commands", action="store_true", help="whole commands instead of Python functions")
    parser.add_argument("--data", help="needed without --commands")
    parser.add_argument("--model", default=None, help="default: the command's own")
    parser.add_argument("--size", type=int, default=CROP, help="side of the pictures")
    parser.add_argument("--budgets", type=float, nargs="+", default=[20.0, 40.0], help="seconds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(argv)
    if chosen.tasks and not chosen.commands and chosen.data is None:
        parser.error("give --data, or --commands")
    if not chosen.tasks and not chosen.levels:
        parser.error("give a task, or --levels")
    print(machine())
    rows: list[dict[str, Any]] = [simulate(levels) for levels in chosen.levels]
    for row in rows:
        print("  ".join(f"{what} {value:.3g}" for what, value in row.items()))
    for task in chosen.tasks:
        run: Ran = partial(run_command, task, chosen.model)
        if not chosen.commands:
            case, prior = case_of(task, chosen.data, chosen.size), load_prior(chosen.model or MODELS[task], "cpu")
            run = partial(run_function, case, prior)
        for budget in chosen.budgets:
            started = time.perf_counter()
            try:
                found = run(budget)
            except UsageError as error:
                print(f"{task}, {budget:g} s: {error.message}", flush=True)
                continue
            seconds = time.perf_counter() - started
            bought = {name: found[name] for name in ("steps", "samples", "walked")}
            rows.append({"task": task, "budget": budget, "seconds": seconds, "share": seconds / budget, **bought})
            print(
                "  ".join(
                    f"{what} {value:.3g}" if isinstance(value, float) else f"{what} {value}"
                    for what, value in rows[-1].items()
                ),
                flush=True,
            )
    if chosen.json:
        write_files({chosen.json: json.dumps({"machine": machine(), "rows": rows}, indent=1).encode()})


if __name__ == "__main__":
    main()
