"""What ladder a sampler is run on, what it costs, and that annealed Langevin and pc are right on a task's few levels."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from invsolve.cli.app import app
from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel, GaussianNoise, Identity
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.models.score_model import FunctionPrior
from invsolve.options import SolveOptions
from invsolve.pretrained import load_prior
from invsolve.rules import MomentMatching, Wiener
from invsolve.samplers import SAMPLERS, annealed_langevin, calls_per_level, find_sampler, needs, needs_of
from invsolve.samplers.sigmas import geometric, karras, ladder, ncsnv2_levels, ncsnv2_step, ncsnv2_steps
from invsolve.solver import solve, task_ladder
from invsolve.tasks.denoising import denoising_task
from invsolve.tasks.generation import BRIGHTNESS, CENTER, blank, starts
from invsolve.tasks.inpainting import inpaint
from invsolve.verification.exactness import push, start_law


def test_a_sampler_gets_the_ladder_it_states_unless_told_otherwise() -> None:
    chosen = partial(task_ladder, sigma_min=0.01, sigma_max=2.0, dimension=48)
    torch.testing.assert_close(chosen(SolveOptions(steps=9)), karras(9, 0.01, 2.0))
    torch.testing.assert_close(chosen(SolveOptions(steps=9, sampler="langevin")), geometric(9, 0.01, 2.0))
    torch.testing.assert_close(
        chosen(SolveOptions(steps=9, sampler="langevin(langevin_steps=2)")), geometric(9, 0.01, 2.0)
    )
    torch.testing.assert_close(
        chosen(SolveOptions(steps=9, sampler="langevin", schedule="karras")), karras(9, 0.01, 2.0)
    )
    by_technique_2 = chosen(SolveOptions(steps=9, schedule="ncsnv2"))
    torch.testing.assert_close(by_technique_2, geometric(ncsnv2_levels(48, 0.01, 2.0), 0.01, 2.0))

    @needs(schedule="geometric")
    def own(model: Any, x: Tensor, sigmas: Tensor, noise: Any, *, callback: Any = None) -> Tensor:
        return x

    torch.testing.assert_close(chosen(SolveOptions(steps=4, sampler=own)), geometric(4, 0.01, 2.0))


@pytest.mark.parametrize("call", [partial(ladder, "linear", 5, 0.1, 1.0, 3), partial(SolveOptions, schedule="linear")])
def test_an_unknown_schedule_is_refused(call: Any) -> None:
    with pytest.raises(UsageError, match="karras, geometric, ncsnv2|auto, karras"):
        call()


def test_calls_at_a_level_are_what_a_run_counts(gaussian: GaussianPrior) -> None:
    """But for a last level that needs fewer."""
    generator = torch.Generator().manual_seed(0)
    forward_model = ForwardModel(Identity(gaussian.shape), GaussianNoise(0.1))
    y = gaussian.sample(1, generator)
    names = [name for name in SAMPLERS if name not in ("ode_adaptive", "sde_adaptive", "split_gibbs", "twisted")]
    for name in [*names, "langevin(langevin_steps=3)", "pc(corrector_steps=2)", "daps(ode_steps=2)"]:
        rule = "wiener" if name == "redrawing" else "proximal"
        levels, sampler = 12, find_sampler(name)
        made = solve(gaussian, forward_model, y, rule=rule, sampler=sampler, sigmas=karras(levels, 0.02, 1.0))
        expected = calls_per_level(sampler) * levels
        assert expected - calls_per_level(sampler) <= made.network_calls <= expected + 1, name


def test_a_sampler_that_states_nothing_has_the_defaults() -> None:
    def own(model: Any, x: Tensor, sigmas: Tensor, noise: Any, *, callback: Any = None) -> Tensor:
        return x

    assert needs_of(own).schedule == "karras"
    assert calls_per_level(own) == 1
    assert calls_per_level(partial(annealed_langevin, langevin_steps=7)) == 7


def test_steps_by_level_are_techniques_4_where_the_ladder_is_geometric() -> None:
    sigmas = geometric(30, 0.01, 5.0)
    assert ncsnv2_steps(sigmas, 4) == pytest.approx([ncsnv2_step(sigmas, 4) / 0.01**2] * 30, rel=1e-6)
    uneven = ncsnv2_steps(karras(30, 0.01, 5.0), 4)
    assert uneven[-1] > 1.1 * uneven[1]  # wider ratios at the end ask for longer steps


@pytest.mark.parametrize("sigmas", [karras(30, 0.01, 20.0), geometric(30, 0.01, 20.0)], ids=["karras", "geometric"])
def test_consistent_noise_brings_x_to_the_levels_variance(sigmas: Tensor) -> None:
    """Data at one point, whose noisy law is known: N(point, sigma^2) at every level, NCSN's noise is more."""
    shape = (1, 1, 1)
    prior = FunctionPrior(lambda x, sigma: torch.full_like(x, 0.3), channels=1, sigma_min=0.01, sigma_max=20.0)
    start = start_law(torch.full(shape, 0.3, dtype=torch.float64), 20.0)
    deviations = {}
    for consistent in (True, False):
        law = push(
            lambda x, noise, c=consistent: annealed_langevin(prior, x, sigmas, noise, consistent=c, denoise_last=False),
            start,
        )
        assert float(law.mean) == pytest.approx(0.3)
        deviations[consistent] = float(law.covariance) ** 0.5 / 0.01
    assert deviations[True] == pytest.approx(1, abs=1e-6)
    assert deviations[False] > 1.05


@pytest.mark.parametrize(
    ("sampler", "weight", "spread"),
    [("langevin", 0.02, 0.012), ("pc", 0.02, 0.03), ("pc(predictor='reverse_diffusion')", 0.04, 0.035)],
)
def test_fifty_karras_levels_give_both_modes_their_weight_and_width(sampler: str, weight: float, spread: float) -> None:
    """Four pixels, 0.3 wide modes at +-1 that weigh 0.7 and 0.3; NCSN's noise makes them 0.33 wide and wider."""
    shape, eye = (1, 1, 4), torch.eye(4, dtype=torch.float64)
    modes = [GaussianPrior(torch.full(shape, m, dtype=torch.float64), 0.09 * eye) for m in (1.0, -1.0)]
    prior = GaussianMixturePrior(torch.tensor([0.7, 0.3], dtype=torch.float64), modes)
    generator = torch.Generator().manual_seed(0)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    x = 20.0 * noise(torch.zeros(4000, *shape, dtype=torch.float64))
    out = find_sampler(sampler)(prior, x, karras(50, 0.01, 20.0), noise)
    bright = out.mean(dim=(1, 2, 3)) > 0
    assert float(bright.double().mean()) == pytest.approx(0.7, abs=weight)
    for chosen in (out[bright], out[~bright]):
        assert float((chosen - chosen.mean(dim=0)).square().mean()) ** 0.5 == pytest.approx(0.3, abs=spread)


@pytest.mark.parametrize(
    "call",
    [
        partial(annealed_langevin, langevin_steps=0),
        partial(annealed_langevin, step_size=0.0),
        partial(annealed_langevin, step_size=1.5 * 0.01**2),
    ],
)
def test_impossible_langevin_steps_are_refused(call: Any, gaussian: GaussianPrior) -> None:
    with pytest.raises(UsageError, match="wanted"):
        call(gaussian, gaussian.mean[None], karras(5, 0.01, 1.0), torch.zeros_like)


@pytest.mark.parametrize("rule", [MomentMatching, Wiener])
def test_a_rule_that_would_not_look_at_y_is_refused(rule: Any, gaussian: GaussianPrior) -> None:
    forward_model = ForwardModel(Identity(gaussian.shape), GaussianNoise(0.1))
    with pytest.raises(UsageError, match="at least 1"):
        rule(gaussian, forward_model, gaussian.mean[None], steps=0)


def test_langevin_inpaints_a_photograph_without_confetti() -> None:
    """As many levels as the command takes: within 2 dB of one sample by the default rule's draws."""
    picture = np.asarray(Image.open(Path(__file__).parents[1] / "examples" / "astronaut.png").convert("RGB"))
    crop = picture[60:108, 100:148].astype(np.float32) / 255
    missing = np.random.default_rng(0).random(crop.shape[:2]) < 0.5
    prior = load_prior("photos")

    def psnr(**options: Any) -> float:
        made = inpaint(crop, missing, prior, **options).samples[0, 0].permute(1, 2, 0).numpy()
        return float(-10 * np.log10(np.mean((made - crop) ** 2)))

    assert psnr(sampler="langevin") > psnr(sampler="redrawing") - 2


def test_the_reverse_sde_denoises_a_photograph_without_grain() -> None:
    """With the levels that it gets from the task, that is: the task's own eight leave grain."""
    picture = np.asarray(Image.open(Path(__file__).parents[1] / "examples" / "astronaut.png").convert("RGB"))
    truth = picture[60:108, 100:148].astype(np.float32) / 255
    noisy = truth + 0.1 * np.random.default_rng(0).standard_normal(truth.shape, np.float32)
    task, prior = denoising_task(noisy.clip(0, 1), noise=0.1), load_prior("photos", "cpu")

    def psnr(**options: Any) -> float:
        made = task.solve(prior, **options).samples[0, 0].permute(1, 2, 0).numpy()
        return float(-10 * np.log10(np.mean((made - truth) ** 2)))

    draw = psnr(sampler="ancestral")
    assert psnr(sampler="reverse_sde") > draw - 2
    assert psnr(sampler="reverse_sde", steps=task.options.steps) < draw - 4


def test_a_sampler_gets_the_levels_it_wants_unless_told_otherwise(tmp_path: Path, small_prior: Path) -> None:
    task = denoising_task(np.full((8, 8, 3), 0.5, np.float32), noise=0.1)
    prior = load_prior(small_prior, "cpu")
    assert task.options.steps < 24
    assert task.solve(prior, sampler="langevin(langevin_steps=1)").settings["steps"] == 24
    assert task.solve(prior, sampler="langevin(langevin_steps=1)", steps=3).settings["steps"] == 3
    assert task.solve(prior, sampler="pc").settings["steps"] == task.options.steps
    assert task.solve(prior, sampler="reverse_sde").settings["steps"] == 100
    Image.new("RGB", (8, 8), "grey").save(tmp_path / "a.png")
    for steps, given in ((24, []), (3, ["--steps", "3"])):
        done = CliRunner().invoke(
            app,
            [
                "denoise",
                str(tmp_path / "a.png"),
                "--sigma",
                "0.1",
                "--model",
                str(small_prior),
                "--device",
                "cpu",
                "--json",
            ]
            + ["--sampler", "langevin", "-o", str(tmp_path / f"{steps}.png"), *given],
        )
        assert done.exit_code == 0, done.output
        assert f'"steps": {steps},' in done.stdout


def test_the_command_takes_a_schedule(tmp_path: Path, small_prior: Path) -> None:
    common = ["sample", "--model", str(small_prior), "--size", "8x8", "-n", "1", "--device", "cpu", "--json"]
    counted = {}
    for schedule in ("auto", "ncsnv2"):
        done = CliRunner().invoke(
            app,
            [*common, "--sampler", "langevin", "--steps", "3", "--schedule", schedule, "-o", str(tmp_path / schedule)],
        )
        assert done.exit_code == 0, done.output
        counted[schedule] = '"steps": 3,' in done.stdout
    assert counted == {"auto": True, "ncsnv2": False}
    wrong = CliRunner().invoke(app, [*common, "--schedule", "linear", "-o", str(tmp_path / "x")])
    assert isinstance(wrong.exception, UsageError)


def test_large_pictures_start_with_a_brightness_of_their_own(gaussian: GaussianPrior, small_prior: Path) -> None:
    prior, options = load_prior(small_prior), SolveOptions(samples=400, seed=3, antithetic=False)
    drawn = starts(prior, blank(prior, (6, 5)), options)
    assert drawn.shape == (400, 1, 3, 6, 5)
    assert float((drawn - drawn[:, :, :1, :1, :1]).abs().max()) == 0  # even, and grey
    level = drawn[:, 0, 0, 0, 0]
    assert float(level.mean()) == pytest.approx(CENTER, abs=4 * BRIGHTNESS / math.sqrt(400))
    assert float(level.std()) == pytest.approx(BRIGHTNESS, rel=0.15)
    torch.testing.assert_close(drawn[5], starts(prior, blank(prior, (6, 5)), SolveOptions(samples=1, seed=8))[0])
    one_size = load_prior("cifar10")
    assert torch.equal(starts(one_size, blank(one_size, None), options)[7], blank(one_size, None))
