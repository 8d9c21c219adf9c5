"""A noise-conditional classifier p(label | x_sigma): one network for pictures at every noise level.

Its gradient turns an unconditional prior into a class-conditional one (Song et al. 2021, section 5, eq. 14; Dhariwal &
Nichol 2021, section 4): it must know noisy pictures, because that is where the sampler spends its time. The network is
the way down of the prior's U-Net, averaged over the picture; it is trained by cross-entropy at noise levels from an
explicit density.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.models.network import NetworkConfig
from invsolve.models.noisy_classifier import NoisyClassifier
from invsolve.training.crops import Augmentation
from invsolve.training.loss import Task
from invsolve.training.presets import ONE_SIZE, SigmaDensity, TrainingConfig
from invsolve.training.validation import noisy_outputs

CLASSIFYING: Task[NoisyClassifier] = Task(
    build=lambda config: NoisyClassifier(config.network, len(config.classes)),
    loss=lambda model, batch, config: F.cross_entropy(
        model(batch.x0 + batch.sigma[:, None, None, None] * batch.z, batch.sigma), batch.labels
    ),
)

_CIFAR10 = replace(
    ONE_SIZE,
    network=NetworkConfig(
        widths=(32, 64, 128),
        encoder_blocks=(1, 2, 2),
        decoder_blocks=(0, 0),
        dropout=0.1,
        sigma_data=0.25,
        attention_from=1,
    ),
    density=SigmaDensity(high=50.0, lower_share=0.8),
    steps=20_000,
    batch=128,
)

_FLOWERS64 = replace(
    _CIFAR10,
    network=replace(
        _CIFAR10.network,
        widths=(16, 32, 64, 128),
        encoder_blocks=(1, 1, 2, 2),
        decoder_blocks=(0, 0, 0),
        dropout=0.2,
        sigma_data=0.26,
        attention_from=2,
    ),
    density=SigmaDensity(high=80.0, lower_share=0.8),
    batch=64,
    crop=64,
    crop_late=64,
)


def _clean(config: TrainingConfig) -> TrainingConfig:
    """The same network for clean pictures only, from another seed and on other variations: an independent judge."""
    return replace(
        config,
        density=SigmaDensity(low=0.002, split=0.005, high=0.01, lower_share=0.5),
        augmentation=Augmentation("mirror", rotation=8.0, zoom=(0.85, 1.2), share=0.7),
        seed=1,
    )


PRESETS: dict[str, TrainingConfig] = {
    "cifar10": _CIFAR10,
    "cifar10-clean": _clean(_CIFAR10),
    "flowers64": _FLOWERS64,
    "flowers64-clean": _clean(_FLOWERS64),
    "tiny": replace(
        _CIFAR10,
        network=NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(0,)),
        steps=200,
        batch=16,
    ),
}


def validate_classifier(
    model: NoisyClassifier,
    pictures: Tensor,
    labels: Sequence[int] | Tensor,
    sigmas: Sequence[float],
    seed: int = 0,
    batch: int = 100,
) -> dict[float, tuple[float, float]]:
    """Accuracy and mean cross-entropy (nats) per noise level on ``pictures`` (N, C, H, W) in the prior's units."""
    truth = torch.as_tensor(labels)
    hits, surprise = dict.fromkeys(sigmas, 0), dict.fromkeys(sigmas, 0.0)
    for sigma, rows, logits in noisy_outputs(model, pictures, sigmas, seed, batch):
        hits[sigma] += int((logits.argmax(dim=1) == truth[rows]).sum())
        surprise[sigma] += float(F.cross_entropy(logits, truth[rows], reduction="sum"))
    return {sigma: (hits[sigma] / len(pictures), surprise[sigma] / len(pictures)) for sigma in hits}
