"""Gaussian and Gaussian-mixture priors: score, denoiser and linear-Gaussian posterior in closed form.

They are the yardstick: with them every rule and sampler can be held against the true posterior. Use float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.forward_models import ForwardModel, LinearOperator
from invsolve.models.score_model import ErrorCovariance, ScoreModel, Sigma, per_image

EXACT_NOISE_FLOOR = 1e-6


def dense_matrix(operator: LinearOperator, dtype: torch.dtype = torch.float64) -> Tensor:
    """The matrix (m, d) of a small operator, column by column."""
    d = math.prod(operator.input_shape)
    basis = torch.eye(d, dtype=dtype).reshape(d, *operator.input_shape)
    return operator(basis).reshape(d, -1).T


class GaussianPrior(ScoreModel):
    """x0 ~ N(mean, covariance).

    Parameters
    ----------
    mean : (C, H, W).
    covariance : (d, d) with d = C H W, symmetric positive semi-definite.
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean, self.covariance = mean, 0.5 * (covariance + covariance.T)
        eigenvalues, self.eigenvectors = torch.linalg.eigh(self.covariance)
        self.eigenvalues = eigenvalues.clamp(min=0)
        sigma_data = float(self.eigenvalues.mean().sqrt())
        super().__init__(channels=mean.shape[0], sigma_min=1e-4, sigma_max=1e4, sigma_data=sigma_data)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape)

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        """mean + S (S + sigma^2)^-1 (x - mean)."""
        s = per_image(sigma, x.flatten(1))
        coefficients = (x - self.mean).flatten(1) @ self.eigenvectors
        shrunk = coefficients * self.eigenvalues / (self.eigenvalues + s**2)
        return self.mean + (shrunk @ self.eigenvectors.T).reshape(x.shape)

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """log p_sigma(x), (B,), of x0 + sigma z."""
        coefficients = (x - self.mean).flatten(1) @ self.eigenvectors
        variances = self.eigenvalues + per_image(sigma, coefficients) ** 2
        return -0.5 * (coefficients**2 / variances + (2 * math.pi * variances).log()).sum(dim=1)

    def mse(self, sigma: float) -> float:
        return float((self.eigenvalues * sigma**2 / (self.eigenvalues + sigma**2)).mean())

    def error_covariance(self, x0: Tensor, sigma: Sigma) -> ErrorCovariance:
        return GaussianErrorCovariance(self, per_image(sigma, x0))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(count, len(self.eigenvalues), generator=generator, dtype=self.mean.dtype)
        # The symmetric root: eigenvectors are unique only up to sign, and a seed must give one picture everywhere.
        root = (self.eigenvectors * self.eigenvalues.sqrt()) @ self.eigenvectors.T
        return self.mean + (z @ root).reshape(count, *self.shape)

    def posterior(self, forward_model: ForwardModel, y: Tensor) -> GaussianPrior:
        """p(x0 | y) for a linear operator and Gaussian noise; ``y`` (1, ...)."""
        mean, covariance, _ = self._update(forward_model, y)
        return GaussianPrior(mean, covariance)

    def _update(self, forward_model: ForwardModel, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior mean and covariance, and the log evidence log p(y)."""
        matrix = dense_matrix(forward_model.linear, self.mean.dtype)
        sigma_y = max(forward_model.gaussian.sigma, EXACT_NOISE_FLOOR)
        innovation = y.flatten() - matrix @ self.mean.flatten()
        evidence = matrix @ self.covariance @ matrix.T + sigma_y**2 * torch.eye(len(matrix), dtype=matrix.dtype)
        factor = torch.linalg.cholesky(evidence)
        gain = torch.cholesky_solve(matrix @ self.covariance, factor).T
        mean = self.mean + (gain @ innovation).reshape(self.shape)
        covariance = self.covariance - gain @ matrix @ self.covariance
        whitened = torch.linalg.solve_triangular(factor, innovation[:, None], upper=False)
        log_determinant = 2 * factor.diagonal().log().sum()
        log_evidence = -0.5 * ((whitened**2).sum() + log_determinant + len(matrix) * math.log(2 * math.pi))
        return mean, covariance, log_evidence


class GaussianErrorCovariance(ErrorCovariance):
    """(1 / S + 1 / sigma^2)^-1 with S the covariance of ``prior``: what a Gaussian's denoiser is off by, whatever x."""

    def __init__(self, prior: GaussianPrior, sigma: Tensor) -> None:
        squared = sigma.reshape(-1, 1) ** 2
        super().__init__(prior.eigenvalues * squared / (prior.eigenvalues + squared))  # along each eigenvector
        self.eigenvectors = prior.eigenvectors

    def times(self, v: Tensor) -> Tensor:
        return self._along_eigenvectors(v, self.variance)

    def root_times(self, v: Tensor) -> Tensor:
        return self._along_eigenvectors(v, self.variance.sqrt())

    def _along_eigenvectors(self, v: Tensor, scale: Tensor) -> Tensor:
        return (v.flatten(1).to(self.eigenvectors) @ self.eigenvectors * scale @ self.eigenvectors.T).reshape(v.shape)


class GaussianMixturePrior(ScoreModel):
    """x0 ~ sum_k weights[k] N(means[k], covariances[k])."""

    def __init__(self, weights: Tensor, components: Sequence[GaussianPrior]) -> None:
        self.log_weights = (weights / weights.sum()).log()
        self.components = list(components)
        means = torch.stack([c.mean for c in self.components]).flatten(1)
        w = self.log_weights.exp()
        centre = w @ means
        variance = w @ torch.stack([c.eigenvalues.mean() for c in self.components])
        variance = variance + w @ (means - centre).square().mean(dim=1)
        super().__init__(
            channels=self.components[0].channels, sigma_min=1e-4, sigma_max=1e4, sigma_data=float(variance.sqrt())
        )

    @property
    def device(self) -> torch.device:
        return self.components[0].device

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """log p_sigma(x), (B,), of x0 + sigma z."""
        return torch.logsumexp(self._joint(x, sigma), dim=0)

    def _joint(self, x: Tensor, sigma: Sigma) -> Tensor:
        terms = [lw + c.log_density(x, sigma) for lw, c in zip(self.log_weights, self.components, strict=True)]
        return torch.stack(terms)

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        responsibilities = torch.softmax(self._joint(x, sigma), dim=0)
        estimates = torch.stack([c.denoise(x, sigma) for c in self.components])
        return (responsibilities[..., None, None, None] * estimates).sum(dim=0)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        choice = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        draws = torch.stack([c.sample(count, generator) for c in self.components])
        return draws[choice, torch.arange(count)]

    def posterior(self, forward_model: ForwardModel, y: Tensor) -> GaussianMixturePrior:
        """p(x0 | y): every component conditioned, weights multiplied by their evidence."""
        updates = [c._update(forward_model, y) for c in self.components]
        log_weights = self.log_weights + torch.stack([log_evidence for _, _, log_evidence in updates])
        components = [GaussianPrior(mean, covariance) for mean, covariance, _ in updates]
        return GaussianMixturePrior(torch.softmax(log_weights, dim=0), components)


class SharedMixturePrior(ScoreModel):
    """x0 ~ sum_k weights[k] N(means[k], covariance): one covariance for all, so that hundreds of dimensions stay cheap.

    Parameters
    ----------
    weights : (K,), positive.
    means : (K, C, H, W).
    covariance : (d, d); None for the identity.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariance: Tensor | None = None) -> None:
        self.log_weights = (weights / weights.sum()).log()
        self.means, self.covariance = means, covariance
        d = means[0].numel()
        self.eigenvectors: Tensor | None = None
        self.eigenvalues = means.new_ones(d)
        if covariance is not None:
            eigenvalues, self.eigenvectors = torch.linalg.eigh(covariance)
            self.eigenvalues = eigenvalues.clamp(min=0)
        self._centres = self._rotate(means)  # (K, d), in the covariance's eigenbasis
        w = self.log_weights.exp()
        spread = w @ (self._centres - w @ self._centres).square().mean(dim=1)
        super().__init__(
            channels=means.shape[1],
            sigma_min=1e-4,
            sigma_max=1e6,
            sigma_data=float((self.eigenvalues.mean() + spread).sqrt()),
        )
        self._mse: dict[float, float] = {}

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.means.shape[1:])

    @property
    def mean(self) -> Tensor:
        """(C, H, W)."""
        return (self.log_weights.exp() @ self.means.flatten(1)).reshape(self.shape)

    @property
    def variance(self) -> Tensor:
        """Of every pixel, (C, H, W)."""
        within = self.eigenvalues if self.covariance is None else self.covariance.diagonal()
        between = self.log_weights.exp() @ (self.means - self.mean).square().flatten(1)
        return (within + between).reshape(self.shape)

    def _rotate(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.eigenvectors is None else x.flatten(1) @ self.eigenvectors

    def _joint(self, coefficients: Tensor, variances: Tensor) -> Tensor:
        """log weights[k] N(x; means[k], .) up to what all k share, (B, K)."""
        scaled = coefficients / variances
        squares = (1 / variances) @ self._centres.square().T
        return self.log_weights + scaled @ self._centres.T - 0.5 * squares

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """log p_sigma(x), (B,), of x0 + sigma z."""
        coefficients = self._rotate(x)
        variances = self.eigenvalues + per_image(sigma, coefficients) ** 2
        shared = -0.5 * (coefficients**2 / variances + (2 * math.pi * variances).log()).sum(dim=1)
        return shared + self._joint(coefficients, variances).logsumexp(dim=1)

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        coefficients = self._rotate(x)
        s2 = per_image(sigma, coefficients) ** 2
        variances = self.eigenvalues + s2
        responsibilities = torch.softmax(self._joint(coefficients, variances), dim=1)
        estimate = (self.eigenvalues * coefficients + s2 * (responsibilities @ self._centres)) / variances
        if self.eigenvectors is not None:
            estimate = estimate @ self.eigenvectors.T
        return estimate.reshape(x.shape)

    def mse(self, sigma: float) -> float:
        """Validated on 200 draws, as a network's is."""
        if sigma not in self._mse:
            generator = torch.Generator().manual_seed(0)
            x0 = self.sample(200, generator)
            noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
            self._mse[sigma] = float((self.denoise(x0 + sigma * noise, sigma) - x0).square().mean())
        return self._mse[sigma]

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        weights, dtype = self.log_weights.exp().cpu(), self.means.dtype
        choice = torch.multinomial(weights, count, replacement=True, generator=generator).to(self.means.device)
        z = torch.randn(count, len(self.eigenvalues), generator=generator, dtype=dtype).to(self.means.device)
        z = z * self.eigenvalues.sqrt()
        if self.eigenvectors is not None:
            z = z @ self.eigenvectors.T
        return self.means[choice] + z.reshape(count, *self.shape)

    def posterior(self, forward_model: ForwardModel, y: Tensor) -> SharedMixturePrior:
        """p(x0 | y) for a linear operator and Gaussian noise; ``y`` (1, ...)."""
        d = len(self.eigenvalues)
        prior = torch.eye(d, dtype=self.means.dtype) if self.covariance is None else self.covariance
        matrix = dense_matrix(forward_model.linear, self.means.dtype)
        sigma_y = max(forward_model.gaussian.sigma, EXACT_NOISE_FLOOR)
        innovations = y.reshape(1, -1) - self.means.flatten(1) @ matrix.T  # (K, m)
        evidence = matrix @ prior @ matrix.T + sigma_y**2 * torch.eye(len(matrix), dtype=matrix.dtype)
        factor = torch.linalg.cholesky(evidence)
        gain = torch.cholesky_solve(matrix @ prior, factor).T
        whitened = torch.linalg.solve_triangular(factor, innovations.T, upper=False)
        log_weights = self.log_weights - 0.5 * whitened.square().sum(dim=0)
        means = self.means + (innovations @ gain.T).reshape(self.means.shape)
        covariance = prior - gain @ matrix @ prior
        return SharedMixturePrior(torch.softmax(log_weights, dim=0), means, 0.5 * (covariance + covariance.T))


def smooth_gaussian_prior(
    shape: tuple[int, int, int] = (3, 8, 8), *, std: float = 0.25, length: float = 2.0, channel_correlation: float = 0.8
) -> GaussianPrior:
    """An image-like Gaussian: mean 0.5, squared-exponential in space (``length`` pixels), correlated channels."""
    channels, height, width = shape
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1).reshape(-1, 2)
    distance = torch.cdist(grid.double(), grid.double())
    space = torch.exp(-0.5 * (distance / length) ** 2)
    colour = torch.full((channels, channels), channel_correlation, dtype=torch.float64)
    colour.fill_diagonal_(1.0)
    covariance = std**2 * torch.kron(colour, space)
    return GaussianPrior(torch.full(shape, 0.5, dtype=torch.float64), covariance)
