"""The samplers of the score SDE, each against its own affine recursion, written here from the papers' formulas.

As in test_exact_law.py: Gaussian prior, float64, no Monte Carlo. The maps of the rules come from there.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from invsolve import solve
from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel, GaussianNoise, Grayscale
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.score_model import CountedModel, FunctionPrior, ScoreModel
from invsolve.samplers import SAMPLERS, StepInfo, heun_sde, ode, ode_adaptive, predictor_corrector, reverse_sde
from invsolve.samplers.sigmas import karras
from invsolve.verification.exactness import Law, bias, push, start_law

_spec = importlib.util.spec_from_file_location("exact_law", Path(__file__).with_name("test_exact_law.py"))
assert _spec is not None and _spec.loader is not None
exact_law: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(exact_law)
Affine, EYE, SHAPE, rule_maps = exact_law.Affine, exact_law.EYE, exact_law.SHAPE, exact_law.rule_maps

SIGMAS = karras(9, 0.01, 2.0)


def law_of(sampler: Any, model: ScoreModel, start: Law, sigmas: Tensor, **options: Any) -> Law:
    """The law of a sampler run on each pair of neighbouring levels by itself; ``churn`` then counts for each step."""
    law = start
    for i in range(len(sigmas) - 1):
        law = push(lambda x, noise, s=sigmas[i : i + 2]: sampler(model, x, s, noise, **options), law)
    return law


Move = Callable[[Law, float, float], Law]


class Recursion:
    """Steps of the four samplers as matrices, for one rule and operator."""

    def __init__(self, rule: str, operator: str, prior: GaussianPrior) -> None:
        case = exact_law.problem(rule, operator, prior)
        self.model: ScoreModel = case.model
        self.maps = lambda sigma: rule_maps(rule, prior, case.operator, case.y.flatten(), sigma)
        self.start = start_law(torch.full(SHAPE, 0.4, dtype=torch.float64), float(SIGMAS[0]))

    def score(self, sigma: float) -> Any:
        x0 = self.maps(sigma).x0
        return Affine((x0.matrix - EYE) / sigma**2, x0.offset / sigma**2)

    def project_then(self, law: Law, step: Any, sigma: float, variance: float = 0.0) -> Law:
        maps = self.maps(sigma)
        law = exact_law.move(law, step.after(maps.project), step.matrix @ maps.projection_noise)
        return Law(law.mean, law.covariance + variance * EYE)

    def euler(self, law: Law, sigma: float, drift: float, variance: float) -> Law:
        score = self.score(sigma)
        return self.project_then(law, Affine(EYE + drift * score.matrix, drift * score.offset), sigma, variance)

    def reverse_sde(self, law: Law, sigma: float, following: float) -> Law:
        variance = 2 * sigma * (sigma - following)
        return self.euler(law, sigma, variance, variance) if following else self.euler(law, sigma, sigma**2, 0.0)

    def pc(
        self, law: Law, sigma: float, following: float, snr: float = 0.2, steps: int = 2, ancestral: bool = False
    ) -> Law:
        variance = sigma**2 - following**2
        added = variance * (following / sigma) ** 2 if ancestral else variance
        law = self.euler(law, sigma, variance, added if following else 0.0)
        epsilon = 2 * snr**2 * following**2
        for _ in range(steps if following else 0):
            law = self.euler(law, following, epsilon, 2 * epsilon)
        return law

    def heun(self, law: Law, sigma: float, following: float, gamma: float = 0.0, scale: float = 1.0) -> Law:
        hat = sigma * (1 + gamma)
        law = Law(law.mean, law.covariance + scale**2 * (hat**2 - sigma**2) * EYE)
        h, d = following - hat, self.score(hat)
        d = Affine(-hat * d.matrix, -hat * d.offset)
        euler = Affine(EYE + h * d.matrix, h * d.offset)
        if not following:
            return self.project_then(law, euler, hat)
        d_next = self.score(following)
        d_next = Affine(-following * d_next.matrix, -following * d_next.offset).after(euler)
        step = Affine(EYE + 0.5 * h * (d.matrix + d_next.matrix), 0.5 * h * (d.offset + d_next.offset))
        return self.project_then(law, step, hat)

    def run(self, move: Move) -> Law:
        law = self.start
        for sigma, following in itertools.pairwise(SIGMAS.tolist()):
            law = move(law, sigma, following)
        return law


@pytest.mark.parametrize("operator", list(exact_law.OPERATORS))
@pytest.mark.parametrize("rule", exact_law.RULES)
def test_samplers_follow_their_recursions(rule: str, operator: str, gaussian: GaussianPrior) -> None:
    r = Recursion(rule, operator, gaussian)
    cases: list[tuple[Any, dict[str, Any], Move]] = [
        (reverse_sde, {}, r.reverse_sde),
        (predictor_corrector, {"snr": 0.2, "corrector_steps": 2, "predictor": "reverse_diffusion"}, r.pc),
        (predictor_corrector, {"snr": 0.2, "corrector_steps": 2}, partial(r.pc, ancestral=True)),
        (ode, {}, r.heun),
        (
            heun_sde,
            {"churn": 0.3, "churn_range": (0.0, 99.0), "noise_scale": 1.01},
            lambda law, s, n: r.heun(law, s, n, 0.3, 1.01),
        ),
    ]
    for sampler, options, move in cases:
        exact_law.assert_same(law_of(sampler, r.model, r.start, SIGMAS, **options), r.run(move))


@pytest.mark.parametrize("sampler", ["reverse_sde", "pc", "heun"])
def test_planted_errors_are_caught(sampler: str, gaussian: GaussianPrior) -> None:
    """Another step's size, noise or order must not pass for the sampler's own."""
    r = Recursion("exact", "mask", gaussian)
    wrong: dict[str, tuple[Any, dict[str, Any], Move]] = {
        "reverse_sde": (reverse_sde, {}, lambda law, s, n: r.pc(law, s, n, steps=0)),
        "pc": (predictor_corrector, {"snr": 0.2}, r.pc),
        "heun": (ode, {}, lambda law, s, n: r.euler(law, s, s * (s - n), 0.0)),
    }
    tested, options, move = wrong[sampler]
    with pytest.raises(AssertionError):
        exact_law.assert_same(law_of(tested, r.model, r.start, SIGMAS, **options), r.run(move))


def posterior_problem(prior: GaussianPrior) -> tuple[ScoreModel, GaussianPrior]:
    case = exact_law.problem("exact", "grayscale", prior)
    return case.model, case.posterior


def test_heun_converges_at_second_order_and_euler_maruyama_at_first(gaussian: GaussianPrior) -> None:
    model, posterior = posterior_problem(gaussian)
    start = Law(posterior.mean, posterior.covariance + 5.0**2 * EYE)  # exact, so that only the steps err

    def gaps(sampler: Any, **options: Any) -> list[float]:
        laws = [law_of(sampler, model, start, karras(n, 0.02, 5.0)[:-1], **options) for n in (21, 41, 81)]
        truth = posterior.covariance + 0.02**2 * EYE
        return [float((law.covariance - truth).norm()) for law in laws]

    for sampler, order in ((ode, 2), (reverse_sde, 1)):
        errors = gaps(sampler)
        assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)
        assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.25)


def test_adaptive_ode_reaches_the_law_to_its_tolerance(gaussian: GaussianPrior) -> None:
    model, posterior = posterior_problem(gaussian)
    start = Law(posterior.mean, posterior.covariance + 5.0**2 * EYE)
    sigmas = torch.tensor([5.0, 0.02], dtype=torch.float64)
    truth = posterior.covariance + 0.02**2 * EYE
    errors = []
    for tolerance in (1e-3, 1e-6):
        law = law_of(ode_adaptive, model, start, sigmas, rtol=tolerance, atol=tolerance)
        errors.append(float((law.covariance - truth).norm() / truth.norm()))
    assert errors[1] < 1e-5
    assert errors[1] < errors[0] / 20


def test_an_error_bound_of_nothing_is_refused(gaussian: GaussianPrior) -> None:
    with pytest.raises(UsageError, match="at least 1e-10"):
        ode_adaptive(gaussian, gaussian.mean[None], karras(5, 0.01, 1.0), torch.zeros_like, rtol=0.0, atol=0.0)


BIASES = {  # (mean, std ratio) with 50 levels from 5 on the exact posterior: recorded, not wished for
    "reverse_sde": (0.004, 1.030),
    "pc": (0.001, 0.941),
    "heun_sde": (0.000, 1.018),
    "ode": (0.077, 0.999),  # keeps what the start does not know of the mean
}


@pytest.mark.parametrize("name", list(BIASES))
def test_recorded_bias_against_the_true_posterior(name: str, gaussian: GaussianPrior) -> None:
    model, posterior = posterior_problem(gaussian)
    start = start_law(gaussian.mean, 5.0)
    options: dict[str, dict[str, Any]] = {"heun_sde": {"churn": 40 / 50}}
    law = law_of(SAMPLERS[name], model, start, karras(50, 0.005, 5.0), **options.get(name, {}))
    found = bias(law, posterior)
    assert found.mean == pytest.approx(BIASES[name][0], abs=0.001)
    assert found.std_ratio == pytest.approx(BIASES[name][1], abs=0.001)


NEW = ("pc", "reverse_sde", "heun_sde", "ode", "ode_adaptive")


@pytest.mark.parametrize("sampler", NEW)
@pytest.mark.parametrize("rule", ["proximal", "annealed", "replacement", "exact"])
def test_image_k_does_not_depend_on_the_batch(rule: str, sampler: str, gaussian: GaussianPrior) -> None:
    generator = torch.Generator().manual_seed(1)
    forward_model = ForwardModel(Grayscale(SHAPE), GaussianNoise(0.05))
    y = forward_model.simulate(gaussian.sample(2, generator), generator)
    sigmas = karras(8, 0.02, 1.0)
    if (rule, sampler) == ("replacement", "ode_adaptive"):
        with pytest.raises(UsageError, match="project"):
            solve(gaussian, forward_model, y, rule=rule, sampler=sampler, sigmas=sigmas)
        return
    whole = solve(gaussian, forward_model, y, rule=rule, sampler=sampler, sigmas=sigmas, samples=3, seed=5)
    small = solve(gaussian, forward_model, y, rule=rule, sampler=sampler, sigmas=sigmas, samples=3, seed=5, batch=1)
    # The adaptive solver's images share their steps: they agree up to its tolerance.
    atol = 1e-4 if sampler == "ode_adaptive" else 1e-8
    torch.testing.assert_close(whole.samples, small.samples, atol=atol, rtol=0)
    assert not torch.allclose(whole.samples[0], whole.samples[1])


@pytest.mark.parametrize("sampler", NEW)
def test_calls_and_callbacks_are_as_documented(sampler: str, gaussian: GaussianPrior) -> None:
    model, seen = CountedModel(gaussian), list[StepInfo]()
    z = torch.Generator().manual_seed(0)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=z, dtype=x.dtype)

    x = gaussian.mean + 2.0 * noise(torch.zeros(2, *SHAPE, dtype=torch.float64))
    out = SAMPLERS[sampler](model, x, karras(10, 0.01, 2.0), noise, callback=seen.append)
    assert out.shape == x.shape
    calls = {"pc": 19, "reverse_sde": 10, "heun_sde": 19, "ode": 19}
    if sampler in calls:
        assert model.calls == 2 * calls[sampler]
        assert [info.step for info in seen] == list(range(1, 11))
    steps = [info.step for info in seen]
    assert steps == sorted(steps)
    assert seen[-1].step == seen[-1].steps
    torch.testing.assert_close(seen[-1].x[-1], out[-1])


def test_the_papers_corrector_keeps_the_signal_to_noise_ratio(gaussian: GaussianPrior) -> None:
    """Algorithm 4: |epsilon score| over |sqrt(2 epsilon) z| is the ratio asked for, image by image."""
    draws, sigma = [], 0.3
    x = gaussian.sample(3, torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 5.0]).reshape(3, 1, 1, 1)

    def noise(like: Tensor) -> Tensor:
        draws.append(torch.randn(like.shape, generator=torch.Generator().manual_seed(len(draws)), dtype=like.dtype))
        return torch.zeros_like(like) if len(draws) == 1 else draws[-1]

    sigmas = torch.tensor([sigma * (1 + 1e-12), sigma], dtype=torch.float64)  # the predictor stands still
    out = predictor_corrector(gaussian, x, sigmas, noise, snr=0.16, measured_norms=True)
    score, z = gaussian.score(x, sigma), draws[1]
    ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)
    epsilon = (2 * (0.16 * ratio) ** 2).reshape(3, 1, 1, 1)
    torch.testing.assert_close(out, x + epsilon * score + (2 * epsilon).sqrt() * z, atol=1e-6, rtol=1e-6)


def test_added_noise_stays_within_what_the_prior_knows() -> None:
    asked: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma[0]))
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    prior = FunctionPrior(denoise, channels=1, sigma_max=20.0)
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    heun_sde(prior, x, karras(6, 0.02, 20.0), torch.ones_like)
    assert max(asked) == 20.0
    # The ladder's own levels are left to who chose them: no noise is added there.
    asked.clear()
    heun_sde(prior, x, torch.tensor([25.0, 1.0], dtype=torch.float64), torch.ones_like, churn_range=(0.0, 99.0))
    assert asked == [25.0, 1.0]
