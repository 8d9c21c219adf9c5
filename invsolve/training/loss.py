"""What training minimises: EDM's denoising loss, with other weights where asked for, on batches of noisy pictures.

The loss is EDM's (Karras et al. 2022, eq. 8): ``E |D(x0 + sigma z, sigma) - x0|^2 / c_out(sigma)^2``, unit weight
for every level, with an explicit density p(sigma). Denoising score matching (Vincent 2011; NCSN eq. 6 with
lambda = sigma^2) is the same loss with weight ``1 / sigma^2``, and stays available as ``weighting="ncsn"``.

Sliced score matching (Song, Garg, Shi & Ermon 2019) of the noisy pictures at each level is the other objective: it is told
neither the clean picture nor the noise. Weighted alike, and with the constant by which the two differ, it has the denoising
loss as its expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from invsolve.models.energy import make_denoiser
from invsolve.models.network import EDMDenoiser
from invsolve.training.objectives import likelihood_weight, sliced
from invsolve.training.presets import SigmaDensity, TrainingConfig


def stratified_sigma(count: int, density: SigmaDensity, generator: torch.Generator) -> Tensor:
    """``count`` noise levels, one from each equal-probability stratum of p(sigma): less variance per batch."""
    u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return density.quantile(u)


def loss_weight(
    sigma: Tensor, sigma_data: float | Tensor, weighting: str, density: SigmaDensity | None = None
) -> Tensor:
    """Weight on |D - x0|^2: EDM's 1 / c_out^2, NCSN's 1 / sigma^2 (lambda = sigma^2 on the score), or the likelihood's.

    The last is Song et al. 2021b's lambda = g^2 for the given ``density`` of levels; NCSN's where that is log-uniform.
    """
    if weighting == "ncsn":
        return 1 / sigma**2
    if weighting == "likelihood":
        return likelihood_weight(sigma, (density or SigmaDensity()).density(sigma)) / (2 * sigma**4)
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def weighted_error(
    denoised: Tensor,
    target: Tensor,
    sigma: Tensor,
    sigma_data: Tensor,
    weighting: str,
    density: SigmaDensity | None = None,
    channel_weights: Sequence[float] = (),
) -> Tensor:
    """Mean over pixels and batch of the weighted ``|denoised - target|^2``; (B, C, H, W) each, sigma (B,)."""
    per_channel = (denoised - target).square().mean(dim=(2, 3))
    return (weight_per_channel(sigma, sigma_data, weighting, density, channel_weights) * per_channel).mean()


def weight_per_channel(
    sigma: Tensor,
    sigma_data: Tensor,
    weighting: str,
    density: SigmaDensity | None = None,
    channel_weights: Sequence[float] = (),
) -> Tensor:
    """:func:`loss_weight`, shared out among the channels; (B, 1 or C) for sigma (B,)."""
    weights = loss_weight(sigma[:, None], sigma_data.flatten(), weighting, density)
    if not channel_weights:
        return weights
    shares = sigma.new_tensor(channel_weights)
    return weights * shares / shares.mean()


def denoising_loss(
    model: EDMDenoiser,
    x0: Tensor,
    sigma: Tensor,
    z: Tensor,
    weighting: str,
    density: SigmaDensity | None = None,
    channel_weights: Sequence[float] = (),
) -> Tensor:
    """:func:`weighted_error` of the denoised ``x0 + sigma z``; all inputs (B, C, H, W), sigma (B,)."""
    denoised = model(x0 + sigma[:, None, None, None] * z, sigma)
    return weighted_error(denoised, x0, sigma, model.sigma_data, weighting, density, channel_weights)


def sliced_loss(
    model: EDMDenoiser,
    x0: Tensor,
    sigma: Tensor,
    z: Tensor,
    directions: Tensor,
    weighting: str,
    density: SigmaDensity | None = None,
    channel_weights: Sequence[float] = (),
    *,
    variance_reduced: bool = True,
) -> Tensor:
    """Sliced score matching of ``x = x0 + sigma z``, in the units of :func:`denoising_loss` and with the same expectation.

    Of ``1/2 |s + z / sigma|^2``, whose mean over z given x is the implicit objective ``tr(ds/dx) + 1/2 |s|^2`` plus
    ``d / (2 sigma^2)`` (Stein's identity, in :mod:`invsolve.training.objectives` as "a constant"), the denoising loss is
    2 weight sigma^4 / d. Song, Garg, Shi & Ermon 2019, eq. 7 (SSM) and, ``variance_reduced``, eq. 8 (SSM-VR).

    Parameters
    ----------
    x0, z : (B, C, H, W).
    sigma : (B,).
    directions : (M, B, C, H, W), M random directions per picture with E[v v'] = 1.
    weighting, density, channel_weights : as for :func:`weighted_error`.
    """
    s = sigma[:, None, None, None]
    weight = weight_per_channel(sigma, model.sigma_data, weighting, density, channel_weights)[..., None, None]

    def score(x: Tensor) -> Tensor:
        return (model(x, sigma) - x) / s**2

    with sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention cannot be differentiated twice
        found = sliced(
            score,
            x0 + s * z,
            directions,
            variance_reduced=variance_reduced,
            weight=2 * weight * s**4 / x0[0].numel(),
        )
    return found.mean() + (weight * s**2).mean()


class Batch(NamedTuple):
    """One step's data, in the prior's units, or some rows of it."""

    x0: Tensor  # (B, C, H, W)
    sigma: Tensor  # (B,)
    z: Tensor  # standard normal noise shaped as x0
    labels: Tensor  # (B,) int64, zeros where the pictures have none
    directions: Tensor  # (M, B, C, H, W) random signs, M = 0 unless the objective is sliced
    first: int = 0  # number of the first row in the step's data
    whole: int | None = None  # rows of the step's data; None where these are all

    @property
    def share(self) -> float:
        """How much of the step's data this is."""
        return 1.0 if self.whole is None else len(self.x0) / self.whole

    def to(self, device: torch.device) -> Batch:
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = (self.x0, self.sigma, self.z, self.labels, self.directions)
        x0, sigma, z, labels, directions = map(change, tensors)
        return Batch(x0, sigma, z, labels, directions, self.first, self.whole)

    def rows(self, rows: slice) -> Batch:
        """Some of the rows; ``rows`` has a start and a stop."""
        x0, sigma, z, labels = (tensor[rows] for tensor in (self.x0, self.sigma, self.z, self.labels))
        whole = len(self.x0) if self.whole is None else self.whole
        return Batch(x0, sigma, z, labels, self.directions[:, rows], self.first + rows.start, whole)


M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Task(Generic[M]):
    """What is trained: how the network is made, and its loss on a batch."""

    build: Callable[[TrainingConfig], M]
    loss: Callable[[M, Batch, TrainingConfig], Tensor]


def score_matching_loss(model: EDMDenoiser, batch: Batch, config: TrainingConfig) -> Tensor:
    """The loss of the configuration's objective."""
    weights = (config.weighting, config.density, config.channel_weights)
    if config.objective == "dsm":
        return denoising_loss(model, batch.x0, batch.sigma, batch.z, *weights)
    reduced = config.objective == "ssm-vr"
    return sliced_loss(model, batch.x0, batch.sigma, batch.z, batch.directions, *weights, variance_reduced=reduced)


DENOISING: Task[EDMDenoiser] = Task(build=lambda config: make_denoiser(config.network), loss=score_matching_loss)
