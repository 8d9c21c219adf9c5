"""Loading and writing priors: ``model.safetensors`` + ``card.json`` in one folder. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from invsolve.atomic import write_files
from invsolve.cache import models_folder
from invsolve.errors import ModelError, OutputError, UsageError, first_line
from invsolve.files import regular_file
from invsolve.forward_models.classifier import NoiseConditionalClassifier
from invsolve.models.allocation import keep_freed_memory
from invsolve.models.energy import EnergyDenoiser, make_denoiser
from invsolve.models.error_spectrum import ErrorSpectrum, SpectralCovariance, channel_mix
from invsolve.models.expert import ExpertDenoiser
from invsolve.models.ffdnet import FFDNet
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.noisy_classifier import NoisyClassifier
from invsolve.models.precision import autocast, full_precision
from invsolve.models.score_model import ErrorCovariance, ScoreModel, Sigma
from invsolve.models.tiling import blended, tiled
from invsolve.pretrained.card import Card, file_sha256, network_config
from invsolve.pretrained.foreign import ForeignConfig, ForeignDenoiser
from invsolve.pretrained.published import foreign_config
from invsolve.typed import brief

M = TypeVar("M", bound=nn.Module)

WEIGHTS = "model.safetensors"
REINSTALL = "reinstall invsolve, or copy or train the prior again"
CARD = "card.json"
SHIPPED = Path(__file__).resolve().parent

PIXELS_AT_ONCE = 2**20
"""The network sees at most so many pixels in one batch: about 500 MB of activations; of an energy, which keeps them for the
way back, a quarter; of a foreign network, which is wider, an eighth. On a GPU twice as many. What is larger is denoised in
tiles of that size."""

LEAST_CORE = 64
"""Side of what is kept of a tile, at least."""


class NetworkPrior(ScoreModel):
    """A trained network as a score model, its noise levels clamped to the card's.

    A local network takes any picture size, large ones in tiles; one with attention only the card's size, unless ``patches``
    says that larger pictures are denoised in overlapping patches of that size.
    """

    def __init__(
        self,
        network: EDMDenoiser | ExpertDenoiser | ForeignDenoiser,
        card: Card,
        device: torch.device,
        *,
        patches: bool = False,
    ) -> None:
        facts = card.facts
        super().__init__(replace(facts, size=None, patch=facts.size) if patches else facts)
        if device.type == "cpu":
            keep_freed_memory()
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self.network.requires_grad_(False)
        self.card, self._device = card, device
        table = sorted(card.validation_mse)
        self._log_sigmas = np.log([s for s, _ in table])
        self._log_mse = np.log([e for _, e in table])
        self._spectrum = ErrorSpectrum.from_dict(card.error_spectrum) if card.error_spectrum else None
        self._mix = channel_mix(self.channels, rgb=self.colours == "rgb")
        wide = 8 if isinstance(network, ForeignDenoiser) else 4 if isinstance(network, EnergyDenoiser) else 1
        self.pixels_at_once = PIXELS_AT_ONCE * (1 if device.type == "cpu" else 2) // wide
        """What the network sees in one batch, at most; fewer take less memory, and in smaller tiles a little more time."""

    @property
    def tiles(self) -> bool:
        """Whether a large picture can be denoised in parts, with the same result."""
        return not isinstance(self.network, ForeignDenoiser) and self.network.config.local

    @property
    def device(self) -> torch.device:
        return self._device

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        self.check_size(x)
        level = self._level(x, sigma)
        if self.patch is None or tuple(x.shape[-2:]) == (self.patch, self.patch):
            return self._denoise(x, level)
        return blended(
            lambda patches, owners: self._denoise(patches, level[owners]), x, size=self.patch, stride=self.patch // 2
        )

    def _denoise(self, x: Tensor, level: Tensor) -> Tensor:
        network, most = self.network, self.pixels_at_once

        def whole(part: Tensor) -> Tensor:
            count = max(1, most // (part.shape[-2] * part.shape[-1]))
            pieces = []
            with autocast(self.device):
                for first in range(0, len(part), count):
                    pieces.append(network(part[first : first + count].float(), level[first : first + count]))
            return torch.cat(pieces).to(part.dtype)

        if x.shape[-2] * x.shape[-1] <= most or isinstance(network, ForeignDenoiser) or not network.config.local:
            return whole(x)
        config = network.config
        margin, multiple = config.receptive_radius, config.multiple
        core = max(LEAST_CORE, math.isqrt(most) - 2 * (margin + multiple)) // multiple * multiple
        return tiled(whole, x, core=core, overlap=margin, multiple=multiple)

    def energy(self, x: Tensor, sigma: Sigma) -> Tensor:
        """Minus the log density of ``x0 + sigma z``, up to a number that depends on sigma only: (B,) float32, in nats.

        ``denoise(x, sigma) = x - sigma^2 grad E(x, sigma)``. Energies of two pictures at one sigma compare; those at two
        sigmas do not. Computed in float32 and of each picture as a whole, differentiable in x.

        Parameters
        ----------
        x : (B, C, H, W), in the prior's units.
        sigma : a number, or one per image (B,); clamped to the card's noise levels.

        Raises
        ------
        ModelError : the prior was not trained with ``invsolve train --energy``.
        """
        if not isinstance(self.network, EnergyDenoiser):
            raise ModelError(
                f"prior {brief(self.card.name)} knows a score and no energy",
                hint="train one with invsolve train --energy; invsolve.ode.density has the likelihood of any prior",
            )
        self.check_size(x)
        with full_precision(), autocast(self.device):
            return self.network.energy(x.float(), self._level(x, sigma))

    @property
    def classes(self) -> int:
        """How many classes the network can be told; 0 for one that wants none."""
        return self.network.config.classes if isinstance(self.network, ForeignDenoiser) else 0

    @property
    def guidable(self) -> bool:
        """Whether it was also trained without a class, and so can be guided towards one."""
        return isinstance(self.network, ForeignDenoiser) and self.network.config.null_class is not None

    def of_class(self, label: int, guidance: float = 1.0) -> NetworkPrior:
        """The prior of one class, for networks that are told classes: p(x0 | label).

        Parameters
        ----------
        label : number of the class, from 0.
        guidance : of classifier-free guidance (Ho & Salimans 2022): 1 is the class as it is, more is surer of it and less
            varied; for :attr:`guidable` priors only.

        Raises
        ------
        UsageError : the network is told no classes, or cannot be guided.
        InputError : no such class.
        """
        if not isinstance(self.network, ForeignDenoiser):
            raise UsageError(f"prior {brief(self.card.name)} knows no classes", hint="leave out the class")
        patches = self.patch is not None
        return NetworkPrior(self.network.of_class(label, guidance), self.card, self.device, patches=patches)

    def _level(self, x: Tensor, sigma: Sigma) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        return level.clamp(self.sigma_min, self.sigma_max)

    def mse(self, sigma: float) -> float:
        """The card's validated error, interpolated in log-log; sigma^2 scaling below the first level.

        Of a prior that was not validated, the error of a Gaussian of sigma_data.
        """
        if not self.card.validation_mse:
            return super().mse(sigma)
        log_sigma = math.log(sigma)
        if log_sigma < self._log_sigmas[0]:
            return float(math.exp(self._log_mse[0] + 2 * (log_sigma - self._log_sigmas[0])))
        return float(math.exp(np.interp(log_sigma, self._log_sigmas, self._log_mse)))

    def error_covariance(self, x0: Tensor, sigma: Sigma) -> ErrorCovariance:
        """Of the spectrum on the card; white where there is none."""
        if self._spectrum is None:
            return super().error_covariance(x0, sigma)
        return SpectralCovariance(self._spectrum, self._mix, x0, sigma)


class TrainedClassifier:
    """A trained noise-conditional classifier, its noise levels clamped to the card's."""

    def __init__(self, network: NoisyClassifier, card: Card, device: torch.device) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self.network.requires_grad_(False)
        self.card, self.device = card, device

    def logits(self, x: Tensor, sigma: Sigma) -> Tensor:
        """(B, classes) for ``x`` (B, C, H, W) at noise level ``sigma``."""
        with autocast(self.device):
            return self.network(x.float(), self._level(x, sigma)).to(x.dtype)

    def features(self, x: Tensor, sigma: Sigma) -> Tensor:
        """What the network makes of ``x`` before it decides, (B, features)."""
        with autocast(self.device):
            return self.network.features(x.float(), self._level(x, sigma))

    def _level(self, x: Tensor, sigma: Sigma) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        return level.clamp(self.card.sigma_min, self.card.sigma_max)

    @property
    def forward_model(self) -> NoiseConditionalClassifier:
        """p(label | x), for :func:`invsolve.condition` with rule ``classifier_gradient``."""
        return NoiseConditionalClassifier(
            lambda x: self.logits(x, self.card.sigma_min), classes=tuple(self.card.classes), noisy_logits=self.logits
        )


def shipped_priors() -> list[str]:
    """Names of the priors that come with the package."""
    return _shipped("prior")


def shipped_classifiers() -> list[str]:
    """Names of the noise-conditional classifiers that come with the package."""
    return _shipped("classifier")


def _shipped(kind: str) -> list[str]:
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD}") if Card.read(path).kind == kind)


def find_prior(name: str | Path) -> Path:
    """The folder of a shipped or an imported prior's name, or of a path to a folder that holds a card.

    Raises
    ------
    ModelError : neither.
    """
    return _find(name, "prior")


def find_any(name: str | Path) -> Path:
    """The folder of a prior or a classifier, as :func:`find_prior`."""
    return _find(name)


def _find(name: str | Path, kind: str | None = None) -> Path:
    text, what = str(name), kind or "model"
    named = text.isprintable() and len(Path(text).parts) == 1 and len(text) < 100 and text not in ("", ".", "..")
    homes = [home / text for home in (SHIPPED, models_folder()) if named and (home / text / CARD).is_file()]
    folder = homes[0] if homes else Path(text)
    try:
        exists, is_folder = text != "" and folder.exists(), folder.is_dir()
    except (OSError, ValueError):  # a name too long for any file
        exists = False
    if not exists:
        unknown = "model" if kind == "prior" else what
        raise ModelError(f"unknown {unknown} {brief(text, 200)}", hint=_what_ships(kind))
    if not is_folder:
        raise ModelError(f"{folder} is a file, not the folder of a {what}", hint=_what_ships(kind))
    if not (folder / CARD).exists():
        hint = f"a {what} is a folder with {CARD} and {WEIGHTS}; {_what_ships(kind)}"
        raise ModelError(f"{folder} has no {CARD}", hint=hint)
    found = Card.read(folder / CARD).kind
    if kind not in (None, found):
        raise ModelError(f"{name} holds a {found}, not a {kind}", hint=f"give a {kind}; {_what_ships(kind)}")
    return folder


def _what_ships(kind: str | None) -> str:
    names = [*shipped_priors(), *shipped_classifiers()] if kind is None else _shipped(kind)
    imported = installed_models()
    also = f"; imported: {', '.join(imported)}" if imported and kind != "classifier" else ""
    return f"shipped: {', '.join(names) or 'none'}{also}; or give a folder that `invsolve train` wrote"


def installed_models() -> list[str]:
    """Names of the priors that ``invsolve models import`` and ``pull`` put into the user's folder, whole or not."""
    return sorted(path.parent.name for path in models_folder().glob(f"*/{CARD}"))


def resolve_device(device: str) -> torch.device:
    """``auto`` takes a GPU when there is one; an explicit device that is absent is an error, never a fallback."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        known = where.type != "meta"  # of which tensors have shapes, but no values
    except (RuntimeError, ValueError, OverflowError):
        known = False
    if not known:
        raise ModelError(f"unknown device {brief(device)}", hint="use auto, cpu, cuda or cuda:N")
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(
            f"--device {device}: this PyTorch sees {count or 'no'} CUDA device{'s' if count > 1 else ''}",
            hint="use --device cpu or --device auto",
        )
    try:
        torch.empty(0, device=where)
    except (RuntimeError, NotImplementedError, AssertionError):
        raise ModelError(f"--device {device}: not available here", hint="use --device cpu or --device auto") from None
    return where


def load_prior(
    name: str | Path = "photos", device: str | torch.device = "auto", *, patches: bool = False
) -> NetworkPrior:
    """Load a prior by name or folder, checking the weights' hash against the card.

    Parameters
    ----------
    name : a shipped prior (see :func:`shipped_priors`), one that ``invsolve models`` imported, or a folder with
        ``card.json`` and ``model.safetensors``.
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or a torch device.
    patches : let a prior of one size take larger pictures, in patches of that size that overlap by half.

    Raises
    ------
    ModelError : unknown name, damaged or altered weights, absent device.
    """
    where = device if isinstance(device, torch.device) else resolve_device(device)
    folder = find_prior(name)
    card = Card.read(folder / CARD)
    if card.foreign:
        return NetworkPrior(_load_foreign(folder, card), card, where, patches=patches)
    network = _load(folder, card, partial(_denoiser, card))
    return NetworkPrior(network, card, where, patches=patches)


def _denoiser(card: Card, config: NetworkConfig) -> EDMDenoiser | ExpertDenoiser:
    """The network that a prior's card describes."""
    general = make_denoiser(config)
    if not card.expert:
        return general
    begin, alone, fade, end = card.expert["levels"]
    return ExpertDenoiser(general, FFDNet(), (begin, alone, fade, end))


def load_classifier(name: str | Path, device: str | torch.device = "auto") -> TrainedClassifier:
    """Load a noise-conditional classifier by name or folder; otherwise as :func:`load_prior`."""
    where = device if isinstance(device, torch.device) else resolve_device(device)
    folder = _find(name, "classifier")
    card = Card.read(folder / CARD)
    network = _load(folder, card, lambda config: NoisyClassifier(config, len(card.classes)))
    return TrainedClassifier(network, card, where)


def _load(folder: Path, card: Card, build: Callable[[NetworkConfig], M]) -> M:
    """The network of the card with the folder's weights, after checking their hash, names, shapes and values.

    The generator of torch is left as it was: a network's first weights are drawn from it.
    """
    weights = _checked_weights(folder, card)
    with _misfits(weights):
        config = network_config(card)
        shapes = _stored_shapes(weights)
        stored, least = sum(map(math.prod, shapes.values())), least_numbers(config, decoder=card.kind == "prior")
        if stored < least:
            raise ValueError(f"the card's network has at least {least} numbers, the weights have {stored}")
        with torch.random.fork_rng(devices=[]):
            network = build(config)
        _compare_shapes(shapes, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
        network.load_state_dict(_finite_state(weights))
    return network


def _load_foreign(folder: Path, card: Card) -> ForeignDenoiser:
    """The network of another library that the card describes, as :func:`_load`."""
    weights = _checked_weights(folder, card)
    with _misfits(weights):
        config = foreign_config(card.foreign)
        shapes = _stored_shapes(weights)
        unet = config.empty_network()
        _compare_shapes(shapes, {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()})
        return foreign_denoiser(unet, _finite_state(weights), config)


def foreign_denoiser(unet: nn.Module, state: dict[str, Tensor], config: ForeignConfig) -> ForeignDenoiser:
    """A network that has shapes alone, filled with its values: a ValueError or RuntimeError where they do not fit."""
    unet.load_state_dict(state, assign=True)
    if any(tensor.is_meta for tensor in (*unet.parameters(), *unet.buffers())):
        raise ValueError("the network has parts that no file stores")
    return ForeignDenoiser(unet, config)


def _checked_weights(folder: Path, card: Card) -> Path:
    """The weights of a card, if they are what it says."""
    weights = regular_file(_weights_of(folder, card), "weights file", ModelError)
    digest = file_sha256(weights)
    if digest != card.sha256:
        raise ModelError(
            f"{weights} does not match its card: sha256 {digest[:12]}..., the card says {card.sha256[:12]}...",
            hint=f"the file is damaged or was changed; {REINSTALL}",
        )
    return weights


@contextmanager
def _misfits(weights: Path) -> Iterator[None]:
    """What libraries find wrong with a file's content, as a ModelError."""
    try:
        yield
    except (SafetensorError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"{weights} does not fit its card: {first_line(error)}", hint=REINSTALL) from error


def _finite_state(weights: Path) -> dict[str, Tensor]:
    """All tensors of a file in single precision; a ValueError for one that is not finite."""
    state = {name: tensor.float() for name, tensor in load_file(weights).items()}
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} is not finite")
    return state


def _stored_shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a file; a ValueError for one that does not hold floating point numbers."""
    with safe_open(weights, "pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - the file is no dictionary
        for name, part in parts.items():
            if part.get_dtype() not in ("F16", "BF16", "F32"):
                raise ValueError(f"{brief(name)} has numbers of type {part.get_dtype()}")
        return {name: tuple(part.get_shape()) for name, part in parts.items()}


def _compare_shapes(stored: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a ValueError for the first name or shape that differs."""
    if missing := sorted(wanted.keys() - stored.keys()):
        raise ValueError(f"there is no {missing[0]}")
    if unknown := sorted(stored.keys() - wanted.keys()):
        raise ValueError(f"{brief(unknown[0])} is no part of the network")
    for name, shape in wanted.items():
        if stored[name] != shape:
            raise ValueError(f"{name} has shape {stored[name]}, wanted {shape}")


def least_numbers(config: NetworkConfig, *, decoder: bool) -> int:
    """A lower bound, nearly reached, on how many numbers a network has: known before it is built."""
    between = sum(4 * a * b for a, b in itertools.pairwise(config.widths))
    blocks = [18 * width**2 * count for width, count in zip(config.widths, config.encoder_blocks, strict=True)]
    if decoder:
        blocks += [18 * w**2 * n for w, n in zip(config.widths, config.decoder_blocks, strict=False)]
    return 9 * config.channels * config.stem**2 * config.widths[0] + between + sum(blocks)


def _weights_of(folder: Path, card: Card) -> Path:
    """Where the card's weights are: in the usual file, or, if writing was broken off, still under their own name."""
    own = folder / _own_name(card.sha256)
    return own if own.is_file() else folder / WEIGHTS


def _own_name(sha256: str) -> str:
    return f"model-{sha256[:12]}.safetensors"


def save_prior(folder: Path, network: EDMDenoiser | ExpertDenoiser | NoisyClassifier, card: Card) -> Card:
    """Write weights (fp16) and card; returns the card with the weights' hash filled in.

    Over an older prior, :func:`load_prior` finds that or the new one, whole, at whatever moment this is broken off: the
    weights get a name of their own first, the card that goes with them replaces the old one, and only then do they take
    the usual name.

    Raises
    ------
    OutputError : the folder or a file cannot be written; what was there before still loads.
    """
    content = save({name: value.half().contiguous() for name, value in network.state_dict().items()})
    expert = {"levels": list(network.levels)} if isinstance(network, ExpertDenoiser) else {}
    return write_prior(folder, content, replace(card, network=network.config.to_dict(), expert=expert))


def write_prior(folder: Path, content: bytes, card: Card) -> Card:
    """Write ``content``, a whole safetensors file, and card; otherwise as :func:`save_prior`."""
    sha256 = hashlib.sha256(content).hexdigest()
    card = replace(card, sha256=sha256)
    own = folder / _own_name(card.sha256)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_files({own: content})
        write_files({folder / CARD: card.to_json().encode()})
        own.replace(folder / WEIGHTS)
        for leftover in folder.glob("model-" + "[0-9a-f]" * 12 + ".safetensors"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write the prior into {folder}: {error.strerror or error}", hint="choose another place"
        ) from None
    return card
