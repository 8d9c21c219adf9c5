"""Magnetic resonance imaging: k-space on a Cartesian grid, of one receiver coil or of several."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.fourier import fft2, ifft2
from invsolve.forward_models.operator import LinearOperator


class Mri(LinearOperator):
    """y_j = m * F(s_j x) for coils j with sensitivities s_j (Pruessmann et al. 1999, SENSE); unmeasured values read 0.

    (2, H, W) -> (2, H, W) for one coil of sensitivity 1, and (coils, 2, H, W) for several: real and imaginary part. F is the
    unitary DFT; frequency 0 stands at (H // 2, W // 2), the picture's origin at pixel (H // 2, W // 2), as fastMRI and sigpy have
    it. Units are those of x. One coil has closed forms for all maps and the norm max m; with several the norm is found
    by power iteration, at most max m times the largest root of the sum of |s_j|^2, and proximal map and pseudo-inverse are
    conjugate gradients.

    Parameters
    ----------
    measured : (H, W), 1 where k-space is measured and 0 where it is not (weights are allowed).
    sensitivities : (coils, H, W), complex; None for one coil that sees all alike.
    """

    def __init__(self, measured: Tensor, sensitivities: Tensor | None = None) -> None:
        if measured.ndim != 2:
            raise InputError(f"k-space mask has shape {tuple(measured.shape)}", hint="wanted (height, width)")
        if sensitivities is not None and (
            not sensitivities.is_complex() or sensitivities.ndim != 3 or sensitivities.shape[1:] != measured.shape
        ):
            raise InputError(
                f"sensitivities {tuple(sensitivities.shape)}, {sensitivities.dtype}, for a mask {tuple(measured.shape)}",
                hint="wanted complex (coils, height, width)",
            )
        coils = () if sensitivities is None else (len(sensitivities),)
        super().__init__((2, *measured.shape), (*coils, 2, *measured.shape))
        self.measured = measured if measured.is_floating_point() else measured.float()
        self.sensitivities = sensitivities

    @property
    def informative(self) -> Tensor:
        return (self.measured != 0).expand(self.output_shape)

    def _weights(self, like: Tensor) -> Tensor:
        return self.measured.to(like)

    def _coils(self, like: Tensor) -> Tensor:
        """Sensitivities as complex numbers of the precision of the complex tensor ``like``."""
        assert self.sensitivities is not None
        return self.sensitivities.to(like)

    def _apply(self, x: Tensor) -> Tensor:
        picture = as_complex(x)
        if self.sensitivities is not None:
            picture = self._coils(picture) * picture[:, None]
        return as_pairs(self._weights(x) * fft2(picture))

    def _adjoint(self, y: Tensor) -> Tensor:
        pictures = ifft2(self._weights(y) * as_complex(y))
        if self.sensitivities is not None:
            pictures = (self._coils(pictures).conj() * pictures).sum(dim=1)
        return as_pairs(pictures)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        if self.sensitivities is not None:
            return super()._prox(z, y, rho)
        m = self._weights(z)
        k = (m * y + rho * as_pairs(fft2(as_complex(z)))) / (m**2 + rho)
        return as_pairs(ifft2(as_complex(k)))

    def _pinv(self, y: Tensor) -> Tensor:
        if self.sensitivities is not None:
            return super()._pinv(y)
        m = self._weights(y)
        k = torch.where(m != 0, y / torch.where(m != 0, m, 1), 0)
        return as_pairs(ifft2(as_complex(k)))

    def _norm(self) -> float:
        return float(self.measured.abs().max()) if self.sensitivities is None else super()._norm()


def as_complex(pairs: Tensor) -> Tensor:
    """(..., 2, H, W) real and imaginary parts -> (..., H, W) complex."""
    return torch.complex(pairs[..., 0, :, :], pairs[..., 1, :, :])


def as_pairs(values: Tensor) -> Tensor:
    """(..., H, W) complex -> (..., 2, H, W) real and imaginary parts."""
    return torch.stack([values.real, values.imag], dim=-3)
