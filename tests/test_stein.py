"""The kernel Stein discrepancy: its kernel, its level, what it finds and what it is blind to, and its place in verify."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models import Grayscale
from invsolve.models.gaussian import GaussianPrior, SharedMixturePrior
from invsolve.models.score_model import Sigma
from invsolve.rules import MomentMatching
from invsolve.samplers import multistep
from invsolve.verification.figures import Figures, as_json, average, load_figures
from invsolve.verification.judge import judge_by_score, verify
from invsolve.verification.problems import Problem, gaussian_problem, mixture_problem
from invsolve.verification.stein import Stein, kernel_stein_discrepancy, resolved, smoothed, stein_kernel


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(count: int, d: int, seed: int) -> Tensor:
    return torch.randn(count, d, generator=seeded(seed), dtype=torch.float64)


def of_standard_normal(x: Tensor, seed: int = 0, **options: float) -> Stein:
    return kernel_stein_discrepancy(x, -x, seeded(1000 + seed), bootstraps=300, **options)  # type: ignore[arg-type]


# -- the statistic ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("exponent", [-0.5, -0.8])
def test_the_kernel_is_that_of_its_definition(exponent: float) -> None:
    """Derivatives by automatic differentiation; the scores are any vectors."""
    x, scores = normal(5, 3, 0), normal(5, 3, 1)
    found = stein_kernel(x, scores, exponent, 1.3)

    def k(a: Tensor, b: Tensor) -> Tensor:
        return (1.3**2 + (a - b).square().sum()) ** exponent

    for i in range(5):
        for j in range(5):
            a, b = x[i], x[j]
            by_a, by_b = torch.func.grad(k, 0)(a, b), torch.func.grad(k, 1)(a, b)
            mixed = torch.func.jacrev(torch.func.grad(k, 0), 1)(a, b).diagonal().sum()
            wanted = scores[i] @ scores[j] * k(a, b) + scores[i] @ by_b + scores[j] @ by_a + mixed
            assert float(found[i, j]) == pytest.approx(float(wanted), rel=1e-9)


@pytest.mark.parametrize("d", [1, 20])
def test_exact_samples_are_rejected_as_often_as_the_level_says(d: int) -> None:
    found = [of_standard_normal(normal(100, d, k), k) for k in range(200)]
    for level in (0.05, 0.3):
        share = sum(one.p_value <= level for one in found) / 200
        assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 200))
    squared = torch.tensor([one.squared for one in found])
    assert abs(float(squared.mean())) < 4 * float(squared.std()) / 200**0.5  # without bias
    assert float(squared.min()) < 0


@pytest.mark.parametrize("wrong", ["mean", "too narrow", "too wide", "tails", "correlated", "a mode missing"])
def test_samples_of_another_law_are_found(wrong: str) -> None:
    x = normal(400, 2, 3)
    scores = -x
    if wrong == "mean":
        x = x + torch.tensor([0.3, 0.0])
    elif wrong in ("too narrow", "too wide"):
        x = x * {"too narrow": 0.75, "too wide": 1.3}[wrong]
    elif wrong == "tails":  # of the same mean and variance
        x = x / (normal(400, 5, 4).square().sum(dim=1, keepdim=True) / 5).sqrt() * math.sqrt(3 / 5)
    elif wrong == "correlated":
        x = torch.stack([x[:, 0], 0.5 * x[:, 0] + math.sqrt(0.75) * x[:, 1]], dim=1)
    if wrong == "a mode missing":  # one that touches the other
        means = torch.tensor([[-1.2, 0.0], [1.2, 0.0]], dtype=torch.float64)
        x = x + means[0]
        weights = torch.softmax(-0.5 * (x[:, None] - means).square().sum(dim=2), dim=1)
        scores = weights @ means - x
    else:
        scores = -x
    assert kernel_stein_discrepancy(x, scores, seeded(0)).p_value < 0.02


def test_the_squared_discrepancy_does_not_depend_on_the_number_of_samples() -> None:
    few, many = (
        torch.tensor([of_standard_normal(normal(count, 2, k) + 1).squared for k in range(100)]) for count in (20, 100)
    )
    assert float(few.mean()) == pytest.approx(float(many.mean()), abs=4 * float(few.std()) / 10)


def test_samples_of_a_chain_need_signs_that_follow_it() -> None:
    def chain(seed: int) -> Tensor:
        noise, out = normal(300, 1, seed), []
        state = noise[0]
        for step in noise:
            state = 0.9 * state + math.sqrt(1 - 0.9**2) * step
            out.append(state)
        return torch.stack(out)

    independent, following = (
        sum(of_standard_normal(chain(k), k, flip=flip).p_value <= 0.05 for k in range(60)) / 60 for flip in (0.5, 0.02)
    )
    assert following < 0.2 < independent / 2


def test_it_is_blind_to_the_weights_of_far_modes_but_not_through_noise() -> None:
    means = torch.tensor([-10.0, 10.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    right, wrong = (SharedMixturePrior(torch.tensor(w, dtype=torch.float64), means) for w in ([0.5, 0.5], [0.95, 0.05]))

    def p_value(draws: Tensor, sigma: float) -> float:
        return kernel_stein_discrepancy(*smoothed(right, draws, sigma, seeded(1)), seeded(2), offset=sigma).p_value

    draws = wrong.sample(500, seeded(0))
    assert p_value(draws, 0.1) > 0.05
    assert p_value(draws, 10.0) < 0.01
    assert p_value(right.sample(500, seeded(0)), 10.0) > 0.05


def test_noise_and_directions_keep_the_score_exact(gaussian: GaussianPrior) -> None:
    sigma = 0.05
    x, scores = smoothed(gaussian, gaussian.sample(300, seeded(0)), sigma, seeded(1))
    covariance = gaussian.covariance + sigma**2 * torch.eye(48, dtype=torch.float64)
    torch.testing.assert_close(scores, -(x - gaussian.mean.flatten()) @ torch.linalg.inv(covariance))
    white, own = resolved(x - gaussian.mean.flatten(), scores, gaussian.covariance, sigma)
    torch.testing.assert_close(own, -white)  # of a standard normal
    assert white.shape[1] == int((gaussian.eigenvalues >= sigma**2).sum()) < 48
    assert resolved(x, scores, 1e-9 * gaussian.covariance, sigma)[0].shape == (300, 48)  # all drowned: all are kept


def test_what_is_no_sample_is_refused() -> None:
    x = normal(10, 2, 0)
    for samples, scores in ((x, x[:, :1]), (x[:1], x[:1]), (x[0], x[0])):
        with pytest.raises(InputError, match="shape"):
            kernel_stein_discrepancy(samples, scores, seeded(0))
    with pytest.raises(InputError, match="not finite"):
        kernel_stein_discrepancy(x, x / 0, seeded(0))


# -- in verify --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def problem() -> Problem:
    return gaussian_problem(Grayscale((3, 4, 4)), "small", 3)


def test_draws_of_the_posterior_pass(problem: Problem) -> None:
    for one in (problem, mixture_problem(0)):
        found = [judge_by_score(one.posterior.sample(200, seeded(k)), one, k).p_value for k in range(40)]
        assert sum(p <= 0.05 for p in found) <= 6
    assert math.isnan(judge_by_score(problem.posterior.sample(200, seeded(0)) / 0, problem).squared)


class LikelihoodTwice(MomentMatching):
    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        guide = self.guide(x, sigma)
        return guide.denoised + 2 * (guide.x0 - guide.denoised)


class WrongUnit(MomentMatching):
    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return super().denoise(x, 0.5 * float(torch.as_tensor(sigma)))


def double_noise(model, x, sigmas, noise, **options):  # type: ignore[no-untyped-def]
    return multistep(model, x, sigmas, lambda like: 2**0.5 * noise(like), **options)


@pytest.mark.parametrize(
    ("rule", "sampler"),
    [(LikelihoodTwice, "multistep"), (WrongUnit, "multistep"), (MomentMatching, double_noise)],
)
def test_planted_errors_are_found(rule: type, sampler: object, problem: Problem) -> None:
    right = verify(problem, rule="moment_matching", sampler="multistep", steps=12, samples=400)
    wrong = verify(problem, rule=rule, sampler=sampler, steps=12, samples=400)  # type: ignore[arg-type]
    assert wrong.ksd_p < 0.01
    assert wrong.ksd_squared > 2 * right.ksd_squared


def test_the_verdict_does_not_hear_of_it(problem: Problem) -> None:
    figures = verify(problem, rule="exact", sampler="ancestral", steps=50)
    assert figures.method == "exact" and figures.ksd_p > 0.01  # drawn from the exact law
    assert replace(figures, ksd_squared=9.0, ksd_p=0.0).calibrated == figures.calibrated


def test_particles_of_one_run_are_not_independent(problem: Problem) -> None:
    figures = verify(problem, rule="moment_matching", sampler="twisted", steps=4, samples=40)
    assert math.isnan(figures.ksd_squared) and math.isnan(figures.ksd_p)


def test_saved_figures_keep_it_and_old_ones_are_read(problem: Problem, tmp_path: Path) -> None:
    figures = verify(problem, rule="exact", sampler="multistep", steps=5)
    (row,) = as_json([figures])
    (tmp_path / "new.json").write_text(json.dumps([row]))
    assert load_figures(tmp_path / "new.json") == [figures]
    old = {name: value for name, value in row.items() if not name.startswith("ksd")}
    (tmp_path / "old.json").write_text(json.dumps([old]))
    (found,) = load_figures(tmp_path / "old.json")
    assert math.isnan(found.ksd_p) and found.bias == figures.bias


def test_p_values_of_several_problems_are_combined(problem: Problem) -> None:
    one = verify(problem, rule="exact", sampler="multistep", steps=5)

    def mean(*p_values: float) -> Figures:
        return average([replace(one, ksd_p=p, ksd_squared=p) for p in p_values])

    # Fisher: -2 sum log p is chi-squared with 2 k degrees of freedom; for two, P = q (1 - log q) with q the product.
    assert mean(0.1, 0.2).ksd_p == pytest.approx(0.02 * (1 - math.log(0.02)))
    assert mean(0.1, 0.2).ksd_squared == pytest.approx(0.15)
    assert math.isnan(mean(0.1, math.nan).ksd_p)
