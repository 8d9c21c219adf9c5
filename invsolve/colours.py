"""Coordinates in which noise drowns colours long before the luma.

A score model of RGB pictures under equal noise must choose colours at noise levels where the luma, known exactly in
colorization, is itself buried: little of what the grey picture shows reaches the choice. In *luma first* coordinates,
(LUMA_GAIN Y, Cb, Cr), white noise of one sigma is LUMA_GAIN times weaker in the luma. A prior trained on them is an
unconditional score model as any other and the forward model still a linear one, but colours are drawn with the whole
grey picture in sight. Song et al. 2021 (appendix I) turn RGB so that grey becomes a channel of its own; the scale that
sets its noise apart is that of subspace and non-uniform diffusions (Jing et al. 2022; Batzolis et al. 2022).

Y, Cb, Cr are those of JPEG (Rec. 601) without offsets: Y in [0, 1], Cb and Cr in [-.5, .5].
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Colours = Literal["rgb", "luma first"]
KNOWN = get_args(Colours)

REC601 = (0.299, 0.587, 0.114)
"""Luma weights of red, green and blue: those of JPEG and of ``PIL.Image.convert("L")``."""

LUMA_GAIN = 256.0
"""At sigma 4, above which not even a cast over 32 x 32 pixels shows, noise in the luma is then 1 / 64, four grey levels."""

BLUE, RED = 2 * (1 - REC601[2]), 2 * (1 - REC601[0])  # 1.772 and 1.402: Cb = (B - Y) / BLUE, Cr = (R - Y) / RED


def luma(rgb: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Rec. 601 luma (H, W) of an RGB picture (H, W, 3)."""
    return rgb @ np.asarray(REC601, dtype=rgb.dtype)


def from_rgb(x: Tensor, colours: Colours) -> Tensor:
    """RGB pictures, or grey ones, in the coordinates named; (..., C, H, W)."""
    return luma_first(x) if colours == "luma first" else x


def to_rgb(x: Tensor, colours: Colours) -> Tensor:
    """The inverse of :func:`from_rgb`."""
    return rgb(x) if colours == "luma first" else x


def luma_first(rgb: Tensor) -> Tensor:
    """RGB in [0, 1] as (LUMA_GAIN Y, Cb, Cr); (..., 3, H, W)."""
    red, green, blue = rgb.unbind(dim=-3)
    luma = REC601[0] * red + REC601[1] * green + REC601[2] * blue
    return torch.stack([LUMA_GAIN * luma, (blue - luma) / BLUE, (red - luma) / RED], dim=-3)


def rgb(coordinates: Tensor) -> Tensor:
    """The inverse of :func:`luma_first`."""
    scaled, blueness, redness = coordinates.unbind(dim=-3)
    luma = scaled / LUMA_GAIN
    red, blue = luma + RED * redness, luma + BLUE * blueness
    green = (luma - REC601[0] * red - REC601[2] * blue) / REC601[1]
    return torch.stack([red, green, blue], dim=-3)
