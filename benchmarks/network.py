"""A network's call on a CPU against what the machine can do, where the rest goes by operator, and what makes it quicker.

    python benchmarks/network.py
    python benchmarks/network.py --models ct --size 256 --batch 8 --ways "as it is" compiled

*Peak* is the best of a matrix product of the network's own type; *its convolutions* are the network's own, one by one on inputs of
their shapes, which is what a call would take if nothing else had to be done. Ways are timed in turn, processor seconds of one
thread or more, and compared round by round: the machine may be busy. What they change in the result is printed beside them.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import machine
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from invsolve.atomic import write_files
from invsolve.models.allocation import MMAP_THRESHOLD, TRIM_THRESHOLD
from invsolve.models.precision import autocast, full_precision, native_bfloat16
from invsolve.pretrained import NetworkPrior, load_prior

LEVELS = {"photos": (0.5, 0.1), "ct": (0.5,)}
"""Noise levels: of ``photos`` one of the network's own, and one where FFDNet computes."""

PEAK_SIZE = 2048
SHOWN = 8
Run = Callable[[], Tensor]


def seconds_of(run: Callable[[], Any]) -> float:
    """Processor seconds, over all threads."""
    started = time.process_time()
    run()
    return time.process_time() - started


def best(run: Callable[[], Any], repeats: int) -> float:
    run()
    return min(seconds_of(run) for _ in range(repeats))


def peak(dtype: torch.dtype, repeats: int) -> float:
    """FLOP/s of a matrix product."""
    a, b = (torch.rand(PEAK_SIZE, PEAK_SIZE).to(dtype) for _ in range(2))
    return 2 * PEAK_SIZE**3 / best(lambda: a @ b, repeats)


def convolutions(model: nn.Module, run: Run, dtype: torch.dtype, repeats: int) -> float:
    """Seconds of all convolutions of a call, each by itself."""
    shapes: list[tuple[nn.Module, tuple[int, ...]]] = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes.append((layer, tuple(inputs[0].shape)))

    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.enable_grad():  # layer by layer
        run()
    for hook in hooks:
        hook.remove()
    total = 0.0
    for layer, shape in shapes:
        x = torch.rand(shape).to(dtype).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            total += best(lambda layer=layer, x=x: layer(x), repeats)  # type: ignore[misc]
    return total


def by_operator(run: Run) -> dict[str, float]:
    """Shares of a call's time."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    spent = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(spent.values())
    largest = sorted(spent, key=lambda name: -spent[name])[:SHOWN]
    return {name.removeprefix("aten::"): spent[name] / total for name in largest}


def keep_memory(mmap: int, trim: int) -> None:
    """Bytes that glibc keeps, see :mod:`invsolve.models.allocation`; elsewhere nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, mmap)
        mallopt(-1, trim)


@contextmanager
def memory_given_back() -> Iterator[None]:
    """As glibc does it by itself."""
    keep_memory(2**25, 2**26)
    try:
        yield
    finally:
        keep_memory(MMAP_THRESHOLD, TRIM_THRESHOLD)


@contextmanager
def both() -> Iterator[None]:
    with memory_given_back(), torch.enable_grad():
        yield


WAYS: dict[str, Callable[[], Any]] = {
    "as it is": nullcontext,
    "plain": torch.enable_grad,  # nothing in place, nothing fused; no parameter wants a gradient, so none is prepared
    "memory given back": memory_given_back,
    "both": both,
    "float32": full_precision,
    "compiled": nullcontext,
}


def compare(
    prior: NetworkPrior, compiled: NetworkPrior | None, x: Tensor, sigma: float, ways: Sequence[str], rounds: int
) -> dict[str, dict[str, float]]:
    """Least and median seconds of every way, median ratio to the first, and rms difference of the result."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    results: dict[str, Tensor] = {}
    for _ in range(rounds):
        for way in ways:
            model = compiled if way == "compiled" and compiled is not None else prior
            with WAYS[way]():
                model.denoise(x, sigma)  # what the way before left of memory does not count
                started = time.process_time()
                results[way] = model.denoise(x, sigma).detach()
                times[way].append(time.process_time() - started)
    first = ways[0]
    return {
        way: {
            "best": min(times[way]),
            "seconds": float(np.median(times[way])),
            "ratio": float(np.median(np.divide(times[way], times[first]))),
            "difference": float((results[way] - results[first]).square().mean().sqrt()),
        }
        for way in ways
    }


def measure(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    prior = load_prior(name, "cpu")
    compiled = None
    if "compiled" in chosen.ways:
        compiled = load_prior(name, "cpu")
        compiled.network.compile(dynamic=False)
    dtype = torch.bfloat16 if native_bfloat16(torch.device("cpu")) else torch.float32
    top = peak(dtype, 8)
    found: dict[str, Any] = {"type": str(dtype), "peak": top, "levels": {}}
    print(f"{name}, {dtype}: matrix product {top / 1e9:.0f} GFLOP/s")
    x = torch.rand(chosen.batch, prior.channels, chosen.size, chosen.size, generator=torch.Generator().manual_seed(0))
    for sigma in LEVELS.get(name, (0.5,)):

        def run(sigma: float = sigma) -> Tensor:
            return prior.denoise(x, sigma)

        with FlopCounterMode(display=False) as counter, torch.enable_grad():  # layer by layer: it knows no fused ones
            run()
        flops = counter.get_total_flops()
        seconds = best(run, chosen.rounds)
        with autocast(prior.device):
            alone = convolutions(prior.network, run, dtype, 2)
        shares = by_operator(run)
        ways = compare(prior, compiled, x, sigma, chosen.ways, chosen.rounds)
        print(
            f"noise {sigma:g}, {chosen.batch} x {chosen.size} x {chosen.size}: {flops / 1e9:.1f} GFLOP in {seconds:.3f} s, "
            f"{flops / seconds / 1e9:.0f} GFLOP/s, {flops / seconds / top:.0%} of the peak; its convolutions {alone:.3f} s, "
            f"{alone / seconds:.0%} of the call at {flops / alone / top:.0%} of the peak"
        )
        print("  " + ", ".join(f"{operator} {share:.0%}" for operator, share in shares.items()))
        for way, figures in ways.items():
            print(f"  {way:<18} " + "  ".join(f"{what} {value:.4g}" for what, value in figures.items()), flush=True)
        found["levels"][sigma] = {
            "flops": flops, "seconds": seconds, "convolutions": alone, "operators": shares, "ways": ways,
        }  # fmt: skip
    return found


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["photos", "ct"])
    parser.add_argument("--size", type=int, default=256, help="side of the pictures")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=WAYS,
        default=["as it is", "plain", "memory given back", "both", "float32"],
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(argv)
    print(machine(), flush=True)
    found = {"machine": machine(), "models": {name: measure(name, chosen) for name in chosen.models}}
    if chosen.json:
        write_files({chosen.json: json.dumps(found, indent=1).encode()})


if __name__ == "__main__":
    main()
