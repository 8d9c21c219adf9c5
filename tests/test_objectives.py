"""Score matching: every objective finds the same score, on a 2-D mixture and on an image-like Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.energy import make_denoiser
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior, smooth_gaussian_prior
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.training.loss import (
    Batch,
    denoising_loss,
    loss_weight,
    score_matching_loss,
    sliced_loss,
    stratified_sigma,
)
from invsolve.training.objectives import denoising, draw_directions, implicit, likelihood_weight, sliced
from invsolve.training.presets import Objective as Named
from invsolve.training.presets import SigmaDensity, TrainingConfig

SIGMA = 0.3
Objective = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, torch.Generator], Tensor]


def _sliced(kind: str, count: int, reduced: bool) -> Objective:
    def objective(score: Callable[[Tensor], Tensor], x0: Tensor, z: Tensor, g: torch.Generator) -> Tensor:
        x = x0 + SIGMA * z
        return sliced(score, x, draw_directions(x, count, kind, g), variance_reduced=reduced)  # type: ignore[arg-type]

    return objective


OBJECTIVES: dict[str, Objective] = {
    "denoising": lambda score, x0, z, g: denoising(score, x0, SIGMA, z),
    "implicit": lambda score, x0, z, g: implicit(score, x0 + SIGMA * z),
    "hutchinson": _sliced("rademacher", 1, True),
    "sliced-gaussian": _sliced("gaussian", 1, False),
    "sliced-rademacher": _sliced("rademacher", 1, False),
    "sliced-4-projections": _sliced("gaussian", 4, False),
    "sliced-variance-reduced": _sliced("gaussian", 1, True),
}


def mixture() -> GaussianMixturePrior:
    eye = torch.eye(2, dtype=torch.float64)
    means = torch.tensor([[-1.0, -0.5], [1.0, 0.5]], dtype=torch.float64).reshape(2, 2, 1, 1)
    components = [GaussianPrior(means[0], 0.1 * eye), GaussianPrior(means[1], 0.2 * eye)]
    return GaussianMixturePrior(torch.tensor([0.6, 0.4], dtype=torch.float64), components)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_objectives_differ_from_the_true_error_by_one_constant(name: str) -> None:
    """For any score s: E[objective](s) - E[objective](0) = 1/2 E|s - s*|^2 - 1/2 E|s*|^2, by Monte Carlo."""
    prior, g = mixture(), torch.Generator().manual_seed(0)
    x0, z = prior.sample(50_000, g), torch.randn(50_000, 2, 1, 1, generator=g, dtype=torch.float64)
    x = x0 + SIGMA * z

    def guess(x: Tensor) -> Tensor:
        return torch.sin(1.5 * x) - 0.8 * x + 0.3 * x.flip(1)

    def nothing(x: Tensor) -> Tensor:
        return 0 * x

    found = OBJECTIVES[name](guess, x0, z, g).detach() - OBJECTIVES[name](nothing, x0, z, g).detach()
    true = prior.score(x, SIGMA)
    expected = 0.5 * ((guess(x) - true).square() - true.square()).flatten(1).sum(dim=1).mean()
    error = float(found.std()) / math.sqrt(len(found))
    assert error < 0.04
    assert abs(float(found.mean() - expected)) < 5 * error


class MixtureScore:
    """The score of two round Gaussians whose places, sizes and weights are to be learned."""

    def __init__(self) -> None:
        start = [-0.5, 0.3, 0.6, 0.1, math.log(0.5), math.log(0.5), 0.0]
        self.theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)

    def __call__(self, x: Tensor) -> Tensor:
        flat, means, log_variances = x.flatten(1), self.theta[:4].reshape(2, 2), self.theta[4:6]
        offsets = means - flat[:, None]
        log_weights = torch.nn.functional.logsigmoid(torch.stack([self.theta[6], -self.theta[6]]))
        joint = log_weights - log_variances - 0.5 * offsets.square().sum(dim=2) / log_variances.exp()
        shares = torch.softmax(joint, dim=1) / log_variances.exp()
        return (shares[..., None] * offsets).sum(dim=1).reshape(x.shape)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_all_learn_the_score_of_a_mixture(name: str) -> None:
    prior, g, model = mixture(), torch.Generator().manual_seed(1), MixtureScore()
    x0 = prior.sample(10_000, g)
    z = torch.randn(x0.shape, generator=g, dtype=torch.float64)
    optimizer = torch.optim.LBFGS([model.theta], max_iter=40, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        # The same directions every time: one fixed function to minimise.
        loss = OBJECTIVES[name](model, x0, z, torch.Generator().manual_seed(2)).mean()
        loss.backward()
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    x = x0[:4000] + SIGMA * z[:4000]
    true = prior.score(x, SIGMA)
    error = float((model(x).detach() - true).square().mean() / true.square().mean()) ** 0.5
    print(name, error)
    assert error < 0.1


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_all_learn_the_score_of_an_image_like_gaussian(name: str) -> None:
    """Linear scores s(x) = W (x - m): the objective is quadratic in W, so a few Newton steps find its minimum."""
    prior = smooth_gaussian_prior((1, 4, 4), length=1.0)
    d, g = 16, torch.Generator().manual_seed(2)
    x0 = prior.sample(20_000, g)
    z = torch.randn(x0.shape, generator=g, dtype=torch.float64)
    weight = torch.zeros(d, d, dtype=torch.float64, requires_grad=True)
    # Steps are preconditioned by the data's covariance, known from the samples alone.
    whitening = torch.linalg.inv(torch.cov((x0 + SIGMA * z).flatten(1).T))

    def score(x: Tensor) -> Tensor:
        return ((x - prior.mean).flatten(1) @ weight.T).reshape(x.shape)

    for _ in range(12):
        g.manual_seed(3)  # the same directions every time: one fixed function of W
        loss = OBJECTIVES[name](score, x0, z, g).mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= (1.0 if "sliced" not in name or "reduced" in name else 0.3) * gradient @ whitening
    true = -torch.linalg.inv(prior.covariance + SIGMA**2 * torch.eye(d, dtype=torch.float64))
    error = float((weight.detach() - true).norm() / true.norm())
    print(name, error)
    assert error < 0.15


def test_variance_reduction_reduces_variance() -> None:
    prior, g = mixture(), torch.Generator().manual_seed(0)
    x = prior.sample(20_000, g)

    def score(x: Tensor) -> Tensor:
        return torch.sin(1.5 * x) - 2 * x + 0.3 * x.flip(1)

    def turning(x: Tensor) -> Tensor:
        """v' (ds/dx) v = 0 for every v: all that is left is the half-square term, whose spread the reduction removes."""
        return torch.cat([-x[:, 1:], x[:, :1]], dim=1)

    def spread(s: Callable[[Tensor], Tensor], kind: str, count: int, reduced: bool) -> float:
        v = draw_directions(x, count, kind, g)  # type: ignore[arg-type]
        return float((sliced(s, x, v, variance_reduced=reduced) - implicit(s, x)).detach().std())

    assert spread(turning, "gaussian", 1, True) < 1e-12
    assert spread(turning, "gaussian", 1, False) > 0.1
    assert spread(score, "rademacher", 1, True) < spread(score, "gaussian", 1, True)
    assert spread(score, "gaussian", 16, True) == pytest.approx(spread(score, "gaussian", 1, True) / 4, rel=0.1)


def test_likelihood_weighting(generator: torch.Generator) -> None:
    flat = SigmaDensity(low=0.01, split=1.0, high=100.0, lower_share=0.5)  # log-uniform throughout
    sigma = torch.tensor([0.02, 0.3, 5.0])
    ratio = loss_weight(sigma, 0.27, "likelihood", flat) / loss_weight(sigma, 0.27, "ncsn")
    torch.testing.assert_close(ratio, ratio[:1].expand(3))
    density = SigmaDensity()
    grid = torch.logspace(math.log10(density.low), math.log10(density.high), 20_001, dtype=torch.float64)
    assert float(torch.trapezoid(density.density(grid), grid)) == pytest.approx(1, abs=1e-3)
    # Whatever the levels' density, the weighted mean is the integral of g^2 = 2 sigma.
    drawn = stratified_sigma(200_000, density, generator)
    mean = float((likelihood_weight(drawn, density.density(drawn)) * torch.exp(-drawn)).mean())
    integral = float(torch.trapezoid(2 * grid * torch.exp(-grid), grid))
    assert mean == pytest.approx(integral, rel=0.01)


def test_unknown_directions_are_named(generator: torch.Generator) -> None:
    with pytest.raises(UsageError, match="directions"):
        draw_directions(torch.zeros(1, 2), 1, "cubic", generator)  # type: ignore[arg-type]


def test_a_weight_scales_directions_apart(generator: torch.Generator) -> None:
    """tr(Lambda ds/dx) + 1/2 s' Lambda s, exactly: along sqrt(d) times the basis v v' is the identity on average."""
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    weight = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    directions = 2 * torch.eye(4, dtype=torch.float64)[:, None].expand(4, 3, 4)
    s = torch.sin(x) * x.flip(1)
    expected = (weight * (torch.cos(x) * x.flip(1) + 0.5 * s.square())).sum(dim=1)
    for reduced in (True, False):
        found = sliced(
            lambda x: torch.sin(x) * x.flip(1), x, directions, variance_reduced=reduced, weight=weight
        ).detach()
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("energy", [False, True])
@pytest.mark.parametrize("weighting", ["edm", "ncsn", "likelihood"])
def test_losses_of_all_objectives_have_one_expectation(weighting: str, energy: bool) -> None:
    """For any network, at any weights of levels and channels; by Monte Carlo over groups of pictures."""
    torch.manual_seed(0)
    config = NetworkConfig(
        widths=(8, 32), encoder_blocks=(1, 1), decoder_blocks=(1,), attention_from=None if energy else 1, energy=energy
    )
    net, g = make_denoiser(config).requires_grad_(False), torch.Generator().manual_seed(0)
    torch.nn.init.normal_(net.net.conv_out.weight, std=0.05)
    prior, size, found = smooth_gaussian_prior((3, 4, 4)), 150, []
    for _ in range(12):
        x0 = prior.sample(size, g).float()
        z, sigma = torch.randn(x0.shape, generator=g), torch.linspace(0.1, 1.0, size)
        v, weights = draw_directions(x0, 1, "rademacher", g), (weighting, SigmaDensity(), (1.0, 2.0, 4.0))
        denoised = denoising_loss(net, x0, sigma, z, *weights)
        both = [sliced_loss(net, x0, sigma, z, v, *weights, variance_reduced=one).detach() for one in (True, False)]
        found.append(torch.stack([denoised, *both]))
    table = torch.stack(found)
    for column, within in ((1, 0.06), (2, 0.2)):
        difference = table[:, column] - table[:, 0]
        error = float(difference.std()) / math.sqrt(len(difference))
        assert error < within * float(table[:, 0].mean())
        assert abs(float(difference.mean())) < 5 * error


class LinearDenoiser(EDMDenoiser):
    """D(x) = m + W(sigma) (x - m), W to be learned: of a Gaussian, the true denoiser at one W."""

    def __init__(self, mean: Tensor, weight: Tensor) -> None:
        super().__init__(NetworkConfig(channels=1, widths=(1,), encoder_blocks=(0,), decoder_blocks=()))
        self.mean, self.weight = mean, torch.nn.Parameter(weight.clone())

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.mean + ((x - self.mean).flatten(1) @ self.weight.T).reshape(x.shape)


@pytest.mark.parametrize("objective", ["dsm", "ssm", "ssm-vr"])
def test_training_by_any_objective_ends_at_the_true_denoiser(objective: Named) -> None:
    prior, g = smooth_gaussian_prior((1, 4, 4), length=1.0), torch.Generator().manual_seed(0)
    config = TrainingConfig(objective=objective, weighting="ncsn")
    count, eye = 20_000, torch.eye(16, dtype=torch.float64)
    noisy = prior.covariance + SIGMA**2 * eye
    true = prior.covariance @ torch.linalg.inv(noisy)
    x0 = prior.sample(count, g)
    z, sigma = torch.randn(x0.shape, generator=g, dtype=torch.float64), torch.full((count,), SIGMA, dtype=torch.float64)
    directions = draw_directions(x0, {"dsm": 0, "ssm-vr": 1, "ssm": 8}[objective], "rademacher", g)
    batch = Batch(x0, sigma, z, torch.zeros(count, dtype=torch.int64), directions)

    def loss_and_gradient(model: LinearDenoiser) -> tuple[float, Tensor]:
        loss = score_matching_loss(model, batch, config)
        return float(loss.detach()), torch.autograd.grad(loss, model.weight)[0]

    least, at_truth = loss_and_gradient(LinearDenoiser(prior.mean, true))
    more, elsewhere = loss_and_gradient(LinearDenoiser(prior.mean, 0.5 * true))
    assert at_truth.norm() < 0.1 * elsewhere.norm()
    assert least < more
    # The least that any denoiser can have, in NCSN's weight: its own error over sigma^2.
    assert least == pytest.approx(prior.mse(SIGMA) / SIGMA**2, rel=0.1 if objective == "ssm" else 0.02)
    # From nothing, by Newton's steps with the true curvature, 2 / (d sigma^2) times the covariance of x.
    learned, rate = LinearDenoiser(prior.mean, 0 * eye), 0.5
    for _ in range(16):
        step = loss_and_gradient(learned)[1] @ torch.linalg.inv(noisy) * 16 * SIGMA**2 / 2
        learned.weight.data -= rate * step
    error = float((learned.weight.detach() - true).norm() / true.norm())
    print(objective, error)
    assert error < 0.15
