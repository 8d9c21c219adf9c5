"""Scans in Zarr: a sinogram with its angles, or the Data Exchange layout."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsolve.ct.flat_field import filled
from invsolve.ct.hdf5_files import EXTRA, attribute, numbers, pixel_size, read_data_exchange
from invsolve.ct.scan_files import ScanFile, chosen_slice, in_degrees, in_order
from invsolve.ct.sinogram import UNITS
from invsolve.errors import InputError, UsageError, first_line
from invsolve.forward_models.geometry import MOST_VALUES, MOST_VIEWS
from invsolve.hdf5 import LARGEST_CHUNK

SINOGRAMS = ("sinogram", "data")
ANGLES = ("theta", "angles")


def read_zarr(folder: Path, number: int | None) -> ScanFile:
    """As :func:`invsolve.ct.scan_files.read_scan`: an array (views, detectors) or (slices, views, detectors), alone or as
    ``sinogram`` of a group with ``theta``; or a group ``exchange``.
    """
    try:
        import zarr
    except ImportError:
        raise UsageError(f"{folder} is Zarr, which needs zarr", hint=f"install it with {EXTRA}") from None
    try:
        root = zarr.open(store=str(folder), mode="r")
        if isinstance(root, zarr.Group) and "exchange" in root:
            return read_data_exchange(root, folder, number, _own)
        if isinstance(root, zarr.Array):
            return _read_sinogram(_checked(root, folder.name, folder), None, None, folder, number)
        name = next((name for name in SINOGRAMS if name in root), None)
        if name is None:
            found = ", ".join(sorted(map(str, root))[:5]) or "nothing"
            raise InputError(f"{folder} is Zarr with {found}", hint="wanted sinogram, or exchange/data")
        theta = next((_own(root, one, folder) for one in ANGLES if one in root), None)
        pixel = _own(root, "pixel_size", folder) if "pixel_size" in root else None
        return _read_sinogram(_own(root, name, folder), theta, pixel, folder, number)
    except (InputError, UsageError):
        raise
    except Exception as error:  # noqa: BLE001 - a damaged store fails in the library's many ways, which all mean the same
        raise InputError(f"{folder} is damaged: {first_line(error)}", hint="copy it again from the original") from None


def _own(root: Any, name: str, folder: Path) -> Any:
    import zarr

    if name not in root or not isinstance(root[name], zarr.Array):
        raise InputError(f"{folder}: {name} is no array", hint="copy it again from the original")
    return _checked(root[name], name, folder)


def _checked(data: Any, name: str, folder: Path) -> Any:
    """An array whose chunks can be unpacked, and none of whose files is longer than what it should hold."""
    size = math.prod(data.chunks) * data.dtype.itemsize
    if size > LARGEST_CHUNK:
        raise InputError(
            f"{folder}: {name} has chunks of shape {data.chunks}", hint=f"wanted chunks below {LARGEST_CHUNK >> 20} MiB"
        )
    # No packer makes numbers longer; what is longer than its chunk unpacks to something else.
    if getattr(data, "shards", None) is None:
        for path in (folder / data.path).rglob("*"):
            if path.is_file() and not path.name.startswith((".z", "zarr.")) and path.stat().st_size > 1.1 * size + 4096:
                raise InputError(f"{folder}: a chunk of {name} is longer than it says", hint="copy it again")
    return data


def _read_sinogram(data: Any, theta: Any, pixel: Any, folder: Path, number: int | None) -> ScanFile:
    if data.ndim not in (2, 3) or 0 in data.shape or data.dtype.kind not in "fiu":
        raise InputError(
            f"the sinogram in {folder} has shape {data.shape}, {data.dtype}",
            hint="wanted real (views, detectors) or (slices, views, detectors)",
        )
    slices, (views, bins) = (data.shape[0] if data.ndim == 3 else 1), data.shape[-2:]
    if views > MOST_VIEWS or views * bins > MOST_VALUES:
        raise InputError(
            f"a slice of {folder} is {views} x {bins}", hint=f"at most {MOST_VIEWS} views, {MOST_VALUES} values"
        )
    chosen = chosen_slice(number, slices, folder)
    values = np.asarray(data[chosen] if data.ndim == 3 else data[:], dtype=np.float32)
    angles: npt.NDArray[Any] | None = None
    done: list[str] = []
    if theta is not None:
        angles, done = in_degrees(numbers(theta, "theta", folder, views), attribute(theta, "units"), views, folder)
    lines, told, more = in_order(filled(values, np.isfinite(values)), angles, folder)
    width = None if pixel is None else pixel_size(pixel, folder)
    unit = attribute(data, "units")
    return ScanFile(
        lines.values,
        lines.measured,
        told,
        width,
        unit if unit in UNITS else None,
        slices,
        chosen,
        "Zarr",
        (*done, *more),
    )
