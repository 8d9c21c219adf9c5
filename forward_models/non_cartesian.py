"""Magnetic resonance imaging off the Cartesian grid: radial and spiral k-space, by a library's non-uniform FFT."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.forward_models.mri import as_complex, as_pairs
from invsolve.forward_models.operator import LinearOperator

TABLE = 2**17
"""Entries of the kernel's table per step of the grid; the library's own 2**10 leave errors of 1e-3."""


class NonCartesianMri(LinearOperator):
    """y_j(k) = sum_p s_j(p) x(p) exp(-2 pi i k.p) / sqrt(H W) at any frequencies k, for coils j (Fessler & Sutton 2003).

    (2, H, W) -> (2, samples) for one coil of sensitivity 1, and (coils, 2, samples) for several: real and imaginary part. p counts
    pixels from (H // 2, W // 2), so that at the frequencies of the grid this is :class:`invsolve.forward_models.Mri`. Computed by
    torchkbnufft with Kaiser-Bessel kernels of 6 on a grid twice as fine: within 2e-5 of the sum, the adjoint exact to
    rounding. Norm, proximal map and pseudo-inverse are iterations.

    Parameters
    ----------
    trajectory : (samples, 2), rows and columns, in cycles per pixel from -0.5 to 0.5.
    shape : (H, W).
    sensitivities : (coils, H, W), complex; None for one coil that sees all alike.

    Raises
    ------
    InputError : shapes do not fit, or frequencies beyond 0.5.
    UsageError : torchkbnufft is not installed.
    """

    def __init__(self, trajectory: Tensor, shape: tuple[int, int], sensitivities: Tensor | None = None) -> None:
        if trajectory.ndim != 2 or trajectory.shape[1] != 2 or len(trajectory) == 0:
            raise InputError(f"the trajectory has shape {tuple(trajectory.shape)}", hint="wanted (samples, 2)")
        furthest = float(trajectory.abs().max())
        if not furthest <= 0.5:
            raise InputError(
                f"the trajectory goes to {furthest:g} cycles per pixel", hint="divide it, so that 0.5 is the furthest"
            )
        if sensitivities is not None and (
            not sensitivities.is_complex() or sensitivities.ndim != 3 or tuple(sensitivities.shape[1:]) != tuple(shape)
        ):
            raise InputError(
                f"sensitivities {tuple(sensitivities.shape)}, {sensitivities.dtype}, for a picture {tuple(shape)}",
                hint="wanted complex (coils, height, width)",
            )
        coils = () if sensitivities is None else (len(sensitivities),)
        super().__init__((2, *shape), (*coils, 2, len(trajectory)))
        self.trajectory = trajectory
        self.sensitivities = sensitivities
        self._transform = cache(self._planned)
        _library()

    def _planned(self, adjoint: bool, dtype: torch.dtype, device: torch.device) -> Any:
        """The library's transform of a precision, with its interpolation tables."""
        library = _library()
        make = library.KbNufftAdjoint if adjoint else library.KbNufft
        return make(im_size=self.input_shape[1:], dtype=dtype.to_complex(), device=device, table_oversamp=TABLE)

    def _frequencies(self, like: Tensor) -> Tensor:
        """(2, samples), in radians per pixel."""
        return 2 * math.pi * self.trajectory.to(like).T.contiguous()

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(math.prod(self.input_shape[1:]))

    def _apply(self, x: Tensor) -> Tensor:
        pictures = as_complex(x)[:, None]
        if self.sensitivities is not None:
            pictures = self.sensitivities.to(pictures) * pictures
        k = self._scale * self._transform(False, x.dtype, x.device)(pictures, self._frequencies(x))
        pairs = torch.stack([k.real, k.imag], dim=-2)
        return pairs[:, 0] if self.sensitivities is None else pairs

    def _adjoint(self, y: Tensor) -> Tensor:
        pairs = y[:, None] if self.sensitivities is None else y
        k = torch.complex(pairs[..., 0, :], pairs[..., 1, :])
        pictures = self._scale * self._transform(True, y.dtype, y.device)(k, self._frequencies(y))
        if self.sensitivities is not None:
            pictures = self.sensitivities.to(pictures).conj() * pictures
        return as_pairs(pictures.sum(dim=1))


def radial_trajectory(spokes: int, samples: int, *, golden: bool = True) -> Tensor:
    """Lines through frequency 0, (spokes * samples, 2) in cycles per pixel, rows and columns; float64.

    Parameters
    ----------
    spokes : lines.
    samples : of each line, from -0.5 on in steps of 1 / samples.
    golden : turn each line by the golden angle, 111.25 degrees, from the one before (Winkelmann et al. 2007); otherwise
        spread them evenly over 180 degrees.
    """
    if spokes < 1 or samples < 2:
        raise InputError(f"{spokes} spokes of {samples} samples", hint="wanted at least 1 of 2")
    turn = (math.sqrt(5) - 1) / 2 if golden else 1 / spokes
    angles = math.pi * turn * torch.arange(spokes, dtype=torch.float64)
    along = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    directions = torch.stack([angles.sin(), angles.cos()], dim=-1)
    return (directions[:, None] * along[:, None]).reshape(-1, 2)


def _library() -> Any:
    try:
        import torchkbnufft
    except ImportError:
        raise UsageError(
            "k-space off the grid needs torchkbnufft", hint="install it with pip install 'invsolve[mri]'"
        ) from None
    return torchkbnufft
