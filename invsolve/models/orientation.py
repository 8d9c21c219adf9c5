"""Showing a network each image in turn in the orientations it was trained on.

Photographs have no preferred handedness, a trained network has: averaged over orientations its error shrinks
("geometric self-ensemble", Lim et al. 2017). A sampler calls the network many times, so turning the image from call to
call gives most of that average at no extra cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.models.score_model import Prediction, ScoreModel, Sigma, WrappedModel, per_image

ALLOWED: Mapping[str, tuple[int, ...]] = {"square": tuple(range(8)), "flips": (0, 2, 4, 6), "mirror": (0, 4)}
"""Numbers for :func:`turn`: all eight of the square, the four without transposing, left and right only."""


def turn(x: Tensor, orientation: int) -> Tensor:
    """Orientation 0-7 of (..., H, W): bits for transposing, flipping vertically, flipping horizontally."""
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
    """``model`` with image i shown in number ``offsets[i] + 5 * call number`` of the model's orientations, in a cycle.

    A batch of several times as many rows as there are offsets holds particles, those of one image next to each other:
    each takes the orientation of its image.
    """

    def __init__(self, model: ScoreModel, offsets: Sequence[int]) -> None:
        super().__init__(model)
        self.offsets, self.call = list(offsets), 0
        self.allowed = ALLOWED[model.orientations]

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        (denoised,) = self._turned(lambda turned, level: (self.model.denoise(turned, level),), x, sigma)
        return denoised

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        (score,) = self._turned(lambda turned, level: (self.model.score(turned, level),), x, sigma)
        return score

    def predict(self, x: Tensor, sigma: Sigma) -> Prediction:
        return Prediction(*self._turned(self.model.predict, x, sigma))

    def _turned(
        self, evaluate: Callable[[Tensor, Tensor], tuple[Tensor, ...]], x: Tensor, sigma: Sigma
    ) -> tuple[Tensor, ...]:
        """What ``evaluate`` says of the turned images, turned back."""
        level = per_image(sigma, x).flatten().expand(len(x))
        orientations = self._next_orientations(len(x))
        if len(x) == 1:
            parts = evaluate(turn(x, orientations[0]), level)
            return tuple(turn_back(part, orientations[0]) for part in parts)
        square = x.shape[-2] == x.shape[-1]
        groups = (
            [list(range(len(x)))] if square else [[i for i, o in enumerate(orientations) if o & 1 == t] for t in (0, 1)]
        )
        rows: dict[int, list[Tensor]] = {}
        for group in filter(None, groups):
            turned = torch.cat([turn(x[i : i + 1], orientations[i]) for i in group])
            parts = evaluate(turned, level[group])
            for row, i in enumerate(group):
                rows[i] = [turn_back(part[row : row + 1], orientations[i]) for part in parts]
        return tuple(torch.cat(column) for column in zip(*(rows[i] for i in range(len(x))), strict=True))

    def _next_orientations(self, count: int) -> list[int]:
        """One for each of ``count`` rows."""
        if count % len(self.offsets):
            raise UsageError(
                f"a batch of {count} for {len(self.offsets)} images to be turned",
                hint="wanted the same number of rows for every image; or solve with turn=False",
            )
        # 5 is coprime to 2, 4 and 8: neighbouring calls differ in more than one bit and all orientations come up.
        numbers = [(offset + 5 * self.call) % len(self.allowed) for offset in self.offsets]
        self.call += 1
        return [self.allowed[number] for number in numbers for _ in range(count // len(numbers))]
