"""``--dry-run``: what a run would read, compute and write, after all checks that need no solving; and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from invsolve.cli.console import say
from invsolve.cli.results import json_text
from invsolve.cli.streams import shown
from invsolve.options import SolveOptions

if TYPE_CHECKING:
    from invsolve.cli.common import Common
    from invsolve.pretrained.network_prior import NetworkPrior
    from invsolve.tasks.task import Task


def files_among(values: Iterable[Any]) -> list[Path]:
    """Those values of options that name a file."""
    return [Path(value) for value in values if isinstance(value, str | Path) and Path(value).is_file()]


class Estimate(NamedTuple):
    """What a run would take."""

    levels: int
    calls: int  # of the network, on all parts of a picture and at all resolutions
    seconds: float


def estimate(task: Task, prior: NetworkPrior, wanted: SolveOptions) -> Estimate:
    """From the time of one small network call."""
    import torch

    from invsolve.samplers import expected_calls, find_sampler
    from invsolve.solver import task_ladder

    side = prior.size or 64
    x = torch.full((1, prior.channels, side, side), 0.5, device=prior.device)
    prior.denoise(x, 0.1)
    started = time.perf_counter()
    prior.denoise(x, 0.1)
    per_pixel = (time.perf_counter() - started) / side**2
    levels = len(task_ladder(wanted, prior.sigma_min, wanted.sigma_start or 1.0, prior.channels * round(task.work))) - 1
    sampler = find_sampler(wanted.sampler)
    calls = expected_calls(sampler, levels) * wanted.samples
    # A prior of one size sees all in one picture, or in squares that are not found yet.
    walks = task.walks_of(wanted) if prior.size is None else 1
    return Estimate(levels, round(calls * walks), per_pixel * task.work_of(wanted) * calls)


LONG = 60.0
"""Seconds of expected work from which on they are announced."""


def announce_time(task: Task, prior: NetworkPrior, wanted: SolveOptions) -> None:
    """Say how long it will take, where that is long, and what would be quicker."""
    levels, calls, seconds = estimate(task, prior, wanted)
    if seconds > LONG:
        quicker = ["--samples 1"] * (wanted.samples > 1) + [f"--steps {levels // 2}"] * (levels == wanted.steps > 20)
        hint = f"; quicker: {' or '.join(quicker)}" if quicker else ""
        say(f"this will take about {duration(seconds)} ({calls} network calls){hint}; Ctrl-C changes nothing")


def duration(seconds: float) -> str:
    """``90`` -> ``2 min``; ``9000`` -> ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan_text(
    name: str, about: str, reads: Iterable[Path], writes: Iterable[Path], common: Common, task: Task | None, prior: Any
) -> str:
    """The plan for stdout, in lines or as JSON.

    Parameters
    ----------
    name, about : the command, and what it found in its input.
    reads, writes : files.
    task, prior : None for a method without a network.
    """
    plan: dict[str, Any] = {"dry_run": True, "command": name, "about": about}
    plan |= {"reads": [shown(path) for path in reads], "writes": [shown(path) for path in writes]}
    if task is not None:
        plan |= solving(task, prior, common)
    return (json_text(plan) if common.as_json else "\n".join(lines_of(plan))) + "\n"


def solving(task: Task, prior: NetworkPrior, common: Common) -> dict[str, Any]:
    """How it would be solved, and the estimate.

    Raises
    ------
    UsageError, InputError : no such rule or sampler, or no calibration that fits.
    """
    from invsolve.pretrained.calibrations import find_scaling
    from invsolve.rules import find_rule

    wanted = common.solve_options(task)
    if isinstance(wanted.rule, str):
        find_rule(wanted.rule)
    find_scaling(common.calibration, task.name, task.problem, prior.card.sha256, wanted)
    found = estimate(task, prior, wanted)
    return {
        "model": prior.card.name, "device": str(prior.device), "rule": str(wanted.rule), "sampler": str(wanted.sampler),
        "steps": found.levels, "samples": wanted.samples, "seed": wanted.seed, "network_calls": found.calls,
        "seconds": round(found.seconds, 1),
    }  # fmt: skip


def lines_of(plan: Mapping[str, Any]) -> list[str]:
    """The plan to read."""
    lines = [f"{plan['command']}: {plan['about']}", f"would read {', '.join(plan['reads'])}"]
    if "model" in plan:
        many = f"{plan['samples']} sample{'s' if plan['samples'] > 1 else ''} from seed {plan['seed']} on"
        lines.append(
            f"would solve with {plan['model']} on {plan['device']}: rule {plan['rule']}, sampler {plan['sampler']}, "
            f"{plan['steps']} noise levels, {many}"
        )
        took = f"{seconds:g} s" if (seconds := plan["seconds"]) < LONG else duration(seconds)
        lines.append(f"about {plan['network_calls']} network calls, {took} on this machine as it is now")
    return [*lines, f"would write {', '.join(plan['writes'])}", "nothing was written"]
