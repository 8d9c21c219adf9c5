"""From a folder that somebody else made to a prior of the user's own: read, measured on pictures, written with a card.

What is read: a folder of diffusers (:mod:`invsolve.pretrained.diffusers_folder`), a file of another library's weights
(:mod:`invsolve.pretrained.published_files`), or a folder with card and weights as ``invsolve train`` writes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from invsolve.cache import models_folder
from invsolve.errors import ModelError, OutputError, UsageError
from invsolve.models.error_spectrum import ErrorSpectrum, channel_mix, measure_error_spectrum
from invsolve.pretrained.card import Card
from invsolve.pretrained.diffusers_folder import read_diffusers
from invsolve.pretrained.foreign import ForeignConfig, ForeignDenoiser
from invsolve.pretrained.imported import About, Imported
from invsolve.pretrained.loading import (
    CARD,
    WEIGHTS,
    load_prior,
    shipped_classifiers,
    shipped_priors,
    write_prior,
)
from invsolve.pretrained.network_prior import NetworkPrior
from invsolve.pretrained.published_files import read_published
from invsolve.pretrained.weight_files import check_inside
from invsolve.typed import brief

LEVELS = 13
"""Noise levels at which a card states the error."""

LARGEST_VALIDATED = 20.0
"""Above this noise level a denoiser says little more than the mean picture."""

MIDPOINTS = 8
"""Noise levels between two steps of a chain at which the effect of rounding is measured."""


def read_model(path: Path, about: About) -> Imported:
    """Read a model of another library, whichever it is; nothing in it is run.

    Parameters
    ----------
    path : a folder, or a file of weights.
    about : what the card says that no file does.

    Raises
    ------
    ModelError : files are missing, damaged, programs, or describe a network that is not known here.
    UsageError : ``about`` does not suit the model.
    """
    folder = path if path.is_dir() else path.parent
    described = (folder / "config.json").exists() or (path.is_dir() and (folder / "model_index.json").exists())
    return read_diffusers(path, about) if described else read_published(path, about)


def validation_levels(card: Card) -> list[float]:
    """Noise levels at which an imported prior is measured, rising."""
    top = min(card.sigma_max, max(LARGEST_VALIDATED, 2 * card.sigma_min))
    return [float(sigma) for sigma in np.geomspace(card.sigma_min, top, LEVELS)]


@torch.no_grad()
def validated(
    imported: Imported,
    pictures: Tensor,
    what: str,
    device: torch.device,
    progress: Callable[[float], None] = lambda done: None,
    batch: int = 4,
    labels: Sequence[int] | None = None,
) -> Imported:
    """With the denoising error on ``pictures`` (N, C, H, W) in the prior's units, per noise level and as a spectrum.

    ``what`` says which pictures, for the card; ``progress`` is told the share that is done. ``labels`` (N,) are the pictures'
    classes, which the network is then told.

    Raises
    ------
    UsageError : the network has to be told a class, which the pictures do not come with.
    InputError : a label that is none of its classes.
    """
    if labels is None and imported.denoiser.config.classes and imported.denoiser.config.null_class is None:
        raise UsageError(
            "--validate: this network has to be told a class, and the pictures come without",
            hint="sort them into a sub-folder for each class",
        )
    sigma_data = float((pictures - pictures.mean(dim=(0, 2, 3), keepdim=True)).square().mean().sqrt())
    foreign = {**imported.card.foreign, "sigma_data": float(f"{max(sigma_data, 1e-3):.4g}")}
    card = replace(imported.card, foreign=foreign)
    prior = NetworkPrior(imported.denoiser, card, device)
    ask = prior.denoise if labels is None else told_classes(prior, labels)
    mix, there = channel_mix(prior.channels, rgb=True), pictures.to(device)
    sigmas, errors, parts = validation_levels(card), [], []
    for number, sigma in enumerate(sigmas):
        estimates: list[Tensor] = []

        def denoise(x: Tensor, level: Tensor, kept: list[Tensor] = estimates) -> Tensor:
            kept.append(ask(x, level))
            return kept[-1]

        parts.append(measure_error_spectrum(denoise, there, [sigma], mix, seed=number, batch=batch))
        errors.append((sigma, float((torch.cat(estimates) - there).square().mean())))
        progress((number + 1) / len(sigmas))
    spectrum = ErrorSpectrum(
        sigmas,
        parts[0].frequencies,
        [one.variances[0] for one in parts],
        [one.activities[0] for one in parts],
        [one.errors[0] for one in parts],
    )
    card = replace(
        card,
        validation_mse=errors,
        error_spectrum=spectrum.to_dict(),
        knows=f"imported; validated on {len(pictures)} pictures"
        + ("" if labels is None else f" of {len(set(labels))} classes, told each one's"),
        training={"validated_on": len(pictures), "validation_pictures": what},
    )
    return replace(imported, card=card)


def told_classes(prior: NetworkPrior, labels: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """A denoiser of the pictures of these ``labels`` (N,), told each one's; it is given all of them, batch after batch and again.

    Raises
    ------
    InputError : no such class.
    """
    priors = {label: prior.of_class(label) for label in sorted(set(labels))}
    upcoming = itertools.cycle(labels)

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        found, classes = torch.empty_like(x), [next(upcoming) for _ in range(len(x))]
        for label in sorted(set(classes)):
            rows = torch.tensor([k for k, other in enumerate(classes) if other == label], device=x.device)
            found[rows] = priors[label].denoise(x[rows], level[rows])
        return found

    return denoise


@torch.no_grad()
def label_rounding(denoiser: ForeignDenoiser, pictures: Tensor, device: torch.device) -> list[tuple[float, float]]:
    """For the card: at noise levels halfway between two steps of a chain, the root mean square difference between what the
    network says asked with the half step and with the nearest whole one; empty for networks without steps.

    ``pictures`` (N, C, H, W) are clean ones, in the prior's units.
    """
    steps = denoiser.sigmas
    if steps is None:
        return []
    prior = denoiser.to(device).eval()
    if prior.config.classes and prior.config.null_class is None:
        prior = prior.of_class(0)
    rounded = ForeignDenoiser(prior.unet, prior.config, rounded=True, label=prior.label)
    found = []
    for k in np.unique(np.linspace(0, len(steps) - 2, MIDPOINTS).round().astype(int)):
        sigma = float((steps[k] * steps[k + 1]).sqrt())
        noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(int(k)))
        x, level = (pictures + sigma * noise).to(device), torch.full((len(pictures),), sigma, device=device)
        found.append((sigma, float((prior(x, level) - rounded(x, level)).square().mean().sqrt())))
    return found


def plain_pictures(config: ForeignConfig) -> Tensor:
    """Where no pictures are named: one of even grey, or of water."""
    side = config.size or 64
    return torch.full((1, config.channels, side, side), 0.5)


def check_name(name: str, *, force: bool = False) -> Path:
    """The folder that an imported model of that name gets.

    Raises
    ------
    UsageError : not a name, or one of a shipped model.
    OutputError : there is one of that name, without ``force``.
    """
    folder = models_folder() / name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", name):
        raise UsageError(
            f"{brief(name)} is no name for a model", hint="letters, digits, - and _; choose one with --as NAME"
        )
    if name in (*shipped_priors(), *shipped_classifiers()):
        raise UsageError(f"{name} is the name of a shipped model", hint="choose another one with --as NAME")
    if folder.is_symlink() or folder.exists() and not force:
        raise OutputError(f"there is a model {name} already", hint="choose another name with --as, or --force")
    return folder


def install(imported: Imported, folder: Path) -> Card:
    """Write an imported network into ``folder``; its card, with the hash."""
    return write_prior(folder, save(imported.state), imported.card)


def install_own(source: Path, folder: Path, name: str) -> Card:
    """Copy a folder with card and weights, once all of it was checked; the card as written.

    Raises
    ------
    ModelError : as :func:`invsolve.pretrained.loading.load_prior`.
    """
    for part in (CARD, WEIGHTS):
        check_inside(source / part, source)
    prior = load_prior(source.absolute(), "cpu")
    content = (source / WEIGHTS).read_bytes()
    card = replace(prior.card, name=name, source={"from": str(source), **prior.card.source})
    written = write_prior(folder, content, card)
    if written.sha256 != prior.card.sha256:
        raise ModelError(f"{source} changed while it was copied", hint="import it again")
    return written


def verified(folder: Path) -> Card:
    """Check a prior's weights against its card, and that it denoises to finite pictures at every order of noise.

    Raises
    ------
    ModelError : they do not match, or what it says is not finite.
    """
    prior = load_prior(folder, "cpu")
    prior = prior.of_class(0) if prior.classes and not prior.guidable else prior
    side = prior.size or 32
    for sigma in _some(prior.sigma_min, min(prior.sigma_max, 100.0)):
        noise = torch.randn(1, prior.channels, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            if not bool(torch.isfinite(prior.denoise(0.5 + sigma * noise, sigma)).all()):
                raise ModelError(f"{folder}: what it makes of noise {sigma:.3g} is not finite", hint="import it again")
    return prior.card


def _some(low: float, high: float) -> Sequence[float]:
    return [float(sigma) for sigma in np.geomspace(low, high, 3)]


def remove(name: str) -> Path:
    """Delete an imported model's files, and its folder if nothing else is in it; the folder.

    Raises
    ------
    UsageError : a shipped model, or none of that name.
    """
    if name in (*shipped_priors(), *shipped_classifiers()):
        raise UsageError(f"{name} came with invsolve", hint="only imported models can be removed")
    folder = models_folder() / name
    named = Path(name).name == name and name not in ("", ".", "..")
    if not named or folder.is_symlink() or not (folder / CARD).is_file():
        raise UsageError(f"there is no imported model {brief(name)}", hint="`invsolve models list` shows them")
    try:
        for path in (folder / CARD, folder / WEIGHTS, *folder.glob("model-" + "[0-9a-f]" * 12 + ".safetensors")):
            path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise OutputError(f"cannot remove {folder}: {error.strerror or error}", hint="check its permissions") from None
    return folder
