"""A run in so many seconds: what they buy, and how a ladder is spaced anew on the way. Nothing here depends on the time."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from calling import call

from invsolve.cli.budget import Moment, busyness, seconds_of
from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel, GaussianNoise, LinearOperator, Mask
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.score_model import ScoreModel, Sigma
from invsolve.options import INPAINTING, SolveOptions
from invsolve.posterior import Posterior
from invsolve.samplers import SAMPLERS, StepInfo, find_sampler, needs_of
from invsolve.samplers.noise import SeededNoise
from invsolve.samplers.pace import Pace, paced, respaced
from invsolve.samplers.sigmas import karras
from invsolve.solver import solve
from invsolve.tasks.budget import (
    Costs,
    Profile,
    Size,
    Timing,
    check_paceable,
    costs_by,
    course_of,
    measure_costs,
    plan,
    seconds_to_summarize,
    sizes,
    timing_of,
    within_budget,
)
from invsolve.tasks.task import Task
from invsolve.uncertainty.intervals import split_std

POSITIVE = 10 ** np.random.default_rng(0).uniform(-4, 2, (200, 3))
"""Costs of all sizes."""


class FakeClock:
    """Tells the time that was spent on it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def gaussian() -> GaussianPrior:
    return GaussianPrior(torch.full((1, 4, 4), 0.5), 0.05 * torch.eye(16, dtype=torch.float64))


def test_course_never_takes_back_what_it_bought() -> None:
    for usual in (1, 3, 8, 24, 100):
        walked = list(sizes(course_of(usual)))
        for one, other in itertools.pairwise(walked):
            assert other.levels >= one.levels and other.samples >= one.samples
            assert other != one
        assert walked[0].samples == 1 and walked[-1].levels == 2 * usual
        assert all(size.samples == 1 or size.samples % 2 == 0 for size in walked)


def test_what_is_asked_for_stays() -> None:
    assert {size.samples for size in sizes(course_of(24, samples=5))} == {5}
    assert {size.levels for size in sizes(course_of(24, levels=7))} == {7}
    assert list(sizes(course_of(24, levels=7, samples=5))) == [Size(7, 5)]
    assert next(iter(sizes(course_of(50, least=2)))).samples == 2


def test_more_time_never_buys_less() -> None:
    random, course, followed = np.random.default_rng(1), course_of(24), 0
    for once, level, sample in POSITIVE.tolist():
        seconds, more = (10 ** random.uniform(-2, 3, 2)).tolist()
        costs = Costs(once, level, sample)
        less, bought = plan(costs, seconds, course), plan(costs, seconds + more, course)
        if less is None:
            continue
        assert bought is not None and bought.levels >= less.levels and bought.samples >= less.samples
        assert costs.seconds(less) <= seconds
        following = list(sizes(course))
        after = following[following.index(less) + 1 :][:1]
        assert all(costs.seconds(size) > seconds for size in after)
        followed += len(after)
    assert followed > 20


def test_plan_refuses_what_does_not_pay_for_the_least() -> None:
    course = course_of(24)
    assert plan(Costs(1.0, 0.0, 1.0), 6.9, course) is None
    assert plan(Costs(1.0, 0.0, 1.0), 7.0, course) == Size(6, 1)
    assert plan(Costs(0.0, 0.0, 1e-9), 7.0, course) == course[-1]


@pytest.mark.parametrize(("once", "level", "sample"), POSITIVE[:20].tolist())
def test_costs_are_found_from_runs(once: float, level: float, sample: float) -> None:
    finish = 0.3
    found = costs_by(lambda _, samples: Timing(once + finish * samples, level + sample * samples), seconds=1e6)
    assert found.once == pytest.approx(once, abs=1e-6)
    assert (found.level, found.sample, found.finish) == pytest.approx((level, sample, finish), abs=1e-6)


@pytest.mark.parametrize("least", [1, 2, 3, 8])
@pytest.mark.parametrize("seconds", [1.0, 100.0, 1e6])
def test_what_is_drawn_anyway_is_planned_as_it_is(least: int, seconds: float) -> None:
    """A level that takes as long for two samples as for one, as of a scan, is not counted twice."""
    once, level, sample, finish = 2.0, 1.0, 0.02, 0.1
    found = costs_by(lambda _, n: Timing(once + finish * n, level + sample * n), seconds, least)
    size = Size(12, least)
    measured = Costs(once, level, sample, finish).seconds(size)
    assert found.seconds(size) == pytest.approx(measured), found
    assert found.seconds(Size(12, 8)) >= Costs(once, level, sample).seconds(Size(12, 8))


def test_levels_that_differ_are_measured_on_the_whole_way() -> None:
    """Of a prior with a larger network for much noise the first level counts as well, and what came before it does not."""
    clock = FakeClock()
    plain = small_task(clock, 0.0)

    def run(prior: ScoreModel, options: SolveOptions, progress: Callable[[float], None]) -> Posterior:
        clock.now += 7.0
        times = iter((1.0, 0.1, 0.1))

        class Uneven(GaussianPrior):
            def denoise(self, x: torch.Tensor, sigma: Sigma) -> torch.Tensor:
                clock.now += next(times)
                return super().denoise(x, sigma)

        uneven = Uneven(torch.full((1, 4, 4), 0.5), 0.05 * torch.eye(16, dtype=torch.float64))
        return plain.run(uneven, options, progress)

    found = measure_costs(replace(plain, run=run), gaussian(), SolveOptions(steps=24), 200.0, clock)
    assert (found.once, found.level, found.sample) == pytest.approx((7.0, 0.4, 0.0), abs=1e-6)


class SlowProduct(LinearOperator):
    """A of given singular values, each product with which, or with A', takes a hundredth of a second of a clock."""

    def __init__(self, clock: FakeClock, singular: torch.Tensor) -> None:
        super().__init__((1, 1, len(singular)), (1, 1, len(singular)))
        self.clock, self.singular = clock, singular

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        self.clock.now += 0.01
        return self.singular.to(x) * x

    _adjoint = _apply


def test_the_summary_is_reserved_for() -> None:
    """Of an operator without a closed pseudo-inverse, from a few products; of one with, next to nothing."""
    clock = FakeClock()
    slow = SlowProduct(clock, torch.logspace(-5, 0, 400))
    reserved = seconds_to_summarize(slow, 2, clock)
    measuring, samples = clock.now, torch.randn(2, 1, 1, 1, 400, generator=torch.Generator().manual_seed(0))
    split_std(slow, samples, antithetic=True)
    assert 0.9 * (clock.now - measuring) < reserved < 1.3 * (clock.now - measuring)
    assert measuring < 0.1
    assert seconds_to_summarize(slow, 16, clock) == pytest.approx(2 * reserved)
    assert seconds_to_summarize(slow, 1, clock) == seconds_to_summarize(None, 8, clock) == 0.0
    clock.now = 0.0
    assert seconds_to_summarize(Mask(torch.ones(1, 4, 4)), 8, clock) == 0.0


def test_the_end_is_reserved_for_as_slow_as_the_machine_is() -> None:
    assert busyness(Moment(10.0, 2.0), Moment(16.0, 4.0)) == 3.0
    assert busyness(Moment(10.0, 2.0), Moment(11.0, 4.0)) == 1.0  # two cores
    assert busyness(Moment(10.0, 2.0), Moment(11.0, 2.0)) == 1.0


def test_little_time_is_not_spent_on_measuring() -> None:
    runs: list[tuple[int, int]] = []

    def run(levels: int, samples: int) -> Timing:
        runs.append((levels, samples))
        return Timing(1.0, samples)

    assert costs_by(run, seconds=10.0).seconds(Size(6, 1)) == 7.0
    assert runs == [(2, 1)]
    runs.clear()
    costs_by(run, seconds=50.0)
    assert runs == [(2, 1), (3, 1)]


def test_a_run_is_taken_apart_by_its_progress() -> None:
    assert timing_of([(6.0, 0.25), (7.0, 0.5), (8.0, 0.75), (9.0, 1.0)], 4, 9.5) == (5.5, 1.0, ())
    assert timing_of([], 4, 8.0) == (0.0, 2.0, ())
    two_parts = [(1.0, 0.1), (2.0, 0.2), (6.0, 0.6), (10.0, 1.0)]
    assert timing_of(two_parts, 2, 10.0)[:2] == pytest.approx((0.0, 5.0))
    uneven = timing_of([(1.0, 0.0), (4.0, 0.5), (5.0, 1.0)], 2, 6.0)
    assert uneven == (2.0, 2.0, [(0.0, 0.0), (0.5, 0.75), (1.0, 1.0)])


def test_respaced_keeps_the_ends_and_the_spacing() -> None:
    levels = karras(24, 0.005, 1.0)
    for count in (1, 2, 5, 23, 24, 40):
        other = respaced(levels, count)
        assert len(other) == count + 1 and float(other[-1]) == 0.0 and other.dtype == levels.dtype
        assert bool((other.diff() < 0).all())
        assert float(other[0]) == pytest.approx(1.0)
        assert count == 1 or float(other[-2]) == pytest.approx(0.005)
    assert torch.equal(respaced(levels, 24), levels)
    assert respaced(levels, 47)[:-1:2].allclose(levels[:-1])


def walk(
    seconds: float, each: Callable[[int], float], levels: int = 24, *, denser: bool = True, profile: Profile = ()
) -> tuple[float, list[float], Pace]:
    """Walk a ladder whose k-th call takes ``each(k)`` seconds: when it is over, the levels, the pace."""
    clock, seen = FakeClock(), []
    pace = Pace(seconds, clock=clock, denser=denser, profile=profile)

    class Slow(GaussianPrior):
        def denoise(self, x: torch.Tensor, sigma: object) -> torch.Tensor:
            clock.now += each(len(seen))
            seen.append(float(torch.as_tensor(sigma).flatten()[0]))
            return super().denoise(x, sigma)  # type: ignore[arg-type]

    prior = Slow(torch.full((1, 4, 4), 0.5), 0.05 * torch.eye(16, dtype=torch.float64))
    steps: list[StepInfo] = []

    def note(info: StepInfo) -> None:
        steps.append(info)
        pace.note(info.step / info.steps)

    noise = SeededNoise([0])
    x = paced(
        SAMPLERS["renoising"],
        prior,
        torch.rand(1, 1, 4, 4, dtype=torch.float64),
        karras(levels),
        noise,
        pace,
        callback=note,
    )
    assert bool(torch.isfinite(x).all())
    assert steps[-1].step == steps[-1].steps == levels
    assert all(a.step <= b.step for a, b in itertools.pairwise(steps))
    assert pace.walked == len(seen) and pace.planned == levels
    return clock.now, seen, pace


def test_as_planned_nothing_is_changed() -> None:
    spent, seen, _ = walk(24.5, lambda call: 1.0)
    assert spent == 24.0
    assert seen == pytest.approx([float(s) for s in karras(24)[:-1]], rel=1e-6)


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.3, 2.0, 3.0])
def test_a_run_ends_in_time_whatever_the_machine_does(speed: float) -> None:
    spent, seen, _ = walk(24.0, lambda call: speed if call > 2 else 1.0)
    assert 0.9 * 24 - speed <= spent <= 24.0 + speed
    assert seen[-1] < 0.02  # it ends at the ladder's end, not in the middle
    assert all(a > b for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("levels", [6, 8, 12])
@pytest.mark.parametrize("speed", [0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0])
def test_a_short_ladder_is_hardly_late(levels: int, speed: float) -> None:
    """Whenever levels begin to take longer or shorter than planned: by no more than one level, the first that does."""
    for begins in range(levels):
        spent, seen, _ = walk(float(levels), lambda call, begins=begins: speed if call >= begins else 1.0, levels)  # type: ignore[misc]
        assert spent <= 1.05 * levels + max(0.0, speed - 1), (begins, spent)
        assert len(seen) > 1


def test_where_no_level_fits_any_more_the_last_estimate_is_what_is_left() -> None:
    clock, seen = FakeClock(), []
    pace = Pace(6.0, clock=clock)

    def note(info: StepInfo) -> None:
        seen.append(info)
        clock.now += 1.0 if info.sigma == 1.0 else 4.0
        pace.note(info.step / info.steps)

    start = 0.5 + torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = karras(6, 0.005, 1.0)
    x = paced(SAMPLERS["renoising"], gaussian(), start, levels, SeededNoise([0]), pace, callback=note)
    assert pace.walked == 2
    assert seen[-1].step == seen[-1].steps == 6
    assert torch.equal(x, seen[-2].denoised) and not torch.equal(
        x, seen[-2].x
    )  # clean, though its level was a noisy one


def test_a_larger_network_at_first_says_nothing_of_the_rest() -> None:
    """With the pilot's profile all planned levels are walked; without, the slow ones at first cost later ones their time."""
    corners = [(0.0, 0.0), (1 / 3, 0.8), (2 / 3, 0.9), (1.0, 1.0)]
    spent, seen, _ = walk(24.0, lambda call: 2.4 if call < 8 else 0.3, profile=corners)
    assert spent == pytest.approx(24.0) and len(seen) == 24
    tight, seen, _ = walk(5.4, lambda call: 2.4 if call < 2 else 0.3, 4, profile=[(0.0, 0.0), (0.5, 0.89), (1.0, 1.0)])
    assert tight == pytest.approx(5.4) and len(seen) == 4  # what is left is less than a level took at first
    assert len(walk(24.0, lambda call: 2.4 if call < 8 else 0.3)[1]) < 20


def test_a_machine_that_stops_in_the_middle_costs_one_level_more() -> None:
    spent, seen, _ = walk(24.0, lambda call: 20.0 if call == 10 else 1.0)
    assert spent <= 24.0 + 20.0
    assert len(seen) <= 14


def test_time_left_over_is_left_where_the_levels_were_asked_for() -> None:
    spent, seen, _ = walk(100.0, lambda call: 1.0, denser=False)
    assert spent == 24.0 and len(seen) == 24


def test_samplers_that_resume_end_where_their_ladder_does() -> None:
    """On a Gaussian, x at level s has the variance of the picture plus s^2, in every sampler that may be cut in pieces."""
    resuming = [name for name, sampler in SAMPLERS.items() if needs_of(sampler).resumes]
    assert {"renoising", "redrawing", "ancestral", "heun_sde", "multistep"} <= set(resuming)
    prior = gaussian()
    for name in resuming:
        levels = karras(60, 0.005, 3.0)
        cut = int((levels > 0.5).sum())
        start = 0.5 + 3.0 * torch.randn(400, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        x = SAMPLERS[name](prior, start, levels[: cut + 1], SeededNoise(list(range(400))))
        assert float(x.var()) >= 0.5 * float(levels[cut]) ** 2, name


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if needs_of(sampler).resumes])
def test_walked_in_pieces_a_sampler_is_what_it_is_in_one(name: str) -> None:
    """The last levels are walked one by one: what a sampler remembers of the steps before goes with it."""
    written = {"renoising": "renoising(momentum=0.5, averaging=0.5)"}.get(name, name)
    start = 0.5 + torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole, pieces = [
        paced(find_sampler(written), gaussian(), start, karras(24, 0.005, 1.0), noise, pace, callback=lambda info: None)
        for noise, pace in [
            (SeededNoise([0, 1]), None),
            (SeededNoise([0, 1]), Pace(1e9, clock=FakeClock(), denser=False)),
        ]
    ]
    assert torch.equal(pieces, whole)


def small_task(clock: FakeClock, seconds: float) -> Task:
    """A picture of 16 pixels, half of them known, whose every level of a sample takes ``seconds``."""
    known = (torch.arange(16).reshape(1, 4, 4) % 2 == 0).double()
    model = ForwardModel(Mask(known), GaussianNoise(0.01))
    y = known[None] * 0.7

    def run(prior: object, options: SolveOptions, progress: Callable[[float], None]) -> object:
        def step(info: StepInfo) -> None:
            clock.now += seconds * len(info.x)
            progress(info.step / info.steps)

        return solve(prior, model, y, **options.keywords, sigmas=karras(options.steps), start=y, callback=step)  # type: ignore[arg-type]

    return Task("small", run, SolveOptions(steps=24), model.linear, lambda: 0.5, work=16.0)  # type: ignore[arg-type]


def test_a_task_says_what_its_budget_bought() -> None:
    clock = FakeClock()
    task = small_task(clock, 0.1)
    wanted = within_budget(task, gaussian(), SolveOptions(steps=24, budget=60.0), clock=clock)
    assert wanted.steps == 24 and wanted.samples > 8
    posterior = task.solve(gaussian(), wanted)
    assert 54.0 <= clock.now <= 60.0
    assert posterior.settings["budget"] == 60.0
    assert posterior.settings["steps"] == 24 and len(posterior.samples) == wanted.samples
    json.dumps(posterior.settings)


def test_budget_too_short_says_what_the_least_takes() -> None:
    clock = FakeClock()
    task = small_task(clock, 10.0)
    with pytest.raises(
        UsageError, match="too short: 6 noise levels, 1 sample, the least, would take about 8. s"
    ) as error:
        within_budget(task, gaussian(), SolveOptions(steps=24, budget=30.0), clock=clock)
    assert "--budget" in error.value.hint
    assert clock.now == 20.0  # two levels, not more, were spent on finding out


def test_the_least_is_begun_where_it_nearly_fits_and_hurried() -> None:
    clock = FakeClock()
    task = small_task(clock, 4.0)
    wanted = within_budget(task, gaussian(), SolveOptions(steps=24, budget=30.0), clock=clock)
    assert (wanted.steps, wanted.samples, clock.now) == (6, 1, 8.0)
    posterior = task.solve(gaussian(), wanted)
    assert 20.0 < clock.now <= 30.0 and posterior.settings["walked"] < 1


def test_python_functions_take_a_budget() -> None:
    task = small_task(FakeClock(), 0.0)
    posterior = task.solve(gaussian(), budget=1e6, samples=3)
    assert len(posterior.samples) == 3 and posterior.settings["steps"] == 48


@pytest.mark.parametrize("wrong", [{"sampler": "ode_adaptive"}, {"schedule": "ncsnv2"}])
def test_what_chooses_its_own_levels_has_no_budget(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="budget"):
        check_paceable(SolveOptions(budget=1.0, **wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_budget_is_a_positive_number(wrong: float) -> None:
    with pytest.raises(UsageError, match="budget"):
        SolveOptions(budget=wrong)


def test_units_of_the_option() -> None:
    assert [seconds_of(text) for text in ("90", "60s", "5m", "1.5 h", "2min")] == [90, 60, 300, 5400, 120]


def damaged(folder: Path) -> tuple[Path, Path]:
    from PIL import Image

    rng = np.random.default_rng(0)
    picture, mask = folder / "picture.png", folder / "mask.png"
    Image.fromarray((rng.random((24, 24, 3)) * 255).astype(np.uint8)).save(picture)
    Image.fromarray(((rng.random((24, 24)) < 0.2) * 255).astype(np.uint8)).save(mask)
    return picture, mask


def test_command_with_a_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, mask = damaged(tmp_path)
    result = tmp_path / "result.png"
    asked = ("inpaint", picture, "--mask", mask, "-o", result, "--json", "--budget", "1h", "--steps", 3, "--samples", 2)
    assert call(monkeypatch, *asked) == 0
    seen = capsys.readouterr()
    assert "3 noise levels, 2 samples" in seen.err
    report = json.loads(seen.out)
    assert report["budget"] == 3600.0 and report["steps"] == 3 and report["samples"] == 2
    assert sorted(path.name for path in tmp_path.glob("result*")) == [
        "result.mean.png", "result.png", "result.sample-1.png", "result.std.png",
    ]  # fmt: skip


def test_command_whose_budget_is_too_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, mask = damaged(tmp_path)
    result = tmp_path / "result.png"
    assert call(monkeypatch, "inpaint", picture, "--mask", mask, "-o", result, "--budget", "0.01s") == 2
    assert "too short" in capsys.readouterr().err
    assert not list(tmp_path.glob("result*"))


def test_dry_run_shows_what_the_budget_buys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, mask = damaged(tmp_path)
    arguments = (
        "inpaint",
        picture,
        "--mask",
        mask,
        "-o",
        tmp_path / "r.png",
        "--budget",
        "1h",
        "--samples",
        2,
        "--dry-run",
    )
    assert call(monkeypatch, *arguments) == 0
    assert f"{2 * INPAINTING.steps} noise levels, 2 samples" in capsys.readouterr().out
    assert not list(tmp_path.glob("r*.png"))


def test_interrupted_it_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, mask = damaged(tmp_path)

    def interrupt(self: Pace, done: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pace, "note", interrupt)
    arguments = ("inpaint", picture, "--mask", mask, "-o", tmp_path / "r.png", "--budget", "1h", "--samples", 2)
    assert call(monkeypatch, *arguments) == 130
    assert not list(tmp_path.glob("r*.png"))
