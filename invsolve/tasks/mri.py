"""MRI from part of k-space: the magnitude of a slice, with its uncertainty.

The prior knows magnitudes alone. A slice is complex, ``exp(i phi) x`` with a smooth phase phi, which the fully measured centre of
k-space shows at a low resolution: with phi held at that, what is left is a linear problem in the real x,
``y = Mri(mask, sensitivities) Phase(phi) x`` (Bydder & Robson 2005 constrain the phase likewise).

Inside, x is in the prior's units: 1 is the 99.7th percentile of what is brighter than the mean, estimated from what was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsolve.ct.iterative import cgls
from invsolve.ct.reconstruction import SIGMA_END, first_level
from invsolve.ct.total_variation import total_variation
from invsolve.errors import InputError
from invsolve.forward_models import (
    ForwardModel,
    GaussianNoise,
    LinearOperator,
    Mri,
    Phase,
    espirit,
    sensitivities_from_centre,
    smooth_phase,
)
from invsolve.forward_models.fourier import ifft2
from invsolve.forward_models.mri import as_pairs
from invsolve.models.score_model import ScoreModel
from invsolve.named import LARGEST_NUMBER
from invsolve.options import MRI, Changes, SolveOptions
from invsolve.posterior import Posterior
from invsolve.solver import solve, task_ladder
from invsolve.tasks.task import Progress, Task, check_prior
from invsolve.uncertainty.intervals import determined

START_ITERATIONS = 10
"""Of conjugate gradients for the first guess."""

BRIGHT = 0.997
"""The quantile, of what is brighter than the mean, that the prior calls 1."""

UNEXPLAINED = 3.0
"""How much nearer the whole centre's phase is than that of half of it: the error falls with the square of the resolution, so the
difference of the two is three times what is left (Richardson)."""

TV_WEIGHT = 0.0005
"""Weight of the total variation of an exact scan, in the prior's units; tuned on a few training slices of 128 x 128."""

TV_WEIGHT_PER_VARIANCE = 6.0
"""What noise of variance 1, in those units, adds to that weight."""


TOLERANCE = 1e-4
"""Of the conjugate gradients of several coils: at 1e-3 and 1e-5 one sample of a slice had the same 36.50 dB."""

NORMAL_MEDIAN = 0.6745
"""Of the absolute value of a normal variable of standard deviation 1."""


@dataclass(frozen=True)
class Scan:
    """K-space that was checked, and the linear problem in the magnitude that it poses."""

    kspace: Tensor  # (coils, H, W), complex, in the prior's units; 0 where nothing was measured
    measured: Tensor  # (H, W) bool
    operator: LinearOperator  # (1, H, W) -> k-space as pairs
    sensitivities: Tensor | None  # (coils, H, W); None for one coil
    scale: float  # the magnitude that the prior calls 1, in the units of k-space
    noise: float  # of the measurement, in the prior's units
    unexplained: float = 0.0  # what the estimated phase and sensitivities miss, root mean square, in the prior's units

    @property
    def y(self) -> Tensor:
        """(1, coils, 2, H, W), of one coil (1, 2, H, W)."""
        pairs = as_pairs(self.kspace)
        return pairs if self.sensitivities is None else pairs[None]

    @property
    def error(self) -> float:
        """Standard deviation of what separates y from the operator's: noise, and what the estimates miss."""
        return math.hypot(self.noise, self.unexplained)

    @property
    def model(self) -> ForwardModel:
        return ForwardModel(self.operator, GaussianNoise(self.error))


def read_scan(
    kspace: Any, measured: Any = None, sensitivities: Any = None, phase: Any = None, *, noise: float | None = None
) -> Scan:
    """Check k-space and estimate what is not given; parameters and errors as of :func:`reconstruct_mri`."""
    values = np.asarray(kspace)
    if values.ndim not in (2, 3) or not np.iscomplexobj(values) or min(values.shape) == 0:
        raise InputError(
            f"k-space has shape {values.shape}, {values.dtype}", hint="wanted complex (H, W) or (coils, H, W)"
        )
    k = torch.from_numpy(np.ascontiguousarray(values, dtype=np.complex64))
    k = k.reshape(-1, *k.shape[-2:])
    if not bool(torch.isfinite(torch.view_as_real(k)).all()):
        raise InputError("k-space has values that are NaN or infinite", hint="set what was not measured to 0")
    mask = _mask(measured, k)
    k = k * mask
    noise = estimate_noise(k, mask) if noise is None else noise
    GaussianNoise(noise)  # checks the number
    given_maps = _maps(sensitivities, k, mask)
    given_phase = None if phase is None else _given_phase(phase, k)
    operator, maps = _operator(k, mask, given_maps, given_phase)
    zeros = zero_filled(k, maps)
    scale = brightness(zeros)
    if scale == 0:
        raise InputError("k-space is 0 everywhere", hint="give what was measured")
    if noise > LARGEST_NUMBER * scale:
        raise InputError(f"noise {noise:g}, and a picture up to {scale:.3g}", hint="give the noise in k-space's units")
    coarser, _ = _operator(k, mask, given_maps, given_phase, share=0.5)
    difference = (operator - coarser)(zeros[None, None] / scale).square().sum() / operator.measured_values
    unexplained = float(difference.sqrt()) / UNEXPLAINED
    return Scan(k / scale, mask, operator, maps, scale, noise / scale, unexplained)


def _operator(
    k: Tensor, mask: Tensor, maps: Tensor | None, phase: Tensor | None, share: float = 1.0
) -> tuple[LinearOperator, Tensor | None]:
    """The operator on magnitudes, and its sensitivities; what is None is estimated from a ``share`` of the centre."""
    if maps is None and len(k) > 1:
        maps = sensitivities_from_centre(k, mask, share)
    angle = smooth_phase(k, mask, maps, share) if phase is None else phase
    operator = Mri(mask, maps) @ Phase(angle)
    operator.tolerance = TOLERANCE
    return operator, maps


def _mask(measured: Any, kspace: Tensor) -> Tensor:
    """What was measured, (H, W) bool: given, as (H, W) or (W,) for whole columns, or where any coil has a value."""
    if measured is None:
        return (kspace != 0).any(dim=0)
    values = np.atleast_1d(np.asarray(measured))
    if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
        raise InputError(
            f"the mask of what was measured holds {values.dtype} values"
            + (", some NaN or infinite" if values.dtype.kind == "f" else ""),
            hint="wanted numbers, 0 where nothing was measured",
        )
    given = torch.from_numpy(values != 0)
    if given.ndim not in (1, 2) or given.shape != kspace.shape[-given.ndim :]:
        raise InputError(
            f"the mask has shape {tuple(given.shape)}, k-space {tuple(kspace.shape)}",
            hint="wanted (H, W), or (W,) for columns",
        )
    return given.expand(kspace.shape[-2:])


def _maps(sensitivities: Any, kspace: Tensor, measured: Tensor) -> Tensor | None:
    """What is given, or ESPIRiT's; None where they are to be estimated from the centre."""
    if sensitivities is None:
        return None
    if isinstance(sensitivities, str):
        if sensitivities != "espirit":
            raise InputError(f"sensitivities {sensitivities!r}", hint="wanted espirit, or complex (coils, H, W)")
        return espirit(kspace, measured) if len(kspace) > 1 else None
    maps = torch.from_numpy(np.array(sensitivities, dtype=np.complex64))
    if maps.shape != kspace.shape:
        raise InputError(
            f"sensitivities {tuple(maps.shape)}, k-space {tuple(kspace.shape)}", hint="wanted (coils, H, W) for both"
        )
    return maps


def _given_phase(phase: Any, kspace: Tensor) -> Tensor:
    angle = torch.from_numpy(np.array(phase, dtype=np.float32))
    if angle.shape != kspace.shape[1:]:
        raise InputError(
            f"the phase has shape {tuple(angle.shape)}, k-space {tuple(kspace.shape)}", hint="wanted (H, W)"
        )
    return angle


def zero_filled(kspace: Tensor, sensitivities: Tensor | None) -> Tensor:
    """The magnitude (H, W) with 0 for what was not measured: ``|sum_j conj(s_j) F^-1 y_j|``."""
    pictures = ifft2(kspace)
    return (pictures if sensitivities is None else sensitivities.conj() * pictures).sum(dim=0).abs()


def estimate_noise(kspace: Tensor, measured: Tensor) -> float:
    """Standard deviation of the real and of the imaginary part, from the corners of k-space, where a picture has left the least.

    The median of absolute values divided by that of a normal variable, over what was measured beyond 0.45 cycles per
    pixel along the readout and 0.3 across it. What a sharp picture has there counts as noise as well.

    Parameters
    ----------
    kspace : (coils, H, W), complex.
    measured : (H, W), bool.
    """
    rows, columns = ((torch.arange(n, device=kspace.device) - n // 2).abs() / n for n in measured.shape)
    corners = (rows > 0.45)[:, None] & (columns > 0.3) & measured
    values = torch.view_as_real(kspace[:, corners])
    return float(values.abs().median()) / NORMAL_MEDIAN if values.numel() else 0.0


def brightness(magnitude: Tensor) -> float:
    """The 99.7th percentile of what is brighter than the mean, as the prior's training pictures were scaled by theirs."""
    above = magnitude[magnitude > magnitude.mean()]
    return float(np.quantile(above.numpy(), BRIGHT)) if len(above) else 0.0


def mri_task(
    kspace: Any, measured: Any = None, sensitivities: Any = None, phase: Any = None, *, noise: float | None = None
) -> Task:
    """The task of reconstructing a slice; parameters and errors as of :func:`reconstruct_mri`."""
    scan = read_scan(kspace, measured, sensitivities, phase, noise=noise)

    def baselines() -> dict[str, npt.NDArray[np.float32]]:
        zeros = zero_filled(scan.kspace, scan.sensitivities)
        return {"zero-filled": (scan.scale * zeros).numpy(), "TV": (scan.scale * tuned_tv(scan)).numpy()}

    return Task(
        name="mri",
        run=partial(reconstruct, scan),
        options=MRI,
        operator=scan.operator,
        determined=lambda: float(determined(scan.operator, probes=1).mean()),
        problem={
            "acceleration": 1 / float(scan.measured.float().mean()),
            "coils": float(len(scan.kspace)),
            "noise": scan.noise,
        },
        baselines=baselines,
        work=float(scan.measured.numel()),
        white=scan.scale,
    )


def reconstruct_mri(
    kspace: Any,
    prior: ScoreModel,
    options: SolveOptions = MRI,
    *,
    measured: Any = None,
    sensitivities: Any = None,
    phase: Any = None,
    noise: float | None = None,
    progress: Progress | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Sample the magnitudes of the slice that k-space shows. The estimate of least error is ``posterior.mean``.

    Parameters
    ----------
    kspace : complex (H, W), or (coils, H, W): unitary DFT, frequency 0 at (H // 2, W // 2), the picture's origin there too.
    prior : a prior of magnitudes, 0 for air and 1 for the brightest tissue.
    options : how to sample; ``sigma_start`` None chooses by :func:`invsolve.ct.reconstruction.first_level`, as for CT.
    measured : (H, W), not 0 where k-space was measured, or (W,) for whole columns; None: where any coil has a value.
    sensitivities : complex (coils, H, W); None estimates them from the low-resolution pictures of the fully measured centre
        (:func:`invsolve.forward_models.sensitivities_from_centre`), "espirit" from what its kernels leave unchanged
        (:func:`invsolve.forward_models.espirit`). Of one coil they are taken as 1.
    phase : (H, W), radians; None estimates it from the centre (:func:`invsolve.forward_models.smooth_phase`).
    noise : standard deviation of the noise on the real and on the imaginary part of k-space, in its units; None estimates it
        (:func:`estimate_noise`).
    progress : called with the share of the work done.
    changes : fields of ``options`` that differ, such as ``samples=4``.

    Returns
    -------
    Posterior with samples (n, 1, 1, H, W), magnitudes in the units of k-space; they may be a little below 0 in air.

    Raises
    ------
    InputError : shapes do not fit, values are not finite, or the centre is too small to estimate from.
    ModelError : the prior is not one of single-channel pictures.
    """
    task = mri_task(kspace, measured, sensitivities, phase, noise=noise)
    return task.solve(prior, options, progress=progress, **changes)


def check_mri_prior(prior: Any) -> None:
    """:func:`invsolve.tasks.task.check_prior` for magnitudes."""
    check_prior(prior, 1, "an MRI magnitude has 1: use a prior trained with the preset mri")


def reconstruct(scan: Scan, prior: ScoreModel, options: SolveOptions, progress: Progress) -> Posterior:
    """Sample the magnitudes of a scan that was checked."""
    check_mri_prior(prior)
    y = scan.y.to(prior.device)
    guess = cgls(scan.operator, y, START_ITERATIONS)
    first, calls = first_level(prior, guess, options)
    solved = solve(
        prior,
        scan.model,
        y,
        **options.keywords,
        sigmas=task_ladder(options, SIGMA_END, first, guess[0].numel()),
        start=guess,
        turn=True,
        callback=lambda info: progress(info.step / info.steps),
    )
    return replace(solved, samples=scan.scale * solved.samples, network_calls=solved.network_calls + calls)


def tuned_tv(scan: Scan) -> Tensor:
    """Total variation of the magnitude (H, W), in the prior's units."""
    weight = TV_WEIGHT + TV_WEIGHT_PER_VARIANCE * scan.error**2
    return total_variation(scan.operator, scan.y, weight, balance=1.0)[0, 0]
