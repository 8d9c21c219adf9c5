"""What a sampler tells its caller: of every step, and of what it needs before the first."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from torch import Tensor


class StepInfo(NamedTuple):
    """State after one step."""

    step: int  # 1, 2, ..., steps
    steps: int
    sigma: float  # the level the step started from
    x: Tensor  # (B, C, H, W) after the step
    denoised: Tensor  # (B, C, H, W), the estimate of the clean picture the step used
    first: float | None = None  # the level the run started from, of a sampler that has to know when it goes on


Callback = Callable[[StepInfo], None]

HANDED_OVER = ("callback", "after")
"""Keywords of samplers that programs hand over and nobody writes down."""


@dataclass(frozen=True)
class Needs:
    """What a sampler asks for.

    Parameters
    ----------
    schedule : the ladder it works best on, of :data:`invsolve.options.SCHEDULES`.
    calls : network calls at a noise level, from the sampler's own arguments.
    adaptive : network calls in all, about, of a sampler that chooses its own steps; None of all others.
    levels : noise levels that it wants at least; with fewer, noise is left that it could not follow.
    resumes : whether it may be stopped at any level and go on from there: where its ladder ends above 0, so does x, which is
        all that it remembers.
    remembers : whether one that resumes remembers its last step besides, which it takes as ``after``.
    forgets : whether it draws the noise in x anew at every level, so that nothing is left of what x started from but what the
        model makes of it; it may begin low, from a good guess. Of all others the start is part of the result.
    """

    schedule: str = "karras"
    calls: Callable[..., float] = lambda **arguments: 1.0
    adaptive: float | None = None
    levels: int = 1
    resumes: bool = False
    remembers: bool = False
    forgets: bool = False


Function = TypeVar("Function", bound=Callable[..., Tensor])


def needs(
    schedule: str = "karras",
    calls: Callable[..., float] = Needs.calls,
    adaptive: float | None = None,
    levels: int = 1,
    resumes: bool = False,
    remembers: bool = False,
    forgets: bool = False,
) -> Callable[[Function], Function]:
    """State what a sampler needs, above its definition; one that states nothing has the defaults of :class:`Needs`."""

    def state(sampler: Function) -> Function:
        sampler.needs = Needs(schedule, calls, adaptive, levels, resumes, remembers, forgets)  # type: ignore[attr-defined]
        return sampler

    return state


def needs_of(sampler: Callable[..., Tensor]) -> Needs:
    """What a sampler states, also where it was given arguments by ``functools.partial``."""
    bare = sampler.func if isinstance(sampler, partial) else sampler
    return getattr(bare, "needs", Needs())


def calls_per_level(sampler: Callable[..., Tensor]) -> float:
    """Network calls that a sampler makes at a noise level, about."""
    arguments: dict[str, Any] = {
        name: one.default
        for name, one in inspect.signature(sampler).parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return needs_of(sampler).calls(**arguments)


def expected_calls(sampler: Callable[..., Tensor], levels: int) -> float:
    """Network calls of a sample on a ladder of so many levels, about."""
    adaptive = needs_of(sampler).adaptive
    return calls_per_level(sampler) * levels if adaptive is None else adaptive
