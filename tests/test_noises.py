"""The noise models that come along: likelihoods by their definitions, widened gradients by quadrature, quadratics by importance
sampling. That the rule annealed finds their posteriors: tests/test_noise_models.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from invsolve import solve
from invsolve.errors import InputError, UsageError
from invsolve.forward_models import (
    ForwardModel,
    GaussianNoise,
    Grayscale,
    LaplaceNoise,
    NoiseModel,
    PoissonGaussianNoise,
    PoissonNoise,
    QuantizationNoise,
    SaltAndPepperNoise,
    TransmissionNoise,
)
from invsolve.models.gaussian import GaussianPrior
from invsolve.rules import condition
from invsolve.samplers.sigmas import karras
from invsolve.verification.noise_laws import NOISE_LAWS

NOISES: dict[str, tuple[NoiseModel, float]] = {  # with one measured value, off the prior's middle of 0.62
    "poisson": (PoissonNoise(40.0), 31.0),
    "poisson and read-out": (PoissonGaussianNoise(40.0, 3.0), 31.5),
    "laplace": (LaplaceNoise(0.06), 0.75),
    "quantized": (QuantizationNoise(0.25, 0.0, 1.0), 0.75),
    "clipped": (QuantizationNoise(0.25, 0.0, 0.75), 0.75),
    "salt and pepper": (SaltAndPepperNoise(0.2, 0.08), 0.75),
}
WEIGHTS = (0.5, 0.8)
MEAN = torch.tensor([0.6, 0.4], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.03, 0.01], [0.01, 0.02]], dtype=torch.float64)


def column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1)


def one(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def test_likelihoods_are_the_definitions() -> None:
    clean = np.linspace(0.1, 1.2, 7)
    k = np.arange(400)
    at = column(torch.from_numpy(clean))
    y = torch.full_like(at, 31)
    summed = [np.log(np.sum(scipy.stats.poisson.pmf(k, 40 * c) * scipy.stats.norm.pdf(31 - k, scale=3))) for c in clean]
    np.testing.assert_allclose(PoissonGaussianNoise(40, 3).log_likelihood(at, y), summed, rtol=1e-10)
    np.testing.assert_allclose(PoissonNoise(40).log_likelihood(at, y), scipy.stats.poisson.logpmf(31, 40 * clean))
    laplace = scipy.stats.laplace.logpdf(0.7, loc=clean, scale=0.06)
    np.testing.assert_allclose(LaplaceNoise(0.06).log_likelihood(at, torch.full_like(at, 0.7)), laplace)
    inside = QuantizationNoise(0.25).log_likelihood(
        column(torch.tensor([0.6, 0.63, 0.8, 0.9])), torch.full((4, 1), 0.75)
    )
    assert inside.tolist() == [-math.inf, 0, 0, -math.inf]
    clipped = QuantizationNoise(0.25, 0, 0.75).log_likelihood(
        column(torch.tensor([0.6, 5.0])), torch.full((2, 1), 0.75)
    )
    assert clipped.tolist() == [-math.inf, 0]


def test_the_gradient_of_rounding_is_flat_in_the_cell_and_steep_outside() -> None:
    for name in ("quantized", "clipped"):
        noise, value = NOISES[name]
        clean = column(torch.linspace(0.65, 0.86, 6, dtype=torch.float64))
        assert float(noise.log_likelihood_gradient(clean, torch.full_like(clean, value)).abs().max()) < 1e-12
        assert float(noise.log_likelihood_gradient(one(0.5), one(value))) > 100


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("laplace", 1e-3), ("quantized", 1e-3), ("clipped", 1e-3), ("salt and pepper", 1e-3), ("poisson", 0.06), ("poisson and read-out", 0.05)],
)  # fmt: skip
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
def test_the_widened_gradient_is_that_of_the_mean_likelihood(name: str, tolerance: float, spread: float) -> None:
    """The gradient of log E p(y | clean + spread n), by quadrature; for counts the widened one is an approximation."""
    noise, value = NOISES[name]
    n = torch.linspace(-9, 9, 60_001, dtype=torch.float64)

    for clean in (0.55, 0.7, 0.95):
        values = noise.log_likelihood(column(clean + spread * n), torch.full((len(n), 1), value, dtype=torch.float64))
        # Stein's identity: the gradient of a Gaussian mean is the mean of n / spread
        expected = float(torch.softmax(values - n**2 / 2, dim=0) @ n / spread)
        found = float(noise.log_likelihood_gradient(one(clean), one(value), spread=spread))
        assert abs(found - expected) < tolerance / spread


@pytest.mark.parametrize("name", list(NOISES))
def test_a_wide_gradient_is_no_steeper_than_a_gaussians(name: str) -> None:
    noise, value = NOISES[name]
    clean = column(torch.linspace(-3, 4, 200))
    spread = torch.full((200, 1), 0.5)
    unit = value / 40 if value > 1 else value
    found = noise.log_likelihood_gradient(clean, torch.full_like(clean, value), spread=spread)
    assert found.dtype == torch.float32
    assert bool(torch.isfinite(found).all())
    assert float((found.abs() - ((clean - unit).abs() + 0.5) / 0.25).max()) < 0.1


def test_simulations_have_the_moments() -> None:
    clean = torch.full((1, 1, 400, 500), 0.6, dtype=torch.float64)
    for noise, mean, variance in (
        (PoissonNoise(40.0), 24, 24),
        (PoissonGaussianNoise(40.0, 3.0), 24, 33),
        (LaplaceNoise(0.06), 0.6, 2 * 0.06**2),
        (QuantizationNoise(0.25), 0.5, 0.0),
        (QuantizationNoise(0.25, high=0.25), 0.25, 0.0),
        (SaltAndPepperNoise(0.2, 0.08), 0.8 * 0.6 + 0.1, 0.8 * (0.36 + 0.0064) + 0.1 - 0.58**2),
    ):
        y = noise.simulate(clean, torch.Generator().manual_seed(1))
        assert float(y.mean()) == pytest.approx(mean, rel=0.01)
        assert float(y.var()) == pytest.approx(variance, rel=0.02, abs=1e-12)
        again = noise.simulate(clean.float(), torch.Generator().manual_seed(1))
        assert again.dtype == torch.float32


def prior() -> GaussianPrior:
    """One pixel of two correlated channels."""
    return GaussianPrior(MEAN.reshape(2, 1, 1), COVARIANCE)


def truth(noise: NoiseModel, value: float) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of both channels, by importance sampling from the prior."""
    z = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = MEAN + z @ torch.linalg.cholesky(COVARIANCE).T
    clean = column(x @ torch.tensor(WEIGHTS, dtype=torch.float64))
    weights = torch.softmax(noise.log_likelihood(clean, torch.full_like(clean, value)), dim=0)
    mean = weights @ x
    return mean, (weights @ (x - mean).square()).sqrt()


@pytest.mark.parametrize(("name", "bias"), [("poisson", 0.1), ("poisson and read-out", 0.1), ("salt and pepper", 1e-2)])
def test_quadratics_have_nearly_the_posterior(name: str, bias: float) -> None:
    """And in closed form: Gaussian prior, linear operator, Gaussian noise."""
    noise, value = NOISES[name]
    assert isinstance(noise, PoissonNoise | PoissonGaussianNoise | SaltAndPepperNoise)
    forward_model, y = noise.quadratic(
        Grayscale((2, 1, 1), WEIGHTS), torch.full((1, 1, 1, 1), value, dtype=torch.float64)
    )
    found = prior().posterior(forward_model, y)
    mean, std = truth(noise, value)
    assert float(((found.mean.flatten() - mean) / std).abs().max()) < bias
    assert float((found.covariance.diagonal().sqrt() / std - 1).abs().max()) < 0.05


@pytest.mark.parametrize(("step", "high"), [(0.05, math.inf), (0.25, math.inf), (0.25, 0.75), (1.0, math.inf)])
def test_rounded_values_have_nearly_the_posterior_with_wiener(step: float, high: float) -> None:
    noise, value = QuantizationNoise(step, high=high), 1.0 if step == 1 else 0.75
    mean, std = truth(noise, value)
    found = solve(
        prior(),
        ForwardModel(Grayscale((2, 1, 1), WEIGHTS), noise),
        torch.full((1, 1, 1, 1), value, dtype=torch.float64),
        rule="wiener(tolerance=0.001)",
        sampler="redrawing",
        sigmas=karras(12, 0.002, 10.0),
        start=MEAN.reshape(1, 2, 1, 1),
        samples=1000,
        batch=1000,
    )
    samples = found.samples[:, 0].flatten(1)
    assert float(((samples.mean(dim=0) - mean) / std).abs().max()) < 0.08
    assert float((samples.std(dim=0) / std - 1).abs().max()) < 0.08


def test_wiener_refuses_other_noise() -> None:
    with pytest.raises(UsageError, match="Gaussian noise is needed"):
        condition(prior(), ForwardModel(Grayscale((2, 1, 1), WEIGHTS), LaplaceNoise(0.1)), one(0.5), "wiener")


def test_replaced_values_say_nothing() -> None:
    noise = SaltAndPepperNoise(0.5, 0.1)
    y = torch.tensor([[0.0, 1.0, 0.5]])
    assert noise.log_likelihood_gradient(torch.full_like(y, 0.4), y)[0].tolist() == pytest.approx([0, 0, 10])
    forward_model, kept = noise.quadratic(Grayscale((3, 1, 3)), y.reshape(1, 1, 1, 3))
    assert forward_model.linear.measured_values == 1
    assert kept.flatten().tolist() == [0, 0, 0.5]
    assert isinstance(forward_model.noise, GaussianNoise)


@pytest.mark.parametrize("law", list(NOISE_LAWS))
@pytest.mark.parametrize("name", [*NOISES, "gaussian", "transmission"])
def test_every_law_holds(name: str, law: str) -> None:
    others: dict[str, NoiseModel] = {"gaussian": GaussianNoise(0.1), "transmission": TransmissionNoise(100.0, 2.0)}
    found = NOISE_LAWS[law](others[name] if name in others else NOISES[name][0])
    assert found.passed, found


class Louder(GaussianNoise):
    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return GaussianNoise(1.2 * self.sigma).simulate(clean, generator)


class Global(GaussianNoise):
    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return clean + self.sigma * torch.randn_like(clean)


class Steeper(GaussianNoise):
    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        return 1.01 * super().log_likelihood_gradient(clean, y, spread)


class NeverWider(GaussianNoise):
    def log_likelihood_gradient(self, clean: Tensor, y: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        return super().log_likelihood_gradient(clean, y)


class OneNumber(GaussianNoise):
    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        return super().log_likelihood(clean, y).sum()


PLANTED = {"shapes": OneNumber, "repeats": Global, "gradient": Steeper, "simulation": Louder, "widened": NeverWider}


@pytest.mark.parametrize("law", list(NOISE_LAWS))
def test_a_planted_mistake_breaks_its_law(law: str) -> None:
    assert not NOISE_LAWS[law](PLANTED[law](0.1)).passed


def test_bad_numbers_are_told() -> None:
    for wrong in (
        lambda: PoissonNoise(0), lambda: PoissonGaussianNoise(1, 0), lambda: LaplaceNoise(math.inf),
        lambda: QuantizationNoise(-1), lambda: QuantizationNoise(1, 2, 1), lambda: SaltAndPepperNoise(0),
        lambda: SaltAndPepperNoise(0.5).log_likelihood(one(0.5), one(0.5)),
    ):  # fmt: skip
        with pytest.raises(InputError):
            wrong()
