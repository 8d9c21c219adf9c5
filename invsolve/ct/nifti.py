"""Slices as NIfTI-1, with where they lie in the scanner."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import numpy.typing as npt

from invsolve.errors import UsageError
from invsolve.forward_models.geometry import Geometry

Array = npt.NDArray[Any]
ENDINGS = (".nii", ".nii.gz")
SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT: coordinates of the scanner, not of a patient or an atlas."""


def affine(geometry: Geometry, spacing: float | None = None) -> Array:
    """From (column, row, slice) to (x, y, z) in mm, (4, 4): x to the right, y up, z along the slices, the origin on the
    rotation axis of slice 0. ``spacing`` is from slice to slice; as wide as a pixel where nothing is known."""
    left, _, _, top = geometry.window()
    pixel = geometry.pixel_size
    out = np.diag([pixel, -pixel, spacing or pixel, 1.0])
    out[:2, 3] = left + pixel / 2, top - pixel / 2
    return out


def nifti_bytes(
    hu: Array, geometry: Geometry, *, description: str, packed: bool, spacing: float | None = None
) -> bytes:
    """Slices (slices, H, W) in Hounsfield units as float32; gzip of it where ``packed``.

    Raises
    ------
    UsageError : nibabel is missing.
    """
    nibabel = import_nibabel()
    placed = affine(geometry, spacing)
    image = nibabel.Nifti1Image(np.ascontiguousarray(np.transpose(hu, (2, 1, 0)), dtype=np.float32), placed)
    image.header.set_xyzt_units("mm")
    image.set_qform(placed, code=SCANNER)
    image.set_sform(placed, code=SCANNER)
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    content: bytes = image.to_bytes()
    return gzip.compress(content, mtime=0) if packed else content


def import_nibabel() -> Any:
    """nibabel, or an error that says how to get it."""
    try:
        import nibabel
    except ImportError:
        raise UsageError("writing NIfTI needs nibabel", hint="install it with pip install 'invsolve[nifti]'") from None
    return nibabel
