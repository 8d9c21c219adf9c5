"""K-space to practise on: a magnitude picture with a smooth phase, seen by coils around it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models import ForwardModel, GaussianNoise, LinearOperator, Mri, Phase
from invsolve.forward_models.mri import as_complex


class MriScan(NamedTuple):
    """A simulated scan."""

    kspace: npt.NDArray[np.complex64]  # (H, W) of one coil, (coils, H, W) of several; 0 where nothing was measured
    phase: npt.NDArray[np.float64]  # (H, W), radians
    sensitivities: npt.NDArray[np.complex128] | None  # (coils, H, W), the sum of |s|^2 is 1; None for one coil


def simulate_mri(magnitude: Any, measured: Tensor, *, coils: int = 1, noise: float = 0.0, seed: int = 0) -> MriScan:
    """Cartesian k-space of a magnitude picture.

    Parameters
    ----------
    magnitude : (H, W), at least 0.
    measured : (H, W), the mask; see :mod:`invsolve.forward_models.kspace_masks`.
    coils : 1, which sees all alike, or more, evenly around the picture.
    noise : standard deviation of the noise on the real and on the imaginary part of every measured value, in the units of the
        magnitude (the transform is unitary).
    seed : of phase and noise.

    Raises
    ------
    InputError : shapes do not fit, or no coil.
    """
    picture = np.asarray(magnitude, dtype=np.float64)
    if picture.ndim != 2 or picture.shape != tuple(measured.shape):
        raise InputError(f"magnitude {picture.shape} for a mask {tuple(measured.shape)}", hint="wanted both (H, W)")
    if coils < 1:
        raise InputError(f"{coils} coils", hint="wanted at least 1")
    generator = torch.Generator().manual_seed(seed)
    phase = random_smooth_phase(picture.shape, generator)
    sensitivities = None if coils == 1 else coil_ring(picture.shape, coils)
    operator: LinearOperator = Mri(measured, sensitivities) @ Phase(phase)
    y = ForwardModel(operator, GaussianNoise(noise)).simulate(torch.from_numpy(picture)[None, None], generator)
    kspace = as_complex(y)[0] * measured
    return MriScan(
        kspace.numpy().astype(np.complex64), phase.numpy(), None if sensitivities is None else sensitivities.numpy()
    )


def random_smooth_phase(shape: tuple[int, ...], generator: torch.Generator, size: float = 1.0) -> Tensor:
    """A phase (H, W), in radians, of the waves of up to one period across the picture, of standard deviation ``size``."""
    rows, columns = _grid(shape)
    phase = torch.zeros(shape, dtype=torch.float64)
    for a, b in ((0, 1), (1, 0), (1, 1), (1, -1)):
        weight, shift = torch.randn(2, generator=generator, dtype=torch.float64)
        phase += weight * torch.cos(math.pi * (a * rows + b * columns) + 2 * math.pi * shift)
    return size * phase / phase.std().clamp(min=1e-12)


def coil_ring(shape: tuple[int, ...], coils: int, width: float = 1.0) -> Tensor:
    """Sensitivities (coils, H, W): Gaussian falls from the coils on a circle, each of a phase that turns with the place.

    Divided by the root of the sum of |s|^2, which is 1 then. ``width`` in half pictures.
    """
    rows, columns = _grid(shape)
    maps = []
    for k in range(coils):
        angle = 2 * math.pi * k / coils
        i, j = 1.2 * math.sin(angle), 1.2 * math.cos(angle)
        fall = torch.exp(-((rows - i) ** 2 + (columns - j) ** 2) / (2 * width**2))
        maps.append(torch.polar(fall, angle + 0.5 * (i * rows + j * columns)))
    stacked = torch.stack(maps)
    return stacked / stacked.abs().square().sum(dim=0).sqrt()


def _grid(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape), indexing="ij")
    return rows, columns
