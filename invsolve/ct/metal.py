"""Metal in a slice: rays that pass through it count as not measured.

Metal lets so few photons through, and of a spectrum so much more of the hard ones, that what such a ray measures is no line
integral. Where the metal is shows in the filtered back-projection, streaks and all; projected, it says which rays to leave out.
The likelihood of the others is untouched: the operator becomes a weighted one (:class:`invsolve.forward_models.Diagonal` on the
projector, with weights of zero). For methods that cannot weigh rays, they are interpolated along the detector: filtered
back-projection of that is LI-MAR (Kalender, Hebel & Ebersberger 1987, "Reduction of CT artifacts caused by metallic implants").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_closing, binary_dilation, distance_transform_edt, label, maximum_filter, uniform_filter
from torch import Tensor

from invsolve.ct.fbp import fbp
from invsolve.ct.flat_field import filled
from invsolve.ct.scan import Scan, per_ray
from invsolve.ct.units import to_hounsfield
from invsolve.errors import InputError
from invsolve.forward_models import Geometry, LinearOperator

Array = npt.NDArray[Any]
Seen = npt.NDArray[np.bool_]

METAL_HU = 3000.0
"""Above it there is metal: dense bone and enamel stay below, titanium is at some 8000."""

WATER = 0.5
"""In the units of n."""

LEAST_PIXELS = 4
"""Smaller regions above the threshold are noise."""

CLOSED = 2
"""Pixels: gaps up to twice as wide are metal too. Where no photon came through, streaks cut it to pieces."""

MOST = 0.05
"""Of a slice. More than that above the threshold is no metal, but another unit."""

EDGE = 1
"""Pixels that the metal is made wider: its edge is partly metal."""

SMOOTHED = 3
"""Pixels over which tissue beside the metal is averaged."""

TOUCHED = 0.5
"""Pixel lengths in the metal, made wider, from which on a ray is left out."""


class Metal(NamedTuple):
    """Where the metal of a stack is, and which rays it spoils."""

    pixels: Seen  # (slices, H, W)
    rays: Seen  # (slices, views, detectors)
    values: Array  # (slices, H, W), the units of n: what stands for the metal in a result, 0 elsewhere

    @property
    def found(self) -> bool:
        return bool(self.rays.any())


def find_metal(image: Array, threshold: float = METAL_HU) -> Seen:
    """Regions of (slices, H, W), in the units of n, above ``threshold`` in HU; none in a slice that is so to more than ``MOST``."""
    out = np.zeros(image.shape, dtype=bool)
    for found, one in zip(out, image, strict=True):
        bright = to_hounsfield(one) > threshold
        if 0 < bright.mean() <= MOST:
            regions, _ = label(binary_closing(bright, iterations=CLOSED) | bright)
            sizes = np.bincount(regions.ravel())
            sizes[0] = 0  # what is not above the threshold
            found[:] = (sizes >= LEAST_PIXELS)[regions]
    return out


def metal_traces(pixels: Seen, operator: LinearOperator) -> Seen:
    """The rays through metal (slices, H, W), of a projector of slices (1, H, W): (slices, views, detectors)."""
    wide = np.stack([binary_dilation(one, iterations=EDGE) if one.any() else one for one in pixels])
    lengths = operator(torch.from_numpy(wide.astype(np.float32))[:, None].to(operator.device))
    return np.asarray((lengths > TOUCHED).cpu().numpy())


def without_metal(scan: Scan, operator: LinearOperator, threshold: float = METAL_HU) -> tuple[Scan, Metal]:
    """A scan in which the rays through metal have no weight, and the metal; the same scan where there is none.

    Parameters
    ----------
    scan : line integrals with their noise.
    operator : its projector.
    threshold : HU of the filtered back-projection above which there is metal.

    Raises
    ------
    InputError : in some slice no ray is left.
    """
    y = torch.from_numpy(np.ascontiguousarray(scan.sinogram, dtype=np.float32)).to(operator.device)
    image = fbp(operator, scan.geometry, y, "hann")[:, 0].cpu().numpy()
    pixels = find_metal(image, threshold)
    rays = metal_traces(pixels, operator)
    values = np.zeros_like(image)
    for value, one, inside in zip(values, image, pixels, strict=True):
        value[inside] = one[inside].mean() if inside.any() else 0
    metal = Metal(pixels, rays, values)
    if not metal.found:
        return scan, metal
    return masked(scan, rays), metal


def masked(scan: Scan, rays: Seen) -> Scan:
    """A scan in which these rays (slices, views, detectors) have no weight; their values are interpolated.

    Raises
    ------
    InputError : in some slice no ray is left.
    """
    noise = scan.noise
    seen = ~rays if isinstance(noise, float) else ~rays & np.isfinite(noise)
    if not seen.any(axis=(1, 2)).all():
        raise InputError("every ray passes through metal", hint="give --metal off, or a higher threshold in HU")
    sinogram = np.stack([filled(*pair).values for pair in zip(scan.sinogram, seen, strict=True)])
    if isinstance(noise, float):
        noise = per_ray(noise, scan.sinogram, seen)
    else:
        noise = np.where(seen, noise, np.inf).astype(np.float32)
    return replace(scan, sinogram=sinogram, noise=noise)


def put_back(image: Tensor, metal: Metal | None) -> Tensor:
    """Slices (..., slices, H, W) in the units of n with the metal in its place: no ray that counts has seen it."""
    if metal is None or not metal.pixels.any():
        return image
    inside, values = (torch.from_numpy(part).to(image.device) for part in (metal.pixels, metal.values))
    return torch.where(inside, values.to(image), image)


def closed_over(guess: Tensor, pixels: Seen) -> Tensor:
    """A first guess (1, 1, H, W) in which the metal (H, W) and what is next to it have the values of the nearest tissue.

    No ray that counts has been there, so least squares leave air, and the first noise levels are too low to forget it.
    """
    if not pixels.any():
        return guess
    hole = binary_dilation(pixels, iterations=EDGE + 1)
    smooth = uniform_filter(guess[0, 0].cpu().numpy(), SMOOTHED)
    away = distance_transform_edt(maximum_filter(hole, SMOOTHED), return_distances=False, return_indices=True)
    nearest = torch.from_numpy(smooth[tuple(away)]).to(guess)
    return torch.where(torch.from_numpy(hole).to(guess.device), nearest, guess)


def covered(image: Tensor) -> Tensor:
    """Slices (slices, H, W) with water where there is metal: what tells whether the units are right."""
    return torch.where(torch.from_numpy(find_metal(image.cpu().numpy())).to(image.device), WATER, image)


def li_mar(operator: LinearOperator, geometry: Geometry, sinogram: Tensor, metal: Metal) -> Tensor:
    """Filtered back-projection of traces interpolated linearly along the detector, the metal put back (Kalender et al. 1987).

    (slices, views, detectors) to (slices, H, W).
    """
    pairs = zip(sinogram.cpu().numpy(), ~metal.rays, strict=True)
    smooth = torch.from_numpy(np.stack([filled(*pair).values for pair in pairs])).to(sinogram)
    return put_back(fbp(operator, geometry, smooth, "hann")[:, 0].cpu(), metal)


def about(metal: Metal) -> str:
    """What was found, in a line."""
    regions = sum(int(label(one)[1]) for one in metal.pixels)
    slices = int(metal.pixels.any(axis=(1, 2)).sum())
    where = f" in {slices} of {len(metal.pixels)} slices" if len(metal.pixels) > 1 else ""
    return (
        f"metal: {regions} region{'s' if regions != 1 else ''} of {int(metal.pixels.sum())} pixels{where}; the "
        f"{int(metal.rays.sum())} rays through it ({metal.rays.mean():.1%}) count as not measured (--metal off keeps them)"
    )
