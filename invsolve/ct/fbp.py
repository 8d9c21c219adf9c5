"""Filtered back-projection, of parallel beams and of fans.

Takes a sinogram (B, views, detectors) of line integrals in pixel lengths and returns a slice (B, 1, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import Geometry, LinearOperator, even_angles

FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ram-lak": torch.ones_like,
    "shepp-logan": lambda f: torch.sinc(f),
    "cosine": lambda f: torch.cos(math.pi * f),
    "hamming": lambda f: 0.54 + 0.46 * torch.cos(2 * math.pi * f),
    "hann": lambda f: 0.5 + 0.5 * torch.cos(2 * math.pi * f),
}
"""Windows on the ramp, of the frequency f in cycles per bin (0 to 1/2)."""

GAP = 3.0
"""Neighbouring views farther apart than so many usual steps have missing ones between them."""


def ramp_filter(sinogram: Tensor, window: str = "ram-lak") -> Tensor:
    """Filter (B, views, detectors) along the detector with |f|, in units of 1 / bin.

    The ramp is the band-limited one sampled in space (Kak & Slaney 1988, eq. 3.61), zero-padded to twice the length, so
    that the mean comes out right.
    """
    if window not in FILTERS:
        raise UsageError(f"unknown filter {window!r}", hint=f"known filters: {', '.join(FILTERS)}")
    bins = sinogram.shape[-1]
    size = 2 ** math.ceil(math.log2(2 * bins))
    n = torch.arange(size, dtype=sinogram.dtype, device=sinogram.device)
    distance = torch.minimum(n, size - n)
    kernel = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp(min=1)) ** 2, 0.0)
    kernel[0] = 0.25
    frequency = torch.fft.rfftfreq(size, dtype=sinogram.dtype, device=sinogram.device)
    response = torch.fft.rfft(kernel).real * FILTERS[window](frequency)
    return torch.fft.irfft(torch.fft.rfft(sinogram, n=size) * response, n=size)[..., :bins]


def fbp(operator: LinearOperator, geometry: Geometry, sinogram: Tensor, window: str = "ram-lak") -> Tensor:
    """Filtered back-projection (Kak & Slaney 1988, ch. 3); fan-beam data are rebinned to parallel rays first.

    Missing rays count as zero: the weights are each view's share of the half turn.
    """
    seen: Tensor | float = 1.0
    if fan := geometry.kind != "parallel":
        geometry, sinogram, seen = rebin_to_parallel(geometry, sinogram)
    # The back-projection A' spreads each ray's value with weights that add up to pixel / bin per view.
    ratio = geometry.detector_spacing / geometry.pixel_size
    weights = angular_weights(geometry).to(sinogram)[:, None]
    filtered = ramp_filter(sinogram, window) * (seen * weights) / ratio
    return operator.T(filtered) if ratio == 1 and not fan else back_project(geometry, filtered)


def back_project(geometry: Geometry, filtered: Tensor) -> Tensor:
    """Pixel-driven back-projection with linear interpolation, for bins of another size than the pixels."""
    rows, columns = geometry.shape
    left, _, _, top = geometry.window()
    x = left + (torch.arange(columns).to(filtered) + 0.5) * geometry.pixel_size
    y = top - (torch.arange(rows).to(filtered) + 0.5) * geometry.pixel_size
    out = torch.zeros(len(filtered), 1, rows, columns).to(filtered)
    for view, degrees in enumerate(geometry.angles):
        theta = math.radians(degrees)
        u = (x * math.cos(theta) + (y * math.sin(theta))[:, None]) / geometry.detector_spacing + geometry.axis_bin
        low = u.floor().clamp(0, geometry.detectors - 2)
        share = (u - low).clamp(0, 1)
        index = low.long()
        line = filtered[:, view]
        value = (1 - share) * line[:, index] + share * line[:, index + 1]
        out += torch.where((u > -0.5) & (u < geometry.detectors - 0.5), value, 0)[:, None]
    return out


def angular_weights(geometry: Geometry) -> Tensor:
    """Radians each view stands for: half the way to its neighbours modulo 180 degrees, (views,) in float64.

    A gap of more than ``GAP`` steps counts as missing data, not as one wide view.
    """
    angles = torch.tensor(geometry.angles, dtype=torch.float64) % 180.0
    order = torch.argsort(angles)
    ordered = angles[order]
    steps = torch.cat([ordered[1:] - ordered[:-1], ordered[:1] + 180.0 - ordered[-1:]])
    typical = usual_step(steps.numpy())
    if len(angles) > 2:
        steps = torch.where(steps > GAP * typical, typical, steps)
    weights = torch.empty_like(angles)
    weights[order] = (steps + steps.roll(1)) / 2
    return torch.deg2rad(weights)


def usual_step(steps: npt.NDArray[np.float64]) -> float:
    """The median of the steps from view to view in degrees, but for views that coincide."""
    apart = np.sort(steps[steps > 1e-6])
    return float(apart[(len(apart) - 1) // 2])


class Rebinned(NamedTuple):
    """Fan-beam data as parallel views."""

    geometry: Geometry
    sinogram: Tensor  # (B, views, detectors)
    seen: Tensor  # (views, detectors), False for rays that the fan left out


def rebin_to_parallel(geometry: Geometry, sinogram: Tensor) -> Rebinned:
    """Fan-beam data (B, views, detectors) as parallel views over 180 degrees, by bilinear interpolation.

    The ray of source angle b and fan angle g is the parallel ray of angle ``theta = b - g`` and offset ``t = R sin(g)``
    (Kak & Slaney 1988, section 3.4.3; g grows with the bin). So the parallel ray (theta, t) may have been measured twice:
    with ``g = arcsin(t / R)`` from ``b = theta + g``, and with ``-g`` from the other side, ``b = theta + 180 - g``. It is
    the mean of what was measured, which gives each ray the same weight, however much more than half a turn the scan is.
    Where neither was, it is interpolated over the gap, lest the ramp filter meet an edge, and not ``seen``.
    """
    views = _around(geometry.angles)
    parallel = _parallel_grid(geometry, views.step)
    offset = (np.arange(geometry.detectors) - parallel.axis_bin) * parallel.detector_spacing
    fan = np.arcsin(np.clip(offset / geometry.source_distance, -1, 1))
    shift = geometry.bins_at(fan)  # from the axis to where the ray meets the detector
    theta = np.asarray(parallel.angles)[:, None]
    direct = _read_rays(views, sinogram, theta + np.rad2deg(fan), geometry.axis_bin + shift)
    opposite = _read_rays(views, sinogram, theta + 180 - np.rad2deg(fan), geometry.axis_bin - shift)
    values, measured, on_detector = (np.stack(pair) for pair in zip(direct, opposite, strict=True))
    used = np.where(measured.any(axis=0), measured, on_detector)
    mean = np.einsum("sbvd,svd->bvd", values, used / np.maximum(used.sum(axis=0), 1))
    seen = measured.any(axis=0) | ~on_detector.any(axis=0)  # beyond the detector there is air
    return Rebinned(parallel, torch.from_numpy(mean).to(sinogram), torch.from_numpy(seen).to(sinogram.device))


class _Views(NamedTuple):
    """The views of a scan in the order of their angles, once around; the first stands at the end again."""

    order: npt.NDArray[np.intp]  # (n + 1,), which view it is
    angles: npt.NDArray[np.float64]  # (n + 1,), ascending, in degrees; the last is the first + 360
    gap: npt.NDArray[np.bool_]  # (n,), whether nothing was measured between one view and the next
    step: float  # the usual one, in degrees


def _around(angles: tuple[float, ...]) -> _Views:
    ordered, order = np.unique(np.asarray(angles) % 360.0, return_index=True)  # of views measured twice, the first
    ordered, order = np.append(ordered, ordered[0] + 360.0), np.append(order, order[0])
    steps = np.diff(ordered)
    step = usual_step(steps)
    return _Views(order, ordered, (steps > GAP * step) & (len(steps) > 2), step)


def _parallel_grid(geometry: Geometry, step: float) -> Geometry:
    """Parallel views twice as close as the fan's, for each of which there are two rays; bins as wide as at the axis."""
    views = min(max(1, round(360 / step)), 8 * geometry.views)
    return replace(
        geometry, kind="parallel", angles=even_angles(views),
        detector_spacing=geometry.detector_spacing / geometry.magnification,
    )  # fmt: skip


def _read_rays(
    views: _Views, sinogram: Tensor, source: npt.NDArray[np.float64], bins: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Fan-beam rays by source angle (views, detectors) in degrees and bin (detectors,).

    Returns
    -------
    Values (B, views, detectors), whether each ray was measured, and whether it meets the detector at all.
    """
    first, count = views.angles[0], len(views.gap)
    place = np.interp(first + (source - first) % 360.0, views.angles, np.arange(count + 1))
    bins = np.broadcast_to(bins, source.shape)
    data = sinogram.cpu().double().numpy()[:, views.order]
    values = np.stack([map_coordinates(one, [place, bins], order=1) for one in data])
    on_detector = (bins >= 0) & (bins <= sinogram.shape[-1] - 1)
    return values, on_detector & ~views.gap[np.minimum(place.astype(int), count - 1)], on_detector
