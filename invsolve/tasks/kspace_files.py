"""K-space from the files that scanners and archives give: numpy's, fastMRI's HDF5 (Zbontar et al. 2018) and ISMRMRD (Inati et
al. 2017).

One slice of a two-dimensional Cartesian scan is read, as :mod:`invsolve.tasks.mri` wants it: (coils, H, W), the readout down
the rows, the phase encodes along the columns, frequency 0 at (H // 2, W // 2). A readout is usually sampled twice as densely
as the slice needs: what it sees beyond the slice is cut off, by a unitary transform, so that noise stays as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from invsolve.errors import InputError, UsageError, first_line, of_the_machine
from invsolve.files import regular_file
from invsolve.hdf5 import SIGNATURE as HDF5_SIGNATURE
from invsolve.hdf5 import opened, own_data

Array = npt.NDArray[Any]

MOST_VALUES = 2**28
"""Of one slice of k-space: 16 coils of 4096 x 4096."""

MOST_READOUTS = 2**22
"""In one ISMRMRD file."""

NPY_SIGNATURE = b"\x93NUMPY"
EXTRA = "pip install 'invsolve[mri]'"

_OF_OTHER_KINDS = (
    "ACQ_IS_NOISE_MEASUREMENT",
    "ACQ_IS_NAVIGATION_DATA",
    "ACQ_IS_PHASECORR_DATA",
    "ACQ_IS_DUMMYSCAN_DATA",
    "ACQ_IS_RTFEEDBACK_DATA",
    "ACQ_IS_HPFEEDBACK_DATA",
    "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA",
    "ACQ_IS_PHASE_STABILIZATION",
    "ACQ_IS_PHASE_STABILIZATION_REFERENCE",
)
"""Readouts that are no lines of the slice."""


class KSpace(NamedTuple):
    """One slice as its file has it."""

    values: Array  # complex (H, W) or (coils, H, W)
    measured: Array | None  # (W,) or (H, W), not 0 where measured; None: the file does not say
    slices: int  # that the file holds
    slice: int  # the one that was read


def read_kspace(path: str | Path, number: int | None = None) -> KSpace:
    """One slice of k-space.

    Parameters
    ----------
    path : ``.npy``, complex (H, W) or (coils, H, W), one slice; or HDF5 in fastMRI's layout (``kspace``, with ``mask`` and
        ``ismrmrd_header`` where there are any) or ISMRMRD's (group ``dataset``).
    number : the slice, from 0; None takes the middle one.

    Raises
    ------
    InputError : missing, damaged, of another layout, not Cartesian, 3-D, or too large.
    UsageError : no such slice, or a package that is needed is not installed.
    """
    file = regular_file(path, "k-space")
    with file.open("rb") as stream:
        start = stream.read(8)
    if start != HDF5_SIGNATURE:
        return KSpace(read_numbers(file, "k-space"), None, 1, _chosen(number, 1, file))
    with opened(file, EXTRA) as h5:
        if "kspace" in h5:
            return _read_fastmri(h5, file, number)
        if "dataset" in h5:
            return _read_ismrmrd(h5, file, number)
        found = ", ".join(sorted(map(str, h5))[:5]) or "nothing"
    raise InputError(
        f"{file} is HDF5 with {found}", hint="wanted fastMRI's layout (kspace) or ISMRMRD's (dataset/data)"
    )


def read_numbers(path: str | Path, what: str) -> Array:
    """The array of an ``.npy`` file.

    Raises
    ------
    InputError : missing, damaged, or not numbers.
    """
    file = regular_file(path, what)
    with file.open("rb") as stream:
        if stream.read(len(NPY_SIGNATURE)) != NPY_SIGNATURE:
            raise InputError(f"{file} is no .npy file", hint=f"save the {what} with numpy.save")
    try:
        with file.open("rb") as stream:
            array = np.load(stream, allow_pickle=False)
    except Exception as error:
        if of_the_machine(error):
            raise
        reason = first_line(error)
        if "allow_pickle" in reason:  # numpy says how to run code that a file brings along
            reason = "it holds Python objects"
        raise InputError(f"{file} is damaged: {reason}", hint=f"save the {what} with numpy.save again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "cfiub" or array.size == 0:
        raise InputError(f"{file} holds no numbers", hint=f"wanted one array, the {what}")
    return array


def without_oversampling(kspace: Array, rows: int) -> Array:
    """K-space (..., H, W) of the middle ``rows`` of the picture along the readout; unitary, so white noise keeps its size."""
    height = kspace.shape[-2]
    if not 0 < rows < height:
        return kspace
    lines = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, -2), axis=-2, norm="ortho"), -2)
    first = height // 2 - rows // 2  # so that the origin stays at rows // 2
    middle = lines[..., first : first + rows, :]
    cut = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(middle, -2), axis=-2, norm="ortho"), -2)
    return cut.astype(np.complex64)


def _chosen(number: int | None, slices: int, file: Path) -> int:
    """The slice to read."""
    if slices < 1:
        raise InputError(f"{file} holds no slice", hint="copy it again from the original")
    if number is None:
        return slices // 2
    if not 0 <= number < slices:
        raise UsageError(f"slice {number} of {file}", hint=f"it has {slices}, from 0 to {slices - 1}")
    return number


def _check_size(values: int, file: Path) -> None:
    if values > MOST_VALUES:
        raise InputError(f"a slice of {file} has {values} values", hint=f"at most {MOST_VALUES} are read")


def _read_fastmri(h5: Any, file: Path, number: int | None) -> KSpace:
    """(slices, H, W) or (slices, coils, H, W), with the columns' mask where the set is undersampled."""
    data = own_data(h5, "kspace", file)
    if data.ndim not in (3, 4) or data.dtype.kind != "c" or 0 in data.shape:
        raise InputError(
            f"kspace in {file} has shape {data.shape}, {data.dtype}",
            hint="wanted complex (slices, H, W) or (slices, coils, H, W)",
        )
    chosen = _chosen(number, data.shape[0], file)
    _check_size(int(np.prod(data.shape[1:])), file)
    mask = None
    if "mask" in h5:
        stored = own_data(h5, "mask", file)
        if stored.shape != data.shape[-1:]:
            raise InputError(f"mask in {file} has shape {stored.shape}", hint=f"wanted {data.shape[-1:]}, the columns")
        mask = np.asarray(stored[()]) != 0
    values = np.asarray(data[chosen], dtype=np.complex64)
    if "ismrmrd_header" in h5:
        encoding = _header(own_data(h5, "ismrmrd_header", file)[()], file)
        values = without_oversampling(values, encoding.reconSpace.matrixSize.x)
    return KSpace(values, mask, data.shape[0], chosen)


def _header(xml: Any, file: Path) -> Any:
    """The first encoding of an ISMRMRD header."""
    try:
        import ismrmrd
    except ImportError:
        raise UsageError(
            f"{file} has an ISMRMRD header, which needs ismrmrd", hint=f"install it with {EXTRA}"
        ) from None
    try:
        header = ismrmrd.xsd.CreateFromDocument(xml)
        encoding = header.encoding[0]
        sizes = [
            getattr(space.matrixSize, axis) for space in (encoding.encodedSpace, encoding.reconSpace) for axis in "xyz"
        ]
    except Exception as error:  # noqa: BLE001 - an XML parser's many ways
        raise InputError(f"the header of {file} is damaged: {first_line(error)}", hint="copy it again") from None
    if min(sizes) < 1:
        raise InputError(f"the header of {file} says sizes of {min(sizes)}", hint="copy it again from the original")
    return encoding


def _read_ismrmrd(h5: Any, file: Path, number: int | None) -> KSpace:
    """The lines of one slice: averages are averaged, of other contrasts, phases, repetitions and sets the first is taken."""
    group = h5["dataset"]
    xml, data = own_data(group, "xml", file), own_data(group, "data", file)
    encoding = _header(xml[0], file)
    if encoding.trajectory.value != "cartesian":
        raise InputError(
            f"{file} has a {encoding.trajectory.value} trajectory", hint="wanted a Cartesian one; grid it first"
        )
    if encoding.encodedSpace.matrixSize.z > 1:
        raise InputError(
            f"{file} is a 3-D scan of {encoding.encodedSpace.matrixSize.z} partitions",
            hint="transform the partitions, and give the slices as .npy",
        )
    if data.ndim != 1 or len(data) > MOST_READOUTS:
        raise InputError(f"{file} holds {data.size} readouts", hint=f"wanted at most {MOST_READOUTS}")
    heads = data.fields("head")[:]
    lines = _of_the_picture(heads, encoding)
    slices = 1 + int(heads["idx"]["slice"][lines].astype(int).max(initial=-1))
    chosen = _chosen(number, slices, file)
    index = heads["idx"]
    lines &= index["slice"] == chosen
    for name in ("contrast", "phase", "repetition", "set"):
        lines &= index[name] == index[name][lines].min(initial=0)
    rows = np.flatnonzero(lines)
    if not len(rows):
        raise InputError(f"{file} has no line of slice {chosen}", hint="copy it again from the original")
    kspace, seen = _lines_in_place(data, heads, rows, encoding, file)
    return KSpace(without_oversampling(kspace, encoding.reconSpace.matrixSize.x), seen, slices, chosen)


def _of_the_picture(heads: Array, encoding: Any) -> Array:
    """Which readouts are lines of the picture; bit n of the flags is ISMRMRD's flag n + 1."""
    import ismrmrd

    flags = heads["flags"].astype(np.uint64)

    def flagged(name: str) -> Array:
        return (flags >> np.uint64(getattr(ismrmrd, name) - 1)) & np.uint64(1) == 1

    lines = heads["encoding_space_ref"] == 0
    for name in _OF_OTHER_KINDS:
        lines &= ~flagged(name)
    parallel = encoding.parallelImaging
    if parallel is not None and parallel.calibrationMode is not None and parallel.calibrationMode.value != "embedded":
        lines &= ~flagged("ACQ_IS_PARALLEL_CALIBRATION")  # of a scan of its own, whose brightness may differ
    return lines


def _lines_in_place(data: Any, heads: Array, rows: Array, encoding: Any, file: Path) -> tuple[Array, Array]:
    """(coils, H, W) of the given readouts, each averaged, and which values (H, W) were measured."""
    import ismrmrd

    height, width = encoding.encodedSpace.matrixSize.x, encoding.encodedSpace.matrixSize.y
    coils = int(heads["active_channels"][rows[0]])
    _check_size(coils * height * width, file)
    limits = encoding.encodingLimits.kspace_encoding_step_1
    shift = width // 2 - (limits.center if limits is not None else width // 2)
    total, count = np.zeros((coils, height, width), dtype=np.complex64), np.zeros((height, width), dtype=np.float32)
    for row in rows:
        head, values = heads[row], data[row]["data"]
        samples = int(head["number_of_samples"])
        column = int(head["idx"]["kspace_encode_step_1"]) + shift
        if int(head["active_channels"]) != coils or values.size != 2 * coils * samples or not 0 <= column < width:
            raise InputError(f"readout {row} of {file} does not fit its header", hint="copy it again from the original")
        line = np.asarray(values, dtype=np.float32).view(np.complex64).reshape(coils, samples)
        kept = slice(int(head["discard_pre"]), samples - int(head["discard_post"]))
        place = np.arange(samples) - int(head["center_sample"]) + height // 2
        if int(head["flags"]) >> (ismrmrd.ACQ_IS_REVERSE - 1) & 1:
            place = 2 * (height // 2) - place  # mirrored about frequency 0
        line, place = line[:, kept], place[kept]
        inside = (place >= 0) & (place < height)
        total[:, place[inside], column] += line[:, inside]
        count[place[inside], column] += 1
    return total / np.maximum(count, 1), count > 0
