"""The adaptive SDE solver: its steps are the paper's, its path is one Brownian motion, its law the posterior's."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from invsolve import condition, solve
from invsolve.errors import SolveError, UsageError
from invsolve.forward_models import ForwardModel, GaussianNoise, Mask
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.models.score_model import CountedModel, FunctionPrior, Noise, ScoreModel
from invsolve.models.sde import SDEName, find_sde
from invsolve.samplers import StepInfo, sde_adaptive
from invsolve.samplers.sigmas import karras
from invsolve.verification.judge import verify
from invsolve.verification.problems import inpainting_problem

module: Any = sys.modules["invsolve.samplers.sde_adaptive"]
SHAPE = (1, 1, 2)


def draws(seed: int = 0) -> Noise:
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def two_modes() -> GaussianMixturePrior:
    """The prior of examples/two_modes.py."""
    covariance = 0.3**2 * torch.tensor([[1.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    means = [torch.tensor([[[0.0, level]]], dtype=torch.float64) for level in (1.0, -1.0)]
    return GaussianMixturePrior(
        torch.tensor([0.7, 0.3], dtype=torch.float64), [GaussianPrior(m, covariance) for m in means]
    )


@pytest.mark.parametrize("sde", ["ve", "vp", "subvp", "edm"])
def test_steps_are_the_papers(sde: SDEName) -> None:
    """Algorithm 1 for one image, line by line, with a tolerance so wide that every step is taken; theta 0.8, steps on
    the grid."""
    prior, process, rtol, atol = two_modes(), find_sde(sde), 3.0, 0.7
    x = 2.0 * draws(1)(torch.zeros(1, *SHAPE, dtype=torch.float64))
    sigmas = torch.tensor([2.0, 0.1], dtype=torch.float64)
    found = sde_adaptive(prior, x, sigmas, draws(), rtol=rtol, atol=atol, sde=sde)

    noise, t, end = draws(), float(process.time_of(2.0)), float(process.time_of(0.1))
    h, steps = 0.01 * (t - end), 0
    u = u_last = process.state(x, torch.tensor(t, dtype=torch.float64))

    def euler(start: Tensor, at: Tensor, time: float, z: Tensor) -> Tensor:
        now = torch.tensor(time, dtype=torch.float64)
        alpha, sigma = float(process.alpha(now)), float(process.sigma(now))
        score = process.unit / alpha * prior.score(process.center + process.unit * at / alpha, sigma)
        drift = float(process.drift(now)) * at - float(process.diffusion(now)) ** 2 * score
        return start - h * drift + math.sqrt(h) * float(process.diffusion(now)) * z

    while t > end + 1e-12:
        z = noise(u)
        first = euler(u, u, t, z)
        second = 0.5 * (first + euler(u, first, t - h, z))
        tolerance = torch.maximum(
            torch.full_like(u, atol / process.unit), rtol * torch.maximum(first.abs(), u_last.abs())
        )
        error = float(((first - second) / tolerance).square().mean().sqrt())
        assert error <= 1
        u, u_last, t, steps = second, first, t - h, steps + 1
        h = min(t - end, 2 ** (math.floor(8 * math.log2(0.8 * h * error**-0.9)) / 8))
    assert steps > 1
    torch.testing.assert_close(found, process.picture(u, torch.tensor(end, dtype=torch.float64)), rtol=1e-9, atol=1e-9)


def test_rejected_noise_stays_on_the_path() -> None:
    """Splitting a known increment leaves its sum, and makes pieces that are Brownian again."""
    images, noise = 20_000, draws()
    z = torch.zeros(images, 1, 1, 1, dtype=torch.float64)
    path, one = module.BrownianPath(z), torch.ones(images, dtype=torch.float64)
    rejected, accepted = one.bool(), ~one.bool()
    whole = path.increment(one, noise(z))
    path.put_back(one, whole, rejected)
    torch.testing.assert_close(path.reach(2 * one), one)
    half = path.increment(0.6 * path.reach(one), noise(z))
    path.put_back(0.6 * one, half, rejected)
    torch.testing.assert_close(path.reach(one), 0.6 * one)
    pieces = []
    for length in (0.1, 0.5, 0.4):
        pieces.append(path.increment(torch.minimum(length * one, path.reach(one)), noise(z)))
        path.put_back(length * one, pieces[-1], accepted)
    torch.testing.assert_close(pieces[0] + pieces[1], half)
    torch.testing.assert_close(sum(pieces), whole)
    assert not bool(path.depth.any())
    correlations = torch.corrcoef(torch.stack(pieces).flatten(1))
    torch.testing.assert_close(correlations, torch.eye(3, dtype=torch.float64), rtol=0, atol=0.03)
    for piece, length in zip(pieces, (0.1, 0.5, 0.4), strict=True):
        assert float(piece.var()) == pytest.approx(length, rel=0.05)


def modes(model: ScoreModel, count: int = 10_000, **options: Any) -> tuple[float, float, float]:
    """Share of bright samples, their mean and standard deviation."""
    noise = draws(5)
    x = 20.0 * noise(torch.zeros(count, *SHAPE, dtype=torch.float64))
    second = sde_adaptive(model, x, karras(2, 0.01, 20.0), noise, **options)[..., 1].flatten()
    bright = second[second > 0]
    return len(bright) / count, float(bright.mean()), float(bright.std())


@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_two_modes_of_a_prior(sde: SDEName) -> None:
    share, mean, spread = modes(two_modes(), sde=sde, rtol=0.05, atol=0.01)
    assert share == pytest.approx(0.7, abs=0.015)
    assert mean == pytest.approx(1.0, abs=0.015)
    assert spread == pytest.approx(0.3, abs=0.012)


def test_drawing_noise_anew_after_a_rejection_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's algorithm as printed: pictures prefer noise that makes errors small."""
    monkeypatch.setattr(module.BrownianPath, "put_back", lambda path, h, dw, rejected: None)
    share, mean, _ = modes(two_modes(), rtol=0.05, atol=0.01)
    assert share < 0.68 and mean > 1.03


def test_two_modes_of_a_posterior() -> None:
    prior = two_modes()
    forward_model = ForwardModel(Mask(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)), GaussianNoise(0.1))
    y = torch.tensor([[[[0.1, 0.0]]]], dtype=torch.float64)
    truth = prior.posterior(forward_model, y)
    share, mean, spread = modes(condition(prior, forward_model, y, "exact"), rtol=0.05, atol=0.01)
    part = truth.components[0]
    assert share == pytest.approx(float(truth.log_weights[0].exp()), abs=0.02)
    assert mean == pytest.approx(float(part.mean[0, 0, 1]), abs=0.02)
    assert spread == pytest.approx(float(part.covariance[1, 1]) ** 0.5, abs=0.015)


def test_tighter_tolerances_come_nearer_to_the_gaussian_posterior() -> None:
    found = []
    for rtol in (0.3, 0.03):
        sampler = partial(sde_adaptive, rtol=rtol, atol=rtol / 5)
        figures = verify(inpainting_problem(0), rule="exact", sampler=sampler, steps=2, samples=400)
        assert figures.method != "exact"
        found.append(figures)
    assert abs(found[1].std_ratio - 1) < 0.02 < abs(found[0].std_ratio - 1)
    assert found[1].calls > 2 * found[0].calls
    assert 0.87 < found[1].coverage < 0.93


def test_images_have_their_own_steps() -> None:
    """A picture comes out the same in any company, however hard the other's path is to follow."""
    forward_model = ForwardModel(Mask(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)), GaussianNoise(0.1))
    y = torch.tensor([[[[0.1, 0.0]]], [[[-0.9, 0.0]]]], dtype=torch.float64)
    options: dict[str, Any] = {
        "rule": "annealed",
        "sampler": "sde_adaptive",
        "sigmas": karras(5, 0.02, 5.0),
        "samples": 4,
    }
    together = solve(two_modes(), forward_model, y[:1], batch=4, **options)
    apart = solve(two_modes(), forward_model, y[:1], batch=1, **options)
    torch.testing.assert_close(together.samples, apart.samples, rtol=0, atol=1e-9)
    assert apart.network_calls < together.network_calls  # each stops when it is done
    pairs = solve(two_modes(), forward_model, y[:1], antithetic=True, **options)
    torch.testing.assert_close(pairs.samples[0], apart.samples[0], rtol=0, atol=1e-9)


def test_callbacks_and_calls() -> None:
    model, seen = CountedModel(two_modes()), list[StepInfo]()
    x = 2.0 * draws()(torch.zeros(3, *SHAPE, dtype=torch.float64))
    sigmas = karras(6, 0.02, 2.0)
    out = sde_adaptive(model, x, sigmas, draws(1), callback=seen.append)
    assert [info.step for info in seen] == [1, 2, 3, 4, 5, 6]
    assert [info.sigma for info in seen] == sigmas[:-1].tolist()
    assert torch.equal(seen[-1].x, out)
    assert model.calls % 3 == 0 and (model.calls // 3) % 2 == 1  # two a step, and the last denoising


def test_what_cannot_be_followed_says_so() -> None:
    x = torch.ones(1, *SHAPE)
    broken = FunctionPrior(lambda x, sigma: x / torch.zeros_like(x), channels=1)
    with pytest.raises(SolveError, match="could not be followed beyond sigma 1"):
        sde_adaptive(broken, x, karras(3, 0.1, 1.0), torch.randn_like)
    with pytest.raises(UsageError, match="wanted rtol at least 0 and atol above 0"):
        sde_adaptive(broken, x, karras(3, 0.1, 1.0), torch.randn_like, atol=0.0)
