"""How well a network denoises pictures it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from invsolve.colours import Colours, to_rgb
from invsolve.errors import InputError
from invsolve.models.network import EDMDenoiser
from invsolve.models.precision import autocast
from invsolve.training.crops import center_crops, unit_scale
from invsolve.training.presets import SigmaDensity
from invsolve.training.sources import Picture


def validation_sigmas(density: SigmaDensity, count: int = 13) -> list[float]:
    """Noise levels at which the card states the prior's error, log-spaced over the trained range."""
    return [float(s) for s in np.geomspace(density.low, density.high, count)]


def validate(
    model: EDMDenoiser, pictures: Tensor, sigmas: Sequence[float], seed: int = 0, batch: int = 4
) -> dict[float, float]:
    """Mean squared denoising error per noise level on ``pictures`` (N, C, H, W) in the prior's units."""
    errors = dict.fromkeys(sigmas, 0.0)
    for sigma, rows, denoised in noisy_outputs(model, pictures, sigmas, seed, batch):
        errors[sigma] += float((denoised - pictures[rows]).square().mean(dim=(1, 2, 3)).sum())
    return {sigma: total / len(pictures) for sigma, total in errors.items()}


@torch.no_grad()
def noisy_outputs(
    model: nn.Module, pictures: Tensor, sigmas: Sequence[float], seed: int, batch: int
) -> Iterator[tuple[float, slice, Tensor]]:
    """What ``model``, in evaluation mode, makes of ``pictures`` (N, C, H, W) with noise of every level.

    Yields the level, which of the pictures, and the output for them, on the CPU. A level's noise is drawn from (seed,
    number of the level), so that every model is judged on the same noise.
    """
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    try:
        for index, sigma in enumerate(sigmas):
            generator = torch.Generator().manual_seed(seed * 1000 + index)
            for first in range(0, len(pictures), batch):
                rows = slice(first, first + batch)
                noisy = pictures[rows] + sigma * torch.randn(pictures[rows].shape, generator=generator)
                with autocast(device):
                    output = model(noisy.to(device), torch.full((len(noisy),), sigma, device=device))
                yield sigma, rows, output.cpu()
    finally:
        model.train(was_training)


def validation_pictures(pictures: Sequence[Picture], size: int, framing: float = 0.0) -> Tensor:
    """Centre crops for :func:`validate`, at most ``size`` pixels and a multiple of 8, of the pictures of 32 and more.

    With a ``framing``, as much as that of the shorter side, shrunk to that size.
    """
    large = [p for p in pictures if min(p.shape[:2]) >= 32]
    if not large:
        raise InputError("no validation picture is at least 32 x 32 pixels", hint="give larger ones with --val")
    smallest = min(min(p.shape[:2]) for p in large)
    return center_crops(large, min(size, smallest // 8 * 8), unit_scale(large), framing)


def hold_out(pictures: Sequence[Picture], share: float = 0.03) -> tuple[list[Picture], list[Picture]]:
    """Split off every k-th picture for validation when no validation set is given."""
    if len(pictures) < 2:
        raise InputError(f"{len(pictures)} picture", hint="training and validation need at least 2")
    every = min(len(pictures), max(2, round(1 / share)))
    kept = [p for i, p in enumerate(pictures) if i % every]
    return kept, [p for i, p in enumerate(pictures) if i % every == 0]


def denoising_picture(
    model: EDMDenoiser, pictures: Tensor, sigmas: Sequence[float] = (0.05, 0.2, 1.0), colours: Colours = "rgb"
) -> Image.Image:
    """A grid to look at: a row per picture; the clean one, then noisy and denoised at each level."""
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    columns = [pictures]
    for sigma in sigmas:
        noisy = pictures + sigma * torch.randn(pictures.shape, generator=generator)
        with torch.no_grad(), autocast(device):
            level = torch.full((len(pictures),), sigma, device=device)
            columns += [noisy, model.eval()(noisy.to(device), level).cpu()]
    grid = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)
    grid = to_rgb(grid, colours).clamp(0, 1)
    array = (grid * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)
