"""Scans in HDF5: Data Exchange (De Carlo et al., J. Synchrotron Rad. 21, 2014) and NeXus' application definition NXtomo."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsolve.ct.flat_field import line_integrals
from invsolve.ct.scan_files import ScanFile, chosen_slice, in_degrees, in_order
from invsolve.errors import InputError
from invsolve.forward_models.geometry import MOST_VALUES, MOST_VIEWS
from invsolve.hdf5 import opened, own_data

Array = npt.NDArray[Any]
EXTRA = "pip install 'invsolve[ct-files]'"
TO_MM = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "nm": 1e-6}
PIXEL_SIZES = ("measurement/instrument/detector/pixel_size_x", "measurement/instrument/detector/x_pixel_size")
IMAGE_KEY = "instrument/detector/image_key"
PROJECTION, FLAT, DARK = 0, 1, 2


def read_hdf5(file: Path, number: int | None) -> ScanFile:
    """As :func:`invsolve.ct.scan_files.read_scan`."""
    with opened(file, EXTRA) as h5:
        if "exchange" in h5:
            return read_data_exchange(h5, file, number, own_data)
        entry = _tomo_entry(h5)
        if entry is not None:
            return _read_nxtomo(entry, file, number)
        found = ", ".join(sorted(map(str, h5))[:5]) or "nothing"
    raise InputError(
        f"{file} is HDF5 with {found}",
        hint="wanted Data Exchange (exchange/data) or NXtomo (image_key, rotation_angle)",
    )


def read_data_exchange(root: Any, file: Path, number: int | None, own: Any) -> ScanFile:
    """``exchange/data`` (views, rows, bins) with ``data_white``, ``data_dark`` and ``theta``.

    ``root`` is a group of HDF5 or Zarr, and ``own(root, name, file)`` one of its arrays.
    """
    data = checked(own(root, "exchange/data", file), "exchange/data", file)
    if "exchange/data_white" not in root:
        raise InputError(
            f"{file} has no flat field exchange/data_white", hint="give the sinogram as .npy with --units instead"
        )
    views, slices, bins = data.shape
    chosen = chosen_slice(number, slices, file)
    fields: dict[str, Array | None] = {"exchange/data_white": None, "exchange/data_dark": None}
    for name in fields:
        if name in root:
            frames = checked(own(root, name, file), name, file)
            if frames.shape[1:] != (slices, bins):
                raise InputError(
                    f"{name} in {file} has shape {frames.shape}", hint=f"wanted (frames, {slices}, {bins}), as the data"
                )
            fields[name] = row(frames, chosen)
    theta: Array | None = None
    done: list[str] = []
    if "exchange/theta" in root:
        stored = own(root, "exchange/theta", file)
        theta, done = in_degrees(numbers(stored, "theta", file, views), attribute(stored, "units"), views, file)
    pixel = next((pixel_size(own(root, name, file), file) for name in PIXEL_SIZES if name in root), None)
    flats, darks = fields["exchange/data_white"], fields["exchange/data_dark"]
    assert flats is not None
    return corrected(
        row(data, chosen), flats, darks, theta, file,
        pixel_size=pixel, slices=slices, chosen=chosen, layout="Data Exchange", done=done,
    )  # fmt: skip


def _tomo_entry(h5: Any) -> Any | None:
    """The group that holds the scan: an entry of the file, or a sub-entry of one."""
    import h5py

    for names in ([name] for name in h5):
        entry = h5.get(names[0])
        if not isinstance(entry, h5py.Group) or entry.file.filename != h5.filename:
            continue
        for group in (entry, *(entry.get(name) for name in entry)):
            if isinstance(group, h5py.Group) and IMAGE_KEY in group:
                return group
    return None


def _read_nxtomo(entry: Any, file: Path, number: int | None) -> ScanFile:
    """``instrument/detector/data`` (frames, rows, bins) with an ``image_key`` and a ``rotation_angle`` for each frame."""
    data = checked(own_data(entry, "instrument/detector/data", file), "instrument/detector/data", file)
    frames, slices, _ = data.shape
    chosen = chosen_slice(number, slices, file)
    key = numbers(own_data(entry, IMAGE_KEY, file), "image_key", file, frames)
    if key.shape != (frames,):
        raise InputError(f"image_key in {file} has shape {key.shape}", hint=f"wanted one for each of {frames} frames")
    for kind, name in ((PROJECTION, "projection"), (FLAT, "flat field")):
        if not (key == kind).any():
            raise InputError(f"{file} has no {name}: no image_key is {kind}", hint="copy it again from the original")
    stored = own_data(entry, "sample/rotation_angle", file)
    turned = numbers(stored, "rotation_angle", file, frames)
    if turned.shape != (frames,):
        raise InputError(f"{file} has {turned.size} rotation angles", hint=f"wanted one for each of {frames} frames")
    lines, views = row(data, chosen), key == PROJECTION
    theta, done = in_degrees(turned[views], attribute(stored, "units"), int(views.sum()), file)
    invalid = int((~np.isin(key, (PROJECTION, FLAT, DARK))).sum())
    done += [f"{invalid} invalid frames left out"] * (invalid > 0)
    name = "instrument/detector/x_pixel_size"
    pixel = pixel_size(own_data(entry, name, file), file) if name in entry else None
    darks = lines[key == DARK] if (key == DARK).any() else None
    return corrected(
        lines[views], lines[key == FLAT], darks, theta, file,
        pixel_size=pixel, slices=slices, chosen=chosen, layout="NXtomo", done=done,
    )  # fmt: skip


def corrected(
    counts: Array, flats: Array, darks: Array | None, theta: Array | None, file: Path,
    *, pixel_size: float | None, slices: int, chosen: int, layout: str, done: list[str],
) -> ScanFile:  # fmt: skip
    """A slice's line integrals from its counts (views, bins) and fields (frames, bins)."""
    lines, angles, more = in_order(line_integrals(counts, flats, darks), theta, file)
    fields = f"flat field of {len(flats)}" + (", no dark field" if darks is None else f", dark field of {len(darks)}")
    return ScanFile(
        lines.values, lines.measured, angles, pixel_size, "attenuation", slices, chosen, layout,
        (f"{fields}, -ln", *done, *more), counted=True,
    )  # fmt: skip


def checked(data: Any, name: str, file: Path) -> Any:
    """A stack of frames (frames, rows, bins) of real numbers, of which one row fits into memory; (frames, bins) of one row
    is none.

    Raises
    ------
    InputError : it is something else.
    """
    if data.ndim != 3 or 0 in data.shape or data.dtype.kind not in "fiu":
        raise InputError(
            f"{name} in {file} has shape {tuple(data.shape)}, {data.dtype}", hint="wanted real (views, rows, bins)"
        )
    frames, _, bins = data.shape
    if frames > MOST_VIEWS or frames * bins > MOST_VALUES:
        raise InputError(
            f"a slice of {name} in {file} is {frames} x {bins}",
            hint=f"at most {MOST_VIEWS} views, {MOST_VALUES} values",
        )
    return data


def row(data: Any, chosen: int) -> Array:
    """One row of the detector in all frames, (frames, bins)."""
    return np.asarray(data[:, chosen, :], dtype=np.float32)


def numbers(data: Any, name: str, file: Path, most: int) -> Array:
    """A short list of real numbers.

    Raises
    ------
    InputError : it is none, or has more than ``most``.
    """
    if data.ndim != 1 or data.dtype.kind not in "fiu" or data.size > most:
        raise InputError(
            f"{name} in {file} has shape {tuple(data.shape)}, {data.dtype}", hint=f"wanted {most} numbers, one per view"
        )
    return np.asarray(data[:])


def attribute(data: Any, name: str) -> str | None:
    """A text attribute, as far as there is one."""
    value = data.attrs.get(name)
    value = value[0] if isinstance(value, np.ndarray | list) and len(value) == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


def pixel_size(data: Any, file: Path) -> float | None:
    """In mm; None where its unit is not known, lest a guess scale the slice.

    Raises
    ------
    InputError : it is no length.
    """
    unit = (attribute(data, "units") or "").strip()
    if unit not in TO_MM:
        return None
    value = float(np.asarray(data[()]).ravel()[0]) if data.size == 1 and data.dtype.kind in "fiu" else math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"the pixel size in {file} is {value}", hint="wanted one positive number; correct it")
    return value * TO_MM[unit]
