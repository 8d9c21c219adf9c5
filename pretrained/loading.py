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

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from invsolve.atomic import write_files
from invsolve.cache import models_folder
from invsolve.errors import ModelError, OutputError, first_line
from invsolve.files import regular_file
from invsolve.models.energy import make_denoiser
from invsolve.models.expert import ExpertDenoiser
from invsolve.models.ffdnet import FFDNet
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.noisy_classifier import NoisyClassifier
from invsolve.pretrained.card import Card, file_sha256, network_config
from invsolve.pretrained.foreign import ForeignConfig, ForeignDenoiser
from invsolve.pretrained.network_prior import NetworkPrior, TrainedClassifier
from invsolve.pretrained.published import foreign_config
from invsolve.typed import brief

M = TypeVar("M", bound=nn.Module)

WEIGHTS = "model.safetensors"
REINSTALL = "reinstall invsolve, or copy or train the prior again"
CARD = "card.json"
SHIPPED = Path(__file__).resolve().parent


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
