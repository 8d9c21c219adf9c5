"""What each receiver coil sees, from the fully measured centre of k-space."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.forward_models.fourier import ifft2
from invsolve.forward_models.kspace_masks import calibration_centre


def low_resolution(kspace: Tensor, measured: Tensor, share: float = 1.0) -> Tensor:
    """The pictures that the calibration centre shows, under a Hann window against ringing.

    Parameters
    ----------
    kspace : (coils, H, W), complex, frequency 0 at (H // 2, W // 2).
    measured : (H, W), the mask.
    share : of the centre's height and width that the window takes.

    Returns
    -------
    Tensor (coils, H, W), complex.

    Raises
    ------
    InputError : fewer than 4 columns or rows about the centre are measured.
    """
    block = calibration_centre(measured)
    if min(block) < 4:
        raise InputError(
            f"the fully measured centre of k-space is {block[0]} x {block[1]}",
            hint="wanted at least 4 x 4 about frequency 0; measure more there, or give the sensitivities and the phase",
        )
    windows = []
    for size, count in zip(measured.shape, block, strict=True):
        place = torch.arange(size, device=kspace.device, dtype=torch.float64) - size // 2
        width = share * (count + 1)
        windows.append(torch.where(place.abs() < width / 2, torch.cos(torch.pi * place / width) ** 2, 0))
    window = windows[0][:, None] * windows[1]
    return ifft2(window.to(kspace.real) * kspace)


def sensitivities_from_centre(kspace: Tensor, measured: Tensor, share: float = 1.0) -> Tensor:
    """Sensitivities s_j = c_j / root of the sum of |c_k|^2, of low-resolution pictures c_j (McKenzie et al. 2002).

    The sum of |s_j|^2 is 1 in every pixel. The picture's own phase, where it is as smooth as the centre can show, goes
    into them: with these sensitivities it is real, its magnitude weighted by what the coils see together.
    Parameters and errors as of :func:`low_resolution`.
    """
    pictures = low_resolution(kspace, measured, share)
    total = pictures.abs().square().sum(dim=0).sqrt()
    return pictures / total.clamp(min=torch.finfo(total.dtype).tiny)


def espirit(kspace: Tensor, measured: Tensor, kernel: int = 6, crop: float = 0.8) -> Tensor:
    """Sensitivities by ESPIRiT (Uecker et al. 2014): eigenvectors of what the measured centre's local kernels leave unchanged.

    Computed by sigpy. 0 where no eigenvalue is above ``crop``: in air, where no coil sees anything.

    Parameters
    ----------
    kspace : (coils, H, W), complex, frequency 0 at (H // 2, W // 2).
    measured : (H, W), the mask.
    kernel : side of a kernel, in positions of k-space.

    Returns
    -------
    Tensor (coils, H, W), complex; the sum of |s_j|^2 is 1 or 0.

    Raises
    ------
    InputError : the centre is smaller than two kernels.
    UsageError : sigpy is not installed.
    """
    width = min(*calibration_centre(measured), 24)
    if width < 2 * kernel:
        raise InputError(
            f"the fully measured centre of k-space is {width} wide",
            hint=f"ESPIRiT wants {2 * kernel}; estimate sensitivities from the centre's pictures, or give them",
        )
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError:
        raise UsageError("ESPIRiT needs sigpy", hint="install it with pip install 'invsolve[mri]'") from None
    calibration = EspiritCalib(
        kspace.detach().cpu().numpy(), calib_width=width, kernel_width=kernel, crop=crop, show_pbar=False
    )
    return torch.from_numpy(calibration.run()).to(kspace)


def smooth_phase(kspace: Tensor, measured: Tensor, sensitivities: Tensor | None = None, share: float = 1.0) -> Tensor:
    """The phase (H, W), in radians, of the low-resolution picture; of several coils, combined by their sensitivities.

    Parameters and errors as of :func:`low_resolution`.
    """
    pictures = low_resolution(kspace, measured, share)
    combined = pictures.sum(dim=0) if sensitivities is None else (sensitivities.conj() * pictures).sum(dim=0)
    return torch.angle(combined)
