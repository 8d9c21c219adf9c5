"""Forward models: what was measured, one file each."""

from invsolve.forward_models.blur import Blur, gaussian_psf, motion_psf
from invsolve.forward_models.blurred_decimation import BlurredDecimation
from invsolve.forward_models.channel_matrix import ChannelMatrix
from invsolve.forward_models.classifier import CleanClassifier, NoiseConditionalClassifier, torchvision_classifier
from invsolve.forward_models.conjugate_gradient import conjugate_gradient
from invsolve.forward_models.diagonal import Diagonal
from invsolve.forward_models.downsample import Downsample
from invsolve.forward_models.forward_model import ForwardModel, GaussianNoise, NoiseModel
from invsolve.forward_models.geometry import Geometry, even_angles, even_subset
from invsolve.forward_models.grayscale import Grayscale
from invsolve.forward_models.identity import Identity
from invsolve.forward_models.mask import Mask
from invsolve.forward_models.matrix import DenseMatrix
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
from invsolve.forward_models.projector import AstraProjector, SparseProjector, projector
from invsolve.forward_models.region_means import RegionMeans
from invsolve.forward_models.transmission import TransmissionNoise

__all__ = [
    "Adjoint",
    "AstraProjector",
    "Blur",
    "BlurredDecimation",
    "ChannelMatrix",
    "CleanClassifier",
    "Composition",
    "DenseMatrix",
    "Diagonal",
    "Downsample",
    "ForwardModel",
    "GaussianNoise",
    "Geometry",
    "Grayscale",
    "Identity",
    "LinearOperator",
    "Mask",
    "NoiseConditionalClassifier",
    "NoiseModel",
    "Normal",
    "RegionMeans",
    "Scaled",
    "SparseProjector",
    "Stack",
    "Sum",
    "TransmissionNoise",
    "conjugate_gradient",
    "even_angles",
    "even_subset",
    "gaussian_psf",
    "motion_psf",
    "power_iteration",
    "projector",
    "torchvision_classifier",
]
