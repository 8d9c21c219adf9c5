"""Scans from the files of scanners and beamlines: HDF5 in the Data Exchange layout or NeXus' NXtomo, and Zarr.

One slice is read: a row of the detector, all views of it. Whoever reconstructs volumes calls :func:`read_scan` once for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsolve.ct.flat_field import Transmission
from invsolve.errors import InputError, UsageError
from invsolve.files import regular_file
from invsolve.hdf5 import SIGNATURE

Array = npt.NDArray[Any]
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")
"""One of which the folder of a Zarr hierarchy holds."""


@dataclass(frozen=True)
class ScanFile:
    """One slice of a scan as its file has it, the views in the order of their angles.

    Parameters
    ----------
    values : (views, detectors) float32; line integrals -ln(I / I0) of what was flat-field corrected, else the file's own.
    measured : same shape, False for rays that hold no measurement; their ``values`` are interpolated.
    angles : degrees, one per view, ascending; None where the file does not say.
    pixel_size : width of a bin in mm; None where the file does not say.
    units : "attenuation" where the file was corrected here; what an array's attribute ``units`` says; None where nothing does.
    slices, slice : how many the file holds, and the one that was read.
    layout : what kind of file it is.
    corrections : what was done to the numbers, in words.
    counted : whether they are the logarithms of counted photons, of which few come through much matter.
    """

    values: Array
    measured: npt.NDArray[np.bool_]
    angles: tuple[float, ...] | None
    pixel_size: float | None
    units: str | None
    slices: int
    slice: int
    layout: str
    corrections: tuple[str, ...] = ()
    counted: bool = False

    @property
    def summary(self) -> str:
        """What was read, in one line."""
        views, bins = self.values.shape
        which = f", slice {self.slice} of {self.slices}" if self.slices > 1 else ""
        turn = f"{self.angles[0]:.4g} to {self.angles[-1]:.4g} degrees" if self.angles else "no angles"
        pixel = f"pixels of {self.pixel_size:.4g} mm" if self.pixel_size else "no pixel size"
        done = ", ".join(self.corrections) or "no corrections"
        return f"{self.layout}{which}: {views} views x {bins} bins, {turn}, {pixel}; {done}"


def is_scan_file(path: str | Path) -> bool:
    """Whether :func:`read_scan` is the one to read it: HDF5 by its first bytes, Zarr by what its folder holds."""
    file = Path(path)
    if file.is_dir():
        return file.suffix.lower() == ".zarr" or any((file / name).is_file() for name in ZARR_FILES)
    try:
        if not file.is_file():  # opening a pipe would wait for somebody to write into it
            return False
        with file.open("rb") as start:
            return start.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def read_scan(path: str | Path, number: int | None = None) -> ScanFile:
    """One slice of a scan.

    Parameters
    ----------
    path : HDF5 in the Data Exchange layout (De Carlo et al. 2014: ``exchange/data``, ``data_white``, ``data_dark``,
        ``theta``) or NXtomo (``image_key``, ``rotation_angle``), or a Zarr folder of either ``exchange`` or a sinogram.
    number : the slice, from 0; None takes the middle one.

    Raises
    ------
    InputError : missing, damaged, of another layout, too large, or numbers that are no scan.
    UsageError : no such slice, or a package that is needed is not installed.
    """
    file = Path(path)
    if file.is_dir():
        from invsolve.ct.zarr_files import read_zarr

        return read_zarr(file, number)
    from invsolve.ct.hdf5_files import read_hdf5

    return read_hdf5(regular_file(file, "sinogram"), number)


def chosen_slice(number: int | None, slices: int, file: Path) -> int:
    """The slice to read, the middle one unless given.

    Raises
    ------
    UsageError : there is no such slice.
    """
    if number is None:
        return slices // 2
    if not 0 <= number < slices:
        raise UsageError(f"--slice {number} of {file}", hint=f"it has {slices}, from 0 to {slices - 1}")
    return number


def in_order(
    corrected: Transmission, angles: Array | None, file: Path
) -> tuple[Transmission, tuple[float, ...] | None, list[str]]:
    """The views sorted by their angle, those without any measurement left out; and what was done, in words."""
    kept, done = corrected.measured.any(axis=1), []
    if not kept.any():
        raise InputError(f"{file} holds no ray that can be used", hint="check its flat and dark fields")
    if not kept.all():
        done.append(f"{int((~kept).sum())} views without a measurement left out")
    order = np.flatnonzero(kept)
    if angles is not None:
        if (np.diff(angles) < 0).any() and (np.diff(angles) > 0).any():
            done.append("views sorted by angle")
        order = order[np.argsort(angles[order], kind="stable")]
    missing = int((~corrected.measured[order]).sum())
    if missing:
        done.append(f"{missing} rays masked (no number, or no light)")
    told = None if angles is None else tuple(angles[order].tolist())
    return Transmission(corrected.values[order], corrected.measured[order]), told, done


def in_degrees(theta: Array, unit: str | None, views: int, file: Path) -> tuple[Array, list[str]]:
    """Angles of a file in degrees, and what was done, in words.

    Raises
    ------
    InputError : another number of them than of views, not numbers, all the same, or radians by the look of them.
    """
    if theta.shape != (views,):
        raise InputError(f"{file} has {theta.size} angles for {views} views", hint="give --angles FIRST:LAST")
    degrees = theta.astype(np.float64)
    if not np.isfinite(degrees).all():
        raise InputError(f"{file} has angles that are no numbers", hint="give --angles FIRST:LAST")
    name, done = (unit or "").strip().lower(), []
    if name.startswith("rad"):
        degrees, done = np.rad2deg(degrees), ["angles from radians"]
    elif not name.startswith("deg") and views >= 4 and 0 < np.ptp(degrees) <= 2 * np.pi + 0.01:
        raise InputError(
            f"the angles of {file} span {np.ptp(degrees):.3g} degrees: they look like radians",
            hint="give --angles FIRST:LAST in degrees, or set the attribute units of the angles",
        )
    if views > 1 and np.ptp(degrees) == 0:
        raise InputError(f"all {views} angles of {file} are {degrees[0]:g}", hint="give --angles FIRST:LAST")
    return degrees, done
