"""The guided rules against closed forms, and their contract: batches, no_grad, any differentiable map."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from invsolve import solve
from invsolve.errors import InputError, UsageError
from invsolve.forward_models import DenseMatrix, ForwardModel, GaussianNoise, Grayscale, LinearOperator, Mask
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.models.score_model import CountedModel, FunctionPrior
from invsolve.rules import DPS, GuidedModel, MomentMatching, PiGDM, Rule, condition, find_rule, rule_name
from invsolve.samplers.sigmas import karras

SHAPE = (3, 4, 4)
FEW = DenseMatrix(torch.randn(5, 48, generator=torch.Generator().manual_seed(8), dtype=torch.float64), SHAPE)
OPERATORS: dict[str, LinearOperator] = {
    "mask": Mask((torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(5)) > 0.5).double(), channels=3),
    "grayscale": Grayscale(SHAPE),
    "composition": Mask(torch.eye(4, dtype=torch.float64)[None]) @ Grayscale(SHAPE),
    "few values": FEW,
}
CONVERGED = partial(MomentMatching, steps=200, tolerance=1e-12)
GUIDED: dict[str, Rule] = {
    "dps annealed": DPS,
    "dps norm": partial(DPS, weight="norm"),
    "pigdm": PiGDM,
    "moment matching": CONVERGED,
}


def measure(prior: GaussianPrior, operator: LinearOperator, images: int = 1) -> tuple[ForwardModel, Tensor]:
    generator = torch.Generator().manual_seed(1)
    forward_model = ForwardModel(operator, GaussianNoise(0.05))
    return forward_model, forward_model.simulate(prior.sample(images, generator), generator)


def mixture(prior: GaussianPrior) -> GaussianMixturePrior:
    """Two smooth Gaussians, one lighter than the other: a denoiser that is not linear."""
    other = GaussianPrior(prior.mean + 0.4, 0.5 * prior.covariance)
    return GaussianMixturePrior(torch.tensor([0.4, 0.6], dtype=torch.float64), [prior, other])


@pytest.mark.parametrize("operator", list(OPERATORS))
@pytest.mark.parametrize("sigma", [0.01, 0.3, 5.0])
def test_moment_matching_is_exact_for_a_gaussian(operator: str, sigma: float, gaussian: GaussianPrior) -> None:
    forward_model, y = measure(gaussian, OPERATORS[operator])
    x = gaussian.mean + (1 + sigma) * torch.randn(
        (4, *SHAPE), generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    with torch.no_grad():
        found = condition(gaussian, forward_model, y, CONVERGED).denoise(x, sigma)
    expected = condition(gaussian, forward_model, y, "exact").denoise(x, sigma)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", list(GUIDED))
def test_the_guide_is_the_gradient_of_its_log_likelihood(rule: str, gaussian: GaussianPrior) -> None:
    """x0 = D + sigma^2 grad log p(y | x), by finite differences; the rules take D's covariance as constant in x."""
    forward_model, y = measure(gaussian, OPERATORS["grayscale"])
    model = condition(gaussian, forward_model, y, GUIDED[rule])
    assert isinstance(model, GuidedModel)
    sigma, step = 0.4, 1e-5
    generator = torch.Generator().manual_seed(3)
    x, direction = (torch.randn((1, *SHAPE), generator=generator, dtype=torch.float64) for _ in range(2))
    up, down = (model.guide(x + sign * step * direction, sigma).log_likelihood for sign in (1, -1))
    here = model.guide(x, sigma)
    slope = float(((here.x0 - here.denoised) * direction).sum()) / sigma**2
    assert slope == pytest.approx(float((up - down)[0]) / (2 * step), rel=1e-5)


def test_dense_and_iterated_moment_matching_agree(gaussian: GaussianPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = mixture(gaussian)
    forward_model, y = measure(gaussian, FEW)
    model = condition(prior, forward_model, y, CONVERGED)
    assert isinstance(model, GuidedModel)
    x = torch.randn((3, *SHAPE), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    dense = model.guide(x, 0.5)
    monkeypatch.setattr("invsolve.rules.moment_matching.FEW_VALUES", 0)
    iterated = model.guide(x, 0.5)
    torch.testing.assert_close(dense.x0, iterated.x0, rtol=0, atol=1e-7)


@pytest.mark.parametrize("rule", list(GUIDED))
def test_guided_rules_do_not_depend_on_the_batch(rule: str, gaussian: GaussianPrior) -> None:
    prior = mixture(gaussian)
    forward_model, y = measure(gaussian, OPERATORS["composition"], images=3)
    options = {"rule": GUIDED[rule], "sampler": "ancestral", "sigmas": karras(6, 0.02, 1.0), "seed": 3}
    whole = solve(prior, forward_model, y, samples=2, batch=6, **options)  # type: ignore[arg-type]
    small = solve(prior, forward_model, y, samples=2, batch=1, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(whole.samples, small.samples, rtol=0, atol=1e-9)
    assert whole.network_calls == small.network_calls or rule == "moment matching"


def test_backward_passes_are_counted(gaussian: GaussianPrior) -> None:
    forward_model, y = measure(gaussian, OPERATORS["mask"])
    x = torch.zeros((2, *SHAPE), dtype=torch.float64)
    for rule, calls in ((DPS, 4), (PiGDM, 4), (partial(MomentMatching, steps=3, tolerance=0.0), 8)):
        counted = CountedModel(gaussian)
        condition(counted, forward_model, y, rule).denoise(x, 0.3)
        assert counted.calls == calls


def test_dps_takes_any_differentiable_map(gaussian: GaussianPrior) -> None:
    forward_model = ForwardModel(lambda x: x.square().sum(dim=1), GaussianNoise(0.02))
    truth = gaussian.mean[None] + 0.1
    y = forward_model.operator(truth)
    start = gaussian.mean[None]
    for weight in ("annealed", "norm"):
        rule = partial(DPS, weight=weight, gamma=2.0, zeta=0.5)
        result = solve(gaussian, forward_model, y, rule=rule, start=start, sigmas=karras(60, 0.005, 0.5), samples=4)
        misfit = float((forward_model.operator(result.samples[:, 0]) - y).square().mean().sqrt())
        assert misfit < 0.06, weight
    with pytest.raises(InputError, match="linear operator"):
        condition(gaussian, forward_model, y, "pigdm")


def test_a_denoiser_without_gradient_is_named(gaussian: GaussianPrior) -> None:
    prior = FunctionPrior(lambda x, sigma: x.detach(), channels=3)
    forward_model, y = measure(gaussian, OPERATORS["mask"])
    with pytest.raises(UsageError, match="cannot be differentiated"):
        condition(prior, forward_model, y, "dps").denoise(y, 0.3)
    with pytest.raises(UsageError, match="annealed"):
        DPS(gaussian, forward_model, y, weight="both")  # type: ignore[arg-type]


def test_a_rule_takes_arguments_in_its_name() -> None:
    rule = find_rule("moment_matching(tolerance=.2, steps=6)")
    assert isinstance(rule, partial)
    assert rule.func is MomentMatching
    assert rule.keywords == {"tolerance": 0.2, "steps": 6}
    # One name, however it was given: calibrations are compared by it.
    names = [rule, "moment_matching(tolerance=.2, steps=6)", partial(MomentMatching, steps=6, tolerance=0.2)]
    assert {rule_name(name) for name in names} == {"moment_matching(steps=6, tolerance=0.2)"}
    assert rule_name("proximal") == "proximal"
    assert rule_name(MomentMatching) == "moment_matching"


@pytest.mark.parametrize(
    "text",
    [
        "moment_matching(0.2)",
        "moment_matching(speed=3)",
        "nobody(steps=3)",
        "dps(",
        "dps(weight=open('x'))",
        "a.b(c=1)",
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="rule"):
        find_rule(text)


def test_the_run_names_the_rule_with_its_arguments(gaussian: GaussianPrior) -> None:
    forward_model, y = measure(gaussian, OPERATORS["grayscale"])
    result = solve(gaussian, forward_model, y, rule="moment_matching(steps=3)", sigmas=karras(2))
    assert result.settings["rule"] == "moment_matching(steps=3)"
