"""Forward models: what was measured, one file each."""

from invsolve.forward_models.bayer import Bayer
from invsolve.forward_models.blur import Blur, gaussian_psf, motion_psf
from invsolve.forward_models.blurred_decimation import BlurredDecimation
from invsolve.forward_models.catalogue import NOISES, OPERATORS, find_operator, make_noise
from invsolve.forward_models.channel_matrix import ChannelMatrix
from invsolve.forward_models.classifier import CleanClassifier, NoiseConditionalClassifier, torchvision_classifier
from invsolve.forward_models.coil_sensitivities import espirit, sensitivities_from_centre, smooth_phase
from invsolve.forward_models.conjugate_gradient import conjugate_gradient
from invsolve.forward_models.diagonal import Diagonal
from invsolve.forward_models.downsample import Downsample
from invsolve.forward_models.forward_model import ForwardModel, GaussianNoise, MatchedNoise, NoiseModel
from invsolve.forward_models.fourier import Fourier, low_frequencies
from invsolve.forward_models.geometry import Geometry, even_angles, even_subset
from invsolve.forward_models.grayscale import Grayscale
from invsolve.forward_models.hadamard import Hadamard, random_hadamard
from invsolve.forward_models.identity import Identity
from invsolve.forward_models.impulse_noise import SaltAndPepperNoise
from invsolve.forward_models.jpeg import Jpeg
from invsolve.forward_models.jpeg_coefficients import JpegCoefficients
from invsolve.forward_models.kspace_masks import calibration_centre, equispaced_mask, poisson_disc_mask, random_mask
from invsolve.forward_models.laplace import LaplaceNoise
from invsolve.forward_models.mask import Mask
from invsolve.forward_models.matrix import DenseMatrix
from invsolve.forward_models.mri import Mri
from invsolve.forward_models.non_cartesian import NonCartesianMri, radial_trajectory
from invsolve.forward_models.operator import (
    Adjoint,
    Composition,
    LinearOperator,
    Normal,
    Scaled,
    Stack,
    Sum,
    power_iteration,
)
from invsolve.forward_models.phase import Phase
from invsolve.forward_models.phase_retrieval import PhaseRetrieval
from invsolve.forward_models.poisson import PoissonGaussianNoise, PoissonNoise
from invsolve.forward_models.projector import AstraProjector, SparseProjector, projector
from invsolve.forward_models.quantization import Quantization
from invsolve.forward_models.quantization_noise import QuantizationNoise
from invsolve.forward_models.region_means import RegionMeans
from invsolve.forward_models.saturation import Saturation
from invsolve.forward_models.stacked import StackedNoise, compose, output_shape, quadratic, stack_measurements
from invsolve.forward_models.text import TextSimilarity
from invsolve.forward_models.transmission import TransmissionNoise

__all__ = [
    "NOISES",
    "OPERATORS",
    "Adjoint",
    "AstraProjector",
    "Bayer",
    "Blur",
    "BlurredDecimation",
    "ChannelMatrix",
    "CleanClassifier",
    "Composition",
    "DenseMatrix",
    "Diagonal",
    "Downsample",
    "ForwardModel",
    "Fourier",
    "GaussianNoise",
    "Geometry",
    "Grayscale",
    "Hadamard",
    "Identity",
    "Jpeg",
    "JpegCoefficients",
    "LaplaceNoise",
    "LinearOperator",
    "Mask",
    "MatchedNoise",
    "Mri",
    "NoiseConditionalClassifier",
    "NoiseModel",
    "NonCartesianMri",
    "Normal",
    "Phase",
    "PhaseRetrieval",
    "PoissonGaussianNoise",
    "PoissonNoise",
    "Quantization",
    "QuantizationNoise",
    "RegionMeans",
    "SaltAndPepperNoise",
    "Saturation",
    "Scaled",
    "SparseProjector",
    "Stack",
    "StackedNoise",
    "Sum",
    "TextSimilarity",
    "TransmissionNoise",
    "calibration_centre",
    "compose",
    "conjugate_gradient",
    "equispaced_mask",
    "espirit",
    "even_angles",
    "even_subset",
    "find_operator",
    "gaussian_psf",
    "low_frequencies",
    "make_noise",
    "motion_psf",
    "output_shape",
    "poisson_disc_mask",
    "power_iteration",
    "projector",
    "quadratic",
    "radial_trajectory",
    "random_hadamard",
    "random_mask",
    "sensitivities_from_centre",
    "smooth_phase",
    "stack_measurements",
    "torchvision_classifier",
]
