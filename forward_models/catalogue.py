"""Operators and noises by name, as ``invsolve solve`` reads them from a file: the names, and what each takes.

An operator's maker is called with the picture's shape (C, H, W) and its arguments as keywords. Its annotations say what they are:
an argument that is a ``Tensor`` is given as a file of numbers, a ``Geometry`` as its file; ``device`` is filled in.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.bayer import Bayer
from invsolve.forward_models.blur import Blur, Boundary, gaussian_psf, motion_psf
from invsolve.forward_models.blurred_decimation import BlurredDecimation
from invsolve.forward_models.channel_matrix import ChannelMatrix
from invsolve.forward_models.diagonal import Diagonal
from invsolve.forward_models.downsample import Downsample, Kernel
from invsolve.forward_models.forward_model import GaussianNoise, NoiseModel
from invsolve.forward_models.fourier import Fourier
from invsolve.forward_models.geometry import Geometry
from invsolve.forward_models.grayscale import Grayscale
from invsolve.forward_models.hadamard import padded_size, random_hadamard
from invsolve.forward_models.identity import Identity
from invsolve.forward_models.impulse_noise import SaltAndPepperNoise
from invsolve.forward_models.jpeg import Jpeg
from invsolve.forward_models.kspace_masks import random_mask
from invsolve.forward_models.laplace import LaplaceNoise
from invsolve.forward_models.mask import Mask
from invsolve.forward_models.matrix import DenseMatrix
from invsolve.forward_models.mri import Mri
from invsolve.forward_models.non_cartesian import NonCartesianMri, radial_trajectory
from invsolve.forward_models.operator import LinearOperator, Shape
from invsolve.forward_models.phase import Phase
from invsolve.forward_models.phase_retrieval import PhaseRetrieval
from invsolve.forward_models.poisson import PoissonGaussianNoise, PoissonNoise
from invsolve.forward_models.projector import projector
from invsolve.forward_models.quantization import Quantization
from invsolve.forward_models.quantization_noise import QuantizationNoise
from invsolve.forward_models.region_means import RegionMeans
from invsolve.forward_models.saturation import Saturation
from invsolve.forward_models.stacked import Map
from invsolve.forward_models.transmission import TransmissionNoise
from invsolve.named import argument_types, bind

LARGEST_BLUR = 1000.0
"""Pixels of a blur's standard deviation or motion."""


def make_mask(
    shape: Shape, *, file: Tensor | None = None, missing: float | None = None, seed: int = 0, invert: bool = False
) -> LinearOperator:
    """Missing pixels: a file (H, W) or (C, H, W), above 0.5 where missing, or a share of random ones.

    ``invert`` : above 0.5 is where pixels are known.
    """
    _one_of("mask", file=file, missing=missing)
    if file is None:
        assert missing is not None
        if not 0 <= missing < 1:
            raise InputError(f"mask: missing = {missing:g}", hint="wanted a share of the pixels, 0 to below 1")
        hidden = torch.rand(shape[1:], generator=torch.Generator().manual_seed(seed)) < missing
    else:
        hidden = file > 0.5
    hidden = hidden if hidden.ndim == 3 else hidden[None]
    if tuple(hidden.shape) not in ((1, *shape[1:]), shape):
        size = " x ".join(map(str, reversed(hidden.shape[-2:])))
        raise InputError(
            f"mask: the file is {size} pixels, the picture {shape[2]} x {shape[1]}", hint="make them alike"
        )
    return Mask((hidden if invert else ~hidden).float(), shape[0])


def make_channels(shape: Shape, *, matrix: list[list[float]]) -> LinearOperator:
    """Another basis of the channels, its rows one after the other."""
    if not matrix or {len(row) for row in matrix} != {shape[0]}:
        raise InputError("channels: matrix", hint=f"wanted rows of {shape[0]} numbers, one for each channel before it")
    return ChannelMatrix(torch.tensor(matrix, dtype=torch.float64), shape)


def make_blur(
    shape: Shape,
    *,
    sigma: float | None = None,
    motion: tuple[float, float] | None = None,
    file: Tensor | None = None,
    boundary: Boundary = "reflect",
) -> LinearOperator:
    """A Gaussian of ``sigma`` pixels, a motion (length in pixels, degrees counter-clockwise), or a PSF from a file."""
    return Blur(_psf("blur", sigma, motion, file), shape, boundary)


def make_blurred_decimation(
    shape: Shape,
    *,
    factor: int,
    sigma: float | None = None,
    motion: tuple[float, float] | None = None,
    file: Tensor | None = None,
) -> LinearOperator:
    """A circular blur of which every ``factor``-th pixel is kept."""
    return BlurredDecimation(_psf("blurred_decimation", sigma, motion, file), shape, factor)


def make_downsample(shape: Shape, *, factor: int, kernel: Kernel = "bicubic") -> LinearOperator:
    """Made smaller ``factor`` times."""
    return Downsample(shape, factor, kernel)


def make_hadamard(shape: Shape, *, share: float, seed: int = 0) -> LinearOperator:
    """Random values of the signed Hadamard transform, as many as ``share`` of the picture's."""
    count = round(share * math.prod(shape))
    if not 1 <= count <= padded_size(shape):
        raise InputError(
            f"hadamard: share = {share:g}", hint="wanted a share of the picture's values, above 0 and up to 1"
        )
    return random_hadamard(shape, count, torch.Generator().manual_seed(seed))


def make_fourier(
    shape: Shape, *, file: Tensor | None = None, acceleration: float | None = None, centre: int = 8, seed: int = 0
) -> LinearOperator:
    """Frequencies of a real picture: where the file (H, W) is not 0, or random columns beside ``centre`` middle ones."""
    return Fourier(_measured("fourier", shape, file, acceleration, centre, seed), shape[0])


def make_mri(
    shape: Shape,
    *,
    file: Tensor | None = None,
    acceleration: float | None = None,
    centre: int = 8,
    seed: int = 0,
    sensitivities: Tensor | None = None,
) -> LinearOperator:
    """k-space of a complex picture (2, H, W); ``sensitivities`` complex (coils, H, W)."""
    return Mri(_measured("mri", shape, file, acceleration, centre, seed), sensitivities)


def make_nufft(
    shape: Shape,
    *,
    trajectory: Tensor | None = None,
    spokes: int | None = None,
    readout: int | None = None,
    golden: bool = True,
    sensitivities: Tensor | None = None,
) -> LinearOperator:
    """k-space of a complex picture (2, H, W) off the grid: at the frequencies of a file (samples, 2), rows and columns in cycles
    per pixel, or along ``spokes`` lines of ``readout`` values, twice the longer side if left out."""
    _one_of("nufft", trajectory=trajectory, spokes=spokes)
    if shape[0] != 2:
        raise InputError(f"nufft of {shape[0]} channels", hint="wanted a complex picture, as phase gives")
    if spokes is not None:
        trajectory = radial_trajectory(spokes, readout or 2 * max(shape[1:]), golden=golden)
    assert trajectory is not None
    return NonCartesianMri(trajectory, (shape[1], shape[2]), sensitivities)


def make_phase(shape: Shape, *, file: Tensor | None = None) -> LinearOperator:
    """A real picture times exp(i phi), phi (H, W) in radians from a file, 0 without: (1, H, W) to (2, H, W)."""
    if shape[0] != 1:
        raise InputError(f"phase of {shape[0]} channels", hint="wanted a picture of one channel")
    return Phase(torch.zeros(shape[1:]) if file is None else file)


def make_region_means(shape: Shape, *, file: Tensor) -> LinearOperator:
    """The mean of each region: whole numbers (H, W) from 0 on, negative for none."""
    if bool((file != file.round()).any()):
        raise InputError("region_means: the file holds fractions", hint="wanted whole numbers from 0 on, -1 for none")
    return RegionMeans(file.long(), shape[0])


def make_projector(
    shape: Shape, *, geometry: Geometry, missing: Tensor | None = None, device: torch.device | str = "cpu"
) -> LinearOperator:
    """Line integrals of a slice, in pixel lengths; the scan is a geometry.toml.

    ``missing`` : a file (views, detectors), above 0.5 where a ray was not measured, as behind metal.
    """
    if shape != (1, *geometry.shape):
        raise InputError(
            f"projector: the geometry is of a slice of {geometry.shape[1]} x {geometry.shape[0]}, the picture has shape {shape}",
            hint="wanted the same size, and a prior of one channel such as ct",
        )
    if missing is None:
        return projector(geometry, device)
    if tuple(missing.shape) != geometry.sinogram_shape or bool((missing > 0.5).all()):
        raise InputError(
            f"projector: missing has shape {tuple(missing.shape)}, {int((missing <= 0.5).sum())} rays left",
            hint=f"wanted {geometry.sinogram_shape}, above 0.5 only where a ray was not measured",
        )
    return Diagonal((missing <= 0.5).float().to(device)) @ projector(geometry, device)


def make_matrix(shape: Shape, *, file: Tensor) -> LinearOperator:
    """Any matrix (m, C H W)."""
    return DenseMatrix(file, shape)


def make_diagonal(shape: Shape, *, file: Tensor) -> LinearOperator:
    """Value by value times a weight; the file has the picture's shape, or (H, W) for all channels."""
    if tuple(file.shape) not in (shape, shape[1:]):
        raise InputError(f"diagonal: the file has shape {tuple(file.shape)}", hint=f"wanted {shape} or {shape[1:]}")
    return Diagonal(file.expand(shape).clone())


def make_scale(shape: Shape, *, factor: float) -> LinearOperator:
    """Times a number: another unit."""
    return factor * Identity(shape)


def make_saturation(shape: Shape, *, high: float = 1.0, low: float = 0.0) -> Map:
    """Cut off at both ends."""
    return Saturation(high, low)


def make_quantization(shape: Shape, *, bits: int) -> Map:
    """Rounded to 2^bits levels."""
    return Quantization(bits)


def make_jpeg(shape: Shape, *, quality: int) -> Map:
    """Through a JPEG file."""
    return Jpeg(quality)


def make_phase_retrieval(shape: Shape, *, oversampling: float = 2.0) -> Map:
    """Magnitudes of the Fourier transform of the padded picture."""
    return PhaseRetrieval(oversampling)


def make_bayer(shape: Shape, *, phase: str = "RGGB") -> LinearOperator:
    """The colour of the filter before each pixel."""
    return Bayer(shape, phase)


def make_grayscale(shape: Shape) -> LinearOperator:
    """Rec. 601 luma of an RGB picture."""
    return Grayscale(shape)


def make_identity(shape: Shape) -> LinearOperator:
    """The picture itself."""
    return Identity(shape)


OPERATORS: dict[str, Callable[..., Map]] = {
    "identity": make_identity,
    "mask": make_mask,
    "grayscale": make_grayscale,
    "channels": make_channels,
    "blur": make_blur,
    "downsample": make_downsample,
    "blurred_decimation": make_blurred_decimation,
    "bayer": make_bayer,
    "hadamard": make_hadamard,
    "fourier": make_fourier,
    "mri": make_mri,
    "nufft": make_nufft,
    "phase": make_phase,
    "region_means": make_region_means,
    "projector": make_projector,
    "matrix": make_matrix,
    "diagonal": make_diagonal,
    "scale": make_scale,
    "saturation": make_saturation,
    "quantization": make_quantization,
    "jpeg": make_jpeg,
    "phase_retrieval": make_phase_retrieval,
}
"""Makers of operators by name. Packages add theirs as entry points of the group ``invsolve.forward_models``."""

NOISES: dict[str, Callable[..., NoiseModel]] = {
    "gaussian": GaussianNoise,
    "poisson": PoissonNoise,
    "poisson_gaussian": PoissonGaussianNoise,
    "transmission": TransmissionNoise,
    "laplace": LaplaceNoise,
    "quantization": QuantizationNoise,
    "salt_and_pepper": SaltAndPepperNoise,
}
"""Noise models by name. Packages add theirs as entry points of the group ``invsolve.noises``."""


def file_arguments(function: Callable[..., Any]) -> dict[str, type]:
    """The arguments of a maker that are given as files, with what is in them: Tensor or Geometry."""
    return {
        argument: wanted
        for argument, said in argument_types(function).items()
        for wanted in (Tensor, Geometry)
        if wanted in (said, *get_args(said)) and argument != "return"
    }


def find_operator(
    name: str, arguments: Mapping[str, Any] | None = None, device: torch.device | str = "cpu"
) -> Callable[[Shape], Map]:
    """The maker of an operator, with its arguments: called with the shape (C, H, W) of a picture.

    ``device`` is for those that cannot move what they hold.

    Raises
    ------
    UsageError : no such name, no such argument, or one of another type.
    """
    maker = bind("operator", name, OPERATORS, arguments or {}, positional=1)
    return partial(maker, device=device) if "device" in inspect.signature(maker).parameters else maker


def make_noise(name: str, arguments: Mapping[str, Any] | None = None) -> NoiseModel:
    """A noise model.

    Raises
    ------
    UsageError : no such name, no such argument, or one of another type.
    InputError : a value out of its range.
    """
    made: NoiseModel = bind("noise", name, NOISES, arguments or {}, positional=0)()
    return made


def _one_of(name: str, **given: Any) -> None:
    if sum(value is not None for value in given.values()) != 1:
        raise InputError(
            f"{name}: {'nothing' if all(v is None for v in given.values()) else 'several'} of {', '.join(given)} given",
            hint="wanted exactly one",
        )


def _psf(name: str, sigma: float | None, motion: tuple[float, float] | None, file: Tensor | None) -> Tensor:
    _one_of(name, sigma=sigma, motion=motion, file=file)
    if sigma is not None:
        if not 0 < sigma <= LARGEST_BLUR:
            raise InputError(f"{name}: sigma = {sigma:g}", hint=f"wanted above 0 and at most {LARGEST_BLUR:g} pixels")
        return gaussian_psf(sigma)
    if motion is not None:
        if not 0 <= motion[0] <= LARGEST_BLUR:
            raise InputError(f"{name}: a motion of {motion[0]:g}", hint=f"wanted at most {LARGEST_BLUR:g} pixels")
        return motion_psf(*motion)
    assert file is not None
    if file.ndim != 2 or bool((file < 0).any()) or not float(file.sum()) > 0:
        raise InputError(f"{name}: the file is no PSF", hint="wanted numbers (height, width), none negative, not all 0")
    return (file / file.sum()).double()


def _measured(
    name: str, shape: Shape, file: Tensor | None, acceleration: float | None, centre: int, seed: int
) -> Tensor:
    _one_of(name, file=file, acceleration=acceleration)
    if file is None:
        assert acceleration is not None
        return random_mask(shape[1:], acceleration, centre, torch.Generator().manual_seed(seed))
    if tuple(file.shape) != shape[1:]:
        raise InputError(
            f"{name}: the file has shape {tuple(file.shape)}", hint=f"wanted {shape[1:]}, frequency 0 in the middle"
        )
    return file
