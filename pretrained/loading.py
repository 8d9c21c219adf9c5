"""Loading and writing priors: ``model.safetensors`` + ``card.json`` in one folder. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from invsolve.atomic import write_files
from invsolve.errors import ModelError, OutputError
from invsolve.forward_models.classifier import NoiseConditionalClassifier
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.noisy_classifier import NoisyClassifier
from invsolve.models.precision import autocast
from invsolve.models.score_model import ScoreModel, Sigma
from invsolve.models.tiling import tiled
from invsolve.pretrained.card import Card, file_sha256

M = TypeVar("M", bound=nn.Module)

WEIGHTS = "model.safetensors"
REINSTALL = "reinstall invsolve, or copy or train the prior again"
CARD = "card.json"
SHIPPED = Path(__file__).resolve().parent

PIXELS_AT_ONCE = 2**21
"""The network sees at most so many pixels in one batch: about 2 GB of activations."""

TILE_CORE = 384
"""Pictures with more pixels than a 768 x 768 one are denoised in tiles with cores of this side."""


class NetworkPrior(ScoreModel):
    """A trained network as a score model, its noise levels clamped to the card's.

    A local network takes any picture size, large ones in tiles; one with attention only the card's size.
    """

    def __init__(self, network: EDMDenoiser, card: Card, device: torch.device) -> None:
        super().__init__(card.facts)
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self.network.requires_grad_(False)
        self.card, self._device = card, device
        table = sorted(card.validation_mse)
        self._log_sigmas = np.log([s for s, _ in table])
        self._log_mse = np.log([e for _, e in table])

    @property
    def device(self) -> torch.device:
        return self._device

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        self.check_size(x)
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        level = level.clamp(self.sigma_min, self.sigma_max)

        def whole(part: Tensor) -> Tensor:
            count = max(1, PIXELS_AT_ONCE // (part.shape[-2] * part.shape[-1]))
            pieces = []
            with autocast(self.device):
                for first in range(0, len(part), count):
                    pieces.append(self.network(part[first : first + count].float(), level[first : first + count]))
            return torch.cat(pieces).to(part.dtype)

        config = self.network.config
        if x.shape[-2] * x.shape[-1] <= (2 * TILE_CORE) ** 2 or not config.local:
            return whole(x)
        return tiled(whole, x, core=TILE_CORE, overlap=config.receptive_radius, multiple=config.multiple)

    def mse(self, sigma: float) -> float:
        """The card's validated error, interpolated in log-log; sigma^2 scaling below the first level."""
        log_sigma = math.log(sigma)
        if log_sigma < self._log_sigmas[0]:
            return float(math.exp(self._log_mse[0] + 2 * (log_sigma - self._log_sigmas[0])))
        return float(math.exp(np.interp(log_sigma, self._log_sigmas, self._log_mse)))


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
    """The folder of a shipped prior's name, or of a path to a folder that holds a card.

    Raises
    ------
    ModelError : neither.
    """
    return _find(name, "prior")


def _find(name: str | Path, kind: str) -> Path:
    shipped = _shipped(kind)
    if str(name) in shipped:
        return SHIPPED / str(name)
    if (Path(name) / CARD).is_file():
        found = Card.read(Path(name) / CARD).kind
        if found != kind:
            raise ModelError(f"{name} holds a {found}, not a {kind}", hint=f"give the folder of a {kind}")
        return Path(name)
    raise ModelError(
        f"unknown {'model' if kind == 'prior' else kind} {str(name)!r}",
        hint=f"shipped: {', '.join(shipped) or 'none'}; or give a folder that `invsolve train` wrote",
    )


def resolve_device(device: str) -> torch.device:
    """``auto`` takes a GPU when there is one; an explicit device that is absent is an error, never a fallback."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError:
        raise ModelError(f"unknown device {device!r}", hint="use auto, cpu, cuda or cuda:N") from None
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


def load_prior(name: str | Path = "photos", device: str | torch.device = "auto") -> NetworkPrior:
    """Load a prior by name or folder, checking the weights' hash against the card.

    Parameters
    ----------
    name : a shipped prior (see :func:`shipped_priors`) or a folder with ``card.json`` and ``model.safetensors``.
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or a torch device.

    Raises
    ------
    ModelError : unknown name, damaged or altered weights, absent device.
    """
    where = device if isinstance(device, torch.device) else resolve_device(device)
    folder = find_prior(name)
    card = Card.read(folder / CARD)
    network = _load(folder, card, lambda: EDMDenoiser(NetworkConfig.from_dict(card.network)))
    return NetworkPrior(network, card, where)


def load_classifier(name: str | Path, device: str | torch.device = "auto") -> TrainedClassifier:
    """Load a noise-conditional classifier by name or folder; otherwise as :func:`load_prior`."""
    where = device if isinstance(device, torch.device) else resolve_device(device)
    folder = _find(name, "classifier")
    card = Card.read(folder / CARD)
    network = _load(folder, card, lambda: NoisyClassifier(NetworkConfig.from_dict(card.network), len(card.classes)))
    return TrainedClassifier(network, card, where)


def _load(folder: Path, card: Card, build: Callable[[], M]) -> M:
    """The network with the folder's weights, after checking their hash."""
    weights = _weights_of(folder, card)
    if not weights.is_file():
        raise ModelError(f"no weights at {weights}", hint=REINSTALL)
    digest = file_sha256(weights)
    if digest != card.sha256:
        raise ModelError(
            f"{weights} does not match its card: sha256 {digest[:12]}..., the card says {card.sha256[:12]}...",
            hint=f"the file is damaged or was changed; {REINSTALL}",
        )
    try:
        network = build()
        network.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
    except (SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{weights} does not fit its card: {str(error).splitlines()[0]}", hint=REINSTALL) from error
    return network


def _weights_of(folder: Path, card: Card) -> Path:
    """Where the card's weights are: in the usual file, or, if writing was broken off, still under their own name."""
    own = folder / _own_name(card.sha256)
    return own if own.is_file() else folder / WEIGHTS


def _own_name(sha256: str) -> str:
    return f"model-{sha256[:12]}.safetensors"


def save_prior(folder: Path, network: EDMDenoiser | NoisyClassifier, card: Card) -> Card:
    """Write weights (fp16) and card; returns the card with the weights' hash filled in.

    Over an older prior, :func:`load_prior` finds that or the new one, whole, at whatever moment this is broken off: the
    weights get a name of their own first, the card that goes with them replaces the old one, and only then do they take
    the usual name.

    Raises
    ------
    OutputError : the folder or a file cannot be written; what was there before still loads.
    """
    content = save({name: value.half().contiguous() for name, value in network.state_dict().items()})
    card = replace(card, network=network.config.to_dict(), sha256=hashlib.sha256(content).hexdigest())
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
