"""``--memory``: how much a command may take, and how it keeps to that."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from invsolve.cli.console import say
from invsolve.cli.free_memory import available_memory
from invsolve.errors import UsageError

if TYPE_CHECKING:
    from invsolve.cli.files import Photo
    from invsolve.options import SolveOptions
    from invsolve.pretrained.network_prior import NetworkPrior
    from invsolve.tasks.task import Task

UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

MOST = 1e12
"""No size is a larger number, whatever its unit."""

WRITING = {1: 12.0, 2: 32.0, 4: 24.0, 8: 48.0}
"""Bytes per pixel that making and encoding a result takes, by the bytes of a channel; measured, see benchmarks/large.py, but of
doubles twice that of floats."""

SUMMARY = 12.0
"""Bytes per pixel of the mean, the standard deviation and the bounds of several samples, as pictures."""

WHOLE_PICTURES = 24.0
"""Bytes per pixel of a task that works on the whole picture, besides what it holds before: two estimates as floats."""

BEFORE = 5e8
"""Bytes that Python and torch take, where the system does not say what the process has."""


def memory_size(text: str) -> float:
    """``2GB``, ``1.5 GiB`` or ``800M`` in bytes.

    Raises
    ------
    BadParameter : it is no such size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([kmgt]?)(i?)b?", text.strip(), re.IGNORECASE)
    if not found or (found[3] and not found[2]) or not 0 < float(found[1]) < MOST:
        raise typer.BadParameter(f"{text!r} is not a size such as 2GB, 1.5GiB or 800MB.")
    unit = found[2].upper()
    return float(found[1]) * (1024.0 ** "BKMGT".index(unit) if found[3] else UNITS[unit])


Memory = Annotated[
    float | None,
    typer.Option(
        metavar="SIZE",
        parser=memory_size,
        show_default="half of what is free",
        help="What the command may take, such as 2GB: large pictures are then done in smaller parts, with the same result.",
        rich_help_panel="Run",
    ),
]


def used_memory() -> float:
    """Bytes that this process holds."""
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
        return float(facts["VmRSS"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return BEFORE


def keep_to_memory(
    limit: float | None, task: Task, prior: NetworkPrior, options: SolveOptions, photo: Photo
) -> SolveOptions:
    """``options`` with so many samples at once as the limit allows, and ``prior`` told how much to look at.

    Raises
    ------
    UsageError : the least that the task takes is more.
    """
    from invsolve.tasks.memory import plan_memory

    used = used_memory()
    allowed = (used + available_memory()) / 2 if limit is None else limit
    pixels = math.prod(photo.pixels.shape[:2])
    made = 0.0 if task.values else WHOLE_PICTURES * pixels
    writing = WRITING[np.dtype(photo.pixels.dtype).itemsize] + (SUMMARY if options.samples > 1 else 0)
    planned = plan_memory(
        task, prior, options, limit=allowed, held=used + made, values=3 * pixels,
        writing=writing * pixels, most=prior.pixels_at_once, tiles=prior.tiles,
    )  # fmt: skip
    if planned.least > allowed:
        fewer = "fewer --samples, or " if options.samples > 1 else ""
        raise UsageError(
            f"this takes at least {in_words(planned.least)} of memory, {in_words(allowed)} are allowed"
            + (" (half of what is free)" if limit is None else ""),
            hint=f"{fewer}--memory {in_words(planned.least).replace(' ', '')}, where the machine has that, or a smaller picture",
        )
    prior.pixels_at_once = planned.call
    say(f"about {in_words(planned.needed)} of memory, {in_words(allowed)} are allowed: {planned.batch} at once, "
        f"the network sees {planned.call} pixels", level=1)  # fmt: skip
    return replace(options, batch=min(options.batch, planned.batch))


def in_words(size: float) -> str:
    """``1.4 GB``, rounded up."""
    return f"{math.ceil(size / 1e8) / 10:.1f} GB"
