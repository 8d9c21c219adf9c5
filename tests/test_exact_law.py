"""Every rule x sampler against its own affine recursion, written here as matrices from the papers' formulas.

The code under test is pushed through batch by batch (invsolve.verification.exactness); the recursion below shares nothing with it
but the prior's covariance. Float64, no Monte Carlo.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from invsolve.forward_models import ForwardModel, GaussianNoise, Grayscale, Identity, LinearOperator, Mask
from invsolve.models.gaussian import GaussianPrior, dense_matrix
from invsolve.models.score_model import Noise, Prediction, ScoreModel, Sigma
from invsolve.rules import MomentMatching, Rule, condition
from invsolve.rules.annealed import AnnealedLikelihood
from invsolve.rules.proximal import Proximal
from invsolve.samplers import ancestral, annealed_langevin, renoising
from invsolve.samplers.sigmas import geometric, karras, ncsnv2_step
from invsolve.verification.exactness import Law, bias, langevin_by_levels, sampler_law, start_law

SHAPE, D = (3, 4, 4), 48
SIGMA_Y = 0.05
EYE = torch.eye(D, dtype=torch.float64)
OPERATORS: dict[str, LinearOperator] = {
    "mask": Mask((torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(5)) > 0.5).double(), channels=3),
    "grayscale": Grayscale(SHAPE),
    "identity": Identity(SHAPE),
}
RULES: dict[str, str | Rule] = {
    "proximal": "proximal",
    "validated": "validated",
    "annealed": "annealed",
    "replacement": "replacement",
    "exact": "exact",
    "dps": "dps",
    "pigdm": "pigdm",
    "moment_matching": partial(MomentMatching, steps=100, tolerance=1e-12),  # converged: else it is not linear
}


class Affine(NamedTuple):
    """x -> matrix x + offset."""

    matrix: Tensor
    offset: Tensor

    def after(self, other: Affine) -> Affine:
        return Affine(self.matrix @ other.matrix, self.matrix @ other.offset + self.offset)


IDENTITY_MAP = Affine(EYE, torch.zeros(D, dtype=torch.float64))


class Maps(NamedTuple):
    """A rule at one noise level."""

    project: Affine
    projection_noise: Tensor  # matrix on the noise that projecting adds
    x0: Affine  # of the projected x
    z: Affine  # noise estimate, of the projected x


def rule_maps(rule: str, prior: GaussianPrior, operator: LinearOperator, y: Tensor, sigma: float) -> Maps:
    """The rules as matrices."""
    a, s, mu = dense_matrix(operator), prior.covariance, prior.mean.flatten()
    norm = float(torch.linalg.matrix_norm(a, ord=2))
    gain = s @ torch.linalg.inv(s + sigma**2 * EYE)
    denoise = Affine(gain, mu - gain @ mu)
    none = torch.zeros(D, D, dtype=torch.float64)

    def noise_in(x0: Affine) -> Affine:
        return Affine((EYE - x0.matrix) / sigma, -x0.offset / sigma)

    if rule in ("proximal", "validated"):
        # The error covariance of a Gaussian's denoiser is S - K S.
        r2 = sigma**2 if rule == "proximal" else float((s - gain @ s).diagonal().mean())
        solve = torch.linalg.inv(a.T @ a / SIGMA_Y**2 + EYE / r2)
        agree = Affine(solve / r2, solve @ a.T @ y / SIGMA_Y**2)
        return Maps(IDENTITY_MAP, none, agree.after(denoise), noise_in(denoise))
    if rule == "annealed":
        weight = sigma**2 / (SIGMA_Y**2 + (sigma * norm) ** 2)
        x0 = Affine(denoise.matrix - weight * a.T @ a, denoise.offset + weight * a.T @ y)
        return Maps(IDENTITY_MAP, none, x0, noise_in(x0))
    if rule == "replacement":
        rho = (1 - 0.999) / 0.999 * norm**2
        solve = torch.linalg.inv(a.T @ a + rho * EYE)
        return Maps(Affine(rho * solve, solve @ a.T @ y), sigma * solve @ a.T @ a, denoise, noise_in(denoise))
    if rule in ("dps", "pigdm"):
        # The Jacobian of the denoiser is the gain; both add gain @ A' W (y - A D).
        r2 = float((s - gain @ s).diagonal().mean())
        spread = sigma**2 * norm**2 * torch.eye(len(a), dtype=a.dtype) if rule == "dps" else r2 * a @ a.T
        weight = sigma**2 * gain.T @ a.T @ torch.linalg.inv(SIGMA_Y**2 * torch.eye(len(a), dtype=a.dtype) + spread)
        x0 = Affine(denoise.matrix - weight @ a @ denoise.matrix, denoise.offset + weight @ (y - a @ denoise.offset))
        return Maps(IDENTITY_MAP, none, x0, noise_in(x0))
    # What is left is exact; moment matching is too, for a Gaussian.
    evidence = torch.linalg.inv(a @ s @ a.T + SIGMA_Y**2 * torch.eye(len(a), dtype=torch.float64))
    c = s - s @ a.T @ evidence @ a @ s
    m = mu + s @ a.T @ evidence @ (y - a @ mu)
    shrink = c @ torch.linalg.inv(c + sigma**2 * EYE)
    x0 = Affine(shrink, m - shrink @ m)
    return Maps(IDENTITY_MAP, none, x0, noise_in(x0))


def move(law: Law, step: Affine, noise: Tensor) -> Law:
    mean = step.matrix @ law.mean.flatten() + step.offset
    return Law(mean.reshape(SHAPE), step.matrix @ law.covariance @ step.matrix.T + noise @ noise.T)


def expected_renoising(rule: str, prior: GaussianPrior, operator: LinearOperator, y: Tensor, law: Law, sigmas: Tensor, eta: float | None) -> Law:  # fmt: skip
    for sigma, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        maps = rule_maps(rule, prior, operator, y, sigma)
        fresh = (1 - following**2 / sigma**2) ** 0.5 if eta is None else eta
        kept = following * (1 - fresh**2) ** 0.5
        step = Affine(maps.x0.matrix + kept * maps.z.matrix, maps.x0.offset + kept * maps.z.offset)
        law = move(law, step.after(maps.project), step.matrix @ maps.projection_noise)
        law = Law(law.mean, law.covariance + (following * fresh) ** 2 * EYE)
    return law


def expected_langevin(rule: str, prior: GaussianPrior, operator: LinearOperator, y: Tensor, law: Law, sigmas: Tensor, steps: int, epsilon: float) -> Law:  # fmt: skip
    levels = sigmas[:-1].tolist()
    for sigma in levels:
        maps = rule_maps(rule, prior, operator, y, sigma)
        alpha = epsilon * sigma**2 / levels[-1] ** 2
        gradient = Affine((maps.x0.matrix - EYE) / sigma**2, maps.x0.offset / sigma**2)
        step = Affine(EYE + alpha * gradient.matrix, alpha * gradient.offset)
        for _ in range(steps):
            law = move(law, step.after(maps.project), step.matrix @ maps.projection_noise)
            law = Law(law.mean, law.covariance + 2 * alpha * EYE)
    return move(law, maps.x0.after(maps.project), maps.x0.matrix @ maps.projection_noise)


class Problem(NamedTuple):
    model: ScoreModel
    posterior: GaussianPrior
    y: Tensor
    operator: LinearOperator


def problem(rule: str, name: str, prior: GaussianPrior) -> Problem:
    operator = OPERATORS[name]
    generator = torch.Generator().manual_seed(7)
    forward_model = ForwardModel(operator, GaussianNoise(SIGMA_Y))
    y = forward_model.simulate(prior.sample(1, generator), generator)
    return Problem(condition(prior, forward_model, y, RULES[rule]), prior.posterior(forward_model, y), y, operator)


def assert_same(law: Law | None, expected: Law) -> None:
    assert law is not None
    torch.testing.assert_close(law.mean, expected.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(law.covariance, expected.covariance, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("operator", list(OPERATORS))
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("eta", [1.0, 0.6, 0.0, None], ids=["full", "partly", "none", "ancestral"])
def test_renoising_follows_its_recursion(rule: str, operator: str, eta: float | None, gaussian: GaussianPrior) -> None:
    case, sigmas = problem(rule, operator, gaussian), karras(9, 0.01, 2.0)
    start = start_law(torch.full(SHAPE, 0.4, dtype=torch.float64), float(sigmas[0]))
    law = sampler_law(partial(renoising, eta=eta), case.model, start, sigmas)
    assert_same(law, expected_renoising(rule, gaussian, case.operator, case.y.flatten(), start, sigmas, eta))


@pytest.mark.parametrize("operator", list(OPERATORS))
@pytest.mark.parametrize("rule", RULES)
def test_langevin_follows_its_recursion(rule: str, operator: str, gaussian: GaussianPrior) -> None:
    case, sigmas = problem(rule, operator, gaussian), geometric(6, 0.02, 1.0)
    start = start_law(torch.full(SHAPE, 0.4, dtype=torch.float64), float(sigmas[0]))
    epsilon = 0.1 * 0.02**2
    law = sampler_law(langevin_by_levels(3, 0.1), case.model, start, sigmas)
    assert_same(law, expected_langevin(rule, gaussian, case.operator, case.y.flatten(), start, sigmas, 3, epsilon))


def test_langevin_takes_one_step_size_for_the_whole_ladder(gaussian: GaussianPrior) -> None:
    """annealed_langevin's step is epsilon sigma^2 / sigma_L^2: run whole it is what runs level by level are."""
    sigmas, x = geometric(6, 0.02, 1.0), torch.zeros((2, *SHAPE), dtype=torch.float64)
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    noises: list[Noise] = [lambda x, g=g: torch.randn(x.shape, generator=g, dtype=x.dtype) for g in draws]
    whole = annealed_langevin(
        gaussian, x, sigmas, noises[0], langevin_steps=3, step_size=0.1 * 0.02**2, consistent=False
    )
    torch.testing.assert_close(langevin_by_levels(3, 0.1)(gaussian, x, sigmas, noises[1]), whole)


@pytest.mark.parametrize("operator", ["mask", "grayscale"])
def test_textbook_langevin_with_the_exact_rule_finds_the_posterior(operator: str, gaussian: GaussianPrior) -> None:
    case, sigmas = problem("exact", operator, gaussian), geometric(300, 0.005, 2.0)
    start = start_law(torch.full(SHAPE, 0.5, dtype=torch.float64), float(sigmas[0]))
    law = sampler_law(langevin_by_levels(5, 0.2), case.model, start, sigmas)
    assert law is not None
    found = bias(law, case.posterior)
    assert found.mean < 0.05
    assert 0.97 < found.std_ratio < 1.03


def test_ancestral_converges_to_the_posterior_at_first_order(gaussian: GaussianPrior) -> None:
    case = problem("exact", "grayscale", gaussian)
    gaps = []
    for steps in (40, 80, 160):
        sigmas = karras(steps, 0.005, 5.0)
        law = sampler_law(ancestral, case.model, start_law(gaussian.mean, 5.0), sigmas)
        assert law is not None
        gaps.append(abs(bias(law, case.posterior).std_ratio - 1))
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.25)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.25)


def test_full_renoising_is_underdispersed(gaussian: GaussianPrior) -> None:
    case, sigmas = problem("exact", "mask", gaussian), karras(200, 0.002, 1.0)
    law = sampler_law(renoising, case.model, start_law(gaussian.mean, 1.0), sigmas)
    assert law is not None
    assert bias(law, case.posterior).std_ratio == pytest.approx(0.5**0.5, abs=0.05)


def test_planted_errors_are_caught(gaussian: GaussianPrior) -> None:
    """A factor 2 in a step, a wrong sign and a sigma in the wrong unit: each must break its recursion."""

    class FactorTwo(AnnealedLikelihood):
        def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
            own = self.prior.denoise(x, sigma)
            return own + 2 * (super().denoise(x, sigma) - own)

    class WrongSign(Proximal):
        def predict(self, x: Tensor, sigma: Sigma) -> Prediction:
            x0, z = super().predict(x, sigma)
            return Prediction(x0, -z)

    class WrongUnit(Proximal):
        def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
            return super().denoise(x, 2 * float(sigma))

        def predict(self, x: Tensor, sigma: Sigma) -> Prediction:
            return super().predict(x, 2 * float(sigma))

    sigmas = karras(9, 0.01, 2.0)
    start = start_law(torch.full(SHAPE, 0.4, dtype=torch.float64), float(sigmas[0]))
    for name, wrong in (("annealed", FactorTwo), ("proximal", WrongSign), ("proximal", WrongUnit)):
        case = problem(name, "mask", gaussian)
        model = wrong(gaussian, ForwardModel(case.operator, GaussianNoise(SIGMA_Y)), case.y)
        expected = expected_renoising(name, gaussian, case.operator, case.y.flatten(), start, sigmas, 0.6)
        with pytest.raises(AssertionError):
            assert_same(sampler_law(partial(renoising, eta=0.6), model, start, sigmas), expected)

    case, ladder = problem("exact", "mask", gaussian), geometric(6, 0.02, 1.0)
    epsilon = ncsnv2_step(ladder, 3)
    expected = expected_langevin("exact", gaussian, case.operator, case.y.flatten(), start, ladder, 3, epsilon)
    own, doubled = (
        partial(annealed_langevin, langevin_steps=3, step_size=k * epsilon, consistent=False) for k in (1, 2)
    )
    assert_same(sampler_law(own, case.model, start, ladder), expected)
    with pytest.raises(AssertionError):
        assert_same(sampler_law(doubled, case.model, start, ladder), expected)
