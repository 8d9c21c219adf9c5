"""What a command may ask of the machine: judged before any work, and refused with the reason."""

from __future__ import annotations

import math

import typer

from invsolve.cli.free_memory import available_memory
from invsolve.errors import UsageError
from invsolve.options import LARGEST_SEED as LARGEST_SEED_OF_ALL

MOST_SAMPLES = 10**5
MOST_STEPS = 10**6
MOST_SIMULATED_VIEWS = 10**4
"""Of a simulated scan: clinical ones have some thousand."""

MOST_PHOTONS = 1e15
"""Beyond, their numbers do not fit into 64 bits with the noise that they have, and no scan counts so many."""

LARGEST_SEED = LARGEST_SEED_OF_ALL - 10**6
"""The last sample's seed still has 63 bits."""


def check_memory(needed: float, what: str, *, hint: str) -> None:
    """Refuse what cannot fit into memory.

    Parameters
    ----------
    needed : bytes, a rough estimate.
    what : what needs them, such as "--count 1000000".

    Raises
    ------
    UsageError : more than there is.
    """
    available = available_memory()
    if needed > available:
        raise UsageError(
            f"{what} needs about {needed / 2**30:,.0f} GiB of memory, there are {available / 2**30:,.0f}",
            hint=hint,
        )


def finite(value: float | None) -> float | None:
    """Callback of an option that is a number: "nan" and "inf" are floats to Python, but never what is meant."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value
