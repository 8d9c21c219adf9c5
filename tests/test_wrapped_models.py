"""Wrappers pass on everything a score model can be asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models import ForwardModel
from invsolve.models.orientation import OrientedModel
from invsolve.models.score_model import (
    CountedModel,
    ErrorCovariance,
    Noise,
    Prediction,
    PriorFacts,
    ScoreModel,
    Sigma,
    WrappedModel,
)
from invsolve.rules import Proximal
from invsolve.samplers import renoising
from invsolve.samplers.sigmas import karras
from invsolve.verification.judge import verify
from invsolve.verification.problems import inpainting_problem

FACTS = [field.name for field in fields(PriorFacts)]
PUBLIC = [name for name in vars(ScoreModel) if not name.startswith("_") and name not in FACTS]


class Opinionated(ScoreModel):
    """Answers every question in a way of its own."""

    def __init__(self) -> None:
        super().__init__(channels=3, sigma_min=0.1, sigma_max=7.0, sigma_data=0.4, frame=8, orientations="flips")
        self.gradients = 0
        self.covariance = ErrorCovariance(9.0)

    @property
    def device(self) -> torch.device:
        return torch.device("meta")

    @property
    def base(self) -> ScoreModel:
        return ANOTHER

    @property
    def projects(self) -> bool:
        return True

    def check_size(self, x: Tensor) -> None:
        raise InputError("size")

    def check_rgb(self) -> None:
        raise InputError("rgb")

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return 2 * x

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        return 3 * x

    def predict(self, x: Tensor, sigma: Sigma) -> Prediction:
        return Prediction(4 * x, 5 * x)

    def project(self, x: Tensor, sigma: Sigma, noise: Noise) -> Tensor:
        return 6 * noise(x)

    def count_gradients(self, count: int) -> None:
        self.gradients += count

    def mse(self, sigma: float) -> float:
        return 8 * sigma

    def error_covariance(self, x0: Tensor, sigma: Sigma) -> ErrorCovariance:
        return self.covariance

    def draw(self, x: Tensor, sigma: Sigma, noise: Noise) -> Prediction:
        x0 = 2 * x + 3 * noise(
            x
        )  # of what it denoises to and that covariance, as a wrapper that turns it must draw itself
        return Prediction(x0, (x - x0) / sigma)


ANOTHER = ScoreModel(channels=3)


class Watching(WrappedModel):
    """A user's wrapper that looks on."""

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.seen: list[float] = []

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        self.seen.append(float(x.mean()))
        return self.model.denoise(x, sigma)


def answer(model: ScoreModel, name: str) -> Any:
    """What ``model`` says to the question ``name``: its result, or its error."""
    member = inspect.getattr_static(ScoreModel, name)
    if isinstance(member, property):
        return getattr(model, name)
    x = torch.ones(2, 3, 4, 6)
    arguments: dict[str, Any] = {"x": x, "x0": x, "sigma": 0.5, "noise": torch.ones_like, "count": 3}
    wanted = list(inspect.signature(member).parameters)[1:]
    try:
        return getattr(model, name)(*(arguments[parameter] for parameter in wanted))
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("wrapper", [WrappedModel, CountedModel, lambda model: OrientedModel(model, [0, 3])])
def test_a_wrapper_passes_every_question_on(wrapper: Callable[[ScoreModel], WrappedModel], name: str) -> None:
    assert name in vars(Opinionated), f"give Opinionated an answer to {name}"
    inner = Opinionated()
    for model in (wrapper(inner), wrapper(CountedModel(inner))):
        expected, found = answer(inner, name), answer(model, name)
        torch.testing.assert_close(found, expected) if isinstance(expected, Tensor | tuple) else None
        assert isinstance(expected, Tensor | tuple) or found == expected
    assert inner.gradients in (0, 12)


def test_a_wrapper_knows_the_facts() -> None:
    inner = Opinionated()
    assert [getattr(WrappedModel(inner), name) for name in FACTS] == [getattr(inner, name) for name in FACTS]


def test_calls_are_counted_however_they_are_made() -> None:
    x = torch.ones(2, 3, 4, 4)
    counted = CountedModel(ScoreModel(channels=3))
    counted.model = Opinionated()
    counted.denoise(x, 0.5)
    counted.score(x, 0.5)
    counted.predict(x, 0.5)
    counted.draw(x, 0.5, torch.ones_like)
    counted.count_gradients(3)
    assert counted.calls == 11


def test_a_wrapper_that_denoises_differently_predicts_and_scores_differently() -> None:
    class Doubled(WrappedModel):
        def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
            return 2 * self.model.denoise(x, sigma)

    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    plain = Doubled(Watching(inpainting_problem(0).prior))
    estimate = plain.denoise(x, 0.5)
    assert torch.equal(plain.predict(x, 0.5).x0, estimate)
    torch.testing.assert_close(plain.predict(x, 0.5).z, (x - estimate) / 0.5)
    torch.testing.assert_close(plain.score(x, 0.5), (estimate - x) / 0.25)
    # Around a model with a statement of its own about the noise, that is kept.
    around = Doubled(Opinionated())
    assert torch.equal(around.predict(x, 0.5).x0, 4 * x)
    assert torch.equal(around.predict(x, 0.5).z, 5 * x)


@pytest.mark.parametrize("wrapper", [WrappedModel, Watching])
def test_verify_judges_a_wrapped_rule_as_the_rule(wrapper: Callable[[ScoreModel], WrappedModel]) -> None:
    def rule(prior: ScoreModel, forward_model: ForwardModel, y: Tensor) -> ScoreModel:
        return wrapper(Proximal(prior, forward_model, y))

    options: dict[str, Any] = {"sampler": "renoising(eta=0.6)", "steps": 8}
    bare, wrapped = (verify(inpainting_problem(0), rule=one, **options) for one in ("proximal", rule))
    assert (wrapped.bias, wrapped.std_ratio) == pytest.approx((bare.bias, bare.std_ratio), rel=1e-9)
    assert bare.method == wrapped.method == "exact"


def test_watching_sees_every_step() -> None:
    model = Watching(inpainting_problem(0).prior)
    x = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    renoising(model, x, karras(5), torch.zeros_like)
    assert len(model.seen) == 5
