"""Showing a network each image in turn in the orientations it was trained on.

Photographs have no preferred handedness, a trained network has: averaged over orientations its error shrinks
("geometric self-ensemble", Lim et al. 2017). A sampler calls the network many times, so turning the image from call to
call gives most of that average at no extra cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from invsolve.models.score_model import ScoreModel, Sigma, WrappedModel, per_image

ALLOWED: Mapping[str, tuple[int, ...]] = {"square": tuple(range(8)), "flips": (0, 2, 4, 6), "mirror": (0, 4)}
"""Numbers for :func:`turn`: all eight of the square, the four without transposing, left and right only."""


def turn(x: Tensor, orientation: int) -> Tensor:
    """Orientation 0-7 of (B, C, H, W): bits for transposing, flipping vertically, flipping horizontally."""
    if orientation & 1:
        x = x.transpose(-2, -1)
    if orientation & 2:
        x = x.flip(-2)
    if orientation & 4:
        x = x.flip(-1)
    return x


def turn_back(x: Tensor, orientation: int) -> Tensor:
    """Inverse of :func:`turn`."""
    if orientation & 4:
        x = x.flip(-1)
    if orientation & 2:
        x = x.flip(-2)
    if orientation & 1:
        x = x.transpose(-2, -1)
    return x


class OrientedModel(WrappedModel):
    """``model`` with image i shown in number ``offsets[i] + 5 * call number`` of the model's orientations, in a cycle."""

    def __init__(self, model: ScoreModel, offsets: Sequence[int]) -> None:
        super().__init__(model)
        self.offsets, self.call = list(offsets), 0
        self.allowed = ALLOWED[model.orientations]

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        level = per_image(sigma, x).flatten().expand(len(x))
        # 5 is coprime to 2, 4 and 8: neighbouring calls differ in more than one bit and all orientations come up.
        orientations = [self.allowed[(offset + 5 * self.call) % len(self.allowed)] for offset in self.offsets]
        self.call += 1
        if len(x) == 1:
            return turn_back(self.model.denoise(turn(x, orientations[0]), level), orientations[0])
        out = torch.empty_like(x)
        square = x.shape[-2] == x.shape[-1]
        groups = (
            [list(range(len(x)))] if square else [[i for i, o in enumerate(orientations) if o & 1 == t] for t in (0, 1)]
        )
        for group in filter(None, groups):
            turned = torch.cat([turn(x[i : i + 1], orientations[i]) for i in group])
            denoised = self.model.denoise(turned, level[group])
            for row, i in enumerate(group):
                out[i] = turn_back(denoised[row : row + 1], orientations[i])[0]
        return out
