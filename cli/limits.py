"""What a command may ask of the machine: judged before any work, and refused with the reason."""

from __future__ import annotations

import math
import os
from pathlib import Path

import typer

from invsolve.errors import UsageError

MOST_SAMPLES = 10**6
MOST_STEPS = 10**6

LARGEST_SEED = 2**63 - 1 - MOST_SAMPLES
"""The last sample's seed still has 63 bits."""

UNKNOWN_MEMORY = 2**36
"""Bytes where the system does not say: 64 GiB refuses what is absurd and nothing else."""

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory() -> int:
    """Bytes of memory that this process could have: the machine's, or less in a container."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no POSIX system
        found = UNKNOWN_MEMORY
    for name in CONTAINER_LIMITS:
        try:
            found = min(found, int(Path(name).read_text()))
        except (OSError, ValueError):  # no container, or one without a limit
            continue
    return found


def check_memory(needed: float, what: str, *, hint: str) -> None:
    """Refuse what cannot fit into memory.

    Parameters
    ----------
    needed : bytes, a rough estimate.
    what : what needs them, such as "--count 1000000".

    Raises
    ------
    UsageError : more than the machine has.
    """
    available = machine_memory()
    if needed > available:
        raise UsageError(
            f"{what} needs about {needed / 2**30:,.0f} GiB of memory, this machine has {available / 2**30:,.0f}",
            hint=hint,
        )


def finite(value: float | None) -> float | None:
    """Callback of an option that is a number: "nan" and "inf" are floats to Python, but never what is meant."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value
