"""What it costs to share the machine: seconds of a network call while other programs compute, for ways to wait.

OpenMP threads that are done with their share of a call wait for the others, by default spinning on their core for a
while. Where another program wants that core, the spinning takes the time of the very thread that is waited for.

python benchmarks/busy.py --busy 0 1 2
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

WAYS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=0": {"GOMP_SPINCOUNT": "0"},
    "KMP_BLOCKTIME=0": {"KMP_BLOCKTIME": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
"""GOMP_SPINCOUNT is read by GNU's OpenMP, KMP_BLOCKTIME by Intel's and LLVM's, OMP_WAIT_POLICY by all of them."""

CALLS = """
import sys, time, torch
from invsolve import load_prior
prior, x = load_prior("photos", "cpu"), torch.rand(1, 3, 256, 256)
prior.denoise(x, 0.5)
started = time.perf_counter()
for _ in range(int(sys.argv[1])):
    prior.denoise(x, 0.5)
print((time.perf_counter() - started) / int(sys.argv[1]))
"""


def seconds_of_a_call(way: dict[str, str], calls: int) -> float:
    """Mean over ``calls`` network calls on a 256 x 256 picture, in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    code = [sys.executable, "-c", CALLS, str(calls)]
    return float(subprocess.run(code, env=clean | way, capture_output=True, text=True, check=True).stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="programs that compute beside ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--calls", type=int, default=10)
    settings = parser.parse_args(arguments)
    for busy in settings.busy:
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            # one way after the other, several times: what the machine does meanwhile meets all of them
            rounds = [
                [seconds_of_a_call(way, settings.calls) for way in WAYS.values()] for _ in range(settings.repeats)
            ]
        finally:
            for other in others:
                other.kill()
                other.wait()
        print(f"\n{busy} other programs on {os.cpu_count()} cores: seconds of a call, median (least to most)")
        for name, found in zip(WAYS, zip(*rounds, strict=True), strict=True):
            print(f"{name:>24} {statistics.median(found):7.3f} ({min(found):.3f} to {max(found):.3f})", flush=True)


if __name__ == "__main__":
    main()
