"""FFDNet for colour pictures: twelve convolutions at half the resolution that are told the noise level.

Zhang, Zuo & Zhang 2018, "FFDNet: toward a fast and flexible solution for CNN-based image denoising", section III.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.models.post_ops import rectified

CHANNELS, WIDTH, LAYERS = 3, 96, 12
STRIDE = 2
RECEPTIVE_RADIUS = STRIDE * (LAYERS + 1)
LARGEST_SIGMA = 75 / 255
"""The noise it was trained with goes so far."""


class FFDNet(nn.Module):
    """``model``'s even entries are the convolutions, under the names that the authors' weights have."""

    def __init__(self) -> None:
        super().__init__()
        inner = CHANNELS * STRIDE**2
        widths = [inner + 1, *[WIDTH] * (LAYERS - 1), inner]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise (B, 3, H, W) in [0, 1] with noise of standard deviation ``sigma``, a number or one per picture shaped
        (B, 1, 1, 1), known up to 0.29 (75 / 255)."""
        height, width = x.shape[-2:]
        even = F.pad(x, (0, width % STRIDE, 0, height % STRIDE), mode="replicate")
        small = F.pixel_unshuffle(even, STRIDE).contiguous(memory_format=torch.channels_last)
        level = torch.as_tensor(sigma, dtype=small.dtype, device=x.device).expand(len(small), 1, *small.shape[-2:])
        h = torch.cat([small, level], dim=1)
        *inner, last = (layer for layer in self.model if isinstance(layer, nn.Conv2d))
        for convolution in inner:
            h = rectified(convolution, h)
        return F.pixel_shuffle(last(h), STRIDE)[..., :height, :width]
