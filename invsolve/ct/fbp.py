"""Filtered back-projection, of parallel beams and of fans.

Takes a sinogram (B, views, detectors) of line integrals in pixel lengths and returns a slice (B, 1, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import Geometry, LinearOperator, projector

FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ram-lak": torch.ones_like,
    "shepp-logan": lambda f: torch.sinc(f),
    "cosine": lambda f: torch.cos(math.pi * f),
    "hamming": lambda f: 0.54 + 0.46 * torch.cos(2 * math.pi * f),
    "hann": lambda f: 0.5 + 0.5 * torch.cos(2 * math.pi * f),
}
"""Windows on the ramp, of the frequency f in cycles per bin (0 to 1/2)."""


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

    Missing angles count as zero: the weights are each view's share of the half turn.
    """
    if geometry.kind == "fan":
        geometry, sinogram = rebin_to_parallel(geometry, sinogram)
        operator = projector(geometry, operator.device)
    # The back-projection A' spreads each ray's value with weights that add up to pixel / bin per view.
    ratio = geometry.detector_spacing / geometry.pixel_size
    weights = angular_weights(geometry).to(sinogram)[:, None]
    filtered = ramp_filter(sinogram, window) * weights / ratio
    return operator.T(filtered) if ratio == 1 else _back_project(geometry, filtered)


def _back_project(geometry: Geometry, filtered: Tensor) -> Tensor:
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

    A gap of more than three times the median step counts as missing data, not as one wide view.
    """
    angles = torch.tensor(geometry.angles, dtype=torch.float64) % 180.0
    order = torch.argsort(angles)
    ordered = angles[order]
    steps = torch.cat([ordered[1:] - ordered[:-1], ordered[:1] + 180.0 - ordered[-1:]])
    typical = float(steps.median())
    if len(angles) > 2:
        steps = torch.where(steps > 3 * max(typical, 1e-9), typical, steps)
    weights = torch.empty_like(angles)
    weights[order] = (steps + steps.roll(1)) / 2
    return torch.deg2rad(weights)


def rebin_to_parallel(geometry: Geometry, sinogram: Tensor) -> tuple[Geometry, Tensor]:
    """Fan-beam data on a parallel grid of as many views over 180 degrees, by bilinear interpolation.

    The fan ray at source angle b and fan angle g is the parallel ray at angle b + g and offset R sin(g); a ray measured
    from the other side, (b + 180 + 2 g, -g), fills what a scan of less than a full turn leaves open.
    """
    from scipy.interpolate import RegularGridInterpolator

    order = np.argsort(np.asarray(geometry.angles) % 360.0)
    angles = np.asarray(geometry.angles)[order] % 360.0
    values = sinogram.cpu().numpy()[:, order]
    full = len(angles) > 2 and (angles[0] + 360 - angles[-1]) < 2 * np.median(np.diff(angles))
    if full:  # a full turn is periodic
        angles = np.concatenate([angles[-1:] - 360, angles, angles[:1] + 360])
        values = np.concatenate([values[:, -1:], values, values[:, :1]], axis=1)
    source, focal = geometry.source_distance, geometry.source_distance + geometry.detector_distance
    views = geometry.views if not full else max(1, geometry.views // 2)
    spacing = geometry.detector_spacing / geometry.magnification
    parallel = Geometry(
        tuple(180.0 * i / views for i in range(views)), geometry.detectors, geometry.shape,
        detector_spacing=spacing, pixel_size=geometry.pixel_size, center=geometry.center,
        axis_pixel=geometry.axis_pixel,
    )  # fmt: skip
    offset = (np.arange(geometry.detectors) - geometry.axis_bin) * spacing
    gamma = np.arcsin(np.clip(offset / source, -1, 1))
    fan_bin = np.tan(gamma) * focal / geometry.detector_spacing + geometry.axis_bin
    theta = np.asarray(parallel.angles)[:, None]
    direct = (theta - np.rad2deg(gamma)) % 360.0, np.broadcast_to(fan_bin, (views, len(gamma)))
    opposite = (theta + 180 + np.rad2deg(gamma)) % 360.0, 2 * geometry.axis_bin - direct[1]
    out = np.zeros((len(values), views, geometry.detectors), dtype=values.dtype)
    for number, one in enumerate(values):
        grid = RegularGridInterpolator(
            (angles, np.arange(geometry.detectors)), one, bounds_error=False, fill_value=np.nan
        )
        both = np.stack([grid(np.stack(np.broadcast_arrays(*side), axis=-1)) for side in (direct, opposite)])
        counted = np.isfinite(both)
        out[number] = np.where(counted, both, 0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return parallel, torch.from_numpy(out).to(sinogram)
