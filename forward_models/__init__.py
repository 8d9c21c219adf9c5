"""Forward models: what was measured, one file each."""

from invsolve.forward_models.classifier import CleanClassifier, NoiseConditionalClassifier, torchvision_classifier
from invsolve.forward_models.conjugate_gradient import conjugate_gradient
from invsolve.forward_models.forward_model import ForwardModel, GaussianNoise, NoiseModel
from invsolve.forward_models.grayscale import Grayscale
from invsolve.forward_models.identity import Identity
from invsolve.forward_models.mask import Mask
from invsolve.forward_models.operator import Adjoint, Composition, LinearOperator, Scaled, Stack, power_iteration

__all__ = [
    "Adjoint",
    "CleanClassifier",
    "Composition",
    "ForwardModel",
    "GaussianNoise",
    "Grayscale",
    "Identity",
    "LinearOperator",
    "Mask",
    "NoiseConditionalClassifier",
    "NoiseModel",
    "Scaled",
    "Stack",
    "conjugate_gradient",
    "power_iteration",
    "torchvision_classifier",
]
