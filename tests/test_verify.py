"""verify: its figures are right, planted errors are caught, saved figures are compared, the command works."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from invsolve.cli.main import app
from invsolve.errors import InputError, OutputError, UsageError
from invsolve.forward_models import DenseMatrix, Grayscale, Identity, LinearOperator
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.models.score_model import ScoreModel, Sigma
from invsolve.rules import AnnealedLikelihood, MomentMatching, condition
from invsolve.samplers import multistep
from invsolve.verification.exactness import Law
from invsolve.verification.figures import Figures, as_json, changes, load_figures, save_figures, worse
from invsolve.verification.judge import check_adjoint, judge_law, judge_samples, slice_picture, verify
from invsolve.verification.laws import adjoint
from invsolve.verification.problems import Problem, gaussian_problem, mixture_problem, problems

SMALL = (3, 4, 4)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return gaussian_problem(Grayscale(SMALL), "small", 3)


# -- the figures --------------------------------------------------------------------------------------------------------
def test_the_posterior_itself_gets_ideal_figures(problem: Problem) -> None:
    assert isinstance(problem.posterior, GaussianPrior)
    exact = judge_law(Law(problem.posterior.mean, problem.posterior.covariance), problem.posterior)
    assert exact["bias"] == 0
    assert exact["std_ratio"] == pytest.approx(1, abs=1e-9)
    assert exact["coverage"] == pytest.approx(0.9, abs=1e-3)
    assert exact["sliced_wasserstein"] < 1e-9
    draws = judge_samples(problem.posterior.sample(2000, torch.Generator().manual_seed(5)), problem.posterior)
    assert draws["bias"] < 0.03
    assert draws["std_ratio"] == pytest.approx(1, abs=0.03)
    assert draws["coverage"] == pytest.approx(0.9, abs=0.01)
    assert draws["sliced_wasserstein"] < 1.6 * draws["floor"]


def test_exact_and_sampled_figures_agree(problem: Problem) -> None:
    one, other = (verify(problem, rule="dps", sampler="ancestral", steps=8, exact=flag) for flag in (True, False))
    assert (one.method, other.method) == ("exact", "monte carlo")
    for name in ("bias", "std_ratio", "coverage"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=0.03)
    assert one.calls == other.calls == 16
    # The exact law's distance has no Monte Carlo floor; the sampled one adds its own.
    assert one.sliced_wasserstein**2 + other.floor**2 == pytest.approx(other.sliced_wasserstein**2, rel=0.15)


def test_bias_and_spread_are_measured_in_posterior_standard_deviations(problem: Problem) -> None:
    assert isinstance(problem.posterior, GaussianPrior)
    std = problem.posterior.covariance.diagonal().sqrt().reshape(SMALL)
    law = Law(problem.posterior.mean + 0.5 * std, 4 * problem.posterior.covariance)
    for found in (
        judge_law(law, problem.posterior),
        judge_samples(GaussianPrior(*law).sample(4000, torch.Generator().manual_seed(1)), problem.posterior),
    ):
        assert found["bias"] == pytest.approx(0.5, abs=0.04)
        assert found["std_ratio"] == pytest.approx(2, rel=0.03)
        assert found["coverage"] > 0.97


def test_the_shared_mixture_is_a_mixture() -> None:
    """Denoiser, density and posterior against the general class, which has its own tests."""
    problem = mixture_problem(1, d=8, dy=2)
    prior, posterior = problem.prior, problem.posterior
    eye = torch.eye(8, dtype=torch.float64)
    general = GaussianMixturePrior(prior.log_weights.exp(), [GaussianPrior(m, eye) for m in prior.means])
    same = general.posterior(problem.forward_model, problem.y)
    x = problem.start + 6 * torch.randn(5, 1, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in (0.3, 8.0):
        for one, other in ((prior, general), (posterior, same)):
            torch.testing.assert_close(one.denoise(x, sigma), other.denoise(x, sigma), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(one.log_density(x, sigma), other.log_density(x, sigma), rtol=1e-8, atol=1e-6)
    draws = posterior.sample(20000, torch.Generator().manual_seed(2))
    torch.testing.assert_close(draws.mean(dim=0), posterior.mean, atol=0.3, rtol=0)
    torch.testing.assert_close(draws.var(dim=0), posterior.variance, atol=1.5, rtol=0.05)


@pytest.mark.parametrize("name", ["inpainting", "colorization", "blur"])
def test_moment_matching_with_multistep_is_calibrated(name: str) -> None:
    """The small version of the table in docs/samplers.md: the recommended pair, 12 levels."""
    figures = verify(problems[name](0), rule="moment_matching", sampler="multistep", steps=12, samples=500)
    assert figures.bias < 0.05 + 2 * figures.bias_error
    assert figures.std_ratio == pytest.approx(1, abs=0.03 + 2 * figures.std_ratio_error)
    assert figures.coverage == pytest.approx(0.9, abs=0.015)
    assert figures.calls < 150


# -- planted errors -----------------------------------------------------------------------------------------------------
class FactorTwo(MomentMatching):
    """The likelihood's gradient counted twice."""

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        guide = self.guide(x, sigma)
        return guide.denoised + 2 * (guide.x0 - guide.denoised)


class FactorTwoAnnealed(AnnealedLikelihood):
    """The same in a rule that is biased to begin with."""

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        own = self.prior.denoise(x, sigma)
        return own + 2 * (super().denoise(x, sigma) - own)


class WrongUnit(MomentMatching):
    """A sigma of pictures in [-1, 1] handed to a prior in [0, 1]."""

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return super().denoise(x, 0.5 * float(torch.as_tensor(sigma)))


class WrongSign(LinearOperator):
    """A difference whose adjoint has the sign of one term wrong."""

    def __init__(self) -> None:
        super().__init__(SMALL, SMALL)

    def _apply(self, x: Tensor) -> Tensor:
        return x - 0.5 * x.roll(1, -1)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y + 0.5 * y.roll(-1, -1)


def double_step(model: ScoreModel, x: Tensor, sigmas: Tensor, noise: object, **options: object) -> Tensor:
    """A sampler that puts twice the variance of noise back."""
    return multistep(model, x, sigmas, lambda like: 2**0.5 * noise(like), **options)  # type: ignore[operator,arg-type]


def test_a_factor_of_two_in_a_rule_is_caught(problem: Problem) -> None:
    right = verify(problem, rule="moment_matching", sampler="ancestral", steps=12, samples=500)
    wrong = verify(problem, rule=FactorTwo, sampler="ancestral", steps=12, samples=500, label=right.rule)
    assert any("bias" in line or "std_ratio" in line for line in worse([wrong], [right]))
    assert worse([right], [right]) == []
    biased, moved = (
        verify(problem, rule=partial(rule, gamma=1.5), sampler="langevin", label="annealed", steps=30)
        for rule in (AnnealedLikelihood, FactorTwoAnnealed)
    )
    assert any("std_ratio" in change.text for change in changes([moved], [biased]))


def test_a_factor_of_two_in_a_samplers_step_is_caught(problem: Problem) -> None:
    right = verify(problem, rule="exact", sampler="multistep", steps=12)
    wrong = verify(problem, rule="exact", sampler=double_step, steps=12)  # type: ignore[arg-type]
    assert right.calibrated
    assert not wrong.calibrated or worse([replace(wrong, sampler="multistep")], [right])
    assert worse([replace(wrong, sampler="multistep")], [right])


def test_a_wrong_sign_in_an_adjoint_is_caught() -> None:
    with pytest.raises(InputError, match="WrongSign"):
        check_adjoint(WrongSign())
    assert adjoint(Grayscale(SMALL)).error < 1e-12
    figures = verify(gaussian_problem(WrongSign(), seed=1), rule="moment_matching", sampler="multistep", samples=400)
    assert not figures.calibrated


def test_sigma_in_the_wrong_unit_is_caught(problem: Problem) -> None:
    right = verify(problem, rule="moment_matching", sampler="multistep", steps=12, samples=500)
    wrong = verify(problem, rule=WrongUnit, sampler="multistep", steps=12, samples=500)
    assert right.calibrated
    assert not wrong.calibrated
    assert worse([replace(wrong, rule=right.rule)], [right])


# -- saving, comparing, drawing -----------------------------------------------------------------------------------------
def figures_of(**changes: object) -> Figures:
    row = Figures(
        problem="small", rule="exact", sampler="multistep", steps=9, method="monte carlo", samples=100, bias=0.05,
        bias_error=0.01, std_ratio=1.0, std_ratio_error=0.01, coverage=0.9, coverage_error=0.01,
        sliced_wasserstein=0.1, sliced_wasserstein_error=0.01, floor=0.05, calls=9, seconds=1.0,
    )  # fmt: skip
    return replace(row, **changes)  # type: ignore[arg-type]


def test_worse_needs_more_than_monte_carlo_noise() -> None:
    old = figures_of()
    assert worse([figures_of(bias=0.07)], [old]) == []
    assert len(worse([figures_of(bias=0.2)], [old])) == 1
    assert len(worse([figures_of(std_ratio=0.8, coverage=0.99)], [old])) == 2
    assert len(worse([figures_of(bias=float("nan"))], [old])) == 1
    assert len(worse([figures_of(calls=10)], [old])) == 1
    assert worse([figures_of(bias=0.0, sliced_wasserstein=0.0)], [old]) == []
    with pytest.raises(UsageError, match="nothing to compare"):
        worse([figures_of(rule="other")], [old])


def test_figures_survive_a_file(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    save_figures(file, [figures_of(), figures_of(bias=float("inf"))])
    first, second = load_figures(file)
    assert first == figures_of()
    assert second.bias != second.bias


def test_a_row_without_figures_survives_a_file(tmp_path: Path) -> None:
    save_figures(tmp_path / "none.json", [])
    assert load_figures(tmp_path / "none.json") == []


def with_one(**changed: object) -> str:
    return json.dumps([as_json([figures_of()])[0] | changed])


HOSTILE = {
    "no figures": "[{}]",
    "not a list": "{}",
    "a number": "3",
    "rows of numbers": "[1, 2]",
    "nested rows": "[[{}]]",
    "too deep": "[" * 100_000,
    "not JSON": "bias 3",
    "not text": b"\xff\xfe\x00",
    "empty": "",
    "NaN": with_one(bias=float("nan")),
    "infinite": with_one(bias=float("inf")),
    "beyond what numbers can hold": with_one(bias=0.5).replace("0.5", "1e999"),
    "an integer beyond it": with_one(bias=10**400),
    "text for a number": with_one(bias="0.1"),
    "a number for text": with_one(rule=3),
    "null for text": with_one(rule=None),
    "half a step": with_one(steps=1.5),
    "a truth value": with_one(steps=True),
    "a nested value": with_one(calls=[3.0]),
    "an unknown name": with_one(extra=1.0),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_file_that_holds_no_figures_is_refused(name: str, tmp_path: Path) -> None:
    file, content = tmp_path / "figures.json", HOSTILE[name]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match="saved figures"):
        load_figures(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing.json"):
        with pytest.raises(InputError, match="saved figures"):
            load_figures(path)
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing" / "a.json"):
        with pytest.raises(OutputError):
            save_figures(path, [figures_of()])
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_the_picture_shows_what_is_missing() -> None:
    problem = mixture_problem(0, d=8, dy=1)
    draws = problem.posterior.sample(2000, torch.Generator().manual_seed(3))
    complete, collapsed = (slice_picture(x, problem.posterior) for x in (draws, draws[:1].expand(2000, -1, -1, -1)))
    assert complete.dtype == torch.uint8
    assert complete.ndim == 2
    middle = complete.shape[1] // 2
    assert int((complete[:, middle + 10 :] < 250).sum()) > 4 * int((collapsed[:, middle + 10 :] < 250).sum())


def test_problems_are_drawn_anew_for_each_seed() -> None:
    for name in ("inpainting", "mixture-8-4"):
        one, again, other = problems[name](0), problems[name](0), problems[name](1)
        assert torch.equal(one.y, again.y)
        assert not torch.equal(one.y, other.y)
    wide = problems["mixture-800-1"](0)
    model = condition(wide.prior, wide.forward_model, wide.y, "exact")
    assert model.denoise(wide.start[None], 1.0).shape == (1, 1, 1, 800)


# -- the command --------------------------------------------------------------------------------------------------------
OWN = """
import torch
from invsolve.forward_models import Grayscale
from invsolve.rules import ExactPosterior
from invsolve.samplers import multistep

grey = Grayscale((3, 4, 4))

class Mine(ExactPosterior):
    pass

class Broken(ExactPosterior):
    def denoise(self, x, sigma):
        return super().denoise(x, 2 * sigma)
"""


def test_command_saves_compares_and_fails_when_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_problem.py").write_text(OWN)
    common = ["verify", "--operator", "own_problem:grey", "-s", "multistep", "--steps", "9", "-n", "200"]
    runner = CliRunner()
    first = runner.invoke(app, [*common, "-r", "own_problem:Mine", "--save", "a.json", "--picture", "a.png"])
    assert first.exit_code == 0, first.output
    assert "own_problem" in first.output
    assert "exact" in first.output
    image = Image.open(tmp_path / "a.png")
    assert json.loads(image.text["invsolve"])["task"] == "verify"  # type: ignore[attr-defined]
    again = runner.invoke(app, [*common, "-r", "own_problem:Mine", "--against", "a.json"])
    assert again.exit_code == 0, again.output
    # The same name in the saved file stands for the rule before somebody broke it.
    saved = (tmp_path / "a.json").read_text().replace("Mine", "Broken")
    (tmp_path / "b.json").write_text(saved)
    broken = runner.invoke(app, [*common, "-r", "own_problem:Broken", "--against", "b.json"])
    assert broken.exit_code == 1
    as_json = runner.invoke(app, [*common, "-r", "exact", "--json"])
    (row,) = json.loads(as_json.stdout)
    assert row["calls"] == 9
    assert row["method"] == "exact"


def test_command_says_what_it_does_not_know() -> None:
    runner = CliRunner()
    for arguments, kind in (
        (["verify", "-p", "nothing"], UsageError),
        (["verify", "-p", "blur", "-r", "nothing:here"], UsageError),
        (["verify", "-p", "mixture-8-1", "-r", "proximal", "-s", "twisted"], UsageError),
        (["verify", "--against", "missing.json"], InputError),
    ):
        assert isinstance(runner.invoke(app, arguments).exception, kind)


def test_operators_that_measure_everything_are_fine() -> None:
    figures = verify(gaussian_problem(Identity(SMALL)), rule="moment_matching", sampler="multistep", samples=400)
    assert figures.calibrated
    matrix = DenseMatrix(torch.eye(48, dtype=torch.float64), SMALL)
    same = verify(gaussian_problem(matrix), rule="moment_matching", sampler="multistep", samples=400)
    assert same.bias == pytest.approx(figures.bias, abs=1e-6)
