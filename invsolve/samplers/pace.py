"""Keeping a sampler in time: it walks a piece of its ladder, and what is left is spaced anew by the time that is left.

A sampler that ends above 0 where its ladder does (:class:`invsolve.samplers.Needs`, ``resumes``) can be stopped at any level
and set going again from there on another ladder: x is then at that level's noise and, with the last step of one that ``remembers``
it, holds all that it knows. So a run that
turns out slower than planned takes fewer, larger steps over the rest, and ends where it was to end: at a clean picture. Where not
even one more level fits it ends with the clean picture that the last level was walked for.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invsolve.models.score_model import Noise, ScoreModel
from invsolve.samplers.info import Callback, StepInfo, needs_of

Clock = Callable[[], float]
"""Seconds from some moment on."""

PIECES = 4
"""The rest of a ladder is walked by a quarter of it at a time: the time is looked at more often towards the end."""

FEW = 12
"""The last levels, and all of a short ladder, are walked one by one: there each is a large share of the time."""

TOLERATED = 0.05
"""Share of the time by which a run may end late, where it would otherwise leave out its last level."""

LATE, EARLY = 0.97, 1.1
"""Between these, the time left over the time that the rest takes, the ladder stays as it is."""

WINDOW = 0.1
"""Share of the work over which its speed is measured: what was slow long ago does not count."""

DENSEST = 2.0
"""A rest is spaced at most so many times as finely at once."""


@dataclass
class Pace:
    """How fast a run goes, and how many levels there is time for.

    Parameters
    ----------
    seconds : the run is to be over after so many, from ``started`` on.
    clock, started : what tells the time, and its first moment.
    denser : whether time that is left over may go into more levels than were planned.
    profile : corners (share of the levels, share of the time that they take), from (0, 0) to (1, 1); none where all levels take
        as long. A prior may have a larger network for much noise, which tells nothing of how long the rest takes.
    """

    seconds: float
    clock: Clock = time.perf_counter
    started: float = math.nan
    denser: bool = True
    profile: Sequence[tuple[float, float]] = ()
    planned: int = 0  # levels
    walked: int = 0
    begun: float = math.nan  # when the first level began
    seen: list[tuple[float, float]] = field(default_factory=list)  # when which share of the work was done

    def __post_init__(self) -> None:
        if math.isnan(self.started):
            self.started = self.clock()

    def facts(self, budget: float | None) -> dict[str, float]:
        """For a posterior's settings: the budget, and the levels that were walked for each that was planned."""
        return {
            "budget": self.seconds if budget is None else budget,
            "walked": round(self.walked / max(1, self.planned), 3),
        }

    @property
    def left(self) -> float:
        """Seconds; negative where they are over."""
        return self.started + self.seconds - self.clock()

    def begin(self) -> None:
        """The first level begins."""
        self.begun = self.clock()
        self.seen.append((self.begun, 0.0))

    def note(self, done: float) -> None:
        """So much of the work is done, 0 to 1."""
        if not self.seen or done > self.seen[-1][1]:
            self.seen.append((self.clock(), done))

    def rest(self) -> float:
        """Seconds that the rest of the work takes as fast as it goes now; NaN where that is not known yet."""
        if len(self.seen) < 2:
            return math.nan
        now, done = self.seen[-1]
        when, before = max((one for one in self.seen if done - one[1] >= WINDOW), default=self.seen[0])
        spent = self.share_of_time(done)
        return (now - when) / max(spent - self.share_of_time(before), 1e-9) * max(0.0, 1 - spent)

    def share_of_time(self, done: float) -> float:
        """What so large a share of the levels takes of the time of all."""
        for (left, low), (right, high) in itertools.pairwise(self.profile):
            if left < right and done <= right:
                return low + (high - low) * (done - left) / (right - left)
        return done

    def over(self) -> bool:
        """Whether there is no time for another level like the last."""
        if len(self.seen) < 2:
            return False
        (before, start), (now, done) = self.seen[-2:]
        coming = self.share_of_time(min(1.0, 2 * done - start)) - self.share_of_time(done)
        spent = max(self.share_of_time(done) - self.share_of_time(start), 1e-9)
        return (now - before) * coming / spent > self.left + TOLERATED * self.seconds

    def levels(self, planned: int) -> int:
        """How many levels there is time for where ``planned`` were to come: at least one."""
        rest = self.rest()
        if math.isnan(rest) or rest <= 0:
            return planned
        share = self.left / rest
        if LATE <= share <= EARLY or (share > 1 and not self.denser):
            return planned
        return max(1, int(planned * min(share, DENSEST)))


def respaced(levels: Tensor, count: int) -> Tensor:
    """A falling ladder that ends in 0 with ``count`` levels above it: the same first and last of them, spaced alike.

    Of one level, the first, as x has its noise; and what is one level stays one.
    """
    above = levels[:-1]
    if count == len(above) or len(above) == 1:
        return levels
    places = torch.linspace(0, len(above) - 1, count, dtype=torch.float64)
    low = places.floor().long().clamp(max=max(0, len(above) - 2))
    high = (low + 1).clamp(max=len(above) - 1)
    share = places - low
    logs = above.double().log()
    between = ((1 - share) * logs[low] + share * logs[high]).exp().to(levels)
    return torch.cat([between, levels[-1:]])


def paced(
    sampler: Callable[..., Tensor],
    model: ScoreModel,
    x: Tensor,
    levels: Tensor,
    noise: Noise,
    pace: Pace | None,
    *,
    callback: Callback,
    **options: object,
) -> Tensor:
    """Run ``sampler`` on ``levels``, spaced anew as its ``pace`` says; as it is without one, or where it does not resume.

    Steps are counted on the first ladder: of one that was spaced anew each counts for as many as it stands for.
    """
    if pace is not None and math.isnan(pace.begun):
        pace.begin()
    if pace is None or not needs_of(sampler).resumes or float(levels[-1]) != 0:
        return sampler(model, x, levels, noise, callback=callback, **options)
    steps, done = len(levels) - 1, 0.0
    last: list[StepInfo] = []
    pace.planned += steps
    while len(levels) > 1:
        levels = respaced(levels, pace.levels(len(levels) - 1))
        count = len(levels) - 1
        each = (steps - done) / count
        piece = 1 if count <= FEW else math.ceil(count / PIECES)
        pace.walked += piece
        counted = _counted(callback, last, done, each, steps)
        memory = {"after": last[-1]} if last and needs_of(sampler).remembers else {}
        x = sampler(model, x, levels[: piece + 1], noise, callback=counted, **memory, **options)
        done = steps if piece == count else done + each * piece
        levels = levels[piece:]
        if len(levels) > 1 and pace.over():
            x = last[-1].denoised
            callback(last[-1]._replace(step=steps, steps=steps, x=x))
            break
    return x


def _counted(callback: Callback, last: list[StepInfo], done: float, each: float, steps: int) -> Callback:
    """``callback``, told of step k of a piece as of the step ``done + k each`` of ``steps``; ``last`` holds the last one."""

    def report(info: StepInfo) -> None:
        last[:] = [info]
        place = int(done + each * info.step + 1e-6)
        callback(info._replace(step=min(max(place, 1), steps), steps=steps))

    return report
