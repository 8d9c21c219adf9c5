"""CT slices as DICOM: read in Hounsfield units, and written as what they are, derived images of no patient."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from invsolve._version import __version__
from invsolve.errors import InputError, InvsolveError, UsageError, first_line
from invsolve.files import regular_file
from invsolve.forward_models.geometry import MOST_VALUES

Array = npt.NDArray[Any]
ENDINGS = (".dcm", ".dicom")
EXTRA = "pip install 'invsolve[dicom]'"
AIR = -1000.0
DEFLATED = ("1.2.840.10008.1.2.1.99",)
"""Transfer syntaxes that pack the whole file: how much it unpacks to is not known before."""

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
INT16 = (-32768, 32767)
LONGEST_DESCRIPTION, LONGEST_TEXT = 64, 1024
"""Characters of the types LO and ST (DICOM PS3.5, section 6.2)."""


class DicomSlice(NamedTuple):
    """A slice as its file has it."""

    hu: Array  # (H, W) float32
    pixel_size: float | None  # mm
    notes: tuple[str, ...]  # what was done to it


def is_dicom(path: Path) -> bool:
    """By its ending, or by the four letters after the preamble; a pipe, which could be waited for without end, is none."""
    if path.suffix.lower() in ENDINGS:
        return True
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def read_dicom(path: str | Path) -> DicomSlice:
    """One CT slice in Hounsfield units: stored values times rescale slope plus intercept, padding as air.

    A slice that is shown inverted (MONOCHROME1) has the same Hounsfield units: inversion is a matter of the screen (DICOM
    PS3.3, C.7.6.3.1.2).

    Raises
    ------
    InputError : missing, damaged, no CT slice, several frames, not in Hounsfield units, pixels that are not square.
    UsageError : pydicom is missing.
    """
    file = regular_file(path, "slice")
    pydicom = import_pydicom(f"{file} is DICOM")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage that does not matter; what does is an error
            syntax = str(getattr(pydicom.filereader.read_file_meta_info(file), "TransferSyntaxUID", ""))
            if syntax in DEFLATED:
                raise InputError(
                    f"{file} is deflated as a whole", hint="save it uncompressed, such as with dcmconv +te"
                )
            data = pydicom.dcmread(file)
            _check(data, file)
            stored = _pixels(data, file)
            hu = stored.astype(np.float64) * _number(data, "RescaleSlope") + _number(data, "RescaleIntercept")
            padding, notes = _padding(data, stored), []
            if padding.any():
                hu = np.where(padding, AIR, hu)
                notes.append(f"{int(padding.sum())} padding pixels taken as air")
            if data.PhotometricInterpretation == "MONOCHROME1":
                notes.append("shown inverted (MONOCHROME1), which does not change its Hounsfield units")
            size = _pixel_size(data, file)
    except InvsolveError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file fails in the library's many ways, which all mean the same
        raise InputError(
            f"{file} is damaged, or no DICOM file: {first_line(error)}", hint="copy it again from the original"
        ) from None
    if not np.isfinite(hu).all() or np.abs(hu).max() > 1e6:
        raise InputError(
            f"{file} has values that are no Hounsfield units", hint="check its rescale slope and intercept"
        )
    return DicomSlice(hu.astype(np.float32), size, tuple(notes))


def dicom_bytes(
    hu: Array, pixel_size: float, *, series: str, derivation: str, window: tuple[float, float] = (40.0, 400.0)
) -> bytes:
    """A slice (H, W) in Hounsfield units as a CT image, 16 bits, rounded to whole units (coarser beyond +-32767).

    It says what was made and how, and nothing of a patient: names, dates and equipment are empty, identifiers are new, and
    its coordinates are those of a frame of reference of its own.

    Parameters
    ----------
    pixel_size : mm.
    series : the series' description, such as that a learned prior made it; at most 64 characters.
    derivation : how it was made, in words.
    window : centre and width of what is shown at first.

    Raises
    ------
    UsageError : pydicom is missing.
    """
    pydicom = import_pydicom("writing DICOM")
    values = np.asarray(hu, dtype=np.float64)
    slope = max(1.0, float(np.abs(values).max()) / INT16[1])
    stored = np.clip(np.round(values / slope), *INT16).astype("<i2")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT_IMAGE_STORAGE, pydicom.uid.generate_uid()
    out = pydicom.dataset.Dataset()
    out.file_meta = meta
    out.SOPClassUID, out.SOPInstanceUID = CT_IMAGE_STORAGE, meta.MediaStorageSOPInstanceUID
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(out, name, pydicom.uid.generate_uid())
    for name in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
        "AccessionNumber", "ReferringPhysicianName", "Manufacturer", "PositionReferenceIndicator", "KVP",
        "AcquisitionNumber", "SliceThickness", "PatientPosition",
    ):  # fmt: skip
        setattr(out, name, None if name in ("KVP", "AcquisitionNumber", "SliceThickness") else "")
    out.Modality, out.ImageType = "CT", ["DERIVED", "SECONDARY", "AXIAL"]
    out.SeriesDescription, out.DerivationDescription = series[:LONGEST_DESCRIPTION], derivation[:LONGEST_TEXT]
    out.SoftwareVersions, out.SeriesNumber, out.InstanceNumber = f"invsolve {__version__}", 1, 1
    out.BurnedInAnnotation = "NO"
    spacing = f"{pixel_size:.10g}"
    out.PixelSpacing, out.ImageOrientationPatient = [spacing, spacing], [1, 0, 0, 0, 1, 0]
    out.ImagePositionPatient = [0, 0, 0]
    out.Rows, out.Columns = stored.shape
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 16, 15, 1
    out.RescaleSlope, out.RescaleIntercept, out.RescaleType = f"{slope:.10g}", "0", "HU"
    out.WindowCenter, out.WindowWidth = (f"{number:.10g}" for number in window)
    out.PixelData = stored.tobytes()
    buffer = io.BytesIO()
    out.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def import_pydicom(why: str) -> Any:
    """pydicom, or an error that says how to get it."""
    try:
        import pydicom
        import pydicom.filereader
    except ImportError:
        raise UsageError(f"{why}, which needs pydicom", hint=f"install it with {EXTRA}") from None
    return pydicom


def _check(data: Any, file: Path) -> None:
    """That it is one slice of CT in Hounsfield units; before its pixels are unpacked."""
    for name in ("Rows", "Columns", "PixelData", "PhotometricInterpretation", "BitsAllocated"):
        if name not in data:
            raise InputError(f"{file} has no {name}: it holds no image", hint="give one CT slice")
    modality = data.get("Modality", "")
    if modality != "CT":
        raise InputError(f"{file} is of modality {str(modality)[:16]!r}, not CT", hint="give a CT slice")
    if int(data.get("NumberOfFrames", 1) or 1) > 1:
        raise InputError(
            f"{file} holds {data.NumberOfFrames} frames", hint="give one slice: split it into single frames"
        )
    for name in ("RescaleSlope", "RescaleIntercept"):
        if name not in data:
            raise InputError(f"{file} has no {name}", hint="wanted a slice in Hounsfield units")
    kind = str(data.get("RescaleType", "HU") or "HU")
    if kind.upper() != "HU":
        raise InputError(f"{file} is in units of {kind[:16]!r}", hint="wanted Hounsfield units (HU)")
    if str(data.PhotometricInterpretation) not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"{file} is {str(data.PhotometricInterpretation)[:16]}", hint="wanted a grey CT slice")
    if int(data.Rows) * int(data.Columns) > MOST_VALUES or not int(data.Rows) * int(data.Columns):
        raise InputError(f"{file} is {data.Columns} x {data.Rows} pixels", hint=f"wanted 1 to {MOST_VALUES} of them")


def _pixels(data: Any, file: Path) -> Array:
    try:
        stored = np.asarray(data.pixel_array)
    except (NotImplementedError, RuntimeError, ImportError) as error:
        syntax = data.file_meta.TransferSyntaxUID
        if getattr(syntax, "is_compressed", False):
            raise InputError(
                f"{file} is compressed as {getattr(syntax, 'name', syntax)}",
                hint="pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or save it uncompressed",
            ) from None
        raise InputError(f"{file} is damaged: {first_line(error)}", hint="copy it again from the original") from None
    if stored.shape != (data.Rows, data.Columns):
        raise InputError(f"{file} has pixels of shape {stored.shape}", hint="wanted one grey slice")
    return stored


def _number(data: Any, name: str) -> float:
    value = float(data[name].value)
    if not math.isfinite(value) or (name == "RescaleSlope" and value == 0):
        raise InputError(f"{name} = {value}", hint="copy the file again from the original")
    return value


def _padding(data: Any, stored: Array) -> npt.NDArray[np.bool_]:
    """Pixels that the scanner did not fill: of one stored value, or of a range of them."""
    first = data.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, dtype=bool)
    last = data.get("PixelPaddingRangeLimit")
    ends = sorted((_signed(first, data), _signed(first if last is None else last, data)))
    return (stored >= ends[0]) & (stored <= ends[1])


def _signed(value: Any, data: Any) -> int:
    """A stored value as pixels have it: writers mix up the types US and SS."""
    number, bits = int(value), int(data.BitsAllocated)
    if int(data.get("PixelRepresentation", 0)) == 1:
        return number - 2**bits if number >= 2 ** (bits - 1) else number
    return number + 2**bits if number < 0 else number


def _pixel_size(data: Any, file: Path) -> float | None:
    spacing = data.get("PixelSpacing")
    if not spacing:
        return None
    down, across = (float(value) for value in spacing)
    if not (math.isfinite(down) and down > 0 and math.isclose(down, across, rel_tol=1e-3)):
        raise InputError(
            f"{file} has pixels of {down:g} x {across:g} mm",
            hint="wanted square ones: resample it, and give it as .npy",
        )
    return down
