"""Classical methods beside super-resolution, deblurring and denoising: interpolation, filters, patches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.restoration import denoise_nl_means, richardson_lucy, wiener

from invsolve.pictures import UnitPicture

WIENER_BALANCE = 300.0
"""The balance of scikit-image's Wiener filter over the noise variance (docs/lab/restoration.md says how it was chosen)."""

MOST_ITERATIONS = 60
"""Of Richardson-Lucy, which fits noise when it runs on."""


def by_channel(
    picture: UnitPicture, function: Callable[[npt.NDArray[np.floating]], npt.NDArray[np.floating]]
) -> UnitPicture:
    """``function`` of (H, W) or of each channel of (H, W, C)."""
    if picture.ndim == 2:
        return function(picture)
    return np.stack([function(picture[..., c]) for c in range(picture.shape[2])], axis=2)


def enlarged(picture: UnitPicture, factor: int) -> UnitPicture:
    """Bicubic interpolation by Pillow, (H, W[, C]) -> (factor H, factor W[, C]), float32."""
    size = (picture.shape[1] * factor, picture.shape[0] * factor)

    def plane(channel: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return np.asarray(Image.fromarray(channel.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))

    return by_channel(picture, plane)


def padded(picture: UnitPicture, psf: npt.NDArray[np.floating]) -> tuple[UnitPicture, tuple[slice, slice]]:
    """``picture`` (H, W[, C]) with its mirror image around it, two PSFs wide, and where it lies in that.

    Both filters go round the picture in circles; what jumps at the seam rings far into it.
    """
    margins = [(2 * side, 2 * side) for side in psf.shape]
    whole = np.pad(picture, margins + [(0, 0)] * (picture.ndim - 2), mode="symmetric")
    rows, columns = (
        slice(before, before + length) for (before, _), length in zip(margins, picture.shape, strict=False)
    )
    return whole, (rows, columns)


def wiener_filter(picture: UnitPicture, psf: npt.NDArray[np.floating], noise: float) -> UnitPicture:
    """scikit-image's Wiener-Hunt deconvolution, regularised by the Laplacian, of (H, W[, C]) in [0, 1]."""
    whole, inside = padded(picture.astype(np.float64), psf)
    balance = WIENER_BALANCE * noise**2
    return by_channel(whole, lambda plane: wiener(plane, odd(psf), balance, clip=False))[inside]


def lucy_richardson(picture: UnitPicture, psf: npt.NDArray[np.floating], noise: float) -> UnitPicture:
    """scikit-image's Richardson-Lucy deconvolution of (H, W[, C]) in [0, 1], channel by channel.

    The number of iterations is the first power of two, or three halves of one, after which the result blurred is as near
    to the picture as the noise (Morozov's discrepancy principle); noise is otherwise fitted.
    """
    from scipy.signal import fftconvolve

    whole, inside = padded(np.clip(picture.astype(np.float64), 1e-6, None), psf)

    def plane(channel: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        found = channel
        for count in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MOST_ITERATIONS):
            found = richardson_lucy(channel, odd(psf), num_iter=count, clip=False)
            misfit = (fftconvolve(found, odd(psf), mode="same") - channel)[inside]
            if float(np.sqrt(np.mean(misfit**2))) <= noise:
                break
        return found

    return by_channel(whole, plane)[inside]


def odd(psf: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The PSF with odd sides, its centre (h // 2, w // 2) in the middle, as these functions want it."""
    more = [(0, 1 - side % 2) for side in psf.shape]
    return np.pad(psf.astype(np.float64), more)


def non_local_means(picture: UnitPicture, noise: float) -> UnitPicture:
    """scikit-image's non-local means of (H, W[, C]), with the patches and strength of its own example for a known level."""
    axis = -1 if picture.ndim == 3 else None
    return np.asarray(
        denoise_nl_means(
            picture, h=0.8 * noise, sigma=noise, patch_size=5, patch_distance=6, fast_mode=True, channel_axis=axis
        )
    )
