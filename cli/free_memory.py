"""How much memory can be had: what the machine has free, and what a container, a scheduler or ``ulimit`` leaves of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),  # version 2, all controllers in one tree
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where Linux keeps control groups, by version: folder, limit, what is used, and what of that is files that can go at once."""


def available_memory(root: Path = Path("/")) -> float:
    """Bytes that can be had without swapping, as far as the system says; infinite where it does not.

    ``root`` : where ``proc`` and ``sys`` are.
    """
    found = [free_of_machine(root), left_of_address_space(root), *left_of_groups(root)]
    return max(0.0, min(found))


def free_of_machine(root: Path) -> float:
    """What the kernel says; else all that there is."""
    with suppress(OSError, ValueError, KeyError, IndexError):
        return kilobytes(root / "proc/meminfo", "MemAvailable")
    with suppress(AttributeError, OSError, ValueError):
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return math.inf


def left_of_address_space(root: Path) -> float:
    """Of ``ulimit -v``, by which schedulers of clusters limit a job as well."""
    try:
        import resource  # not on every system

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return math.inf
        return limit - kilobytes(root / "proc/self/status", "VmSize")
    except (ImportError, OSError, ValueError, KeyError, IndexError):
        return math.inf


def left_of_groups(root: Path) -> Iterator[float]:
    """Of the control group that this process is in and of all above it, which limit it too: containers and SLURM use them, and the
    kernel kills who asks for more."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        groups = [line.split(":", 2) for line in lines]
        own = {part: path.strip("/") for _, parts, path in groups for part in parts.split(",")}
    except (OSError, ValueError):
        return
    for (where, limit, used, files), controller in zip(GROUPS, ("", "memory"), strict=True):
        if controller not in own:
            continue
        for folder in (Path(own[controller]), *Path(own[controller]).parents):
            with suppress(OSError, ValueError):  # no such group within a container, or one without a limit ("max")
                group = root / where / folder
                left = whole(group / limit) - whole(group / used)
                with suppress(OSError, ValueError, KeyError, IndexError):
                    facts = (group / "memory.stat").read_text(encoding="ascii").splitlines()
                    left += int(dict(line.split(" ", 1) for line in facts)[files])
                yield left


def size_in_words(size: float) -> str:
    """``1.4 GB``, or ``48 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def whole(file: Path) -> int:
    """The number that a file holds."""
    return int(file.read_text(encoding="ascii"))


def kilobytes(file: Path, name: str) -> float:
    """A line such as ``VmSize: 123 kB``, in bytes."""
    facts = dict(line.split(":", 1) for line in file.read_text(encoding="ascii", errors="replace").splitlines())
    return float(facts[name].split()[0]) * 1024
