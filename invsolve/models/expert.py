"""A denoiser of two networks, each where it is the better one: a general one, and an expert for some noise levels.

A mean squared error is minimised level by level, so the better denoiser of each level is the better score model; on a ramp
at both ends of the expert's range the two are mixed, which keeps the probability-flow ODE smooth and, where they are equally
good, is better than either (Balaji et al. 2022, "eDiff-I", for experts by noise level).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invsolve.models.ffdnet import RECEPTIVE_RADIUS, FFDNet
from invsolve.models.network import EDMDenoiser, NetworkConfig

Levels = tuple[float, float, float, float]
"""Noise levels, rising: the expert begins to count, is alone, begins to fade, counts no more."""


class ExpertDenoiser(nn.Module):
    """``(1 - w) D(x, sigma) + w E(x, sigma)`` with w(sigma) in [0, 1] piecewise linear in log(sigma).

    Parameters
    ----------
    general : D, of RGB pictures in [0, 1], for all noise levels.
    expert : E, of the same pictures.
    levels : see :data:`Levels`.

    Raises
    ------
    ValueError : the general network is none of RGB pictures, or sees less far than the expert.
    """

    def __init__(self, general: EDMDenoiser, expert: FFDNet, levels: Levels) -> None:
        super().__init__()
        config = general.config
        if config.channels != 3 or (config.local and config.receptive_radius < RECEPTIVE_RADIUS):
            raise ValueError("an expert goes with a network of RGB pictures that sees as far as it does")
        self.general, self.expert, self.levels = general, expert, levels

    @property
    def config(self) -> NetworkConfig:
        """The general network's."""
        return self.general.config

    def weight(self, sigma: Tensor) -> Tensor:
        """The expert's share w at noise levels ``sigma`` (B,)."""
        begin, alone, fade, end = torch.as_tensor(self.levels, dtype=sigma.dtype, device=sigma.device).log()
        level = sigma.log()
        return torch.minimum((level - begin) / (alone - begin), (end - level) / (end - fade)).clamp(0, 1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x], float32, for ``x`` (B, 3, H, W) and ``sigma`` (B,). Where one of the two counts alone for the whole
        batch, the other does not run."""
        share = self.weight(sigma)
        if not bool((share > 0).any()):
            return self.general(x, sigma)
        known = self.expert(x, sigma.reshape(-1, 1, 1, 1)).float()
        if bool((share == 1).all()):
            return known
        return torch.lerp(self.general(x, sigma), known, share.reshape(-1, 1, 1, 1))
