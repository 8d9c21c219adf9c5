"""Published networks with the change of variables of the library they came from, as on a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from invsolve.errors import first_line
from invsolve.models.edm2 import EDM2Config, EDM2UNet
from invsolve.models.refinenet import RefineNet, RefineNetConfig
from invsolve.models.score_model import FunctionPrior
from invsolve.models.unet import UNet, UNetConfig
from invsolve.pretrained import diffusers_unet, edm, edm2, guided_diffusion, ncsnv2, score_sde
from invsolve.pretrained.diffusers_unet import DiffusersConfig
from invsolve.pretrained.foreign import (
    Ask,
    ForeignConfig,
    Window,
    check_null_class,
    check_window,
    known_fields,
    usable_classes,
)

Architecture = UNetConfig | RefineNetConfig | EDM2Config


class Change(Protocol):
    """``prior`` of a library's module."""

    def __call__(self, ask: Ask, process: Mapping[str, Any], channels: int, *, rounded: bool) -> FunctionPrior: ...


class Library(NamedTuple):
    """What is known of a library: its networks and the diffusions they were trained for."""

    check_process: Callable[[Mapping[str, Any]], None]
    sigmas: Callable[[Mapping[str, Any]], Tensor | None]
    prior: Change
    architecture: type[Architecture] = UNetConfig


LIBRARIES: dict[str, Library] = {
    "guided_diffusion": Library(guided_diffusion.check_process, guided_diffusion.sigmas, guided_diffusion.prior),
    "edm": Library(edm.check_process, edm.sigmas, edm.prior),
    "edm2": Library(edm2.check_process, edm2.sigmas, edm2.prior, EDM2Config),
    "score_sde": Library(score_sde.check_process, score_sde.sigmas, score_sde.prior),
    "ncsnv2": Library(ncsnv2.check_process, ncsnv2.sigmas, ncsnv2.prior, RefineNetConfig),
}


@dataclass(frozen=True)
class PublishedNetwork:
    """A published network and the diffusion it was trained for.

    Parameters
    ----------
    library : where it came from, one of :data:`LIBRARIES`.
    network : its architecture.
    process : what the library's module says of it.
    sigma_data, window, null_class : see :class:`invsolve.pretrained.foreign.ForeignConfig`.
    """

    library: str
    network: Architecture
    process: dict[str, Any]
    sigma_data: float = 0.27
    window: Window | None = None
    null_class: int | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PublishedNetwork:
        """Of a card's ``foreign``.

        Raises
        ------
        ValueError : unknown fields, or values no such network can have.
        """
        names = tuple(LIBRARIES)
        kinds = {"library": Literal[names], "network": dict[str, Any], "process": dict[str, Any], "sigma_data": float}
        known = known_fields(fields, kinds)
        architecture = LIBRARIES[known["library"]].architecture
        config = cls(**{**known, "network": architecture.from_dict(known["network"])})
        config.check()
        return config

    def to_dict(self) -> dict[str, Any]:
        return {
            "library": self.library,
            "network": self.network.to_dict(),
            "process": self.process,
            "sigma_data": self.sigma_data,
            "window": self.window,
            "null_class": self.null_class,
        }

    def check(self) -> None:
        self.network.check()
        LIBRARIES[self.library].check_process(self.process)
        check_window(self.window)
        check_null_class(self.null_class, self.network.classes)
        if not 1e-6 <= self.sigma_data <= 1e6:
            raise ValueError("sigma_data is out of range")

    @property
    def classes(self) -> int:
        return usable_classes(self.network.classes, self.null_class)

    @property
    def channels(self) -> int:
        return self.network.channels

    @property
    def size(self) -> int | None:
        return self.network.size

    @property
    def multiple(self) -> int:
        return self.network.multiple

    @property
    def sigmas(self) -> Tensor | None:
        return LIBRARIES[self.library].sigmas(self.process)

    def empty_network(self) -> nn.Module:
        try:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                return _built(self.network)
        except (ValueError, RuntimeError) as error:  # groups that do not divide a sum of widths
            raise ValueError(f"there is no such network: {first_line(error)}") from error

    def say(self, network: nn.Module, u: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        said: Tensor = network(u, label, classes)
        return said[:, : self.channels].to(u.dtype)

    def prior(self, ask: Ask, *, rounded: bool) -> FunctionPrior:
        return LIBRARIES[self.library].prior(ask, self.process, self.channels, rounded=rounded)


def _built(network: Architecture) -> nn.Module:
    if isinstance(network, RefineNetConfig):
        return RefineNet(network)
    return EDM2UNet(network) if isinstance(network, EDM2Config) else UNet(network)


def foreign_config(fields: Mapping[str, Any]) -> ForeignConfig:
    """What a card's ``foreign`` describes.

    Raises
    ------
    ValueError : no library that is known, unknown fields, or values no such network can have.
    """
    if fields.get("library") == diffusers_unet.LIBRARY:
        return DiffusersConfig.from_dict(fields)
    return PublishedNetwork.from_dict(fields)
