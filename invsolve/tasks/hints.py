"""Hints for colorization: strokes of colour whose chroma counts as measured, and a picture with colours like those wanted.

With the luma known everywhere and chroma known at strokes, the operator is diagonal in (Y, Cb, Cr), or in a basis turned
so that its first direction is the luma's: a weighted :class:`Mask`, with a closed form for its proximal map. A reference
adds the means of Cb and Cr over parts of alike luma, as measurements of what the whole picture looks like.

Levin, Lischinski & Weiss 2004 and Welsh, Ashikhmin & Mueller 2002 are where scribbles and reference pictures come from.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from invsolve.colours import LUMA_GAIN, REC601, Colours, from_rgb, luma_first, rgb
from invsolve.errors import InputError
from invsolve.forward_models import (
    ChannelMatrix,
    Diagonal,
    ForwardModel,
    GaussianNoise,
    LinearOperator,
    Mask,
    RegionMeans,
    Stack,
)
from invsolve.pictures import UnitPicture, check_picture

DIFFERENCE = 8 / 255
"""How far a channel must be from the grey for a pixel without transparency to count as painted: JPEG errs by less."""

HINT_STD = 0.035
"""Of an opaque stroke's Cb and Cr at the working size. Photographs' are 0.067. 0.02 was no better, and is finer than the
rules resolve beside a luma 256 times as large."""

WITHIN_STD = 0.015
"""Cb and Cr of a point around the mean over a 32nd of the shorter side, of validation photographs."""

LUMA_STD = 2 / LUMA_GAIN
"""The grey as a measurement beside hints, two grey levels. The rule's one step goes along all misfits at once: a more
exact grey would leave the strokes next to nothing of it (0.25 levels: 4.7 dB worse; 4 the same). The result keeps the
grey itself."""

EDGE = 0.1
"""Difference of luma over which a stroke's colour does not spread."""

LUMA_BINS = 5
LEAST_SHARE, LEAST_PIXELS = 0.02, 16
"""Of a reference and of the picture at working size, for a bin to say something."""

REFERENCE_SHARE, LEAST_STD = 0.5, 0.015
"""A bin's mean is known within so much of the reference's own spread there: another picture of the kind, not this one."""


class Hints(NamedTuple):
    """Strokes on a picture."""

    chroma: Tensor  # (1, 2, H, W) Cb and Cr in [-0.5, 0.5], such that they can be shown on the picture's grey
    opacity: Tensor  # (1, 1, H, W) in [0, 1], 0 where there is no stroke


def check_hints(hints: Any, grey: UnitPicture) -> Hints:
    """Read strokes.

    Parameters
    ----------
    hints : (H, W, 4) RGB and opacity, or (H, W, 3) RGB, floats in [0, 1]. What is opaque is a stroke; where nothing is
        transparent, what differs from the grey by more than 8 levels. Of a stroke's colour only the chroma is used.
    grey : (H, W) in [0, 1].

    Raises
    ------
    InputError : not such a picture, of another size, or without any stroke.
    """
    try:
        painted = check_picture(hints, colours=(3, 4)).clip(0, 1)
    except InputError as error:
        raise InputError(f"hints: {error.message}", hint=error.hint) from None
    if painted.shape[:2] != grey.shape:
        sizes = [" x ".join(map(str, shape[1::-1])) for shape in (painted.shape, grey.shape)]
        raise InputError(
            f"the hints are {sizes[0]} pixels, the picture {sizes[1]}",
            hint="paint them on a copy of the picture itself",
        )
    colours = painted[..., :3]
    if painted.shape[2] == 4 and painted[..., 3].min() < 1:
        opacity = painted[..., 3]
    else:
        opacity = (np.abs(colours - grey[..., None]).max(axis=2) > DIFFERENCE).astype(np.float32)
    if not opacity.any():
        raise InputError(
            "the hints hold no stroke of colour",
            hint="paint opaque strokes on a transparent layer of the picture's size, or on a copy of the grey picture",
        )
    planes = torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1)))[None].float()
    alpha = torch.from_numpy(np.ascontiguousarray(opacity))[None, None].float()
    return Hints(showable(luma_first(planes)[:, 1:], torch.from_numpy(np.ascontiguousarray(grey))[None, None]), alpha)


def showable(chroma: Tensor, luma: Tensor) -> Tensor:
    """``chroma`` (1, 2, H, W) made weaker where ``luma`` (1, 1, H, W) has no room for it in [0, 1]; the hue is kept."""
    difference = rgb(torch.cat([torch.zeros_like(luma), chroma], dim=1))
    room = torch.where(difference > 0, 1 - luma, luma).clamp(min=0)
    share = torch.where(difference != 0, room / difference.abs().clamp(min=1e-12), torch.inf)
    return chroma * share.amin(dim=1, keepdim=True).clamp(max=1)


class Averages(NamedTuple):
    """Cb and Cr of a picture by luma: what is taken from a reference."""

    mean: Tensor  # (2, LUMA_BINS)
    std: Tensor  # (2, LUMA_BINS)
    share: Tensor  # (LUMA_BINS,) of its pixels


def check_reference(reference: Any) -> Averages:
    """The mean and the spread of Cb and Cr in each of LUMA_BINS equal ranges of luma.

    Parameters
    ----------
    reference : (H, W, 3) RGB of any size, floats in [0, 1].

    Raises
    ------
    InputError : not such a picture, or one without colours.
    """
    try:
        picture = check_picture(reference, colours=(3,)).clip(0, 1)
    except InputError as error:
        raise InputError(f"reference: {error.message}", hint=error.hint) from None
    x = luma_first(torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).double())
    chroma, bins = x[1:].flatten(1), luma_bins(x[0] / LUMA_GAIN).flatten()
    if float(chroma.abs().max()) < 1 / 255:
        raise InputError("the reference has no colours", hint="give a colour picture")
    count = torch.bincount(bins, minlength=LUMA_BINS).double()
    sums, squares = (chroma.new_zeros(2, LUMA_BINS).index_add_(1, bins, one) for one in (chroma, chroma**2))
    mean = sums / count.clamp(min=1)
    std = (squares / count.clamp(min=1) - mean**2).clamp(min=0).sqrt()
    return Averages(mean.float(), std.float(), (count / count.sum()).float())


def luma_bins(luma: Tensor) -> Tensor:
    """The number of the bin of each value in [0, 1]."""
    return (luma * LUMA_BINS).long().clamp(0, LUMA_BINS - 1)


class Measurement(NamedTuple):
    """What is known of a picture at the working size, its noise whitened to standard deviation 1."""

    forward_model: ForwardModel
    y: Tensor  # (1, ...)


def measurement(luma: Tensor, colours: Colours, hints: Hints | None, reference: Averages | None) -> Measurement:
    """The grey picture, the hints and the reference as one measurement of x in a prior's coordinates.

    Parameters
    ----------
    luma : (1, 1, h, w) in [0, 1], at the working size.
    colours : the coordinates of x.
    hints, reference : what is known besides.
    """
    basis, gain, luma_std = luma_basis(colours)
    shape = (3, *luma.shape[-2:])
    chroma, chroma_std = torch.zeros_like(luma).expand(-1, 2, -1, -1), torch.full_like(luma, torch.inf)
    if hints is not None:
        chroma, chroma_std = shrunk_hints(hints, luma)
    weights = torch.cat([torch.full_like(luma, 1 / luma_std), *[1 / (gain * chroma_std)] * 2], dim=1)[0]
    known: LinearOperator = Mask(weights) @ ChannelMatrix(basis, shape)
    y = weights * in_basis(luma, chroma, basis, colours)
    if reference is None:
        return Measurement(ForwardModel(known, GaussianNoise(1.0)), y)
    regions, mean, std = alike(luma, reference)
    means = RegionMeans(regions, 2) @ ChannelMatrix(basis[1:], shape)
    of_luma = RegionMeans(regions, 1)(luma)[:, :, None]  # (1, 1, 1, regions): a picture one pixel high
    whole = in_basis(of_luma, mean[None, :, None].to(luma), basis, colours)[:, 1:, 0]
    precision = 1 / (gain * std.to(luma))
    return Measurement(
        ForwardModel(Stack(known, Diagonal(precision) @ means), GaussianNoise(1.0)),
        torch.cat([y.flatten(1), (precision * whole).flatten(1)], dim=1),
    )


def luma_basis(colours: Colours) -> tuple[Tensor, float, float]:
    """Orthonormal directions (3, 3) of x whose first is the luma's; what a unit of Cb or Cr measures along the others,
    about, and LUMA_STD along the first."""
    if colours == "luma first":
        return torch.eye(3), 1.0, LUMA_STD * LUMA_GAIN
    weights = torch.tensor(REC601, dtype=torch.float64)
    # The root mean square length of Cb's and Cr's directions in RGB, (0, -.34, 1.77) and (1.40, -.71, 0).
    turned, _ = torch.linalg.qr(torch.cat([weights[:, None], torch.eye(3, dtype=torch.float64)[:, :2]], dim=1))
    basis = turned.T * torch.sign(turned[:, 0] @ weights)
    return basis.float(), 1.7, LUMA_STD / float(weights.norm())


def in_basis(luma: Tensor, chroma: Tensor, basis: Tensor, colours: Colours) -> Tensor:
    """Y (1, 1, H, W) with Cb and Cr (1, 2, H, W) as x is, in the directions of ``basis``: (1, 3, H, W)."""
    x = from_rgb(rgb(torch.cat([LUMA_GAIN * luma, chroma], dim=1)), colours)
    return torch.einsum("mc,bchw->bmhw", basis.to(x), x)


def shrunk_hints(hints: Hints, luma: Tensor) -> tuple[Tensor, Tensor]:
    """The strokes' Cb and Cr (1, 2, h, w) at the size of ``luma`` and the standard deviation (1, 1, h, w) to which they
    are known, infinite where there are none.

    A stroke counts wherever it covers any part of a pixel: the colour of a part is that of the whole within WITHIN_STD.
    Its opacity a makes HINT_STD / a^2: at a half a nudge, at a fifth next to nothing.
    """

    def mean(values: Tensor) -> Tensor:
        return F.interpolate(values, size=luma.shape[-2:], mode="area").to(luma)

    opacity, covered = mean(hints.opacity), mean((hints.opacity > 0).float())
    some = opacity.clamp(min=1e-12)
    chroma, of_strokes = mean(hints.opacity * hints.chroma) / some, mean(hints.opacity**2) / some
    variance = (HINT_STD / of_strokes.clamp(min=1e-6) ** 2) ** 2 + WITHIN_STD**2 * (1 - covered)
    return chroma, torch.where(opacity > 0, variance.sqrt(), torch.inf)


def alike(luma: Tensor, reference: Averages) -> tuple[Tensor, Tensor, Tensor]:
    """Where the picture ``luma`` (1, 1, h, w) is as light as parts of the reference, and the mean and standard deviation
    of Cb and Cr there: regions (h, w), (2, regions) and (2, regions).

    Where no luma is common to both, the whole picture's mean is the whole reference's.
    """
    bins = luma_bins(luma[0, 0])
    counted = torch.bincount(bins.flatten(), minlength=LUMA_BINS).cpu()
    both = (counted >= min(LEAST_PIXELS, bins.numel())) & (reference.share >= LEAST_SHARE)
    if not both.any():
        mean = (reference.mean * reference.share).sum(dim=1, keepdim=True)
        second = ((reference.std**2 + reference.mean**2) * reference.share).sum(dim=1, keepdim=True)
        return torch.zeros_like(bins), mean, _vague((second - mean**2).clamp(min=0).sqrt())
    numbers = torch.where(both, both.cumsum(dim=0) - 1, -1).to(bins.device)
    return numbers[bins], reference.mean[:, both], _vague(reference.std[:, both])


def _vague(std: Tensor) -> Tensor:
    return (REFERENCE_SHARE * std).clamp(min=LEAST_STD)


class Agreement:
    """Makes enlarged chroma agree with the strokes: there by their opacity, near them on pixels of alike luma.

    Parameters
    ----------
    hints : the strokes, (H, W).
    luma : (1, 1, H, W).
    size : the working size; a stroke's difference from the sample fades over one pixel of it.
    """

    def __init__(self, hints: Hints, luma: Tensor, size: tuple[int, int]) -> None:
        self.opacity, self.size = hints.opacity, size
        self.target = rgb(torch.cat([torch.zeros_like(luma), hints.chroma], dim=1))
        reach = max(1.0, min(luma.shape[-2] / size[0], luma.shape[-1] / size[1]))
        distance, nearest = distance_transform_edt(hints.opacity[0, 0].numpy() == 0, return_indices=True)
        rows, columns = (torch.from_numpy(np.asarray(index, np.int64)) for index in nearest)
        near = torch.from_numpy(np.asarray(distance, np.float32)) / reach
        step = (luma[0, 0] - luma[0, 0][rows, columns]) / EDGE
        self.taper = (-0.5 * (near**2 + step**2)).exp() * hints.opacity[0, 0][rows, columns]

    def __call__(self, chroma: Tensor) -> Tensor:
        """(1, 3, H, W), RGB of zero luma, in the same form."""
        misfit = self.target - chroma
        spread = self.taper * self._smooth(misfit)
        return chroma + spread + self.opacity * (misfit - spread)

    def _smooth(self, misfit: Tensor) -> Tensor:
        """The strokes' mean misfit around each pixel, over some three pixels of the working size."""
        held = torch.cat([self.opacity * misfit, self.opacity], dim=1)
        small = F.interpolate(held, size=self.size, mode="area")
        small = F.avg_pool2d(F.pad(small, (1,) * 4, mode="replicate"), 3, stride=1)
        large = F.interpolate(small, size=misfit.shape[-2:], mode="bilinear", align_corners=False)
        return large[:, :3] / large[:, 3:].clamp(min=1e-12)


def stroke_share(hints: Hints | None) -> float:
    """The share of the picture that strokes cover, by their opacity."""
    return 0.0 if hints is None else float(hints.opacity.mean())
