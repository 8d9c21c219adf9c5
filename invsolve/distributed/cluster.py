"""Where the work is done: worker processes of this machine, or a cluster that runs already."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from invsolve.distributed.extra import require
from invsolve.errors import ModelError, UsageError, first_line

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 20.0
"""Seconds in which a scheduler answers, or is not there."""

STARTING = "180s"
"""For a process of this machine to answer: where other programs want the cores, loading PyTorch takes a while."""


@contextmanager
def connect(address: str, *, patience: float = PATIENCE) -> Iterator[Client]:
    """A client of the scheduler at ``address``, such as ``tcp://host:8786``.

    Raises
    ------
    ModelError : none answers within ``patience`` seconds, or Dask is not installed.
    UsageError : no such address.
    """
    require("dask", "distributed")
    from distributed import Client

    try:
        client = Client(address, timeout=patience, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise ModelError(
            f"no scheduler at {address}: {first_line(error)}", hint="start one with: dask scheduler --port 8786"
        ) from None
    except ValueError as error:
        raise UsageError(f"--scheduler {address}: {first_line(error)}", hint="wanted tcp://HOST:PORT") from None
    with client:
        yield client


@contextmanager
def local_workers(count: int, *, device: str = "auto") -> Iterator[Client]:
    """A client of a cluster of ``count`` worker processes on this machine, ended with the block.

    Each process works at one thing at a time, with its share of the cores; where there are GPUs and ``device`` is not
    ``cpu``, each sees one of them, in turn. A process that dies is started again.

    Raises
    ------
    UsageError : not at least one.
    ModelError : Dask is not installed.
    """
    if count < 1:
        raise UsageError(f"{count} workers", hint="wanted at least 1")
    require("dask", "distributed")
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    from invsolve.distributed.resident import CORES

    threads = max(1, usable_cores() // count)
    workers = {
        number: {
            "cls": Nanny,
            "options": {"nthreads": 1, "resources": {CORES: threads}, "memory_limit": 0, "env": environment},
        }
        for number, environment in enumerate(worker_environments(count, device))
    }
    at = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    # Dask gives its processes one OpenMP thread each; what OpenMP finds when it is loaded, it keeps.
    openmp = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    config: dict[str, Any] = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in openmp.items()}
    config |= {f"distributed.comm.timeouts.{name}": STARTING for name in ("connect", "tcp")}
    with dask.config.set(config), _deaf_to_ctrl_c():
        cluster = SpecCluster(workers, {"cls": Scheduler, "options": at}, silence_logs=False)
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_environments(count: int, device: str) -> list[dict[str, str]]:
    """What each of ``count`` processes finds in its environment: one GPU each where there are any."""
    gpus = visible_gpus() if device in ("auto", "cuda") else []
    if not gpus:
        return [{} for _ in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(count)]


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to for each of the GPUs that this process sees."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in (part.strip() for part in given.split(",")) if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started in the block take no notice of Ctrl-C: whoever started them ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
