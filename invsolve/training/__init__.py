"""Training priors and classifiers. Nothing that solves a problem imports this."""

from invsolve.training.loop import TrainingInfo, fit, train
from invsolve.training.loss import DENOISING, Task, denoising_loss
from invsolve.training.presets import PRESETS, SigmaDensity, TrainingConfig
from invsolve.training.validation import validate

__all__ = [
    "DENOISING",
    "PRESETS",
    "SigmaDensity",
    "Task",
    "TrainingConfig",
    "TrainingInfo",
    "denoising_loss",
    "fit",
    "train",
    "validate",
]
