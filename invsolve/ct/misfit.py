"""Whether a reconstruction explains its sinogram, or the scan must have been another one."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.uncertainty import misfit_warning as unlikely

EXPLAINED = 0.01
"""Misfit beyond the noise, as a share of the sinogram's rms, that pixels and unfinished iterations leave: .2 to .8 %."""

EXPLAINED_WITHOUT_NOISE = 0.05
"""The same where the noise is not known, which may be some of it."""


def chi_squared(residual: Tensor, noise: float | Tensor) -> float | None:
    """Mean squared residual in units of the noise variance, over rays that were measured; None for exact data.

    Parameters
    ----------
    residual : any shape, in the units of the line integrals.
    noise : standard deviation, a number, or one per ray of the residual's shape; infinite for rays not measured.
    """
    if not isinstance(noise, Tensor):
        return float((residual / noise).double().square().mean()) if noise > 0 else None
    seen = torch.isfinite(noise)
    return float((residual[seen] / noise[seen]).double().square().mean()) if seen.any() else None


def usual_noise(noise: float | Tensor) -> float:
    """The median over the rays that were measured."""
    return float(noise[torch.isfinite(noise)].median()) if isinstance(noise, Tensor) else noise


def scan_warning(residual: Tensor, sinogram: Tensor, noise: float | Tensor) -> str | None:
    """A sentence where the reconstruction misses the sinogram by more than noise and pixels explain; None if not.

    For methods that fit the data; filtered back-projection of few views does not.

    Parameters
    ----------
    residual, sinogram : (..., views, detectors).
    noise : see :func:`chi_squared`.
    """
    seen = torch.isfinite(noise) if isinstance(noise, Tensor) else torch.ones_like(residual, dtype=torch.bool)
    variance = noise[seen].square().mean() if isinstance(noise, Tensor) else noise**2
    scale = sinogram[seen].square().mean()
    if not seen.any() or not scale > 0:
        return None
    beyond = float(((residual[seen].square().mean() - variance).clamp(min=0) / scale).sqrt())
    chi2 = chi_squared(residual, noise)
    if chi2 is None:
        fits, figure = beyond <= EXPLAINED_WITHOUT_NOISE, f"misfit {beyond:.1%} of its rms"
    else:
        by_chance = chi2 < 1 or unlikely(torch.tensor([chi2]), int(seen.sum())) is None
        fits, figure = by_chance or beyond <= EXPLAINED, f"chi-squared per ray {chi2:.3g}, expected 1"
    if fits:
        return None
    return (
        f"the reconstruction does not explain the sinogram ({figure}): the centre of rotation (--center auto looks for it), "
        "the angles or the axes are wrong, or there is more noise than given"
    )
