"""Noise that is not Gaussian: written by a user, solved by the rule that takes it, refused by the others."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from invsolve import forward_models, solve
from invsolve.errors import UsageError
from invsolve.forward_models import (
    ForwardModel,
    GaussianNoise,
    Grayscale,
    NoiseModel,
    QuantizationNoise,
    SaltAndPepperNoise,
    TransmissionNoise,
)
from invsolve.models.score_model import FunctionPrior
from invsolve.rules import RULES
from invsolve.samplers.sigmas import geometric

WEIGHTS = (0.5, 0.8)
MEAN = torch.tensor([0.6, 0.4], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.03, 0.01], [0.01, 0.02]], dtype=torch.float64)
PIXELS = 2000


class LaplaceNoise:
    """y = clean + scale * (a Laplace variable); its widened gradient in closed form."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        return (-(y - clean).abs() / self.scale - math.log(2 * self.scale)).flatten(1).sum(dim=1)

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        r, s = (y - clean) / self.scale, torch.as_tensor(spread, dtype=y.dtype) / self.scale + 1e-9
        right, left = (torch.special.log_ndtr(sign * r / s - s) - sign * r for sign in (1, -1))
        return torch.tanh(0.5 * (right - left)) / self.scale

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        u = torch.rand(clean.shape, generator=generator, dtype=clean.dtype) - 0.5
        return clean - self.scale * u.sign() * torch.log1p(-2 * u.abs())


class PoissonNoise:
    """Counts with mean ``gain * clean``; widened as its variance widens."""

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        mean = self.gain * clean.clamp(min=1e-6)
        return (y * mean.log() - mean - torch.lgamma(y + 1)).flatten(1).sum(dim=1)

    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        mean = self.gain * clean.clamp(min=1e-6)
        return self.gain * (y - mean) / (mean + (self.gain * spread) ** 2)

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return torch.poisson(self.gain * clean.clamp(min=0), generator=generator)


NOISES: dict[str, tuple[NoiseModel, float]] = {  # with one measured value, off the prior's middle
    "laplace": (LaplaceNoise(0.06), 0.75),
    "poisson": (PoissonNoise(40.0), 31.0),
    "transmission": (TransmissionNoise(60.0, 2.0), 12.0),
    "shipped laplace": (forward_models.LaplaceNoise(0.06), 0.75),
    "shipped poisson": (forward_models.PoissonNoise(40.0), 31.0),
    "quantized": (QuantizationNoise(0.25, 0.0, 1.0), 0.75),
    "clipped": (QuantizationNoise(0.25, 0.0, 0.75), 0.75),
    "salt and pepper": (SaltAndPepperNoise(0.2, 0.08), 0.75),
}


SMOOTH = ("laplace", "poisson", "transmission")  # of the others see tests/test_noises.py


def pixels() -> FunctionPrior:
    """Independent pixels of two correlated Gaussian channels: every pixel of a picture is a draw of one problem."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = float(sigma[0])
        gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + level**2 * torch.eye(2, dtype=x.dtype))
        mean = MEAN.reshape(2, 1, 1)
        return mean + torch.einsum("cd,bdhw->bchw", gain, x - mean)

    return FunctionPrior(denoise, channels=2, sigma_min=0.002, sigma_max=10.0, sigma_data=0.16)


def problem(name: str) -> tuple[ForwardModel, Tensor, Tensor]:
    noise, value = NOISES[name]
    forward_model = ForwardModel(Grayscale((2, 1, PIXELS), WEIGHTS), noise)
    y = torch.full((1, 1, 1, PIXELS), value, dtype=torch.float64)
    return forward_model, y, MEAN.reshape(1, 2, 1, 1).expand(1, 2, 1, PIXELS)


def truth(name: str) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of both channels, by importance sampling from the prior."""
    noise, value = NOISES[name]
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400_000, 2, generator=generator, dtype=torch.float64)
    x = MEAN + z @ torch.linalg.cholesky(COVARIANCE).T
    clean = x @ torch.tensor(WEIGHTS, dtype=torch.float64)
    weights = torch.softmax(noise.log_likelihood(clean[:, None], torch.full_like(clean[:, None], value)), dim=0)
    mean = weights @ x
    return mean, (weights @ (x - mean).square()).sqrt()


@pytest.mark.parametrize("name", list(NOISES))
def test_the_posterior_is_found(name: str) -> None:
    forward_model, y, start = problem(name)
    sigmas = torch.cat([geometric(12, 0.02, 0.5)[:-1], torch.full((1,), 0.01), torch.zeros(1)])
    found = solve(
        pixels(), forward_model, y, rule="annealed", sampler="langevin", sigmas=sigmas, start=start,
        langevin_steps=60, step_size=0.3 * 0.01**2, consistent=False,
    )  # fmt: skip
    draws = found.samples[0, 0, :, 0]
    mean, std = truth(name)
    prior_std = COVARIANCE.diagonal().sqrt()
    assert bool(((mean - MEAN).abs() > 0.3 * prior_std).all()), "the data should say something"
    assert float(((draws.mean(dim=1) - mean) / std).abs().max()) < 0.1
    assert float((draws.std(dim=1) / std - 1).abs().max()) < 0.1
    assert found.chi2.numel() == 0
    assert found.settings["sigma_y"] is None


@pytest.mark.parametrize("noise", [*(NOISES[name][0] for name in SMOOTH), GaussianNoise(0.3)])
def test_the_gradient_is_that_of_the_likelihood(noise: NoiseModel) -> None:
    generator = torch.Generator().manual_seed(2)
    clean = 0.2 + torch.rand(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = noise.simulate(clean, generator)
    leaf = clean.clone().requires_grad_()
    (expected,) = torch.autograd.grad(noise.log_likelihood(leaf, y).sum(), leaf)
    torch.testing.assert_close(noise.log_likelihood_gradient(clean, y), expected, rtol=1e-6, atol=1e-6)
    # Widened it is bounded by a Gaussian's of that width, about where its own zero is.
    wide = noise.log_likelihood_gradient(clean, y, spread=torch.full((2, 1, 1, 1), 5.0, dtype=torch.float64))
    assert float(wide.abs().max()) < float(expected.abs().max())


def test_a_forward_model_pulls_the_gradient_back() -> None:
    """Through the adjoint and, for general maps, through autograd."""
    generator = torch.Generator().manual_seed(3)
    x = 0.2 + torch.rand(2, 2, 1, PIXELS, generator=generator, dtype=torch.float64)
    noise = PoissonNoise(40.0)
    grey = Grayscale((2, 1, PIXELS), WEIGHTS)
    for operator in (grey, lambda x: grey(x) ** 2):
        model = ForwardModel(operator, noise)
        y = model.simulate(x, generator)
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(model.log_likelihood(leaf, y).sum(), leaf)
        torch.testing.assert_close(model.log_likelihood_gradient(x, y), expected)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in ("annealed", "exact", "classifier_gradient")])
def test_rules_for_gaussian_noise_say_so(rule: str) -> None:
    forward_model, y, start = problem("laplace")
    with pytest.raises(UsageError, match=r"Gaussian noise is needed .*LaplaceNoise .*annealed"):
        solve(pixels(), forward_model, y, rule=rule, start=start)


@pytest.mark.parametrize("sampler", ["split_gibbs", "daps"])
def test_samplers_for_gaussian_noise_say_so(sampler: str) -> None:
    forward_model, y, start = problem("laplace")
    with pytest.raises(UsageError, match="Gaussian noise is needed"):
        solve(pixels(), forward_model, y, rule="annealed", sampler=sampler, start=start)


def test_the_closed_form_needs_gaussian_noise() -> None:
    from invsolve.models.gaussian import smooth_gaussian_prior

    prior = smooth_gaussian_prior((2, 2, 2))
    forward_model = ForwardModel(Grayscale((2, 2, 2), WEIGHTS), LaplaceNoise(0.1))
    y: Any = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    with pytest.raises(UsageError, match="Gaussian noise is needed"):
        solve(prior, forward_model, y, rule="exact", start=prior.mean[None])


def test_a_measurement_in_units_of_its_own_needs_a_start() -> None:
    forward_model, y, _ = problem("transmission")
    with pytest.raises(UsageError, match="TransmissionNoise needs a start"):
        solve(pixels(), forward_model, y, rule="annealed")
