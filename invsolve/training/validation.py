"""How well a network denoises pictures it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from invsolve.colours import Colours, from_rgb, to_rgb
from invsolve.errors import InputError
from invsolve.models.network import EDMDenoiser
from invsolve.models.precision import autocast
from invsolve.training.crops import center_crops, unit_scale
from invsolve.training.presets import SigmaDensity, TrainingConfig
from invsolve.training.sources import Labelled, Picture

MOST_FOR_PRIOR = 500
MOST_FOR_CLASSIFIER = 2000
"""Validation pictures beyond this many would hardly change the card's figures."""


def validation_sigmas(density: SigmaDensity, count: int = 13) -> list[float]:
    """Noise levels at which the card states the prior's error, log-spaced over the trained range."""
    return [float(s) for s in np.geomspace(density.low, density.high, count)]


def validate(
    model: nn.Module, pictures: Tensor, sigmas: Sequence[float], seed: int = 0, batch: int = 4
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


def prior_examples(config: TrainingConfig, held_out: Sequence[Picture]) -> Tensor:
    """What a prior of ``config`` is validated on: (N, C, H, W) in its units, from at most MOST_FOR_PRIOR pictures.

    Raises
    ------
    InputError : none of the pictures is large enough for the network and its crops.
    """
    framing = config.augmentation.framing[1]
    of_one_size = bool(framing) or not config.network.local
    some = held_out[:: -(-len(held_out) // MOST_FOR_PRIOR)]
    examples = validation_pictures(some, config.crop if of_one_size else 256, framing)
    if of_one_size and examples.shape[-1] != config.crop:
        raise _too_small(config.crop)
    return from_rgb(examples, config.colours)


def classifier_examples(config: TrainingConfig, held_out: Labelled) -> tuple[Tensor, list[int]]:
    """What a classifier of ``config`` is validated on, (N, C, crop, crop), and the labels; at most MOST_FOR_CLASSIFIER.

    Raises
    ------
    InputError : a picture is smaller than the crops.
    """
    # Every k-th picture: files may be sorted by class.
    some = held_out.part(range(0, len(held_out.pictures), -(-len(held_out.pictures) // MOST_FOR_CLASSIFIER)))
    if any(min(picture.shape[:2]) < config.crop for picture in some.pictures):
        raise _too_small(config.crop)
    return validation_pictures(some.pictures, config.crop), some.labels.tolist()


def _too_small(crop: int) -> InputError:
    return InputError("a validation picture is too small", hint=f"wanted {crop} x {crop} pixels or more")


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
