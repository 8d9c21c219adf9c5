"""Likelihood as compression: the bits of a picture under a model beside those of lossless files.

A picture of probability p can be stored in ``-log2 p`` bits, and on average in no fewer (Shannon 1948). The bits per
dimension of :func:`invsolve.ode.density.likelihood`, times the picture's values, bound from above what a coder driven by
the prior would need: the noise that fills the grey levels makes it a bound on average (Theis et al. 2016, section 3.1),
and bits-back coding with a normalizing flow comes near it (Ho et al. 2019). No such coder is here; the files are real.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from invsolve.errors import InputError


class StoredBits(NamedTuple):
    """Bits of whole files, their headers counted."""

    png: int
    webp: int | None  # None where Pillow was built without WebP


def stored_bits(picture: npt.NDArray[np.uint8]) -> StoredBits:
    """Bits of the smallest lossless PNG and WebP that Pillow writes of a picture (H, W, 3) or (H, W), 8 bits a value.

    The files are written in memory, PNG with its best filter and deflate level, WebP lossless at its highest effort.

    Raises
    ------
    InputError : not 8-bit, or of another shape.
    """
    if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
        raise InputError(
            f"{picture.dtype} of shape {picture.shape}", hint="wanted bytes (H, W, 3) of colours or (H, W) of grey"
        )
    image = Image.fromarray(picture)

    def bits(form: str, **settings: int | bool) -> int:
        file = io.BytesIO()
        image.save(file, form, **settings)
        return 8 * file.tell()

    webp = bits("WEBP", lossless=True, quality=100, method=6) if features.check("webp") else None
    return StoredBits(bits("PNG", optimize=True), webp)
