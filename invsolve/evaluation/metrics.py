"""Image quality figures; arrays are (H, W, C) or (H, W), the range of the data always stated."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from invsolve.pictures import Pixels, full_range

Array = npt.NDArray[np.floating]


def psnr(truth: Array, estimate: Array, *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB; both arrays are clipped to [0, data_range] first, as a file would be."""
    clipped = np.clip(estimate, 0, data_range)
    return float(peak_signal_noise_ratio(np.clip(truth, 0, data_range), clipped, data_range=data_range))


def ssim(truth: Array, estimate: Array, *, data_range: float) -> float:
    """Structural similarity (Wang et al. 2004; Gaussian window of 1.5 pixels), clipped as in :func:`psnr`.

    Pictures smaller than the 11-pixel window give NaN.
    """
    if min(truth.shape[:2]) < 11:
        return float("nan")
    return float(
        structural_similarity(
            np.clip(truth, 0, data_range),
            np.clip(estimate, 0, data_range),
            data_range=data_range,
            channel_axis=-1 if truth.ndim == 3 else None,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def ciede2000(truth: Array, estimate: Array) -> float:
    """Mean CIEDE2000 colour difference of two sRGB pictures (H, W, 3) in [0, 1]; 1 is just noticeable."""
    return float(deltaE_ciede2000(rgb2lab(np.clip(truth, 0, 1)), rgb2lab(np.clip(estimate, 0, 1))).mean())


def mean_chroma(picture: Array) -> float:
    """Mean CIELAB chroma sqrt(a^2 + b^2) of an sRGB picture (H, W, 3) in [0, 1]."""
    lab = rgb2lab(np.clip(picture, 0, 1))
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def score(truth: Pixels, estimate: Pixels) -> dict[str, float]:
    """PSNR in dB and SSIM over the whole picture, of grey levels (8 or 16 bits) or floats in [0, 1], each as its type says."""
    a, b = truth / full_range(truth.dtype), estimate.reshape(truth.shape) / full_range(estimate.dtype)
    return {"psnr": psnr(a, b, data_range=1.0), "ssim": ssim(a, b, data_range=1.0)}
