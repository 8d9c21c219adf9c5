"""How much noise a picture has, from the picture alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d
from scipy.stats import norm

from invsolve.pictures import UnitPicture

DAUBECHIES_2 = np.array([1 - 3**0.5, -(3 - 3**0.5), 3 + 3**0.5, -(1 + 3**0.5)]) / (4 * 2**0.5)
"""The high-pass filter of Daubechies' wavelet of two vanishing moments, of norm 1: blind to planes."""


def estimate_noise(picture: UnitPicture) -> float:
    """The standard deviation of white Gaussian noise, in the picture's units, averaged over the channels.

    The median of the finest diagonal wavelet coefficients over that of a standard normal's modulus (Donoho & Johnstone 1994,
    "Ideal spatial adaptation by wavelet shrinkage", section 4.2), as ``skimage.restoration.estimate_sigma`` has it. Fine
    texture counts as noise, so it is too much for sharp pictures of little noise; noise that JPEG or a small scale made smooth
    is underestimated. Coefficients of 0, as where a picture is clipped, do not count.

    Parameters
    ----------
    picture : (H, W) or (H, W, C).

    Returns
    -------
    0 where a picture is smaller than 4 x 4 pixels or flat.
    """
    planes = np.atleast_3d(picture).astype(np.float64)
    if min(planes.shape[:2]) < len(DAUBECHIES_2):
        return 0.0
    return float(np.mean([_of_plane(plane) for plane in np.moveaxis(planes, 2, 0)]))


def _of_plane(plane: npt.NDArray[np.float64]) -> float:
    details = convolve1d(convolve1d(plane, DAUBECHIES_2, axis=0, mode="reflect"), DAUBECHIES_2, axis=1, mode="reflect")
    moduli = np.abs(details[1::2, 1::2])
    there = moduli[moduli > 1e-12]
    return float(np.median(there) / norm.ppf(0.75)) if there.size else 0.0
