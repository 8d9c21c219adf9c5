"""A prior's card: what the weights are, what they know and what they do not. Stored as ``card.json`` beside them."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from invsolve.colours import Colours
from invsolve.errors import ModelError
from invsolve.files import read_json
from invsolve.models.error_spectrum import ErrorSpectrum
from invsolve.models.network import NetworkConfig
from invsolve.models.score_model import Orientations, PriorFacts
from invsolve.pretrained.published import foreign_config
from invsolve.typed import brief, first_misfit

FORMAT = 1

SMALLEST_SIGMA, SMALLEST_ERROR = 1e-6, 1e-18
"""In the units of x, and of its square; their inverses are the largest."""


@dataclass(frozen=True)
class Card:
    """Facts about a prior, all of them plain JSON.

    ``validation_mse`` lists (sigma, mean squared denoising error per pixel), in the units of x; solvers use it.
    ``size`` is the side of the square pictures the prior knows, None where any size will do; ``frame`` the shorter side
    of the whole pictures it knows, None where it knows parts of pictures at any scale; ``orientations`` in which
    orientations it saw them: "square" all eight, "flips", or "mirror" left and right only; ``colours`` the coordinates of x, see
    :mod:`invsolve.colours`.
    ``expert`` is empty, or holds under "levels" the four noise levels of :data:`invsolve.models.expert.Levels`: the weights are
    then those of a general network, which ``network`` describes, and of an expert for the levels between.
    ``error_spectrum`` is what :meth:`invsolve.models.error_spectrum.ErrorSpectrum.to_dict` makes of the denoiser's error on
    clean pictures (of a prior trained here, those held out); empty where that was not measured.
    ``bits_per_dimension`` holds mean and standard deviation over validation pictures, and their number, where measured.

    ``foreign`` is empty, or describes a network of another library, see :mod:`invsolve.pretrained.foreign`, and the affine map
    from its units to those of x; ``network`` is then empty. ``source`` says where such a prior came from, at which revision, and the hashes of the files. ``label_rounding`` lists (sigma, root mean square difference) of
    what a network of numbered steps says halfway between two of them, where it is asked with a half step, as it is, and where
    with the nearest step: about what either can be wrong by.

    A classifier's card has ``kind`` "classifier", its ``classes`` and, in ``validation_accuracy``, (sigma, share of
    right answers, cross-entropy in nats); its ``validation_mse`` is empty.
    """

    name: str
    network: dict[str, Any]
    units: str
    sigma_min: float
    sigma_max: float
    validation_mse: list[tuple[float, float]]
    sha256: str
    data: str = ""
    licence: str = ""
    knows: str = ""
    does_not_know: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    frame: int | None = None
    orientations: Orientations = "square"
    colours: Colours = "rgb"
    bits_per_dimension: dict[str, float] = field(default_factory=dict)
    kind: str = "prior"
    classes: list[str] = field(default_factory=list)
    expert: dict[str, list[float]] = field(default_factory=dict)
    error_spectrum: dict[str, Any] = field(default_factory=dict)
    validation_accuracy: list[tuple[float, float, float]] = field(default_factory=list)
    foreign: dict[str, Any] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    label_rounding: list[tuple[float, float]] = field(default_factory=list)
    format: int = FORMAT

    @property
    def facts(self) -> PriorFacts:
        """What the prior's model and all that wraps it know of it."""
        if self.foreign:
            foreign = foreign_config(self.foreign)
            channels, sigma_data, hounsfield = foreign.channels, foreign.sigma_data, foreign.window is not None
        else:
            network = NetworkConfig.from_dict(self.network)
            channels, sigma_data, hounsfield = network.channels, network.sigma_rms, None
        return PriorFacts(
            channels=channels,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            sigma_data=sigma_data,
            size=self.size,
            frame=self.frame,
            colours=self.colours,
            orientations=self.orientations,
            hounsfield=hounsfield,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read and check a card.

        Raises
        ------
        ModelError : no such file, not a card, of a newer format, or a field of a wrong type or out of its range.
        """
        if not path.exists():
            raise ModelError(f"no card at {path}", hint="a prior is a folder with card.json and model.safetensors")
        values = read_json(path, "card", ModelError)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ModelError(f"{path} is not a card of format {FORMAT}", hint="update invsolve")
        needed = {one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING}
        missing = sorted(needed - values.keys())
        wrong = f"no {missing[0]}" if missing else first_misfit(values, get_type_hints(cls))
        if wrong := wrong or _out_of_range(cls(**values)):
            raise ModelError(f"{path} is not a card: {wrong}", hint="reinstall invsolve, or copy the prior again")
        return cls(**values)


LARGEST_SIDE = 2**16
MOST_LEVELS, MOST_BLOCKS, LARGEST_WIDTH, MOST_CHANNELS = 10, 64, 8192, 64
"""Of a network: more than any that was ever trained, and few enough to be counted before it is built."""


def _out_of_range(card: Card) -> str | None:
    """What is wrong with the values of a card whose fields have their types; None if nothing is."""
    sigmas = [row[0] for row in card.validation_mse or card.validation_accuracy]
    numbers = [number for row in card.validation_mse for number in row]
    shares = [row[1] for row in card.validation_accuracy]
    checks = {
        f"kind {card.kind!r}, wanted 'prior' or 'classifier'": card.kind in ("prior", "classifier"),
        f"sha256 {brief(card.sha256)}, wanted 64 hexadecimal digits": re.fullmatch("[0-9a-f]{64}", card.sha256),
        f"sigma_min {card.sigma_min} and sigma_max {card.sigma_max}, wanted 0 < sigma_min < sigma_max": (
            SMALLEST_SIGMA <= card.sigma_min < card.sigma_max <= 1 / SMALLEST_SIGMA
        ),
        "validation_mse that is not positive": all(SMALLEST_ERROR < number < 1 / SMALLEST_ERROR for number in numbers),
        "validation figures that are not sorted by sigma": all(a < b for a, b in itertools.pairwise(sigmas)),
        "validation_accuracy with shares outside 0 to 1": all(0 <= share <= 1 for share in shares),
        f"size {card.size}, wanted 1 to {LARGEST_SIDE}": card.size is None or 1 <= card.size <= LARGEST_SIDE,
        f"frame {card.frame}, wanted 1 to {LARGEST_SIDE}": card.frame is None or 1 <= card.frame <= LARGEST_SIDE,
        "bits_per_dimension without spread": card.bits_per_dimension.get("std", 1.0) > 0,
        "no classes, which a classifier has": card.kind != "classifier" or card.classes,
        "an expert whose levels are not four rising numbers": not card.expert or _rising(card.expert.get("levels", [])),
        "an error_spectrum that does not fit": not card.error_spectrum or _is_spectrum(card),
        "a foreign network and one of its own": not (
            card.foreign and (card.network or card.kind != "prior" or card.expert)
        ),
        "a foreign network of RGB pictures in other colours": not card.foreign or card.colours == "rgb",
        "label_rounding that is no list of levels and errors": all(row[0] > 0 <= row[1] for row in card.label_rounding),
        "classes of one name": len(set(card.classes)) == len(card.classes),
    }
    return next((wrong for wrong, sound in checks.items() if not sound), None)


def _rising(levels: list[float]) -> bool:
    return len(levels) == 4 and levels[0] > 0 and all(a < b for a, b in itertools.pairwise(levels))


def _is_spectrum(card: Card) -> bool:
    try:
        spectrum = ErrorSpectrum.from_dict(card.error_spectrum)
    except (KeyError, TypeError, ValueError):
        return False
    if card.foreign.get("library") == "diffusers":
        described = card.foreign.get("unet", {}).get("in_channels", 3)
    else:
        described = (card.foreign.get("network", {}) or card.network).get("channels", 3)
    return len(spectrum.variances[0]) == described


def network_config(card: Card) -> NetworkConfig:
    """The network of a card.

    Raises
    ------
    ValueError : unknown fields, or values no network can have.
    """
    if wrong := first_misfit(card.network, get_type_hints(NetworkConfig)):
        raise ValueError(f"network: {wrong}")
    config = NetworkConfig.from_dict(card.network)
    last = len(config.widths)
    local_until = last if config.attention_from is None else config.attention_from
    scales = [config.sigma_data, config.center]
    checks = {  # attention splits a width into heads of about 32
        "channels": 1 <= config.channels <= MOST_CHANNELS and (card.colours == "rgb" or config.channels == 3),
        "stem": 1 <= config.stem <= 16,
        "widths": 1 <= last <= MOST_LEVELS and all(1 <= width <= LARGEST_WIDTH for width in config.widths),
        "encoder_blocks": all(0 <= count <= MOST_BLOCKS for count in config.encoder_blocks),
        "decoder_blocks": all(0 <= count <= MOST_BLOCKS for count in config.decoder_blocks),
        "dropout": 0 <= config.dropout < 1,
        "normalize_from": config.normalize_from >= 0,
        "attention_from": local_until >= 0 and all(w % max(1, w // 32) == 0 for w in config.widths[local_until:]),
        "sigma_data": all(1e-6 <= one <= 1e6 for one in _each(config.sigma_data)),
        "center": all(abs(one) <= 1e6 for one in _each(config.center)),
        "sigma_data and center": all(len(_each(scale)) in (1, config.channels) for scale in scales),
    }
    for name, sound in checks.items():
        if not sound:
            shown = card.network.get(name, [brief(card.network.get(part)) for part in name.split(" and ")])
            raise ValueError(f"network: {name} {brief(shown)} is out of range")
    return config


def _each(scale: float | tuple[float, ...]) -> tuple[float, ...]:
    return scale if isinstance(scale, tuple) else (scale,)


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
