"""The parts of a picture that are filled one after the other: boxes around its holes, for a prior of any size or of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.models.score_model import ScoreModel
from invsolve.pictures import Missing
from invsolve.tasks.filling import SIGMA_START, SIGMA_START_WIDE
from invsolve.tasks.regions import RESOLUTIONS, Region, context_of, hole_boxes, resolutions
from invsolve.tasks.squares import squares

Fit = Literal["crop", "resize"]
"""How a prior of one size is given the squares around the holes of a picture of another: at that size, or brought to it."""


@dataclass(frozen=True)
class Part:
    """A box, the number of resolutions it is filled at, and the first noise level at the coarsest one.

    Of a box for some holes only, ``own`` (h, w) says which of its pixels they are; one that is resized for the prior is seen
    with the side ``side``.
    """

    region: Region
    scales: int
    sigma_start: float
    own: Missing | None = None
    side: int | None = None

    @property
    def pixels(self) -> int:
        """Those that are seen at the finest resolution."""
        return self.region.pixels if self.side is None else self.side**2

    @property
    def work(self) -> float:
        """Pixels seen at one noise level of every resolution, in all."""
        return self.pixels * sum(0.25**k for k in range(self.scales))

    @property
    def refining(self) -> float:
        """Pixels seen at one noise level of all resolutions but the coarsest."""
        return self.work - self.pixels * 0.25 ** (self.scales - 1)

    @property
    def stream(self) -> int:
        """Of its noise, which depends on where it is and not on how many others there are."""
        return RESOLUTIONS * (self.region.top * 2**32 + self.region.left)

    def seen(self, picture: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """What the prior sees of the box (n, C, h, w): means of what is known, and where anything is known."""
        if self.side in (None, picture.shape[-1]):
            return picture, known
        resize = partial(F.interpolate, size=self.side, mode="area" if self.side < picture.shape[-1] else "bilinear")
        weight = resize(known)
        return resize(picture * known) / weight.clamp(min=1e-12), (weight > 0).to(known)

    def enlarged(self, samples: Tensor) -> Tensor:
        """What was made of the box, (n, C, h, w), at the size it has in the picture."""
        if samples.shape[-2:] != self.region.shape:
            return F.interpolate(samples, size=self.region.shape, mode="bicubic")
        return samples


def hole_parts(missing: Missing) -> list[Part]:
    """Boxes that cover the holes, for a prior of any size; wide holes first, so that what is beside them goes with them."""
    parts = []
    for region, core in hole_boxes(missing):
        own = np.zeros(region.shape, bool)
        own[core.within(region)] = missing[core.slices]
        scales = resolutions(own)
        if scales > 1:
            wider = core.grown(context_of(scales), missing.shape)
            own = np.zeros(wider.shape, bool)
            own[core.within(wider)] = missing[core.slices]
            region = wider
        parts.append(Part(region, scales, SIGMA_START if scales == 1 else SIGMA_START_WIDE, own))
    return sorted(parts, key=lambda part: -part.scales)


def whole_picture(missing: Missing, prior: ScoreModel | None = None) -> Part:
    """One part for the whole picture: where the known pixels are noisy too, or where a ``prior`` of one size, or in patches, sees
    all of it at once. With a ``prior`` wide holes start at its ``sigma_max``, at one resolution.
    """
    scales, region = resolutions(missing), Region(0, 0, *missing.shape)
    wide = SIGMA_START_WIDE if prior is None else prior.sigma_max
    return Part(region, scales if prior is None else 1, SIGMA_START if scales == 1 else wide)


def square_parts(missing: Missing, prior: ScoreModel, size: int, fit: Fit) -> list[Part]:
    """Squares around the holes for a prior of ``size``: of that side, or as large as the picture and brought to it."""
    parts = []
    for region, own in squares(missing, size if fit == "crop" else min(missing.shape)):
        part = Part(region, 1, SIGMA_START, own, size)
        known = torch.from_numpy(~missing[region.slices])[None, None].float()
        narrow = resolutions(part.seen(known, known)[1][0, 0].numpy() == 0) == 1
        parts.append(part if narrow else replace(part, sigma_start=prior.sigma_max))
    return parts
