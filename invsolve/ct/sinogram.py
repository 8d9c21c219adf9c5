"""Making sense of a sinogram file: axis order, units, centre of rotation, noise, size of the slice.

All of these are guesses from the data that a caller can override, and announces.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from invsolve.ct.units import MU_WATER, attenuation_per_unit
from invsolve.errors import InputError, UsageError
from invsolve.forward_models import TransmissionNoise

Array = npt.NDArray[np.floating]
Units = Literal["pixel", "attenuation", "counts"]
UNITS: tuple[Units, ...] = ("pixel", "attenuation", "counts")

NEGATIVE = 0.2
"""How far below 0 line integrals may be on average, in their standard deviations: noise where there is no object."""

EXPECTED_PEAK = (0.3, 1.6)
"""Where the bright end of a slice lies in the units of n: from soft tissue (0.5) to metal-free bone (1) and some streaks."""


def constant_mass(sinogram: Array) -> float:
    """How much the sum over the detector varies from view to view, relative to its mean.

    Every parallel view of an object that the detector sees whole has the same sum; (..., views, detectors).
    """
    mass = sinogram.sum(axis=-1, dtype=np.float64)
    mean = np.abs(mass.mean(axis=-1))
    return float(np.max(mass.std(axis=-1) / np.maximum(mean, 1e-12)))


def find_axes(sinogram: Array, tolerance: float = 0.02) -> Literal["views,detectors", "detectors,views"]:
    """Which axis is which, by constant mass; (views, detectors) where the data do not tell.

    scikit-image's ``radon`` writes (detectors, views), ASTRA and this package (views, detectors).
    """
    as_is, swapped = constant_mass(sinogram), constant_mass(np.swapaxes(sinogram, -1, -2))
    return "detectors,views" if swapped < tolerance and as_is > 3 * swapped else "views,detectors"


def find_center(sinogram: Array, angles: tuple[float, ...]) -> float:
    """The bin on which the rotation axis falls, for parallel views that see the object whole.

    The centre of mass of the views moves as ``c + a cos + b sin`` around the axis's bin c (least squares over all views).
    """
    y = np.atleast_3d(np.clip(sinogram, 0, None).astype(np.float64)).reshape(-1, *sinogram.shape[-2:])
    bins = np.arange(y.shape[-1])
    mass = y.sum(axis=(0, 2))
    centroid = (y * bins).sum(axis=(0, 2)) / np.maximum(mass, 1e-12)
    theta = np.deg2rad(angles)
    design = np.stack([np.ones_like(theta), np.cos(theta), np.sin(theta)], axis=1)
    if np.linalg.matrix_rank(design, tol=1e-3) < 3:
        raise InputError("the views do not tell the centre of rotation", hint="give --center BIN")
    return float(np.linalg.lstsq(design, centroid, rcond=None)[0][0])


def slice_size(sinogram: Array) -> int:
    """Side of the slice in bins: the detector's width, or its 1/sqrt(2) where the shadow leaves the rest empty.

    A detector as wide as the slice's diagonal sees the corners too, which a body does not reach.
    """
    detectors = sinogram.shape[-1]
    inner = int(detectors / math.sqrt(2)) // 2 * 2
    margin = (detectors - inner) // 2
    outside = np.abs(np.concatenate([sinogram[..., :margin], sinogram[..., detectors - margin :]], axis=-1))
    return inner if outside.size and outside.max() < 0.02 * np.abs(sinogram).max() else detectors


class Normalized(NamedTuple):
    """A sinogram in the inner units, and how its noise is known."""

    sinogram: Array  # line integrals of n in pixel lengths; photon counts where i0 is set
    i0: float | None
    scale: float  # attenuation per inner unit (1 where unknown)


def normalize(
    sinogram: Array, units: Units, *, pixel_size: float | None, mu_water: float = MU_WATER, i0: float | None = None
) -> Normalized:
    """From what the file holds to line integrals of n in pixel lengths.

    Parameters
    ----------
    units : "pixel": line integrals of n in pixel lengths already (what a projector makes of a slice in the prior's
        units); "attenuation": physical line integrals -ln(I / I0), dimensionless; "counts": photons I, with ``i0``.
    pixel_size : mm; wanted for the last two.
    mu_water : attenuation of water per mm at the scan's energy.
    i0 : photons per ray without an object.

    Raises
    ------
    UsageError : a number that these units need is missing.
    InputError : negative counts.
    """
    if units == "pixel":
        return Normalized(sinogram, None, 1.0)
    if pixel_size is None:
        raise UsageError(f"--units {units} needs the pixel size", hint="give --pixel-size MM")
    scale = attenuation_per_unit(pixel_size, mu_water)
    if units == "attenuation":
        return Normalized(sinogram / scale, None, scale)
    if i0 is None:
        raise UsageError("--units counts needs the photons per ray without an object", hint="give --i0 N")
    if (sinogram < 0).any():
        raise InputError(
            f"{int((sinogram < 0).sum())} photon counts are negative", hint="subtract no more than the dark field"
        )
    if np.median(sinogram) > 2 * i0:
        raise InputError(f"most counts are above I0 = {i0:g}", hint="check --i0 and --units")
    return Normalized(sinogram, i0, scale)


def from_counts(counts: Array, i0: float, scale: float) -> tuple[Array, Array]:
    """Photon counts as line integrals and their standard deviation, the same shape, float32; infinite without a photon.

    ``scale`` is the attenuation per unit of the line integrals; see :class:`invsolve.forward_models.TransmissionNoise`.

    Raises
    ------
    InputError : negative counts.
    """
    photons = torch.from_numpy(np.ascontiguousarray(counts, dtype=np.float32))
    integrals, weight = TransmissionNoise(i0, scale).line_integrals(photons)
    return integrals.numpy(), (1 / weight).numpy()


def peak(slice_n: Array) -> float:
    """The bright end of a slice: its 99.5th percentile."""
    return float(np.percentile(slice_n, 99.5))


def check_sign(sinogram: Array) -> None:
    """Raise an InputError for line integrals that are negative on average, by more than noise around 0 is."""
    mean = float(sinogram.mean())
    if mean < -NEGATIVE * float(sinogram.std()):
        raise InputError(
            f"the line integrals are {mean:.3g} on average",
            hint="wanted 0 beside the object and more behind it: turn the sign, or give the sinogram, not a slice in HU",
        )


def check_range(bright: float, units: str, pixel_size: float | None, mu_water: float) -> str | None:
    """A warning if the filtered back-projection does not look like the prior's range; None if it does.

    Raises
    ------
    InputError : it is off by more than a factor 3.
    """
    low, high = EXPECTED_PEAK
    if low <= bright <= high:
        return None
    factor = (pixel_size or 1.5) * 2 * mu_water
    guesses = {"--units pixel": 1.0, "--units attenuation": 1 / factor}
    now = "--units attenuation" if units != "pixel" else "--units pixel"
    raw = bright / guesses[now]
    fits = [name for name, gain in guesses.items() if name != now and low <= raw * gain <= high]
    way = (
        f"{fits[0]} would give {raw * guesses[fits[0]]:.2g}"
        if fits
        else "check --units, --pixel-size and --mu-water, and that it is a sinogram, not a slice"
    )
    message = (
        f"the data's bright end is n = {bright:.3g} ({2000 * bright - 1000:.0f} HU); tissue is near 0.5, bone below 1"
    )
    if bright < low / 3 or bright > high * 3:
        raise InputError(message, hint=way)
    return f"{message}: {way}"
