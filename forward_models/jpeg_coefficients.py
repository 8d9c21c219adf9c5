"""What a JPEG file stores of a picture: the cosine coefficients of its blocks, counted in quantization steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.jpeg import BLOCK, cosines, ycbcr
from invsolve.forward_models.operator import LinearOperator

LEVELS = 255.0


class JpegCoefficients(LinearOperator):
    """y = cosine coefficients over their steps: (C, H, W) in [0, 1] -> (rows, columns, m), m of every unit of the file.

    YCbCr after JFIF (of C = 3 channels), chroma averaged over its pixels as libjpeg does, the orthonormal cosine transform of
    8 x 8 blocks, each coefficient over its quantization step: a file holds y rounded to whole numbers, so that the picture lies
    within half of one, up to the rounding of pixels. The level shift of 128 is not part of it; :meth:`offset` is what it adds.

    The smallest picture with whole blocks of all components, a unit, is measured by itself and all units alike, so that norm,
    proximal map and pseudo-inverse are closed forms by the eigenvectors of one small matrix.

    Parameters
    ----------
    input_shape : (C, height, width), C = 1 or 3; the sides multiples of a unit's.
    steps : (C, 8, 8), vertical frequency first, for pixels from 0 to 255.
    sampling : (horizontal, vertical) blocks in a unit, for each channel; default 1 x 1, chroma at full resolution (4:4:4).
        ``((2, 2), (1, 1), (1, 1))`` is 4:2:0.
    rgb : whether the channels are stored as they are, without YCbCr.

    Raises
    ------
    InputError : shapes, steps or factors that do not go together.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        steps: Tensor,
        sampling: Sequence[tuple[int, int]] | None = None,
        *,
        rgb: bool = False,
    ) -> None:
        if (
            len(input_shape) != 3
            or input_shape[0] not in (1, 3)
            or tuple(steps.shape) != (input_shape[0], BLOCK, BLOCK)
        ):
            raise InputError(
                f"JPEG of {tuple(input_shape)} with steps {tuple(steps.shape)}",
                hint="wanted (1 or 3, height, width) and steps (channels, 8, 8)",
            )
        if not bool((steps > 0).all()):
            raise InputError(
                "quantization steps that are not positive", hint="wanted 1 to 255 for pixels from 0 to 255"
            )
        channels, height, width = input_shape
        self.sampling = tuple(sampling or ((1, 1),) * channels)
        across, down = (max(pair[axis] for pair in self.sampling) for axis in (0, 1))
        if len(self.sampling) != channels or any(across % h or down % v for h, v in self.sampling):
            raise InputError(
                f"sampling {self.sampling}", hint="wanted factors that divide the largest, for each channel"
            )
        self.unit = (BLOCK * down, BLOCK * across)
        if height % self.unit[0] or width % self.unit[1]:
            raise InputError(
                f"JPEG of {tuple(input_shape)} in units of {self.unit}", hint="pad the picture to whole units"
            )
        self.rgb = rgb
        mix = torch.eye(channels, dtype=torch.float64) if rgb or channels == 1 else ycbcr(steps.double())
        self.matrix = torch.cat(
            [
                torch.kron(mix[d : d + 1], _planes(steps[d].double(), self.sampling[d], self.unit))
                for d in range(channels)
            ]
        )
        """(m, C * unit's pixels), float64."""
        super().__init__(input_shape, (height // self.unit[0], width // self.unit[1], len(self.matrix)))
        self._steps = [steps[d].double().tile(v, h) for d, (h, v) in enumerate(self.sampling)]
        self._shifts = [0.0 if not rgb and d else 128.0 * BLOCK / float(steps[d, 0, 0]) for d in range(channels)]
        self._eigenvalues, self._vectors = torch.linalg.eigh(self.matrix @ self.matrix.T)

    @property
    def offset(self) -> Tensor:
        """What y is more than a file's numbers, (m,): half of the range, which a file leaves out of its mean values."""
        parts = [torch.zeros(BLOCK * v, BLOCK * h) for h, v in self.sampling]
        for part, shift in zip(parts, self._shifts, strict=True):
            part[::BLOCK, ::BLOCK] = shift
        return torch.cat([part.flatten() for part in parts])

    @property
    def level(self) -> Tensor:
        """One grey level in steps, (m,): how far rounding a picture to 8 bits takes its coefficients, hardly ever further."""
        return torch.cat([1 / steps.flatten() for steps in self._steps]).float()

    def arrange(self, coefficients: Sequence[Tensor]) -> Tensor:
        """A file's numbers, (rows, columns, 8, 8) of each component, as y (1, rows, columns, m), the offset added."""
        rows, columns, _ = self.output_shape
        parts = []
        for blocks, (h, v) in zip(coefficients, self.sampling, strict=True):
            units = blocks.reshape(rows, v, columns, h, BLOCK, BLOCK)
            parts.append(units.permute(0, 2, 1, 4, 3, 5).reshape(rows, columns, -1))
        return (torch.cat(parts, dim=2) + self.offset)[None].float()

    def project(self, x: Tensor, y: Tensor, reach: float = 0.5) -> Tensor:
        """The least change of ``x`` (B, C, H, W) that takes every coefficient more than ``reach`` from its y to that distance."""
        found = self._apply(x)
        return x + self._pinv(found.clamp(y - reach, y + reach) - found)

    def _apply(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        (rows, columns, _), (height, width) = self.output_shape, self.unit
        units = x.reshape(batch, channels, rows, height, columns, width).permute(0, 2, 4, 1, 3, 5)
        return units.reshape(batch, rows, columns, -1) @ self.matrix.T.to(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        (rows, columns, _), (height, width) = self.output_shape, self.unit
        units = (y @ self.matrix.to(y)).reshape(len(y), rows, columns, self.input_shape[0], height, width)
        return units.permute(0, 3, 1, 4, 2, 5).reshape(-1, *self.input_shape)

    def _over(self, y: Tensor, rho: Tensor | float) -> Tensor:
        """``(A A' + rho)^-1 y``."""
        vectors = self._vectors.to(y)
        return ((y @ vectors) / (self._eigenvalues.to(y) + rho)) @ vectors.T

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        return z + self._adjoint(self._over(y - self._apply(z), rho))

    def _pinv(self, y: Tensor) -> Tensor:
        return self._adjoint(self._over(y, 0.0))

    def _norm(self) -> float:
        return float(self._eigenvalues[-1].sqrt())


def _planes(steps: Tensor, sampling: tuple[int, int], unit: tuple[int, int]) -> Tensor:
    """From a unit's pixels of one component to its coefficients in steps, float64."""
    down, across = (_along(unit[axis], sampling[1 - axis]) for axis in (0, 1))
    weights = LEVELS / steps.tile(sampling[1], sampling[0])
    return weights.reshape(-1, 1) * torch.kron(down, across)


def _along(length: int, blocks: int) -> Tensor:
    """(8 blocks, length): means of neighbouring values, then the cosine transform of each block."""
    kept = BLOCK * blocks
    means = torch.eye(kept, dtype=torch.float64).repeat_interleave(length // kept, dim=1) / (length // kept)
    return torch.block_diag(*[cosines()] * blocks) @ means
