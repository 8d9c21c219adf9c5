"""What training minimises: EDM's denoising loss, with other weights where asked for, on batches of noisy pictures.

The loss is EDM's (Karras et al. 2022, eq. 8): ``E |D(x0 + sigma z, sigma) - x0|^2 / c_out(sigma)^2``, unit weight
for every level, with an explicit density p(sigma). Denoising score matching (Vincent 2011; NCSN eq. 6 with
lambda = sigma^2) is the same loss with weight ``1 / sigma^2``, and stays available as ``weighting="ncsn"``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from invsolve.models.network import EDMDenoiser
from invsolve.training.objectives import likelihood_weight
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
    weights = loss_weight(sigma[:, None], sigma_data.flatten(), weighting, density)
    if channel_weights:
        shares = per_channel.new_tensor(channel_weights)
        weights = weights * shares / shares.mean()
    return (weights * per_channel).mean()


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


class Batch(NamedTuple):
    """One step's data, in the prior's units."""

    x0: Tensor  # (B, C, H, W)
    sigma: Tensor  # (B,)
    z: Tensor  # standard normal noise shaped as x0
    labels: Tensor  # (B,) int64, zeros where the pictures have none

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t.to(device) for t in self))


M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Task(Generic[M]):
    """What is trained: how the network is made, and its loss on a batch."""

    build: Callable[[TrainingConfig], M]
    loss: Callable[[M, Batch, TrainingConfig], Tensor]


DENOISING: Task[EDMDenoiser] = Task(
    build=lambda config: EDMDenoiser(config.network),
    loss=lambda model, batch, config: denoising_loss(
        model, batch.x0, batch.sigma, batch.z, config.weighting, config.density, config.channel_weights
    ),
)
