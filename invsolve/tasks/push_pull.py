"""A first guess for missing pixels: push-pull interpolation (Gortler et al. 1996)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def push_pull(picture: Tensor, known: Tensor) -> Tensor:
    """Fill missing pixels from ever coarser averages of the known ones.

    Parameters
    ----------
    picture : (B, C, H, W); values at missing pixels are ignored.
    known : (B or 1, 1, H, W), 1 where known.
    """
    known = known.to(picture).expand(len(picture), -1, -1, -1)
    height, width = picture.shape[-2:]
    if min(height, width) <= 1 or bool((known > 0).all()):
        total = known.sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)
        mean = (picture * known).sum(dim=(2, 3), keepdim=True) / total
        return torch.where(known > 0, picture, mean.expand_as(picture))
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    average = F.avg_pool2d(picture * known, 2, ceil_mode=True) / weight.clamp(min=1e-12)
    coarse = push_pull(average, (weight > 0).to(picture))
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return torch.where(known > 0, picture, smooth)
