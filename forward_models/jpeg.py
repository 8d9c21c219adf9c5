"""JPEG: what its quantization leaves of a picture, with the gradient passed straight through."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.colours import REC601
from invsolve.errors import InputError
from invsolve.forward_models.quantization import straight_through

BLOCK = 8

LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of luma coefficients at quality 50 (ITU-T T.81, table K.1)."""

CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""Steps of chroma coefficients at quality 50 (ITU-T T.81, table K.2)."""


class Jpeg:
    """y = the picture that a JPEG file of x decodes to: (B, 1 or 3, H, W) in [0, 1], any size.

    YCbCr after JFIF, cosine transforms of 8 x 8 blocks, coefficients rounded to multiples of the standard's tables scaled by the
    quality as libjpeg does, and back; chroma at full resolution (4:4:4). The file's rounding of pixels to 8 bits is left out.
    Not linear: the gradient passes straight through, as if J were 1, so ``J' (y - A(x))`` is 0 for every x whose coefficients fall
    into the cells of y's, and leads back into them from outside (Kawar et al. 2022, "JPEG artifact correction using denoising
    diffusion restoration models", treat the rounding alike).

    Parameters
    ----------
    quality : 1 to 100, as libjpeg and Pillow count it.
    """

    def __init__(self, quality: int) -> None:
        if not 1 <= quality <= 100:
            raise InputError(f"quality {quality}", hint="wanted 1 to 100")
        self.quality = quality

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[1] not in (1, 3):
            raise InputError(f"a picture with {x.shape[1]} channels", hint="wanted 1 or 3")
        matrix = ycbcr(x) if x.shape[1] == 3 else torch.ones(1, 1).to(x)
        planes = torch.einsum("dc,bchw->bdhw", matrix, 255 * x.detach().clamp(0, 1))
        planes[:, 0] -= 128  # chroma is centred already
        steps = torch.stack([quantization_table(self.quality, chroma=d > 0) for d in range(x.shape[1])]).to(x)
        decoded = _rounded(planes, steps)
        decoded[:, 0] += 128
        y = torch.einsum("cd,bdhw->bchw", torch.linalg.inv(matrix), decoded) / 255
        return straight_through(x, y.clamp(0, 1))


def quantization_table(quality: int, *, chroma: bool) -> Tensor:
    """Steps of the coefficients (8, 8), vertical frequency first, for pixels from 0 to 255 (libjpeg's scaling)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor(CHROMA_TABLE if chroma else LUMA_TABLE)
    return ((table * scale + 50) // 100).clamp(1, 255)


def _rounded(planes: Tensor, steps: Tensor) -> Tensor:
    """Every 8 x 8 block with its cosine coefficients rounded to multiples of ``steps`` (C, 8, 8); edges are repeated."""
    height, width = planes.shape[-2:]
    padded = F.pad(planes, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    rows, columns = (n // BLOCK for n in padded.shape[-2:])
    blocks = padded.reshape(*padded.shape[:2], rows, BLOCK, columns, BLOCK).transpose(3, 4)
    dct = cosines().to(planes)
    table = steps[:, None, None]
    kept = ((dct @ blocks @ dct.T) / table).round() * table
    back = (dct.T @ kept @ dct).transpose(3, 4).reshape(padded.shape)
    return back[..., :height, :width]


def cosines() -> Tensor:
    """The orthonormal cosine transform of 8 values, (frequency, place)."""
    k, n = torch.arange(BLOCK, dtype=torch.float64).reshape(-1, 1), torch.arange(BLOCK, dtype=torch.float64)
    rows = math.sqrt(2 / BLOCK) * torch.cos(math.pi * (2 * n + 1) * k / (2 * BLOCK))
    rows[0] /= math.sqrt(2)
    return rows


def ycbcr(like: Tensor) -> Tensor:
    """RGB to (Y, Cb, Cr) with chroma about 0 (JFIF 1.02): Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402."""
    luma = torch.tensor(REC601, dtype=like.dtype, device=like.device)
    blue, red = (torch.eye(3, dtype=like.dtype, device=like.device)[c] for c in (2, 0))
    return torch.stack([luma, (blue - luma) / (2 - 2 * luma[2]), (red - luma) / (2 - 2 * luma[0])])
