"""Eight samples by a command: in one process of two threads, in two processes of one thread with half of them each, in one of one.

    python benchmarks/processes.py inpainting ct
    python benchmarks/processes.py ct --samples 4 --steps 20 --rounds 3

Whole commands on the pictures of the examples folder, from the start of the first process to the end of the last, each way in turn
and compared round by round, as the machine may be busy; seconds that pass, and seconds of the processor. Samples are those of one
run: the second process begins with the seed at which the first ends.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from budget import COMMANDS
from harness import machine

from invsolve.atomic import write_files


class Way(NamedTuple):
    """How the work is shared out."""

    processes: int
    threads: int

    @property
    def name(self) -> str:
        return f"{self.processes} of {self.threads} thread{'s' if self.threads > 1 else ''}"


WAYS = (Way(1, 2), Way(2, 1), Way(1, 1))


class Spent(NamedTuple):
    """Seconds that passed, and of the processor."""

    passed: float
    used: float


def commands(task: str, way: Way, samples: int, steps: int | None, folder: Path) -> list[list[str]]:
    """One for each process, with its share of the samples."""
    share = samples // way.processes
    given = [] if steps is None else ["--steps", str(steps)]
    return [
        [sys.executable, "-m", "invsolve", *map(str, COMMANDS[task]), "--samples", str(share), "--seed", str(number * share),
         "-o", str(folder / str(number)), "--device", "cpu", "-q", *given]
        for number in range(way.processes)
    ]  # fmt: skip


def run(told: Sequence[Sequence[str]], threads: int) -> Spent:
    """All at once, to the end of the last."""
    before, started = os.times(), time.perf_counter()
    running = [subprocess.Popen(one, env=os.environ | {"OMP_NUM_THREADS": str(threads)}) for one in told]
    codes = [process.wait() for process in running]
    passed, after = time.perf_counter() - started, os.times()
    if any(codes):
        raise SystemExit(f"exit codes {codes} of {told[0][:4]}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Spent(passed, used)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=COMMANDS)
    parser.add_argument("--samples", type=int, default=8, help="in all; a multiple of 4 keeps the pairs together")
    parser.add_argument("--steps", type=int, default=None, help="default: the command's own")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(argv)
    if chosen.samples % 4:
        parser.error(f"{chosen.samples} samples: wanted a multiple of 4, as pairs stay in one process")
    print(machine(), flush=True)
    rows = []
    for task in chosen.tasks:
        spent: dict[Way, list[Spent]] = {way: [] for way in WAYS}
        for _ in range(chosen.rounds):
            for way in WAYS:
                with tempfile.TemporaryDirectory() as folder:
                    told = commands(task, way, chosen.samples, chosen.steps, Path(folder))
                    spent[way].append(run(told, way.threads))
        first = spent[WAYS[0]]
        for way, seen in spent.items():
            ratio = Spent(*(float(np.median(np.divide(a, b))) for a, b in zip(zip(*seen), zip(*first), strict=True)))  # noqa: B905
            passed, used = (float(np.median(part)) for part in zip(*seen, strict=True))
            rows.append(
                {"task": task, "way": way.name, "seconds": passed, "processor_seconds": used, **ratio._asdict()}
            )
            print(
                f"{task}, {way.name}: {passed:.1f} s, {used:.1f} of the processor; over the first {ratio.passed:.2f}, "
                f"of the processor {ratio.used:.2f}",
                flush=True,
            )
    if chosen.json:
        write_files({chosen.json: json.dumps({"machine": machine(), "rows": rows}, indent=1).encode()})


if __name__ == "__main__":
    main()
