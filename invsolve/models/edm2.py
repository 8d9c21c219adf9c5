"""The U-Net of EDM2 (Karras et al. 2024): no layer changes the expected magnitude of what passes through it.

Its layers have no biases, its norms nothing that is learned. Weights are normalised row by row and scaled by a learned gain; both
are constants once a network is trained, so here the weights are taken as they come out of that (:mod:`invsolve.pretrained.edm2`).

Source: the paper, 2312.02696, appendix B and figure 21; equations are numbered as there. Names of tensors are this module's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.models.unet import (
    LARGEST_SIDE,
    LARGEST_WIDTH,
    MOST_BLOCKS,
    MOST_CLASSES,
    MOST_LEVELS,
    Resample,
    resampled,
)
from invsolve.typed import brief, network_config

EPSILON = 1e-4
SILU_MAGNITUDE = 0.596
"""Of silu(z), z standard normal."""


@dataclass(frozen=True)
class EDM2Config:
    """Architecture of an EDM2 network.

    Parameters
    ----------
    size : side of the square pictures it knows.
    channels : of the picture.
    widths : channels of each level; level k works at 1 / 2^k of the resolution.
    blocks : residual blocks per level going down; coming up there is one more.
    attention : the levels whose blocks attend; the middle always does.
    noise_width, embedding_width : of the noise level's embedding, before and after its layer.
    filter : weights of the resampling filter along one axis.
    head_channels : of attention.
    label_balance, concat_balance, residual_balance, attention_balance : the share in a sum of the class, of a skip connection, of a
        block's branch and of attention.
    clip : largest magnitude of what leaves a block; None for none.
    classes : rows of the table of classes; 0 where the network wants none.
    """

    size: int
    channels: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    noise_width: int
    embedding_width: int
    filter: tuple[float, ...] = (1, 1)
    head_channels: int = 64
    label_balance: float = 0.5
    concat_balance: float = 0.5
    residual_balance: float = 0.3
    attention_balance: float = 0.3
    clip: float | None = 256.0
    classes: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> EDM2Config:
        """Of plain JSON.

        Raises
        ------
        ValueError : unknown or missing fields, or values no network can have.
        """
        config = network_config(cls, fields)
        config.check()
        return config

    def check(self) -> None:
        """Raise a ValueError for what is out of range: known before anything is built."""
        balances = ("label_balance", "concat_balance", "residual_balance", "attention_balance")
        checks = {
            "size": 1 <= self.size <= LARGEST_SIDE,
            "channels": self.channels in (1, 3),
            "widths": 1 <= len(self.widths) <= MOST_LEVELS and all(1 <= width <= LARGEST_WIDTH for width in self.widths),
            "blocks": 1 <= self.blocks <= MOST_BLOCKS,
            "attention": all(0 <= level < len(self.widths) for level in self.attention),
            "noise_width": 1 <= self.noise_width <= LARGEST_WIDTH,
            "embedding_width": 1 <= self.embedding_width <= 4 * LARGEST_WIDTH,
            "filter": len(self.filter) in (2, 4) and 0.01 < sum(self.filter) < 1e6,
            "head_channels": self.head_channels >= 1 and all(
                width >= self.head_channels and width % self.head_channels == 0
                for level, width in enumerate(self.widths)
                if level in (*self.attention, len(self.widths) - 1)
            ),
            "clip": self.clip is None or 0 < self.clip < 1e9,
            "classes": 0 <= self.classes <= MOST_CLASSES,
            **{name: 0 <= getattr(self, name) <= 1 for name in balances},
        }  # fmt: skip
        for name, sound in checks.items():
            if not sound:
                raise ValueError(f"the network's {name} {brief(getattr(self, name))} is out of range")

    @property
    def multiple(self) -> int:
        """Height and width have to be multiples of this."""
        return int(2 ** (len(self.widths) - 1))


def silu(x: Tensor) -> Tensor:
    """Equation 81."""
    return F.silu(x) / SILU_MAGNITUDE


def blended(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Equation 88: the sum, ``share`` of it ``b``."""
    return ((1 - share) * a + share * b) / math.hypot(1 - share, share)


def beside(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Equation 103: channels of both, which then count as much as in :func:`blended`."""
    scale = math.sqrt(a.shape[1] + b.shape[1]) / math.hypot(1 - share, share)
    return torch.cat(
        [a * (scale * (1 - share) / math.sqrt(a.shape[1])), b * (scale * share / math.sqrt(b.shape[1]))], 1
    )


def unit_magnitude(x: Tensor, dim: int) -> Tensor:
    """Equation 30: divided by the root mean square along ``dim``."""
    return x / (EPSILON + torch.linalg.vector_norm(x, dim=dim, keepdim=True) / math.sqrt(x.shape[dim]))


def convolution(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)


class Block(nn.Module):
    """A residual block of the encoder, which normalises its input, or of the decoder; ``forward(x, embedding)``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        config: EDM2Config,
        *,
        encodes: bool,
        attends: bool = False,
        resample: Resample | None = None,
    ) -> None:
        super().__init__()
        self.config, self.encodes, self.resample = config, encodes, resample
        self.heads = outputs // config.head_channels if attends else 0
        self.conv0 = convolution(outputs if encodes else inputs, outputs, 3)
        self.affine = nn.Linear(config.embedding_width, outputs, bias=False)
        self.conv1 = convolution(outputs, outputs, 3)
        self.skip: nn.Module = convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        if attends:
            self.qkv, self.proj = convolution(outputs, 3 * outputs, 1), convolution(outputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.resample is not None:
            x = resampled(x, self.resample, self.config.filter)
        if self.encodes:
            x = unit_magnitude(self.skip(x), dim=1)
        scale = 1 + self.affine(embedding)[..., None, None]
        h = self.conv1(silu(scale * self.conv0(silu(x))))
        x = blended(x if self.encodes else self.skip(x), h, self.config.residual_balance)
        if self.heads:
            x = blended(x, self._attention(x), self.config.attention_balance)
        return x if self.config.clip is None else x.clamp(-self.config.clip, self.config.clip)

    def _attention(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).reshape(len(x), 3, self.heads, x.shape[1] // self.heads, -1)
        q, k, v = unit_magnitude(parts, dim=3).transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return self.proj(attended.reshape(x.shape))


class EDM2UNet(nn.Module):
    """``forward(x, label, classes)``: what an EDM2 network says of x (B, C, H, W) told a label (B,), and the rows (B,) of its
    table of classes where it has one."""

    def __init__(self, config: EDM2Config) -> None:
        super().__init__()
        self.config = config
        widths, levels = config.widths, len(config.widths)
        self.frequencies: Tensor
        self.phases: Tensor
        self.register_buffer("frequencies", torch.empty(config.noise_width))
        self.register_buffer("phases", torch.empty(config.noise_width))
        self.embed = nn.Linear(config.noise_width, config.embedding_width, bias=False)
        self.table = nn.Embedding(config.classes, config.embedding_width) if config.classes else None

        self.stem = convolution(config.channels + 1, widths[0], 3)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        width, skips = widths[0], [widths[0]]
        for level in range(levels):
            if level:
                self.down.append(Block(width, width, config, encodes=True, resample="down"))
                skips.append(width)
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                blocks.append(Block(width, widths[level], config, encodes=True, attends=level in config.attention))
                width = widths[level]
                skips.append(width)
            self.encoder.append(blocks)

        self.middle = nn.ModuleList(
            Block(width, width, config, encodes=False, attends=first) for first in (True, False)
        )
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(levels)):
            if level < levels - 1:
                self.up.append(Block(width, width, config, encodes=False, resample="up"))
            blocks = nn.ModuleList()
            for _ in range(config.blocks + 1):
                attends = level in config.attention
                blocks.append(Block(width + skips.pop(), widths[level], config, encodes=False, attends=attends))
                width = widths[level]
            self.decoder.append(blocks)
        self.out_conv = convolution(width, config.channels, 3)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        config, embedding = self.config, self._embedding(label, classes)
        h = self.stem(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = [h]
        for level, blocks in enumerate(self.encoder.children()):
            if level:
                h = self.down[level - 1](h, embedding)
                skips.append(h)
            for block in blocks.children():
                h = block(h, embedding)
                skips.append(h)
        for block in self.middle:
            h = block(h, embedding)
        for number, blocks in enumerate(self.decoder.children()):
            if number:
                h = self.up[number - 1](h, embedding)
            for block in blocks.children():
                h = block(beside(h, skips.pop(), config.concat_balance), embedding)
        return self.out_conv(h)

    def _embedding(self, label: Tensor, classes: Tensor | None) -> Tensor:
        """Equation 75 and figure 21: what the blocks are told, (B, embedding_width)."""
        angles = torch.outer(label, self.frequencies.to(label)) + self.phases.to(label)
        embedding = self.embed(math.sqrt(2) * angles.cos())
        if self.table is not None:
            embedding = blended(embedding, self.table(classes), self.config.label_balance)
        return silu(embedding)
