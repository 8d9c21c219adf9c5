"""Photon counts behind an absorber: Poisson noise, simulated exactly and solved as a weighted quadratic.

A ray with line integral p of the attenuation lets ``I0 exp(-p)`` of I0 photons through; the detector counts
``c ~ Poisson(I0 exp(-p))``. To second order in p the log-likelihood is that of the line integral
``-ln(c / I0)`` with variance ``1 / c`` (Sauer & Bouman 1993, eq. 8): a ray that let nothing through has weight 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.diagonal import Diagonal
from invsolve.forward_models.forward_model import ForwardModel, GaussianNoise
from invsolve.forward_models.operator import LinearOperator


@dataclass(frozen=True)
class TransmissionNoise:
    """c ~ Poisson(i0 exp(-scale * clean)).

    Parameters
    ----------
    i0 : photons per ray without an object.
    scale : attenuation per unit of the clean sinogram (for a slice n with HU = 2000 n - 1000 and line integrals in
        pixels: ``2 mu_water * pixel_mm``).
    """

    i0: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("I0", self.i0), ("scale", self.scale)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} = {value}", hint="wanted a positive number")

    def simulate(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Photon counts for a sinogram of line integrals, the same shape; exact Poisson draws."""
        mean = self.i0 * torch.exp(-self.scale * clean.double()).cpu()
        return torch.poisson(mean, generator=generator).to(clean)

    def log_likelihood(self, clean: Tensor, counts: Tensor) -> Tensor:
        """Exact Poisson log-likelihood of the counts, one number per image (B,)."""
        log_mean = math.log(self.i0) - self.scale * clean.double()
        per_ray = counts * log_mean - log_mean.exp() - torch.lgamma(counts.double() + 1)
        return per_ray.flatten(1).sum(dim=1)

    def log_likelihood_gradient(self, clean: Tensor, counts: Tensor, spread: float | Tensor = 0.0) -> Tensor:
        """By the line integrals, shaped as ``clean``; ``spread`` widens the quadratic of :meth:`quadratic` as it widens a
        Gaussian."""
        mean = self.i0 * torch.exp(-self.scale * clean)
        curvature = self.scale**2 * torch.maximum(mean, counts.to(mean))
        return self.scale * (mean - counts) / (1 + spread**2 * curvature)

    def line_integrals(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Counts -> (sinogram in the units of the clean one, weight 1 / standard deviation); 0 and 0 for no photons.

        Raises
        ------
        InputError : negative counts.
        """
        if bool((counts < 0).any()):
            raise InputError(
                f"{int((counts < 0).sum())} counts are negative", hint="subtract no more than the dark field"
            )
        seen = counts > 0
        sinogram = -torch.log(torch.where(seen, counts, 1) / self.i0) / self.scale
        return torch.where(seen, sinogram, 0), counts.clamp(min=0).sqrt() * self.scale

    def quadratic(self, operator: LinearOperator, counts: Tensor) -> tuple[ForwardModel, Tensor]:
        """The weighted quadratic around one image's counts (1, ...): a whitened forward model and its measurement.

        Returns
        -------
        (ForwardModel, Tensor) : ``Diagonal(w) @ operator`` with Gaussian noise of standard deviation 1, and w times the
        line integrals.
        """
        sinogram, weight = self.line_integrals(counts)
        return ForwardModel(Diagonal(weight[0]) @ operator, GaussianNoise(1.0)), weight * sinogram
