"""What a training run is made of: the density of noise levels, its configuration, and the presets of shipped priors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from invsolve.colours import LUMA_GAIN, Colours
from invsolve.errors import UsageError
from invsolve.models.network import NetworkConfig
from invsolve.training.crops import Augmentation

Objective = Literal["dsm", "ssm", "ssm-vr"]
"""How the score is learned: from the noise that was put in, or sliced, without looking at it; see :mod:`invsolve.training.loss`."""

Weighting = Literal["edm", "ncsn", "likelihood"]
"""How much each noise level counts; see :func:`invsolve.training.loss.loss_weight`."""

MOST_STEPS = 10**9
MOST_CROPS = 2**16
MOST_SNAPSHOTS = 1000
LONGEST_OF_SNAPSHOTS = 0.14
LARGEST_SEED = 2**31 - 1
"""PyTorch takes 64 bits; a step's seed is 2**32 times the run's, plus the step."""


@dataclass(frozen=True)
class SigmaDensity:
    """p(sigma): log-uniform on [low, split] with probability ``lower_share``, log-uniform on [split, high] else."""

    low: float = 0.005
    split: float = 1.0
    high: float = 20.0
    lower_share: float = 0.85

    def quantile(self, u: Tensor) -> Tensor:
        """Inverse distribution function; ``u`` in [0, 1]."""
        lower = math.log(self.low) + (u / self.lower_share) * math.log(self.split / self.low)
        upper = math.log(self.split) + (u - self.lower_share) / (1 - self.lower_share) * math.log(
            self.high / self.split
        )
        return torch.where(u < self.lower_share, lower, upper).exp()

    def density(self, sigma: Tensor) -> Tensor:
        """p(sigma)."""
        lower = self.lower_share / math.log(self.split / self.low)
        upper = (1 - self.lower_share) / math.log(self.high / self.split)
        return torch.where(sigma < self.split, lower, upper) / sigma


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a training run depends on; stored in the checkpoint and, in part, in the card."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    density: SigmaDensity = field(default_factory=SigmaDensity)
    objective: Objective = "dsm"
    weighting: Weighting = "edm"
    channel_weights: tuple[float, ...] = ()  # of each channel in the loss; none: all alike
    steps: int = 10_500
    batch: int = 32
    crop: int = 64
    crop_late: int = 128  # crop size over the last third of the run, in batches of the same number of pixels
    scale_odds: tuple[float, ...] = (0.75, 0.25)  # share of crops at full and half resolution
    augmentation: Augmentation = field(default_factory=Augmentation)
    learning_rate: float = 2e-3  # of AdamW, for biases and the small layers
    muon_rate: float = 3e-3  # of Muon, for the convolutions
    decay_share: float = 0.4  # last part of the run, over which the learning rate falls linearly to zero
    ema_relative_width: float = 0.05
    snapshots: int = 0  # of two averages of the weights, at equal shares of the run, for one of any length afterwards
    colours: Colours = "rgb"  # the coordinates the prior is trained in
    units: str = "pictures in [0, 1]"  # what the numbers of x mean, for the card
    seed: int = 0
    classes: tuple[str, ...] = ()  # of a classifier; none for a prior

    def __post_init__(self) -> None:
        limits = (
            ("steps", 1, MOST_STEPS),
            ("batch", 1, MOST_CROPS),
            ("seed", 0, LARGEST_SEED),
            ("snapshots", 0, MOST_SNAPSHOTS),
        )
        for name, least, most in limits:
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} {getattr(self, name)}", hint=f"wanted {least} to {most}")
        for name, known in (("objective", get_args(Objective)), ("weighting", get_args(Weighting))):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} {getattr(self, name)!r}", hint=f"wanted {', '.join(known)}")
        if self.snapshots and not 0 < self.ema_relative_width <= LONGEST_OF_SNAPSHOTS:
            raise UsageError(
                f"snapshots of averages of length {self.ema_relative_width} and twice that",
                hint=f"wanted ema_relative_width up to {LONGEST_OF_SNAPSHOTS}",
            )
        if self.network.energy and isinstance(self.network.sigma_data, tuple):
            raise UsageError(
                "an energy of channels with scales of their own",
                hint="train an energy with a preset whose channels are alike, such as photos",
            )


ONE_SIZE = TrainingConfig(crop=32, crop_late=32, scale_odds=(1.0,), augmentation=Augmentation("mirror"))
"""Pictures of one size, each taken whole."""

PRESETS: dict[str, TrainingConfig] = {
    "photos": TrainingConfig(),
    "photos-ncsn": TrainingConfig(weighting="ncsn"),
    # Slices of few patients: all flips, a little rotation and zoom; the stride-2 stem is as good here and quarters the cost.
    "ct": TrainingConfig(
        network=NetworkConfig(
            channels=1, stem=2, widths=(64, 128, 224), encoder_blocks=(2, 2, 2), decoder_blocks=(2, 2), sigma_data=0.24
        ),
        density=SigmaDensity(high=5.0),
        steps=9_000,
        scale_odds=(1.0,),
        augmentation=Augmentation("flips", rotation=10.0, zoom=(0.8, 1.25), share=0.5),
        units="CT number n, HU = 2000 n - 1000",
    ),
    # Slices of even fewer heads, and half of every picture is air: as ct, 0 is black and 1 the brightest tissue.
    "mri": TrainingConfig(
        network=NetworkConfig(
            channels=1, stem=2, widths=(56, 112, 192), encoder_blocks=(2, 2, 2), decoder_blocks=(2, 2), sigma_data=0.26
        ),
        density=SigmaDensity(high=5.0),
        steps=9_000,
        scale_odds=(1.0,),
        augmentation=Augmentation("flips", rotation=10.0, zoom=(0.8, 1.25), share=0.5),
        units="magnitude, 0 air, 1 the 99.7th percentile of the head",
    ),
    # Pictures of one size, whole objects in the middle: attention at low resolution. The ladder's top is the largest
    # distance between two pictures (measured: 49 and 75), the bottom fine enough for likelihoods of 8-bit pictures.
    "cifar10": replace(
        ONE_SIZE,
        network=NetworkConfig(
            widths=(48, 96, 256),
            encoder_blocks=(1, 2, 2),
            decoder_blocks=(1, 2),
            sigma_data=0.25,
            attention_from=1,
        ),
        density=SigmaDensity(low=0.002, high=50.0, lower_share=0.8),
        steps=60_000,
        batch=64,
    ),
    "flowers64": replace(
        ONE_SIZE,
        network=NetworkConfig(
            widths=(32, 64, 128, 192),
            encoder_blocks=(1, 1, 2, 2),
            decoder_blocks=(1, 1, 2),
            dropout=0.1,
            sigma_data=0.26,
            attention_from=2,
        ),
        density=SigmaDensity(low=0.002, high=80.0, lower_share=0.8),
        steps=40_000,
        crop=64,
        crop_late=64,
    ),
    # 60 million parameters, for a GPU or several. Lower rates than those of small networks; nobody has tuned them.
    "large": replace(
        ONE_SIZE,
        network=NetworkConfig(
            widths=(128, 256, 384, 512),
            encoder_blocks=(2, 3, 3, 6),
            decoder_blocks=(2, 3, 3),
            attention_from=2,
        ),
        density=SigmaDensity(low=0.002, high=80.0, lower_share=0.8),
        steps=200_000,
        batch=256,
        crop=64,
        crop_late=64,
        learning_rate=5e-4,
        muon_rate=1e-3,
    ),
    # Whole scenes, shrunk, in coordinates where colour is decided with the luma in sight: what colorization works on.
    # Up to noise 10, which drowns any colour, the luma is all but clean: its denoising needs little of the network.
    "thumbnails": replace(
        ONE_SIZE,
        network=NetworkConfig(sigma_data=(0.23 * LUMA_GAIN, 0.065, 0.065), center=(0.46 * LUMA_GAIN, 0.0, 0.0)),
        density=SigmaDensity(low=0.02, split=10.0, high=4000.0, lower_share=0.95),
        colours="luma first",
        channel_weights=(0.03, 1.0, 1.0),
        units=f"({LUMA_GAIN:g} Y, Cb, Cr) of RGB in [0, 1], Rec. 601",
        steps=60_000,
        batch=64,
        augmentation=Augmentation("mirror", framing=(0.5, 1.0), aspects=(1.0, 1.5, 1 / 1.5)),
    ),
    "tiny": replace(
        ONE_SIZE,
        network=NetworkConfig(widths=(16, 32), encoder_blocks=(1, 1), decoder_blocks=(1,)),
        steps=200,
        batch=8,
        augmentation=Augmentation(),
    ),
}
