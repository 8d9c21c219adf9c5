"""torch.compile for a network's call on this machine: what a call gains, what compiling takes, and what a cache saves of that.

    python benchmarks/compiled.py
    python benchmarks/compiled.py --models ct --size 256 --batch 8 --rounds 3

Each network is compiled in a process of its own with an empty cache, then in another with the cache of the first. Calls as they are
and compiled take turns; seconds are those that pass, and of the processor, which tell more on a busy machine. *Pays after*: so many
calls make up for the first one; the command's own number stands beside it. Where there is no compiler of C++ the network stays as
it is, and why is said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import machine
from network import LEVELS

from invsolve.atomic import write_files
from invsolve.errors import first_line
from invsolve.pretrained import load_prior

CALLS = {"photos": 24, "ct": 50, "thumbnails": 200}
"""Of a batch of eight samples by the command's defaults."""

CACHES = ("empty", "filled")

NOTICED = 0.02
"""Share of a call's time below which a gain is none: seconds of the processor are counted in hundredths."""


def spent(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that pass, and seconds of the processor by this process and those that it waited for."""
    before, started = sum(os.times()[:4]), time.perf_counter()
    run()
    return time.perf_counter() - started, sum(os.times()[:4]) - before


@torch.no_grad()
def measure(name: str, size: int, batch: int, rounds: int) -> dict[str, Any]:
    """The first compiled call and, in turn, further ones, for each noise level of :data:`LEVELS`."""
    plain, compiled = load_prior(name, "cpu"), load_prior(name, "cpu")
    compiled.network.compile(dynamic=False)
    x = torch.rand(batch, plain.channels, size, size, generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {}
    for sigma in LEVELS.get(name, (0.5,)):
        plain.denoise(x, sigma)
        try:
            first = spent(lambda sigma=sigma: compiled.denoise(x, sigma))  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - whatever the compilers of this machine raise
            found[str(sigma)] = {"refused": first_line(error)[:200]}
            continue
        times: dict[str, list[tuple[float, float]]] = {"as it is": [], "compiled": []}
        for _ in range(rounds):
            for way, prior in (("as it is", plain), ("compiled", compiled)):
                prior.denoise(x, sigma)  # what the other way left in the caches does not count
                times[way].append(spent(lambda prior=prior, sigma=sigma: prior.denoise(x, sigma)))  # type: ignore[misc]
        taken = {way: np.median(rows, axis=0).tolist() for way, rows in times.items()}
        ratios = np.divide([b for _, b in times["compiled"]], [b for _, b in times["as it is"]])
        error = (compiled.denoise(x, sigma) - plain.denoise(x, sigma)).square().mean().sqrt()
        found[str(sigma)] = {"first": first, **taken, "ratio": float(np.median(ratios)), "difference": float(error)}
    return found


def in_process(name: str, chosen: argparse.Namespace, cache: str) -> dict[str, Any]:
    """:func:`measure` in a process whose compiler keeps what it makes in a folder."""
    told = ["--worker", name, "--size", str(chosen.size), "--batch", str(chosen.batch), "--rounds", str(chosen.rounds)]
    done = subprocess.run(
        [sys.executable, __file__, *told],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def described(name: str, sigma: str, cache: str, found: dict[str, Any]) -> str:
    """A line."""
    head = f"{name}, noise {sigma}, cache {cache}: "
    if "refused" in found:
        return f"{head}not compiled: {found['refused']}"
    plain, compiled = found["as it is"][1], found["compiled"][1]
    gained = plain - compiled
    pays = f"pays after {found['first'][1] / gained:.0f} calls" if gained > NOTICED * plain else "never pays"
    return (
        f"{head}first call {found['first'][0]:.1f} s, {found['first'][1]:.1f} of the processor; a call {plain:.3f} s as it is, "
        f"{compiled:.3f} compiled, ratio {found['ratio']:.2f}; {pays} (the command makes {CALLS.get(name, '?')}); "
        f"difference {found['difference']:.1e}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["photos", "ct"])
    parser.add_argument("--size", type=int, default=256, help="side of the pictures")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--worker", metavar="MODEL", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.worker:
        print(json.dumps(measure(chosen.worker, chosen.size, chosen.batch, chosen.rounds)))
        return
    print(machine(), flush=True)
    rows: dict[str, Any] = {}
    for name in chosen.models:
        with tempfile.TemporaryDirectory() as cache:
            for state in CACHES:
                rows[f"{name}, {state}"] = levels = in_process(name, chosen, cache)
                for sigma, found in levels.items():
                    print(described(name, sigma, state, found), flush=True)
    if chosen.json:
        write_files({chosen.json: json.dumps({"machine": machine(), "rows": rows}, indent=1).encode()})


if __name__ == "__main__":
    main()
