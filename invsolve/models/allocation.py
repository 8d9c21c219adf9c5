"""Memory that a network frees stays with the process, to be used again at the next call.

A network on a CPU makes and frees tensors of some ten megabytes, dozens at every call. glibc gives such memory back to the system
as soon as it is free, and the system clears every page of it that is asked for again: measured, a fifth to a third of the time of
a call (``benchmarks/network.py``). What a process takes at most is hardly more, but it no longer takes less in between.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

MMAP_THRESHOLD = 2**28
"""Bytes of one tensor up to which its memory is kept."""

TRIM_THRESHOLD = 2**29
"""Bytes of free memory that are kept."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SET_BY_PEOPLE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep it; returns whether it was told, which happens once.

    Left alone are other C libraries, and what a person has set by one of glibc's own variables.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SET_BY_PEOPLE):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD))
