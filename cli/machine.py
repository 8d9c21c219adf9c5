"""What `invsolve doctor` looks at: packages, processor, memory, folders, and how fast the network is here."""

from __future__ import annotations

import math
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invsolve._version import __version__
from invsolve.cache import cache_folder, models_folder
from invsolve.cli.free_memory import available_memory
from invsolve.errors import InvsolveError, first_line

if TYPE_CHECKING:
    import torch

DISTRIBUTION = "invsolve"
TESTING = "test"
"""An extra that no command needs."""

SECONDS, REPEATS = 0.8, 8
"""A speed is the best of as many repeats as fit, at most so many: other programs only ever make one slower."""

SIDE = {"cpu": 128, "cuda": 512}
"""Of the picture that the network is timed on."""

PRODUCT = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices multiplied for comparison."""


def packages() -> dict[str, dict[str, str | None]]:
    """``needed`` packages with their versions, None where one is missing, and those of each extra by its name."""
    from packaging.requirements import Requirement

    found: dict[str, dict[str, str | None]] = {"needed": {}}
    try:
        required = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
        extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:  # run from its source, not installed
        return found
    for one in required:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            found["needed"][one.name] = version_of(one.name)
            continue
        for extra in extras:
            if extra != TESTING and one.marker.evaluate({"extra": extra}):
                found.setdefault(extra, {})[one.name] = version_of(one.name)
    return found


def version_of(name: str) -> str | None:
    """A package's version, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def too_old() -> dict[str, str]:
    """Needed packages that are installed in another version than is wanted, with what is wanted."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        return {}
    needed = [one for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {
        one.name: str(one.specifier)
        for one in needed
        if (version := version_of(one.name)) and not one.specifier.contains(version, prereleases=True)
    }


def cores() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def processor() -> dict[str, Any]:
    """Cores, threads, instructions that torch found, and how busy they are."""
    import torch

    def has(name: str) -> bool | None:
        ask = getattr(torch.cpu, name, None)
        return None if ask is None else bool(ask())

    return {
        "machine": platform.machine(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "avx512_bf16": has("_is_avx512_bf16_supported"),
        "amx": has("_is_amx_tile_supported"),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def accelerator() -> dict[str, Any]:
    """What torch was built for, and the GPUs it sees."""
    import torch

    gpus = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            gpus.append({"name": torch.cuda.get_device_name(number), "free_bytes": free, "bytes": total})
    return {
        "torch_cuda": torch.version.cuda,
        "gpus": gpus,
        "driver": Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None,
    }


def astra() -> dict[str, Any]:
    """Whether ASTRA can be imported, and whether it sees a GPU."""
    try:
        import astra as toolbox

        return {"works": True, "cuda": bool(toolbox.use_cuda())}
    except Exception as error:  # noqa: BLE001 - a library that does not fit the system fails in any way
        return {"works": False, "cuda": False, "error": f"{type(error).__name__}: {first_line(error)}"}


def folder(path: Path) -> dict[str, Any]:
    """A folder's size in bytes, and whether it can be written, or made; files that vanish or cannot be seen count nothing."""
    sizes = []
    for file in path.rglob("*") if path.is_dir() else []:
        with suppress(OSError):
            if file.is_file():
                sizes.append(file.stat().st_size)
    there = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.exists(one))  # noqa: PTH110
    return {
        "path": str(path),
        "exists": path.is_dir(),
        "files": len(sizes),
        "bytes": sum(sizes),
        "writable": there.is_dir() and os.access(there, os.W_OK | os.X_OK),
        "free_bytes": shutil.disk_usage(there).free,
    }


def examine(device: str) -> dict[str, Any]:
    """Everything, as plain data; ``network`` holds an ``error`` where no run would work.

    Parameters
    ----------
    device : as for all commands.
    """
    memory = available_memory()
    return {
        "versions": {"python": platform.python_version(), "invsolve": __version__, "system": platform.platform()},
        "python": sys.executable,
        "packages": packages(),
        "too_old": too_old(),
        "processor": processor(),
        "accelerator": accelerator(),
        "astra": astra(),
        "cache": folder(cache_folder()),
        "models": folder(models_folder()),
        "here": folder(Path.cwd()),
        "memory_free_bytes": None if math.isinf(memory) else int(memory),
        "network": network(device),
    }


def network(device: str) -> dict[str, Any]:
    """The device a run takes, the photographs' prior on it and its speed, or the error and the hint."""
    try:
        from invsolve.pretrained.loading import load_prior, resolve_device

        where = resolve_device(device)
        found: dict[str, Any] = {"device": str(where)}
        prior = load_prior("photos", where)
    except InvsolveError as error:
        return {"error": error.message, "hint": error.hint}
    try:
        return found | speed(prior, where)
    except Exception as error:  # noqa: BLE001 - whatever it is, a run would meet it too
        return found | {
            "error": f"{type(error).__name__}: {first_line(error)}",
            "hint": "reinstall PyTorch for this machine",
        }


def speed(prior: Any, where: torch.device) -> dict[str, Any]:
    """A network call against a matrix product of the same type, both in GFLOP/s."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from invsolve.models.precision import native_bfloat16

    kind = "cuda" if where.type == "cuda" else "cpu"
    side, rows = SIDE[kind], PRODUCT[kind]
    dtype = torch.bfloat16 if native_bfloat16(where) else torch.float32
    x = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0)).to(where)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        clean = prior.denoise(x, 0.1)
    if not bool(torch.isfinite(clean).all()):
        raise ArithmeticError("the network's answer is not finite")
    a, b = (torch.ones((rows, rows), dtype=dtype, device=where) for _ in range(2))
    with torch.no_grad():
        call, product = best_time(lambda: prior.denoise(x, 0.1), where), best_time(lambda: a @ b, where)
    network_speed, product_speed = counter.get_total_flops() / call / 1e9, 2 * rows**3 / product / 1e9
    return {
        "picture": [side, side],
        "call_seconds": call,
        "type": str(dtype).removeprefix("torch."),
        "network_gflops": round(network_speed, 1),
        "matrix_product_gflops": round(product_speed, 1),
        "share": round(network_speed / product_speed, 3),
    }


def best_time(work: Callable[[], Any], where: torch.device) -> float:
    """Seconds that ``work`` takes: the median of the better half, once it is warm."""
    import torch

    def once() -> float:
        started = time.perf_counter()
        work()
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return time.perf_counter() - started

    once()
    times, until = [once()], time.perf_counter() + SECONDS
    while len(times) < REPEATS and time.perf_counter() < until:
        times.append(once())
    return statistics.median(sorted(times)[: (len(times) + 1) // 2])
