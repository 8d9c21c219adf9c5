"""Measurements made from pictures one has: to try the commands on, and to measure them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from invsolve.ct.units import attenuation_per_unit
from invsolve.forward_models import AstraProjector, Geometry, TransmissionNoise

Array = npt.NDArray[np.floating]


def finer(geometry: Geometry) -> Geometry:
    """The same scan with pixels and detector bins of half the size."""
    rows, columns = geometry.shape
    row, column = geometry.axis_pixel or ((rows - 1) / 2, (columns - 1) / 2)
    return replace(
        geometry,
        detectors=2 * geometry.detectors,
        shape=(2 * rows, 2 * columns),
        detector_spacing=geometry.detector_spacing / 2,
        pixel_size=geometry.pixel_size / 2,
        center=2 * geometry.axis_bin + 0.5,
        axis_pixel=(2 * row + 0.5, 2 * column + 0.5),
    )


def project_slice(slice_n: Array, geometry: Geometry, *, same_grid: bool = False) -> Array:
    """Line integrals of n in pixel lengths, (views, detectors).

    By default the slice is projected on a grid of half the pixel size and half the bin size, and pairs of bins are
    averaged as a wide bin does: reconstructing with the matrix that made the data is too easy (the "inverse crime",
    Colton & Kress 1992). ``same_grid`` commits it.

    Parameters
    ----------
    slice_n : (H, W) in the units of n.
    geometry : the scan the data will be reconstructed with.
    """
    image = np.asarray(slice_n, dtype=np.float32)
    if same_grid:
        return _project(image, geometry)
    doubled = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    fine = _project(doubled, finer(geometry))
    # Pixels of half the size: half as many pixel lengths to a line.
    return np.asarray(fine.reshape(geometry.views, geometry.detectors, 2).mean(axis=2) / 2)


def _project(image: Array, geometry: Geometry) -> Array:
    """By ASTRA itself: a matrix for one slice would take far longer to make than to use."""
    return AstraProjector(geometry)(torch.from_numpy(image)[None, None])[0].numpy()


STEEL = ((0.3, 1.5), (0.4, 0.66), (0.3, 0.29))
"""Shares of a spectrum's photons, and the attenuation of iron per mm for each, at some 50, 70 and 100 keV (to two digits)."""


def counts_through_metal(
    slice_n: Array, metal: npt.NDArray[np.bool_], geometry: Geometry, pixel_mm: float, i0: float, seed: int = 0
) -> Array:
    """Poisson counts (views, detectors) of a slice with steel in it, (H, W) each: hard photons pass, soft ones do not, and of
    long ways through it hardly any are left, so that -ln(I / I0) is no line integral.

    Tissue attenuates as water-corrected data do, by its line integral.
    """
    tissue = project_slice(np.where(metal, 0, slice_n), geometry) * attenuation_per_unit(pixel_mm)
    millimetres = project_slice(metal.astype(np.float32), geometry) * pixel_mm
    passed = sum(share * np.exp(-mu * millimetres) for share, mu in STEEL)
    rate = torch.from_numpy(np.ascontiguousarray(i0 * np.exp(-tissue) * passed, dtype=np.float32))
    return torch.poisson(rate, generator=torch.Generator().manual_seed(seed)).numpy()


def photon_counts(line_integrals: Array, i0: float, scale: float, seed: int = 0) -> Array:
    """Poisson counts of I0 photons per ray; ``scale`` is the attenuation per unit of the line integrals."""
    generator = torch.Generator().manual_seed(seed)
    return TransmissionNoise(i0, scale).simulate(torch.from_numpy(line_integrals)[None], generator)[0].numpy()
