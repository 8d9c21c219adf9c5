"""Small priors that a benchmark trains for itself within a minute or two."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.score_model import FunctionPrior
from invsolve.training import train
from invsolve.training.crops import Augmentation
from invsolve.training.presets import SigmaDensity, TrainingConfig

Pixels = npt.NDArray[np.uint8]


def shrunk(pictures: Pixels, factor: int) -> Pixels:
    """(N, H, W, C) by the mean of ``factor`` x ``factor`` pixels, what does not divide evenly cut off."""
    n, height, width, channels = pictures.shape
    height, width = height // factor, width // factor
    cut = pictures[:, : height * factor, : width * factor].astype(np.float32)
    mean = cut.reshape(n, height, factor, width, factor, channels).mean(axis=(2, 4))
    return np.rint(mean).astype(np.uint8)


def as_tensor(pictures: Pixels) -> torch.Tensor:
    """(N, C, H, W) in [0, 1]."""
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def train_prior(pictures: Pixels, *, steps: int, widths: tuple[int, ...], seed: int, batch: int = 64) -> FunctionPrior:
    """A prior of square pictures (N, H, H, C) and their mirror images, its weights and batches drawn from ``seed``."""
    side, channels = pictures.shape[1], pictures.shape[3]
    x = as_tensor(pictures)
    low, high = 0.005, side * channels**0.5  # no two pictures are farther apart
    # About 0.5, which the codes have as their centre, and not about the pictures' mean.
    sigma_data = float((x - 0.5).square().mean().sqrt())
    levels = len(widths)
    config = TrainingConfig(
        network=NetworkConfig(
            channels=channels, widths=widths, encoder_blocks=(1,) * levels, decoder_blocks=(1,) * (levels - 1), sigma_data=sigma_data
        ),
        density=SigmaDensity(low=low, high=high),
        steps=steps, batch=batch, crop=side, crop_late=side, scale_odds=(1.0,), seed=seed,
        augmentation=Augmentation("mirror"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        state = train(list(pictures), config, Path(folder), device=torch.device("cpu"), checkpoint_every=1e9)
    network: EDMDenoiser = state.ema.eval().requires_grad_(False)
    return FunctionPrior(network, channels=channels, sigma_min=low, sigma_max=high, sigma_data=sigma_data, size=side)
