"""Files of CT: sinograms and slices in, results out."""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageDraw

from invsolve.cli.deep import check_held
from invsolve.cli.free_memory import available_memory, size_in_words
from invsolve.errors import InputError, first_line, of_the_machine
from invsolve.files import regular_file
from invsolve.pictures import to_pixels

Array = npt.NDArray[Any]
ENDINGS = (".npy", ".npz", ".tif", ".tiff")

LARGEST = 1e12
"""Beyond this no line integral, no photon count and no Hounsfield unit lies."""

COPIES = 3
"""Of an array while it is read, checked and converted."""

MOST_VALUES = 2**31
"""In one file."""


def read_array(path: Path, what: str) -> Array:
    """The numbers of an ``.npy``, ``.npz`` (one array, or the one named ``what``) or ``.tif``, as float32 or float64.

    Raises
    ------
    InputError : missing, empty, truncated, of another kind, not real numbers, NaN, infinite or beyond ``LARGEST``.
    """
    regular_file(path, what)
    if path.suffix.lower() not in ENDINGS:
        more = ", or an HDF5 file or a Zarr folder" if what == "sinogram" else ""
        raise InputError(f"{path} is not a {what} this program can read", hint=f"give {', '.join(ENDINGS)}{more}")
    try:
        with quiet_libraries():
            array = _read(path, what)
    except InputError:
        raise
    except Exception as error:
        if of_the_machine(error):
            raise
        reason = first_line(error)
        if "allow_pickle" in reason:  # which says how to run code that a file brings along
            raise InputError(
                f"{path} holds Python objects, or is damaged", hint="save plain numbers with numpy.save"
            ) from None
        if isinstance(error, ImportError) or "imagecodecs" in reason:
            raise InputError(f"{path} is compressed: {reason}", hint="save it without compression") from None
        raise InputError(f"{path} is damaged or truncated: {reason}", hint="copy it again from the original") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path} holds {array.dtype} values", hint="wanted real numbers")
    if array.ndim == 0 or array.size == 0:
        raise InputError(f"{path} holds no array, but shape {array.shape}", hint=f"give one {what}")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise InputError(f"{path} has {bad} values that are NaN or infinite", hint="repair or mask them first")
    largest = max(float(array.max()), -float(array.min()))
    if largest > LARGEST:
        raise InputError(f"{path} has values up to {largest:.3g}", hint=f"wanted values below {LARGEST:g}")
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)


def read_reference(path: Path) -> Array:
    """A true slice, or a stack of them: an array as it is, or a DICOM slice in HU.

    Raises
    ------
    InputError : as from :func:`read_array`, or of DICOM that holds no CT slice.
    UsageError : pydicom is needed and missing.
    """
    from invsolve.ct.dicom import is_dicom, read_dicom

    if path.suffix.lower() in ENDINGS or not is_dicom(path):
        return read_array(path, "slice")
    return read_dicom(path).hu


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what libraries warn and log of a damaged file off the terminal: the error says it."""
    logs, silence = [logging.getLogger(name) for name in ("tifffile", "PIL", "pydicom")], logging.NullHandler()
    before = [log.propagate for log in logs]
    for log in logs:
        log.addHandler(silence)
        log.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, propagate in zip(logs, before, strict=True):
            log.removeHandler(silence)
            log.propagate = propagate


def _read(path: Path, what: str) -> Array:
    if path.suffix.lower() == ".npy":
        check_fits(path, path.stat().st_size)
        with path.open("rb") as file:
            return np.asarray(np.load(file, allow_pickle=False))
    if path.suffix.lower() == ".npz":
        with (
            path.open("rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):  # numpy forgets to close a broken one
            names = [what] if what in archive else list(archive.keys())
            if len(names) != 1:
                raise InputError(f"{path} holds {len(names)} arrays: {', '.join(names)}", hint=f"name one {what!r}")
            check_fits(
                path, sum(info.file_size for info in archive.zip.infolist() if info.filename.startswith(names[0]))
            )
            return np.asarray(archive[names[0]])
    with tifffile.TiffFile(path) as tiff:
        shape = tiff.series[0].shape
        if math.prod(shape) > MOST_VALUES:  # before memory is asked for: a damaged header may say anything
            raise InputError(f"{path} says it has shape {shape}", hint=f"wanted at most {MOST_VALUES} values")
        check_held(path, tiff.series[0])
        check_fits(path, math.prod(shape) * tiff.series[0].dtype.itemsize)
        return np.asarray(tiff.asarray())


def check_fits(path: Path, size: float) -> None:
    """Before they are read: the ``size`` bytes of a file's numbers, unpacked, fit into the memory there is.

    Raises
    ------
    InputError : they do not. A compressed file of some megabytes can hold any number of zeros.
    """
    wanted, available = COPIES * size, available_memory()
    if wanted > available:
        raise InputError(
            f"{path} holds {size_in_words(size)} of numbers: about {size_in_words(wanted)} of memory, {size_in_words(available)} are free",
            hint="cut out the slices that matter; `invsolve ct` takes a volume slice by slice with --workers",
        )


def npy_bytes(array: Array) -> bytes:
    """``.npy`` in single precision, real or complex."""
    buffer = io.BytesIO()
    np.save(buffer, array.astype(np.complex64 if np.iscomplexobj(array) else np.float32), allow_pickle=False)
    return buffer.getvalue()


def tif_bytes(array: Array, facts: dict[str, Any]) -> bytes:
    """Float32 TIFF, a page per slice, with the provenance as its description."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array.astype(np.float32), description=json.dumps(facts), metadata=None)
    return buffer.getvalue()


def windowed(hu: Array, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """(H, W) Hounsfield units as 8-bit grey: ``window`` is (centre, width)."""
    centre, width = window
    return to_pixels((hu - (centre - width / 2)) / width)


def residual_picture(residual: Array, limit: float) -> npt.NDArray[np.uint8]:
    """(views, detectors) misfit, grey 128 for none, black and white for -limit and +limit; rows made 4 pixels high."""
    picture = to_pixels(0.5 + 0.5 * residual / max(limit, 1e-12))
    return np.repeat(picture, max(1, 200 // len(picture)), axis=0)


def labelled_row(pictures: dict[str, npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Pictures of one height side by side, each with its name above it: (H, W) if all are grey, else (H, W, 3)."""
    mode, columns = "RGB" if any(picture.ndim == 3 for picture in pictures.values()) else "L", []
    for name, picture in pictures.items():
        canvas = Image.new(mode, (picture.shape[1], picture.shape[0] + 16), 0)
        canvas.paste(Image.fromarray(picture).convert(mode), (0, 16))
        ImageDraw.Draw(canvas).text((3, 2), name, fill="white")
        columns.append(np.asarray(canvas))
    return np.concatenate(columns, axis=1)
