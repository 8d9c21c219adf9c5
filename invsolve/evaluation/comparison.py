"""Results against their truths: PSNR, SSIM, RMSE, perceptual distances, and means with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from invsolve.errors import InputError, ModelError, first_line
from invsolve.evaluation.metrics import psnr, ssim
from invsolve.pictures import Pixels, to_unit

Array = npt.NDArray[Any]

PERCEPTUAL = ("lpips", "dists")
"""Distances that a network measures: 0 for equal pictures, less is better."""


class Scale(NamedTuple):
    """Which numbers are black and white, and the unit of errors."""

    low: float
    high: float
    unit: str = ""

    @property
    def width(self) -> float:
        return self.high - self.low


HOUNSFIELD = Scale(-1000.0, 1000.0, "HU")
"""As ``invsolve ct --truth`` judges."""

UNIT = Scale(0.0, 1.0, "of the range")


def compare(truth: Array, estimate: Array, scale: Scale) -> dict[str, float]:
    """``psnr`` in dB, ``ssim`` and ``rmse`` in the numbers' own unit, of two arrays of one shape.

    PSNR and SSIM are over the scale, to which both are clipped; of a stack they are means over its slices. The RMSE is
    of the numbers as they are.

    Parameters
    ----------
    truth, estimate : (H, W), (H, W, 3) for colours, or (slices, H, W).
    scale : the range of the data.
    """
    a, b = (np.asarray(x, np.float64) for x in (truth, estimate))
    colours = a.ndim == 3 and a.shape[2] == 3
    slices = [(a, b)] if a.ndim == 2 or colours else list(zip(a, b, strict=True))
    shifted = [tuple((x - scale.low) / scale.width for x in pair) for pair in slices]
    with np.errstate(divide="ignore"):  # equal pictures have an infinite PSNR
        decibels = [psnr(t, e, data_range=1.0) for t, e in shifted]
    return {
        "psnr": float(np.mean(decibels)),
        "ssim": float(np.mean([ssim(t, e, data_range=1.0) for t, e in shifted])),
        "rmse": float(np.sqrt(np.mean((a - b) ** 2))),
    }


def range_of(truth: Array) -> Scale:
    """Of numbers that say nothing of their range: from 0, or the least where that is negative, to the largest.

    Raises
    ------
    InputError : they are all alike.
    """
    low, high = min(float(truth.min()), 0.0), float(truth.max())
    if not high > low:
        raise InputError(f"the truth is {high:g} everywhere, which has no range", hint="give --data-range LOW,HIGH")
    return Scale(low, high)


def mean_with_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its standard error s / sqrt(n); NaN of fewer than two values or where one is infinite."""
    mean = float(np.mean(values))
    if len(values) < 2 or not math.isfinite(mean):
        return mean, math.nan
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values)))


def perceptual(name: str) -> Callable[[Pixels, Pixels], float]:
    """LPIPS (Zhang et al. 2018, AlexNet) or DISTS (Ding et al. 2020) of two pictures (H, W[, 3]), by torchmetrics.

    torchvision fetches the network's weights at the first use.

    Raises
    ------
    ModelError : torchmetrics or the weights are not at hand. The function raises an InputError for pictures too small.
    """
    import torch

    try:
        from torchmetrics.image.dists import DeepImageStructureAndTextureSimilarity
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        judge: Any
        judge = (
            LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
            if name == "lpips"
            else DeepImageStructureAndTextureSimilarity()
        )
        one = torch.full((1, 3, 64, 64), 0.5)
        judge(one, one)  # where weights are fetched late, they are fetched here
    except ImportError as error:
        raise ModelError(
            f"--{name} needs torchmetrics: {first_line(error)}", hint="pip install 'invsolve[quality]'"
        ) from None
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"--{name} needs a network's weights, which cannot be fetched: {first_line(error)}",
            hint=f"run it once with network access, or leave --{name} out",
        ) from None

    def distance(truth: Pixels, estimate: Pixels) -> float:
        pair = []
        for pixels in (truth, estimate):
            unit = torch.from_numpy(to_unit(pixels))
            rgb = unit.unsqueeze(-1).expand(-1, -1, 3) if unit.ndim == 2 else unit
            pair.append(rgb.permute(2, 0, 1)[None].contiguous().clamp(0, 1))
        judge.reset()
        try:
            with torch.no_grad():
                return float(judge(pair[1], pair[0]))
        except RuntimeError as error:
            size = " x ".join(map(str, truth.shape[1::-1]))
            raise InputError(f"--{name} of {size} pixels: {first_line(error)}", hint="give larger pictures") from None

    return distance
