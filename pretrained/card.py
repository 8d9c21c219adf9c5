"""A prior's card: what the weights are, what they know and what they do not. Stored as ``card.json`` beside them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from invsolve.colours import KNOWN, Colours
from invsolve.errors import ModelError
from invsolve.models.network import NetworkConfig
from invsolve.models.orientation import ALLOWED
from invsolve.models.score_model import Orientations, PriorFacts

FORMAT = 1


@dataclass(frozen=True)
class Card:
    """Facts about a prior, all of them plain JSON.

    ``validation_mse`` lists (sigma, mean squared denoising error per pixel), in the units of x; solvers use it.
    ``size`` is the side of the square pictures the prior knows, None where any size will do; ``frame`` the shorter side
    of the whole pictures it knows, None where it knows parts of pictures at any scale; ``orientations`` in which
    orientations it saw them: "square" all eight, "flips", or "mirror" left and right only; ``colours`` the coordinates of x, see
    :mod:`invsolve.colours`.
    ``bits_per_dimension`` holds mean and standard deviation over validation pictures, and their number, where measured.

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
    validation_accuracy: list[tuple[float, float, float]] = field(default_factory=list)
    format: int = FORMAT

    @property
    def facts(self) -> PriorFacts:
        """What the prior's model and all that wraps it know of it."""
        network = NetworkConfig.from_dict(self.network)
        return PriorFacts(
            channels=network.channels,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            sigma_data=network.sigma_rms,
            size=self.size,
            frame=self.frame,
            colours=self.colours,
            orientations=self.orientations,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read and check a card.

        Raises
        ------
        ModelError : no such file, not a card, or of a newer format.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelError(
                f"no card at {path}", hint="a prior is a folder with card.json and model.safetensors"
            ) from None
        except (OSError, ValueError) as error:
            raise ModelError(
                f"cannot read the card {path}: {error}", hint="reinstall invsolve, or copy the prior again"
            ) from error
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ModelError(f"{path} is not a card of format {FORMAT}", hint="update invsolve")
        try:
            card = cls(**fields)
        except TypeError as error:
            raise ModelError(
                f"{path} is not a card: {error}", hint="reinstall invsolve, or copy the prior again"
            ) from error
        if card.orientations not in ALLOWED:
            raise ModelError(f"{path}: orientations {card.orientations!r}", hint=f"wanted one of {', '.join(ALLOWED)}")
        if card.colours not in KNOWN:
            raise ModelError(f"{path}: colours {card.colours!r}", hint=f"wanted one of {', '.join(KNOWN)}")
        return card


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
