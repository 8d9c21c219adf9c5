"""Running a denoiser on parts of a picture: a local one tile by tile, with the same result as on the whole picture; one that
knows pictures of one size on overlapping patches, whose estimates are blended."""

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


def patch_starts(length: int, size: int, stride: int) -> list[int]:
    """First pixel of each patch of ``size`` along an axis of ``length``: evenly spread, at most ``stride`` apart, to the end."""
    count = 1 - (-(length - size) // stride)
    return [round(k * (length - size) / max(1, count - 1)) for k in range(count)]


def blended(denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, *, size: int, stride: int) -> Tensor:
    """Denoise overlapping patches of ``x`` and blend them: each pixel is a mean of what the patches around it say.

    All patches see the same noise where they overlap, as they are cut from one picture (MultiDiffusion, Bar-Tal et al. 2023,
    eq. 5, for the denoised estimates; the weights fall to nearly 0 at a patch's edge, as a Hann window, so that nothing jumps
    there). What results
    is a score for pictures of any size that knows nothing beyond a patch (PaDIS, Hu et al. 2024).

    Parameters
    ----------
    denoise : (patches, owners) to the same shape as patches (N, C, size, size); ``owners`` (N,) says which picture of ``x``
        each was cut from.
    x : (B, C, H, W), H and W at least ``size``.
    size : side of a patch.
    stride : pixels between neighbouring patches, at most.
    """
    height, width = x.shape[-2:]
    corners = [(top, left) for top in patch_starts(height, size, stride) for left in patch_starts(width, size, stride)]
    patches = torch.cat([x[..., top : top + size, left : left + size] for top, left in corners])
    owners = torch.arange(len(x), device=x.device).repeat(len(corners))
    window = (torch.pi * (torch.arange(size).to(x) + 0.5) / size).sin().square()
    weight = window[:, None] * window
    total, weights = torch.zeros_like(x), x.new_zeros(height, width)
    for (top, left), estimate in zip(corners, denoise(patches, owners).split(len(x)), strict=True):
        total[..., top : top + size, left : left + size] += weight * estimate
        weights[top : top + size, left : left + size] += weight
    return total / weights
