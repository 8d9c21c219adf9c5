"""What the restorations share: a linear measurement of a whole photograph, solved in one piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models import ForwardModel, GaussianNoise, Grayscale, Identity, LinearOperator, NoiseModel
from invsolve.models.score_model import ScoreModel
from invsolve.options import SolveOptions
from invsolve.pictures import UnitPicture
from invsolve.posterior import Posterior
from invsolve.samplers import StepInfo
from invsolve.samplers.noise import SeededNoise
from invsolve.solver import solve, task_ladder
from invsolve.tasks.task import Progress, check_colour_prior, in_memory, tell
from invsolve.uncertainty.conditional_mean import ConditionalMean

SIGMA_END = 0.005

ROUNDING = 1 / 255 / 12**0.5
"""Standard deviation of what rounding to 8 bits does to a value in [0, 1]: the least noise that is assumed."""


OFF_GREY = 0x67726579
"""Of the stream of the noise that a grey picture gets in the directions of colour."""


@dataclass(frozen=True)
class Measurement:
    """y = A x + noise of a photograph x.

    Parameters
    ----------
    y : (1, ...), what the operator gives; of super-resolution, deblurring and denoising a picture (1, C, h, w).
    operator : A of pictures with C channels, 3 of a colour picture and 1 of a grey one. Of a grey picture x has colours all the same, and y is the blur or whatever
        it is of its Rec. 601 luma: the prior knows colour pictures.
    noise : standard deviation in y, or another noise model that the rule takes.
    start : (1, C, H, W), a first guess of x.
    sigma_start : noise level above what the guess gets wrong.
    kept : rows and columns of x that are the result.
    repeated : of a grey picture every channel counts as measured instead, each under sqrt(3) times the noise, see
        :func:`in_three_channels`. For an operator without channels of its own, the identity.
    finish : what is done to the samples (n, C, H, W), a grey picture's of one channel, before the rest is cut off.
    expected : lowest and highest noise level at which the chains' estimates make the mean of several samples, see
        :mod:`invsolve.uncertainty.conditional_mean`; by default none, and their samples make it.
    """

    y: Tensor
    operator: LinearOperator
    noise: float | NoiseModel
    start: Tensor
    sigma_start: float
    kept: tuple[slice, slice] = (slice(None), slice(None))
    repeated: bool = False
    finish: Callable[[Tensor], Tensor] = lambda samples: samples
    expected: tuple[float, float] = (0.0, 0.0)

    def solve(self, prior: ScoreModel, options: SolveOptions, progress: Progress) -> Posterior:
        """Sample x given y; samples (n, 1, C, H, W) of what is kept."""
        check_colour_prior(prior)
        prior.check_rgb()
        grey = self.start.shape[1] == 1
        start = self.start.expand(-1, 3, -1, -1)
        prior.check_size(start)
        first = self.sigma_start if options.sigma_start is None else options.sigma_start
        level = self.noise if isinstance(self.noise, int | float) else None
        noise = GaussianNoise(self.noise) if isinstance(self.noise, int | float) else self.noise
        model, y = ForwardModel(self.operator, noise), self.y
        if grey and self.repeated and level is not None:
            y = in_three_channels(self.y, level, SeededNoise([(options.seed, OFF_GREY)]))
            model = ForwardModel(Identity(tuple(start.shape[1:])), GaussianNoise(3**0.5 * level))
        elif grey:
            model = replace(model, operator=self.operator @ Grayscale(tuple(start.shape[1:])))
        pixels = start.shape[-2] * start.shape[-1]
        average = ConditionalMean(*self.expected)

        def pictures(samples: Tensor) -> Tensor:
            return Grayscale(tuple(samples.shape[1:]))(samples) if grey else samples

        def report(info: StepInfo) -> None:
            average.add(info)
            tell(progress, info.step / info.steps, lambda: self._kept(pictures(info.denoised[:1]))[0])

        solved = solve(
            prior,
            model,
            y.to(prior.device),
            **in_memory(options, pixels).keywords,
            sigmas=task_ladder(options, SIGMA_END, max(first, SIGMA_END), start[0].numel()),
            start=start.to(prior.device),
            turn=True,
            callback=report,
        )
        samples = self._kept(self.finish(pictures(solved.samples[:, 0])))[:, None]
        mean = None if options.samples == 1 else average.average
        estimate = None if mean is None else self._kept(self.finish(pictures(mean[None].cpu())))
        # Rounding is no Gaussian noise: where there is no other, chi-squared has nothing to judge. And a mean is nearer to
        # the measurement than the truth is.
        judged = level is not None and level > ROUNDING and solved.settings["sampler"] != "posterior_mean"
        return replace(solved, samples=samples, chi2=solved.chi2 if judged else torch.empty(0), estimate=estimate)

    def _kept(self, pictures: Tensor) -> Tensor:
        """What of (n, C, H, W) is the result."""
        return pictures[..., self.kept[0], self.kept[1]]


def in_three_channels(grey: Tensor, noise: float, random: SeededNoise) -> Tensor:
    """A grey picture (1, 1, H, W) under noise as one of three equal channels (1, 3, H, W) under sqrt(3) times the noise, each
    independent of the others, which is what the prior knows.

    Of such noise the mean of the channels has what the picture has, and what is orthogonal to it is drawn. Without that the noise
    would be the same in all channels: at 0.2 the shipped prior left most of it in the picture (docs/lab/restoration.md).
    """
    drawn = random(grey.expand(-1, 3, -1, -1))
    return grey + 3**0.5 * noise * (drawn - drawn.mean(dim=1, keepdim=True))


def planes(picture: UnitPicture) -> Tensor:
    """(H, W) or (H, W, 3) -> (1, C, H, W) float32."""
    channels = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return torch.from_numpy(np.array(channels, dtype=np.float32, order="C"))[None]


def check_noise(noise: float) -> float:
    """``noise``, after checking the number; at least what rounding to 8 bits does.

    Raises
    ------
    InputError : negative, not finite, or no number.
    """
    if isinstance(noise, bool) or not isinstance(noise, int | float | np.floating | np.integer):
        raise InputError(f"noise {noise!r}", hint="wanted a standard deviation in [0, 1], or None")
    GaussianNoise(float(noise))
    return max(float(noise), ROUNDING)


def check_psf(psf: npt.NDArray[np.floating], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """A PSF of sum 1 for pictures of ``shape`` (H, W, ...), from one of any sum.

    Raises
    ------
    InputError : not an array (h, w) of numbers that are not negative, all zero, or larger than the picture.
    """
    wanted = "wanted a numpy array (height, width) of numbers >= 0, the brightest where most of the light goes"
    if not isinstance(psf, np.ndarray):
        raise InputError(f"the PSF is a {type(psf).__name__}", hint=wanted)
    if psf.ndim != 2 or 0 in psf.shape or psf.dtype.kind not in "fiub":
        raise InputError(f"the PSF has shape {psf.shape}, type {psf.dtype}", hint=wanted)
    taps = psf.astype(np.float64)
    if not np.isfinite(taps).all() or taps.min() < 0 or not taps.sum() > 0:
        raise InputError("the PSF has negative or undefined values, or nothing but zeros", hint=wanted)
    if taps.shape[0] > shape[0] or taps.shape[1] > shape[1]:
        raise InputError(
            f"the PSF is {taps.shape[1]} x {taps.shape[0]} pixels, the picture {shape[1]} x {shape[0]}",
            hint="crop the PSF to where it is not black, or give its radius in the picture's pixels",
        )
    return taps / taps.sum()
