"""The U-Nets of published diffusion models, in one: DDPM++, NCSN++ and ADM.

Their shared block normalises, activates and convolves twice, is told the noise level in between, and may halve or double
the resolution on the way or attend to the whole picture at its end (Karras et al. 2022, appendix F.2, sets the three side by
side). They differ in what :class:`UNetConfig` names:

=================== ============================================== ====================================================
part                "song": DDPM++, NCSN++ (Song et al. 2021)      "adm" (Dhariwal & Nichol 2021)
=================== ============================================== ====================================================
embedding           (sin, cos) of the label                        (cos, sin) of the label
frequencies         10000^(-k / (n - 1)), or random (NCSN++)       10000^(-k / n)
class               added before the embedding's first layer       added after its second layer
residual sums       divided by sqrt 2                              as they are
attention           one head, up: at the end of a level            several heads, up: after every block
change of size      1 x 1 convolution on the way around the block  none
=================== ============================================== ====================================================

Names of tensors are this module's own; :mod:`invsolve.pretrained` brings in the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.typed import brief, network_config

Resample = Literal["up", "down"]

MOST_LEVELS, MOST_BLOCKS, LARGEST_WIDTH, LARGEST_SIDE, MOST_CLASSES = 10, 32, 4096, 2**16, 2**20
"""Of a network: more than any that was ever trained, and few enough to be counted before it is built."""


@dataclass(frozen=True)
class UNetConfig:
    """Architecture of a published U-Net.

    Parameters
    ----------
    kind : "song" or "adm", see above.
    size : side of the square pictures it knows.
    channels, outputs : of the picture, and of what the network says.
    widths : channels of each level; level k works at 1 / 2^k of the resolution.
    blocks : residual blocks per level going down; coming up there is one more.
    attention : the levels whose blocks attend.
    stem : channels of the first convolution.
    noise_width, embedding_width : of the noise level's embedding, before and after its two layers.
    fourier : whether the embedding's frequencies are random, and stored.
    encoder : "standard"; "residual" or "skip" where the shrunken picture is added at every level.
    decoder : "standard"; "skip" where every level adds to the picture that comes out.
    filter : weights of the resampling filter along one axis.
    resample_blocks : resolution changes in residual blocks; else by a convolution.
    corner : that convolution, where it halves, sees zeros beyond the right and the lower edge only, as DDPM's (Ho et al. 2020).
    scale_shift : the noise level scales and shifts; else it only shifts.
    skip_scale : factor on residual sums.
    heads, head_channels : of attention; exactly one of them is stated.
    group : least number of channels that are normalised together; there are at most 32 groups.
    epsilon : of the normalisations.
    classes : rows of the table of classes; 0 where the network wants none.
    """

    kind: Literal["song", "adm"]
    size: int
    channels: int
    outputs: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    stem: int
    noise_width: int
    embedding_width: int
    fourier: bool = False
    encoder: Literal["standard", "residual", "skip"] = "standard"
    decoder: Literal["standard", "skip"] = "standard"
    filter: tuple[float, ...] = (1, 1)
    resample_blocks: bool = True
    corner: bool = False
    scale_shift: bool = True
    skip_scale: float = 1.0
    heads: int | None = 1
    head_channels: int | None = None
    group: int = 4
    epsilon: float = 1e-5
    classes: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> UNetConfig:
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
        heads = [self.heads_of(width) for width in self.widths] if self._states_heads else [0]
        checks = {
            "size": 1 <= self.size <= LARGEST_SIDE,
            "channels": self.channels in (1, 3),
            "outputs": self.outputs in (self.channels, 2 * self.channels),
            "widths": 1 <= len(self.widths) <= MOST_LEVELS and all(1 <= width <= LARGEST_WIDTH for width in self.widths),
            "blocks": 1 <= self.blocks <= MOST_BLOCKS,
            "attention": all(0 <= level < len(self.widths) for level in self.attention),
            "stem": 1 <= self.stem <= LARGEST_WIDTH and self.stem % self.groups_of(self.stem) == 0,
            "noise_width": 4 <= self.noise_width <= LARGEST_WIDTH and self.noise_width % 2 == 0,
            "embedding_width": 1 <= self.embedding_width <= 4 * LARGEST_WIDTH,
            "filter": len(self.filter) in (2, 4) and 0.01 < sum(self.filter) < 1e6,
            "skip_scale": 0 < self.skip_scale <= 1,
            "heads and head_channels": self._states_heads and all(
                count >= 1 and width % count == 0
                for level, (width, count) in enumerate(zip(self.widths, heads, strict=True))
                if level in (*self.attention, len(self.widths) - 1)
            ),
            "group": 1 <= self.group <= 32 and all(width % self.groups_of(width) == 0 for width in self.widths),
            "epsilon": 0 < self.epsilon < 1,
            "classes": 0 <= self.classes <= MOST_CLASSES,
        }  # fmt: skip
        for name, sound in checks.items():
            if not sound:
                shown = [getattr(self, part) for part in name.split(" and ")]
                raise ValueError(
                    f"the network's {name} {brief(shown[0] if len(shown) == 1 else shown)} is out of range"
                )

    @property
    def _states_heads(self) -> bool:
        stated = [number for number in (self.heads, self.head_channels) if number is not None]
        return len(stated) == 1 and stated[0] > 0

    def heads_of(self, width: int) -> int:
        """Attention heads at a width; 0 where they do not divide it."""
        if self.head_channels is not None:
            return width // self.head_channels if width % self.head_channels == 0 else 0
        return self.heads or 0

    def groups_of(self, width: int) -> int:
        return max(1, min(32, width // self.group))

    @property
    def multiple(self) -> int:
        """Height and width have to be multiples of this."""
        return 2 ** (len(self.widths) - 1)


def resampled(x: Tensor, direction: Resample, weights: tuple[float, ...], *, padded: bool = False) -> Tensor:
    """x (B, C, H, W) at twice or half the resolution, filtered along both axes; ``padded`` where it has margins already."""
    if len(weights) == 2 and weights[0] == weights[1]:  # what the filter then is, without a kernel
        return F.interpolate(x, scale_factor=2, mode="nearest") if direction == "up" else F.avg_pool2d(x, 2)
    line = torch.tensor(weights, dtype=x.dtype, device=x.device)
    line = line / line.sum()
    kernel = torch.outer(line, line).expand(x.shape[1], 1, -1, -1)
    margin = 0 if padded else margin_of(weights)
    if direction == "up":
        return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=margin, groups=x.shape[1])
    return F.conv2d(x, kernel, stride=2, padding=margin, groups=x.shape[1])


def margin_of(weights: tuple[float, ...]) -> int:
    """Pixels of zeros that a resampling filter sees beyond each edge."""
    return (len(weights) - 1) // 2


class ResampleConv(nn.Module):
    """Half the resolution by a strided convolution, or twice by repeating pixels before one."""

    def __init__(self, width: int, direction: Resample, *, corner: bool) -> None:
        super().__init__()
        self.direction, self.corner = direction, corner and direction == "down"
        padding = 0 if self.corner else 1
        self.conv = nn.Conv2d(width, width, 3, stride=2 if direction == "down" else 1, padding=padding)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.corner:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest") if self.direction == "up" else x)


class Block(nn.Module):
    """A residual block; ``forward(x, embedding)``."""

    def __init__(
        self, inputs: int, outputs: int, config: UNetConfig, *, attends: bool = False, resample: Resample | None = None
    ) -> None:
        super().__init__()

        def norm(width: int) -> nn.GroupNorm:
            return nn.GroupNorm(config.groups_of(width), width, eps=config.epsilon)

        self.config, self.resample = config, resample
        self.norm0, self.conv0 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.affine = nn.Linear(config.embedding_width, outputs * (2 if config.scale_shift else 1))
        self.norm1, self.conv1 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        around = inputs != outputs or (resample is not None and config.kind == "song")
        self.skip = nn.Conv2d(inputs, outputs, 1) if around else nn.Identity()
        self.heads = config.heads_of(outputs) if attends else 0
        if attends:
            self.norm2, self.qkv = norm(outputs), nn.Conv2d(outputs, 3 * outputs, 1)
            self.proj = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = F.silu(self.norm0(x))
        if self.resample is not None:
            h = resampled(h, self.resample, self.config.filter)
            x = resampled(x, self.resample, self.config.filter)
        h = self.conv0(h)
        told = self.affine(embedding)[..., None, None]
        if self.config.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + told)
        h = (self.skip(x) + self.conv1(F.silu(h))) * self.config.skip_scale
        return (h + self._attention(h)) * self.config.skip_scale if self.heads else h

    def _attention(self, h: Tensor) -> Tensor:
        parts = self.qkv(self.norm2(h)).reshape(len(h), 3, self.heads, h.shape[1] // self.heads, -1)
        q, k, v = parts.transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return self.proj(attended.reshape(h.shape))


class UNet(nn.Module):
    """``forward(x, label, classes)``: what a published U-Net says of x (B, C, H, W) told a label (B,), and the rows (B,) of
    its table of classes where it has one."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, levels = config.widths, len(config.widths)
        self.frequencies: Tensor | None
        self.register_buffer("frequencies", torch.empty(config.noise_width // 2) if config.fourier else None)
        self.embed0 = nn.Linear(config.noise_width, config.embedding_width)
        self.embed1 = nn.Linear(config.embedding_width, config.embedding_width)
        wide = config.noise_width if config.kind == "song" else config.embedding_width
        self.table = nn.Embedding(config.classes, wide) if config.classes else None

        self.stem = nn.Conv2d(config.channels, config.stem, 3, padding=1)
        self.down, self.aux, self.encoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width, skips = config.stem, [config.stem]
        for level in range(levels):
            if level:
                self.down.append(self._resample(width, "down"))
                if config.encoder == "skip":
                    self.aux.append(nn.Conv2d(config.channels, width, 1))
                elif config.encoder == "residual":
                    shown = config.channels if level == 1 else widths[level - 2]
                    self.aux.append(nn.Conv2d(shown, width, 3, padding=1 + margin_of(config.filter)))
                skips.append(width)
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                blocks.append(Block(width, widths[level], config, attends=level in config.attention))
                width = widths[level]
                skips.append(width)
            self.encoder.append(blocks)

        self.middle = nn.ModuleList([Block(width, width, config, attends=first) for first in (True, False)])
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.out_norm, self.out_conv = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(levels)):
            if level < levels - 1:
                self.up.append(self._resample(width, "up"))
            blocks = nn.ModuleList()
            for index in range(config.blocks + 1):
                attends = level in config.attention and (config.kind == "adm" or index == config.blocks)
                blocks.append(Block(width + skips.pop(), widths[level], config, attends=attends))
                width = widths[level]
            self.decoder.append(blocks)
            if config.decoder == "skip" or level == 0:
                self.out_norm.append(nn.GroupNorm(config.groups_of(width), width, eps=config.epsilon))
                self.out_conv.append(nn.Conv2d(width, config.outputs, 3, padding=1))

    def _resample(self, width: int, direction: Resample) -> nn.Module:
        if not self.config.resample_blocks:
            return ResampleConv(width, direction, corner=self.config.corner)
        return Block(width, width, self.config, resample=direction)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        config, embedding = self.config, self._embedding(label, classes)
        h = self.stem(x)
        skips, shown = [h], x
        for level in range(len(self.encoder)):
            if level:
                h = self.down[level - 1](h, embedding)
                if config.encoder == "skip":
                    shown = resampled(shown, "down", config.filter)
                    h = h + self.aux[level - 1](shown)
                elif config.encoder == "residual":
                    shown = resampled(self.aux[level - 1](shown), "down", config.filter, padded=True)
                    shown = h = (h + shown) * config.skip_scale
                skips.append(h)
            for block in self._blocks(self.encoder, level):
                h = block(h, embedding)
                skips.append(h)
        for block in self.middle:
            h = block(h, embedding)
        said = None
        for number in range(len(self.decoder)):
            if number:
                h = self.up[number - 1](h, embedding)
            for block in self._blocks(self.decoder, number):
                h = block(torch.cat([h, skips.pop()], dim=1), embedding)
            if config.decoder == "skip" or number == len(self.decoder) - 1:
                index = number if config.decoder == "skip" else 0
                part = self.out_conv[index](F.silu(self.out_norm[index](h)))
                said = part if said is None else part + resampled(said, "up", config.filter)
        assert said is not None
        return said

    @staticmethod
    def _blocks(levels: nn.ModuleList, level: int) -> list[nn.Module]:
        return list(levels[level].children())

    def _embedding(self, label: Tensor, classes: Tensor | None) -> Tensor:
        """What the blocks are told, (B, embedding_width)."""
        song = self.config.kind == "song"
        angles = torch.outer(label, self._frequencies(label))
        parts = (angles.sin(), angles.cos()) if song else (angles.cos(), angles.sin())
        embedding = torch.cat(parts, dim=1)
        row = self.table(classes) if self.table is not None else None
        if row is not None and song:
            embedding = embedding + row
        embedding = self.embed1(F.silu(self.embed0(embedding)))
        if row is not None and not song:
            embedding = embedding + row
        return F.silu(embedding)

    def _frequencies(self, label: Tensor) -> Tensor:
        if self.frequencies is not None:
            return 2 * math.pi * self.frequencies.to(label)
        count = self.config.noise_width // 2
        share = torch.arange(count, device=label.device, dtype=label.dtype) / (count - (self.config.kind == "song"))
        return 10000.0**-share
