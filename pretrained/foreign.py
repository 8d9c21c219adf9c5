"""Networks of other libraries as denoisers: what they have in common, whatever they are and were trained for.

A configuration (:class:`ForeignConfig`) knows the change of variables between a library's network and pictures p in [0, 1]. Two
more belong to any of them:

- Units. A prior of CT slices states the Hounsfield units at the ends of its range, p = 0 and p = 1 (mostly -1 and 1 to the
  network). With x = (HU + 1000) / 2000, the units of :mod:`invsolve.ct`, x = black + range p, and so
  D(x, sigma) = black + range D_p((x - black) / range, sigma / range).
- Classes. Asked with a class, the network says F_class, asked with the null class of its training F_null; their mixture
  F_null + guidance (F_class - F_null) is classifier-free guidance (Ho & Salimans 2022, eq. 6, with guidance = 1 + w). All
  changes of variables are affine in F, so mixing what the network says mixes the denoised pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from invsolve.errors import InputError, ModelError, UsageError
from invsolve.models.network import pad_to_multiple
from invsolve.models.score_model import FunctionPrior
from invsolve.typed import first_misfit

Ask = Callable[[Tensor, Tensor], Tensor]
"""What a network says to u (B, C, H, W) and a label (B,); variances that it may predict are left out."""

HU_PER_UNIT = 2000.0

Window = tuple[float, float]
"""Hounsfield units at the ends of a network's range."""

WIDEST_WINDOW = 1e5

EVERY_FOREIGN: dict[str, Any] = {"window": tuple[float, float] | None, "null_class": int | None}
"""Fields that a card may have for networks of any library."""


def known_fields(fields: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """A card's ``foreign``, which must have the fields ``kinds`` of these types and may have :data:`EVERY_FOREIGN`.

    Raises
    ------
    ValueError : a field is absent, unknown or of another type.
    """
    wrong = first_misfit(fields, {**kinds, **EVERY_FOREIGN})
    if wrong or not kinds.keys() <= fields.keys():
        raise ValueError(f"foreign: {wrong or f'wanted the fields {sorted(kinds)}'}")
    known = dict(fields)
    if known.get("window") is not None:
        known["window"] = tuple(known["window"])
    return known


class ForeignConfig(Protocol):
    """A network of another library and the diffusion it was trained for, as on a card."""

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the pictures around their mean, in the prior's units."""

    @property
    def window(self) -> Window | None:
        """Of a prior of CT slices; None for pictures in [0, 1]."""

    @property
    def null_class(self) -> int | None:
        """What the network was told in training where no class was; None where it always was told one."""

    @property
    def classes(self) -> int:
        """How many the network knows; 0 if it wants none."""

    @property
    def channels(self) -> int: ...

    @property
    def size(self) -> int | None:
        """Side of the square pictures that it was trained on; None where that is not said."""

    @property
    def multiple(self) -> int:
        """Height and width are padded up to a multiple of this."""

    @property
    def sigmas(self) -> Tensor | None:
        """The noise levels of a chain's steps in [0, 1], rising; None where there are no steps."""

    def to_dict(self) -> dict[str, Any]: ...

    def check(self) -> None:
        """Raise a ValueError for what is unknown or out of range."""

    def empty_network(self) -> nn.Module:
        """The network with shapes but no values: nothing is allocated, however large a card says it is."""

    def say(self, network: nn.Module, u: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        """What the network says, told classes (B,) if it wants them."""

    def prior(self, ask: Ask, *, rounded: bool) -> FunctionPrior:
        """The change of variables, for pictures in [0, 1]; ``rounded`` asks a chain with whole steps only."""


class ForeignDenoiser(nn.Module):
    """``forward(x, sigma)``: E[x0 | x] for x (B, C, H, W) in the prior's units and sigma (B,), by a network of another library.

    Parameters
    ----------
    unet : the network.
    config : what it is and what it was trained for.
    rounded : ask a network of numbered steps with whole ones only.
    label : the class of the pictures; None for pictures of any class.
    guidance : see above; 1 is the class as it is, more is surer of it and less varied.

    ``sigma_min`` and ``sigma_max`` are the noise levels it was trained for.
    """

    def __init__(
        self,
        unet: nn.Module,
        config: ForeignConfig,
        *,
        rounded: bool = False,
        label: int | None = None,
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        self.unet, self.config, self.label, self.guidance = unet, config, label, guidance
        self._prior = config.prior(self._ask, rounded=rounded)
        self._black, self._range = in_units(config.window)
        self.sigma_min, self.sigma_max = self._range * self._prior.sigma_min, self._range * self._prior.sigma_max

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.config.classes and self.label is None and self.config.null_class is None:
            raise ModelError(
                f"this prior has to be told one of {self.config.classes} classes",
                hint="`invsolve generate --class NUMBER`, or load_prior(...).of_class(number)",
            )
        pictures = pad_to_multiple((x - self._black) / self._range, self.config.multiple)
        found = self._prior.denoise(pictures, sigma / self._range)[..., : x.shape[-2], : x.shape[-1]]
        return self._black + self._range * found

    def of_class(self, label: int, guidance: float = 1.0) -> ForeignDenoiser:
        """The denoiser of one class; see :class:`ForeignDenoiser`.

        Raises
        ------
        UsageError : the network wants no class, or was not trained for guidance.
        InputError : no such class.
        """
        if not self.config.classes:
            raise UsageError("this prior knows no classes", hint="leave out the class")
        if not 0 <= label < self.config.classes:
            raise InputError(
                f"there is no class {label}", hint=f"this prior has {self.config.classes}, numbered from 0"
            )
        if guidance != 1 and self.config.null_class is None:
            raise UsageError(
                f"guidance {guidance:g}: this network was always told a class, and has no other answer to guide by",
                hint="leave it at 1; import it with --null-class where it has a class that stands for none",
            )
        return ForeignDenoiser(self.unet, self.config, label=label, guidance=guidance)

    @property
    def sigmas(self) -> Tensor | None:
        """The noise levels of a chain's steps in the prior's units, rising; None where there are no steps."""
        steps = self.config.sigmas
        return None if steps is None else self._range * steps

    def _ask(self, u: Tensor, label: Tensor) -> Tensor:
        config = self.config
        if not config.classes:
            return config.say(self.unet, u, label, None)

        def told(row: int | None) -> Tensor:
            assert row is not None
            return config.say(self.unet, u, label, torch.full((len(u),), row, device=u.device))

        if self.label is None or self.guidance == 0:
            return told(config.null_class)
        if self.guidance == 1:
            return told(self.label)
        null = told(config.null_class)
        return null + self.guidance * (told(self.label) - null)


def in_units(window: Window | None) -> tuple[float, float]:
    """What p = 0 is in the prior's units, and how far p = 1 is from it."""
    if window is None:
        return 0.0, 1.0
    low, high = window
    return (low + 1000.0) / HU_PER_UNIT, (high - low) / HU_PER_UNIT


def check_window(window: Any) -> None:
    """Raise a ValueError where it is not None or two rising Hounsfield units."""
    if window is not None and not (
        len(window) == 2 and -WIDEST_WINDOW <= window[0] < window[1] <= WIDEST_WINDOW and window[1] - window[0] >= 1
    ):
        raise ValueError(f"window {list(window)}, wanted two rising numbers of Hounsfield units")


def check_null_class(null: int | None, rows: int) -> None:
    """Raise a ValueError where there is no such row of the table of classes."""
    if null is not None and not 0 <= null < rows:
        raise ValueError(f"null_class {null}, but the network's table of classes has {rows} rows")


def usable_classes(rows: int, null: int | None) -> int:
    """How many of the rows of a table stand for classes: all but a null class at its end."""
    return rows - (null is not None and null == rows - 1)
