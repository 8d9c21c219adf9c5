"""The yardstick itself: closed forms against autograd, Bayes' rule on a grid and direct formulas."""

from __future__ import annotations

import math

import pytest
import torch

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel, GaussianNoise, Grayscale, Identity, Mask
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior, dense_matrix
from invsolve.models.score_model import FunctionPrior
from invsolve.rules import condition


def mixture() -> GaussianMixturePrior:
    generator = torch.Generator().manual_seed(3)
    components = []
    for k in range(3):
        root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        mean = 2 * torch.randn(1, 2, 2, generator=generator, dtype=torch.float64)
        components.append(GaussianPrior(mean, 0.3 * root @ root.T + 0.05 * (k + 1) * torch.eye(4, dtype=torch.float64)))
    return GaussianMixturePrior(torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64), components)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 5.0])
def test_score_is_the_gradient_of_the_log_density(gaussian: GaussianPrior, sigma: float) -> None:
    for prior, shape in ((gaussian, (2, 3, 4, 4)), (mixture(), (2, 1, 2, 2))):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(prior.log_density(x, sigma).sum(), x)
        torch.testing.assert_close(prior.score(x, sigma), gradient, rtol=1e-8, atol=1e-8)


def test_log_density_integrates_to_one() -> None:
    prior = GaussianMixturePrior(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        [GaussianPrior(torch.full((1, 1, 1), m, dtype=torch.float64), torch.tensor([[v]], dtype=torch.float64)) for m, v in ((-1.0, 0.2), (2.0, 0.5))],
    )  # fmt: skip
    grid = torch.linspace(-15, 15, 20001, dtype=torch.float64)
    density = prior.log_density(grid.reshape(-1, 1, 1, 1), 0.4).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-8)
    # The denoiser is the posterior mean given x = x0 + sigma z, here by quadrature.
    x0_density = prior.log_density(grid.reshape(-1, 1, 1, 1), 0.0).exp()
    weight = x0_density * torch.exp(-0.5 * ((0.7 - grid) / 0.4) ** 2)
    expected = float(torch.trapezoid(weight * grid, grid) / torch.trapezoid(weight, grid))
    x = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64)
    assert float(prior.denoise(x, 0.4)) == pytest.approx(expected, abs=1e-9)


def test_gaussian_posterior_is_bayes_rule(gaussian: GaussianPrior, generator: torch.Generator) -> None:
    forward_model = ForwardModel(Grayscale((3, 4, 4)), GaussianNoise(0.1))
    y = forward_model.simulate(gaussian.sample(1, generator), generator)
    posterior = gaussian.posterior(forward_model, y)
    matrix = dense_matrix(Grayscale((3, 4, 4)))
    # Information form, a different formula from the one in the code.
    jitter = 1e-10 * torch.eye(48, dtype=torch.float64)
    precision = torch.linalg.inv(gaussian.covariance + jitter)
    covariance = torch.linalg.inv(precision + matrix.T @ matrix / 0.01)
    mean = covariance @ (precision @ gaussian.mean.flatten() + matrix.T @ y.flatten() / 0.01)
    torch.testing.assert_close(posterior.covariance, covariance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(posterior.mean.flatten(), mean, rtol=1e-4, atol=1e-5)


def test_mixture_posterior_matches_bayes_rule_pointwise(generator: torch.Generator) -> None:
    prior = mixture()
    forward_model = ForwardModel(
        Mask(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)), GaussianNoise(0.2)
    )
    y = forward_model.operator(prior.sample(1, generator))
    posterior = prior.posterior(forward_model, y)
    x = torch.randn(50, 1, 2, 2, generator=generator, dtype=torch.float64)
    # log p(x|y) - log p(x) - log p(y|x) is one constant, -log p(y). The mask measures its zeros too: the same for all x.
    constant = posterior.log_density(x, 0.0) - prior.log_density(x, 0.0) - forward_model.log_likelihood(x, y)
    assert float(constant.std()) < 1e-8


def test_mse_is_the_denoising_error(gaussian: GaussianPrior, generator: torch.Generator) -> None:
    x0 = gaussian.sample(20000, generator)
    for sigma in (0.1, 1.0):
        noisy = x0 + sigma * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        error = float((gaussian.denoise(noisy, sigma) - x0).square().mean())
        assert error == pytest.approx(gaussian.mse(sigma), rel=0.02)


def test_likelihood_of_gaussian_noise(generator: torch.Generator) -> None:
    forward_model = ForwardModel(Identity((1, 2, 2)), GaussianNoise(0.5))
    x, y = (torch.randn(3, 1, 2, 2, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    expected = torch.distributions.Normal(x, 0.5).log_prob(y).flatten(1).sum(1)
    torch.testing.assert_close(forward_model.log_likelihood(x, y), expected)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(forward_model.log_likelihood_gradient(x, y), gradient)
    # A general differentiable map takes the autograd path.
    general = ForwardModel(lambda t: t**2, GaussianNoise(0.5))
    (gradient,) = torch.autograd.grad(general.log_likelihood(x, y).sum(), x)
    torch.testing.assert_close(general.log_likelihood_gradient(x, y), gradient)


def test_simulated_noise_has_its_standard_deviation(generator: torch.Generator) -> None:
    clean = torch.zeros(1, 1, 300, 300)
    noisy = ForwardModel(Identity((1, 300, 300)), GaussianNoise(0.3)).simulate(clean, generator)
    assert float(noisy.std()) == pytest.approx(0.3, rel=4 / math.sqrt(2 * 90000))


def test_exact_rule_refuses_other_priors() -> None:
    prior = FunctionPrior(lambda x, sigma: x, channels=1)
    with pytest.raises(UsageError, match="closed-form"):
        condition(prior, ForwardModel(Identity((1, 2, 2)), GaussianNoise(0.1)), torch.zeros(1, 1, 2, 2), "exact")


def test_each_picture_of_a_batch_has_its_own_noise_level() -> None:
    prior = mixture()
    x = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigmas = torch.tensor([0.05, 0.7, 5.0], dtype=torch.float64)
    alone = [prior.denoise(one[None], float(sigma)) for one, sigma in zip(x, sigmas, strict=True)]
    torch.testing.assert_close(prior.denoise(x, sigmas), torch.cat(alone))
    densities = [prior.log_density(one[None], float(sigma)) for one, sigma in zip(x, sigmas, strict=True)]
    torch.testing.assert_close(prior.log_density(x, sigmas), torch.cat(densities))
