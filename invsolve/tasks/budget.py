"""A task in so many seconds: how many noise levels and samples they buy, by what these cost on this machine.

The costs are measured: the task itself is run for a few levels, so they hold the network on this picture's size, the rule's
solve, and what is done once. :func:`plan` walks a course, which says in which order levels and samples are worth having, as far
as the seconds go. What the plan gets wrong, as where another program takes a core meanwhile, a
:class:`~invsolve.samplers.pace.Pace` makes up for on the way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from invsolve.errors import UsageError
from invsolve.forward_models import LinearOperator
from invsolve.forward_models.operator import PINV_STEPS
from invsolve.models.score_model import ScoreModel
from invsolve.options import SolveOptions
from invsolve.samplers import sampler_name
from invsolve.samplers.pace import Clock, Pace
from invsolve.solver import options_needs
from invsolve.tasks.task import Task

MARGIN = 0.97
"""Share of the time that is planned for."""

NEARLY = 1.3
"""The least is begun where it would take so many times the seconds that are left: the measurement, whose first call of the
network takes longer than others, says too much rather than too little, and the pace keeps to the time."""

LEAST_LEVELS, LEAST_SHARE = 4, 0.25
"""Of one run: so many noise levels, or so large a share of the task's own number, whichever is more."""

MOST_SHARE, MOST_SAMPLES = 2, 32
"""Beyond so many times the task's own levels, and so many samples, more time buys next to nothing."""

PILOT_LEVELS, PILOT_SAMPLES = 3, 4
PILOT_SHARE = 0.15
"""What the measurement of the costs may take of the budget, about, where it has a choice."""

BESIDE_PRODUCTS = 1.2
"""An iteration of conjugate gradients over its two products with a scan's matrix."""


class Size(NamedTuple):
    """Of a run."""

    levels: int
    samples: int


Profile = Sequence[tuple[float, float]]
"""As of a :class:`~invsolve.samplers.pace.Pace`."""


@dataclass(frozen=True)
class Costs:
    """Seconds: once, for each noise level whatever the samples, for each level of each sample, and for each sample at the end."""

    once: float
    level: float
    sample: float
    finish: float = 0.0
    profile: Profile = ()  # of a level's time over the ladder

    def seconds(self, size: Size) -> float:
        """Of a run of this size."""
        return self.once + size.levels * (self.level + self.sample * size.samples) + self.finish * size.samples


Course = Sequence[Size]
"""Corners of a way from the least to the most, of which none has fewer levels or samples than the one before."""


def course_of(usual: int, *, levels: int | None = None, samples: int | None = None, least: int = 1) -> Course:
    """What to buy first, of a task with so many ``usual`` noise levels.

    Few levels of ``least`` samples; half of the usual levels; a second sample, of noise of the opposite sign, which gains more
    than those levels did; the usual levels, which gain more than further samples do (docs/lab/speed.md); more samples, of which the
    spread becomes worth looking at; at last levels beyond the usual.

    Parameters
    ----------
    levels, samples : those that were asked for stay as they are.
    least : samples, where less than two would leave nothing to say of how sure they are.
    """
    few, most = min(usual, max(LEAST_LEVELS, round(LEAST_SHARE * usual))), MOST_SHARE * usual
    half = max(few, usual // 2)
    corners = [(few, least), (half, least), (half, 2), (usual, 2), (usual, MOST_SAMPLES), (most, MOST_SAMPLES)]
    return [Size(levels or one, samples or max(many, least)) for one, many in corners]


def sizes(course: Course) -> Iterator[Size]:
    """All on the way: a level more each time, or samples up to the next even number."""
    size = course[0]
    yield size
    for corner in course[1:]:
        while size != corner:
            if size.samples < corner.samples:
                size = size._replace(samples=min(corner.samples, size.samples + 2 - size.samples % 2))
            else:
                size = size._replace(levels=size.levels + 1)
            yield size


def plan(costs: Costs, seconds: float, course: Course) -> Size | None:
    """The farthest on the course that so many seconds pay for; None where they do not pay for its beginning."""
    best = None
    for size in sizes(course):
        if costs.seconds(size) > seconds:
            break
        best = size
    return best


class Timing(NamedTuple):
    """Of a run: seconds that were spent once, and at each noise level, on average; and how the levels differ."""

    once: float
    level: float
    profile: Profile = ()


def measure_costs(
    task: Task,
    prior: ScoreModel,
    options: SolveOptions,
    seconds: float,
    clock: Clock = time.perf_counter,
    least: int = 1,
) -> Costs:
    """What a task costs here and now: it is run for a few levels of ``least`` samples, and of several if there is time for that."""

    def run(levels: int, samples: int) -> Timing:
        seen, started = [], clock()
        watch = Pace(math.inf, clock=clock, denser=False)
        wanted = replace(options, steps=levels, samples=samples, budget=None, pace=watch).settled
        task.run(prior, wanted, lambda done: seen.append((clock(), done)))
        begun = [] if math.isnan(watch.begun) else [(watch.begun, 0.0)]
        return timing_of(begun + seen, levels, clock() - started)

    return costs_by(run, seconds, least)


def timing_of(seen: Sequence[tuple[float, float]], levels: int, total: float) -> Timing:
    """From when which share of a run of so many levels was done, and what it took in ``total``.

    All levels have to be among them: a prior may take a larger network where there is much noise, and the solve for the measurement
    more iterations where there is little.
    """
    if len(seen) < 2 or seen[-1][1] <= seen[0][1]:
        return Timing(0.0, total / levels)
    (begin, before), (end, done) = seen[0], seen[-1]
    each = (end - begin) / (done - before) / levels
    corners = [((share - before) / (done - before), (when - begin) / max(end - begin, 1e-9)) for when, share in seen]
    whole = before == 0 and done == 1
    return Timing(max(0.0, total - levels * each), max(each, 1e-9), corners if whole else ())


def costs_by(run: Callable[[int, int], Timing], seconds: float, least: int = 1) -> Costs:
    """The costs from ``run(levels, samples)``, where ``seconds`` are the budget and ``least`` samples are drawn anyway.

    The first run takes longer, and counts only where there is no time for another. What a level takes whatever the samples,
    as the matrix of a scan that is read once for all of them, is told apart only by a run of more samples: without one
    all of it counts for each of the ``least``, which is right for them and too much for more.
    """
    once, each, profile = run(2, least)
    if once + PILOT_LEVELS * each > PILOT_SHARE * seconds:
        return Costs(once, 0.0, each / least, profile=profile)
    once, each, profile = run(PILOT_LEVELS, least)
    several = max(PILOT_SAMPLES, 2 * least)
    if least >= PILOT_SAMPLES or once + PILOT_LEVELS * several / least * each > PILOT_SHARE * seconds:
        return Costs(once, 0.0, each / least, profile=profile)
    longer, slower, profile = run(PILOT_LEVELS, several)
    finish = max(0.0, longer - once) / (several - least)
    sample = max(0.0, slower - each) / (several - least)
    return Costs(max(0.0, once - least * finish), max(0.0, each - least * sample), sample, finish, profile)


def seconds_to_summarize(operator: LinearOperator | None, samples: int, clock: Clock = time.perf_counter) -> float:
    """What it takes to split so many samples into what was measured and what was not, about.

    Of an operator without a closed pseudo-inverse those are :data:`PINV_STEPS` products with it and its adjoint, eight samples at
    once: one such product is timed, the other work of an iteration being small beside it.
    """
    if operator is None or samples < 2:
        return 0.0
    x = torch.ones((min(samples, 8), *operator.input_shape), device=operator.device)
    y = operator(x)  # the first product takes longer
    iterates = type(operator)._pinv is LinearOperator._pinv
    times = []
    for _ in range(3 if iterates else 1):
        before = clock()
        operator.T(operator(x)) if iterates else operator.pinv(y)
        times.append(clock() - before)
    products = PINV_STEPS * BESIDE_PRODUCTS if iterates else 1
    return math.ceil(samples / 8) * products * sorted(times)[len(times) // 2]


def within_budget(
    task: Task,
    prior: ScoreModel,
    options: SolveOptions,
    *,
    levels: int | None = None,
    samples: int | None = None,
    least: int = 1,
    reserve: float = 0.0,
    writing: float = 0.0,
    started: float | None = None,
    clock: Clock = time.perf_counter,
) -> SolveOptions:
    """``options`` with the levels and samples that their budget buys, and the pace that keeps it.

    Parameters
    ----------
    levels, samples : asked for, and not to be chosen.
    least : samples, at least.
    reserve, writing : seconds that are needed when the samples are drawn, once and for each of them.
    started : when the budget began to run, by the clock; default now.

    Raises
    ------
    UsageError : not even the least fits, or there is no number of levels to choose.
    """
    if options.budget is None:
        return options
    begun, seconds = clock() if started is None else started, options.budget - reserve
    check_paceable(options)
    course = course_of(options.steps, levels=levels, samples=samples, least=least)
    together = min(course[0].samples, options.batch)
    costs = measure_costs(task, prior, options, seconds, clock, together)
    costs = replace(costs, finish=costs.finish + writing)
    left = begun + seconds - clock()
    size = plan(costs, MARGIN * left, course)
    if size is None and costs.seconds(course[0]) <= NEARLY * left:
        size = course[0]
    if size is None:
        needed = options.budget - left + costs.seconds(course[0]) / MARGIN
        raise UsageError(
            f"a budget of {options.budget:g} s is too short: {in_words(course[0])}, the least, would take about {needed:.0f} s",
            hint=f"give --budget {needed * 1.1:.0f}s or more, or a smaller picture",
        )
    denser = levels is None and size != course[-1]
    pace = Pace(seconds - costs.finish * size.samples, clock=clock, started=begun, denser=denser, profile=costs.profile)
    return replace(options, steps=size.levels, samples=size.samples, pace=pace)


def check_paceable(options: SolveOptions) -> None:
    """Raise a UsageError for what chooses its own number of levels."""
    if options.schedule == "ncsnv2":
        raise UsageError(
            "a budget with the schedule ncsnv2, which chooses its own levels", hint="leave one of them out"
        )
    if options_needs(options).adaptive is not None:
        raise UsageError(
            f"a budget with {sampler_name(options.settled.sampler)}, which chooses its own steps",
            hint="leave one of them out",
        )


def in_words(size: Size) -> str:
    """``12 noise levels, 8 samples``."""
    return f"{size.levels} noise levels, {size.samples} sample{'s' if size.samples > 1 else ''}"
