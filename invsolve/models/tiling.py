"""Running a local denoiser tile by tile, with the same result as on the whole picture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def tile_starts(length: int, core: int) -> list[int]:
    """First pixel of each tile's core along one axis."""
    return list(range(0, length, core))


def tiled(denoise: Callable[[Tensor], Tensor], x: Tensor, *, core: int, overlap: int, multiple: int) -> Tensor:
    """Apply ``denoise`` to overlapping tiles of ``x`` (B, C, H, W) and keep each tile's core.

    Exact when ``overlap`` is at least the denoiser's receptive radius: no pixel of a core sees a tile's edge, except
    where the picture itself ends.

    Parameters
    ----------
    denoise : maps a tile (B, C, h, w) to the same shape.
    core : side of the part kept of each tile; a multiple of ``multiple``.
    overlap : pixels read around a core.
    multiple : tiles start at multiples of this, so that strided layers fall on the same grid everywhere.
    """
    height, width = x.shape[-2:]
    margin = -(-overlap // multiple) * multiple
    out = torch.empty_like(x)
    for top in tile_starts(height, core):
        for left in tile_starts(width, core):
            y0, x0 = max(0, top - margin), max(0, left - margin)
            y1, x1 = min(height, top + core + margin), min(width, left + core + margin)
            tile = denoise(x[..., y0:y1, x0:x1])
            bottom, right = min(height, top + core), min(width, left + core)
            out[..., top:bottom, left:right] = tile[..., top - y0 : bottom - y0, left - x0 : right - x0]
    return out
