"""From a finished run to a folder that ``load_prior`` or ``load_classifier`` takes: validated weights and their card."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from invsolve.atomic import write_files
from invsolve.errors import UsageError
from invsolve.models.error_spectrum import channel_mix, measure_error_spectrum
from invsolve.models.expert import ExpertDenoiser
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.noisy_classifier import NoisyClassifier
from invsolve.pretrained.card import Card
from invsolve.pretrained.foreign import ForeignDenoiser
from invsolve.pretrained.loading import load_prior, save_prior
from invsolve.training.checkpoint import TrainingState
from invsolve.training.classifier import validate_classifier
from invsolve.training.presets import TrainingConfig
from invsolve.training.validation import denoising_picture, validate, validation_sigmas

PICTURE = "denoised.png"


class About(NamedTuple):
    """What the card says that the run does not know."""

    name: str
    data: str
    licence: str


def export_prior(
    folder: Path, config: TrainingConfig, state: TrainingState[EDMDenoiser], examples: Tensor, about: About
) -> Card:
    """Validate the averaged weights on ``examples`` (N, C, H, W) and write picture, weights and card."""
    levels, batch = validation_sigmas(config.density), 16 if config.crop <= 64 else 4
    errors = validate(state.ema, examples, levels, batch=batch)
    mix = channel_mix(config.network.channels, rgb=config.colours == "rgb")
    there = examples.to(next(state.ema.parameters()).device)
    spectrum = measure_error_spectrum(state.ema.eval(), there, levels, mix, batch=batch)
    picture = io.BytesIO()
    denoising_picture(state.ema, examples[:6], colours=config.colours).save(picture, "PNG")
    folder.mkdir(parents=True, exist_ok=True)
    write_files({folder / PICTURE: picture.getvalue()})
    card = replace(
        _card(config, state, about),
        validation_mse=list(errors.items()),
        error_spectrum=spectrum.to_dict(),
        frame=config.crop if config.augmentation.framing[1] and config.network.local else None,
        orientations=config.augmentation.orientations,
        colours=config.colours,
    )
    return save_prior(folder, state.ema, card)


def export_classifier(
    folder: Path,
    config: TrainingConfig,
    state: TrainingState[NoisyClassifier],
    examples: Tensor,
    labels: Sequence[int],
    about: About,
) -> Card:
    """Measure the averaged weights' accuracy at every noise level and write weights and card."""
    scores = validate_classifier(state.ema, examples, labels, validation_sigmas(config.density))
    card = _card(config, state, about)
    card = replace(
        card,
        training={**card.training, "validated_on": len(examples)},
        kind="classifier",
        classes=list(config.classes),
        validation_accuracy=[(sigma, accuracy, surprise) for sigma, (accuracy, surprise) in scores.items()],
    )
    return save_prior(folder, state.ema, card)


def _card(
    config: TrainingConfig, state: TrainingState[EDMDenoiser] | TrainingState[NoisyClassifier], about: About
) -> Card:
    """What any card says; network and hash are filled in when it is written."""
    return Card(
        name=about.name,
        network={},
        units=config.units,
        sigma_min=config.density.low,
        sigma_max=config.density.high,
        validation_mse=[],
        sha256="",
        data=about.data,
        licence=about.licence,
        size=None if config.network.local else config.crop,
        training={
            "steps": state.step,
            "seconds": round(state.seconds),
            "batch": config.batch,
            "crop": config.crop,
            "objective": config.objective,
            "weighting": config.weighting,
            "ema_relative_width": config.ema_relative_width,
            "density": asdict(config.density),
            "augmentation": asdict(config.augmentation),
            "seed": config.seed,
        },
    )


def initial_weights(prior: str, config: TrainingConfig) -> dict[str, Tensor]:
    """The weights of a prior that has the network of ``config``, or one of fewer blocks.

    The blocks that it lacks come after its own and change nothing to begin with: their second convolution is zero.

    Raises
    ------
    UsageError : it has another network, or one of another library.
    ModelError : there is no such prior.
    """
    network = load_prior(prior, "cpu").network
    if isinstance(network, ForeignDenoiser):
        raise UsageError(
            f"--init {prior}: it is a network of another library", hint="train it on there, and import it again"
        )
    if isinstance(network, ExpertDenoiser):
        network = network.general  # training goes on with what is trained here
    has, wants = asdict(network.config), asdict(config.network)
    free = ["dropout", "sigma_data", "center"]  # not of the weights
    if _has_room(network.config, config.network):
        free += ["encoder_blocks", "decoder_blocks"]
    changed = [part for part in wants if part not in free and wants[part] != has[part]]
    if changed:
        raise UsageError(
            f"--init {prior}: its network has {', '.join(f'{part} {has[part]}' for part in changed)}, the preset's "
            f"{', '.join(str(wants[part]) for part in changed)}",
            hint="choose the preset that the prior was trained with",
        )
    return {**EDMDenoiser(config.network).state_dict(), **network.state_dict()}


def _has_room(smaller: NetworkConfig, larger: NetworkConfig) -> bool:
    """Whether every level of ``larger`` has as many blocks as ``smaller``; attention would change places."""
    if not smaller.local or len(smaller.widths) != len(larger.widths):
        return False
    pairs = zip(
        smaller.encoder_blocks + smaller.decoder_blocks, larger.encoder_blocks + larger.decoder_blocks, strict=True
    )
    return all(few <= many for few, many in pairs)
