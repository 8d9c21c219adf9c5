"""Trained networks as they are used: a prior, which is a score model, and a noise-conditional classifier."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from invsolve.errors import ModelError, UsageError
from invsolve.forward_models.classifier import NoiseConditionalClassifier
from invsolve.models.allocation import keep_freed_memory
from invsolve.models.energy import EnergyDenoiser
from invsolve.models.error_spectrum import ErrorSpectrum, SpectralCovariance, channel_mix
from invsolve.models.expert import ExpertDenoiser
from invsolve.models.network import EDMDenoiser
from invsolve.models.noisy_classifier import NoisyClassifier
from invsolve.models.precision import autocast, full_precision
from invsolve.models.score_model import ErrorCovariance, ScoreModel, Sigma
from invsolve.models.tiling import blended, tiled
from invsolve.pretrained.card import Card
from invsolve.pretrained.foreign import ForeignDenoiser
from invsolve.typed import brief

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
