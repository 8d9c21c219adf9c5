"""The noise-conditional U-Net and its EDM preconditioning.

Without attention the network is *local*: it has no pooling over the picture (no GroupNorm), every normalisation acts
on one pixel's channels. What it computes at a pixel depends only on the pixels within ``receptive_radius``, so a prior
trained on 64 x 64 crops means the same on a picture of any size, and tiles that overlap by that radius reproduce the
whole-picture result. Priors of pictures of one small size may have self-attention at low resolution instead: they know
whole objects, and only that size.

Sources: U-Net with additive skips and strided 2x2 resampling as in DRUNet (Zhang et al. 2021); scale-and-shift noise
conditioning and attention at low resolution as in ADM (Dhariwal & Nichol 2021); preconditioning of EDM (Karras et al.
2022, Table 1).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.models.dropout import ChannelDropout

EMBEDDING = 128
"""Width of the noise embedding."""


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of a prior, written to its card.

    Parameters
    ----------
    channels : picture channels, 3 for RGB, 1 for grey or CT.
    stem : pixel-unshuffle factor of the input; 1 keeps a full-resolution level.
    widths : channels of each level; level k works at 1 / (stem * 2**k) of the resolution.
    encoder_blocks, decoder_blocks : residual blocks per level going down and coming back up.
        The last level is the bottom: only its encoder blocks exist.
    normalize_from : first level whose blocks start with a per-pixel LayerNorm; levels above it have none.
    dropout : channel dropout inside the blocks, for small data sets.
    attention_from : first level whose blocks end in self-attention over the picture; None keeps the network local.
    sigma_data : standard deviation of the data around ``center``, in the units of x; one, or one per channel.
    center : value subtracted from x before the network; one, or one per channel.
    energy : whether the network's score is the gradient of a scalar; see :mod:`invsolve.models.energy`.
    """

    channels: int = 3
    stem: int = 1
    widths: tuple[int, ...] = (32, 64, 128, 256)
    encoder_blocks: tuple[int, ...] = (1, 1, 1, 2)
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    normalize_from: int = 1
    dropout: float = 0.0
    sigma_data: float | tuple[float, ...] = 0.27
    center: float | tuple[float, ...] = 0.5
    attention_from: int | None = None
    energy: bool = False

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if len(self.encoder_blocks) != levels or len(self.decoder_blocks) != levels - 1:
            raise ValueError(
                f"{levels} widths need {levels} encoder_blocks and {levels - 1} decoder_blocks, "
                f"got {len(self.encoder_blocks)} and {len(self.decoder_blocks)}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> NetworkConfig:
        known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**known)

    @property
    def sigma_rms(self) -> float:
        """``sigma_data`` over all channels."""
        return float(np.sqrt(np.mean(np.square(self.sigma_data))))

    @property
    def multiple(self) -> int:
        """Height and width are padded up to a multiple of this inside the network."""
        return self.stem * 2 ** (len(self.widths) - 1)

    @property
    def local(self) -> bool:
        """Whether an output pixel depends on its surroundings only: then any picture size will do."""
        return self.attention_from is None or self.attention_from >= len(self.widths)

    @property
    def receptive_radius(self) -> int:
        """Distance in pixels beyond which an input pixel cannot change an output pixel, of a local network."""
        if not self.local:
            raise ValueError("a network with attention sees the whole picture")
        # A 3x3 convolution at stride s reaches s pixels further, a residual block has two; 2x2 strided
        # resampling shifts by less than its stride. Encoder and decoder add up along the deepest path.
        radius = self.stem + self.stem  # input and output convolutions
        for level in range(len(self.widths)):
            stride = self.stem * 2**level
            decoder = self.decoder_blocks[level] if level < len(self.decoder_blocks) else 0
            radius += 2 * stride * (self.encoder_blocks[level] + decoder)
        radius += self.multiple - 1
        return 2 * radius if self.energy else radius  # a gradient goes the way back as well


class NoiseEmbedding(nn.Module):
    """log(sigma) -> Fourier features -> two-layer perceptron."""

    frequencies: Tensor

    def __init__(self, width: int, features: int = 32) -> None:
        super().__init__()
        # ln(sigma) / 4 spans about [-1.4, 0.8]; periods from 8 down to 1/4 separate neighbouring levels.
        self.register_buffer(
            "frequencies", 2 * math.pi * torch.logspace(-3, 2, features // 2, base=2), persistent=False
        )
        self.linear1 = nn.Linear(features, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, c_noise: Tensor) -> Tensor:
        phase = c_noise[:, None] * self.frequencies
        features = torch.cat([phase.cos(), phase.sin()], dim=1)
        return F.silu(self.linear2(F.silu(self.linear1(features))))


def normalize_pixels(x: Tensor) -> Tensor:
    """LayerNorm over the channels of each pixel; (B, C, H, W) in channels_last stays so."""
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)


def modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``shift + h scale``; where no gradient is wanted in the memory of ``h``, which is not used again."""
    if torch.is_grad_enabled() or not h.dtype == scale.dtype == shift.dtype:
        return torch.addcmul(shift, h, scale)
    return torch.addcmul(shift, h, scale, out=h)


def added(h: Tensor, x: Tensor) -> Tensor:
    """``h + x``; where no gradient is wanted in the memory of ``h``, which is not used again."""
    return h + x if torch.is_grad_enabled() or h.dtype != x.dtype else h.add_(x)


class ResidualBlock(nn.Module):
    """x + conv(silu(scale * conv(norm(x)) + shift)), the second convolution starting at zero."""

    def __init__(self, width: int, embedding: int, normalize: bool, dropout: float) -> None:
        super().__init__()
        self.normalize = normalize
        self.dropout = ChannelDropout(dropout)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(normalize_pixels(x) if self.normalize else x)
        scale, shift = self.modulation(emb)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(modulated(h, scale + 1, shift), inplace=not torch.is_grad_enabled())
        return added(self.conv2(self.dropout(h)), x)


class Attention(nn.Module):
    """x + project(softmax(q k' / sqrt(width)) v) over all pixels, several heads; the projection starts at zero."""

    def __init__(self, width: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(1, width // head_width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor) -> Tensor:
        width, height, length = x.shape[1:]
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C)
        qkv = self.qkv(F.layer_norm(pixels, (width,)))
        q, k, v = qkv.unflatten(2, (3, self.heads, width // self.heads)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.project(mixed).unflatten(1, (height, length)).permute(0, 3, 1, 2)


class Encoder(nn.Module):
    """The way down of the U-Net: what priors and noise-conditional classifiers share."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.embedding = NoiseEmbedding(EMBEDDING)
        self.conv_in = nn.Conv2d(config.channels * config.stem**2, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(self.level(k, n) for k, n in enumerate(config.encoder_blocks))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))

    def level(self, number: int, count: int) -> nn.ModuleList:
        """``count`` residual blocks, and attention after the last where the level has it."""
        config, width = self.config, self.config.widths[number]
        normalize = number >= config.normalize_from
        parts: list[nn.Module] = [ResidualBlock(width, EMBEDDING, normalize, config.dropout) for _ in range(count)]
        if count and config.attention_from is not None and number >= config.attention_from:
            parts.append(Attention(width))
        return nn.ModuleList(parts)

    def encode(self, x: Tensor, c_noise: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features of every level (B, width, h, w), finest first, and the noise embedding (B, 128)."""
        emb = self.embedding(c_noise)
        if self.config.stem > 1:
            x = F.pixel_unshuffle(x, self.config.stem)
        h = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        features = []
        for level, parts in enumerate(self.encoder):
            h = run_level(parts, h, emb)
            features.append(h)
            if level < len(self.down):
                h = self.down[level](h)
        return features, emb


def run_level(parts: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    """The blocks of one level, one after the other."""
    for part in parts.children():
        h = part(h, emb) if isinstance(part, ResidualBlock) else part(h)
    return h


class UNet(Encoder):
    """The raw network F(x, c_noise); shapes (B, C, H, W) and (B,), H and W any positive size."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        widths = config.widths
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.decoder = nn.ModuleList(self.level(k, n) for k, n in enumerate(config.decoder_blocks))
        self.conv_out = nn.Conv2d(widths[0], config.channels * config.stem**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        features, emb = self.encode(pad_to_multiple(x, self.config.multiple), c_noise)
        h = features[-1]
        for level in reversed(range(len(self.up))):
            h = run_level(self.decoder[level], added(self.up[level](h), features[level]), emb)
        h = self.conv_out(h)
        if self.config.stem > 1:
            h = F.pixel_shuffle(h, self.config.stem)
        return h[..., :height, :width]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend the right and bottom edges to a multiple: mirrored where the picture is large enough, repeated else."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return x
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)


def register_scale(module: nn.Module, config: NetworkConfig) -> None:
    """Buffers ``sigma_data`` and ``center``, (1, 1 or C, 1, 1): not made anew, or sent to the device, at every call."""
    for name, value in (("sigma_data", config.sigma_data), ("center", config.center)):
        module.register_buffer(name, torch.as_tensor(value).reshape(1, -1, 1, 1), persistent=False)


class EDMDenoiser(nn.Module):
    """D(x, sigma) = c + c_skip (x - c) + c_out F(c_in (x - c), ln(sigma) / 4); Karras 2022, Table 1.

    ``x`` (B, C, H, W) in the prior's units, ``sigma`` (B,) in the same units; returns E[x0 | x], float32.
    """

    sigma_data: Tensor
    center: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.net = UNet(config)
        register_scale(self, config)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma_data, center = self.sigma_data, self.center
        s = sigma[:, None, None, None]
        c_skip = sigma_data**2 / (s**2 + sigma_data**2)
        c_out = s * sigma_data / (s**2 + sigma_data**2).sqrt()
        c_in = 1 / (s**2 + sigma_data**2).sqrt()
        centered = x - center
        return center + c_skip * centered + c_out * self.raw(c_in * centered, sigma.log() / 4)

    def raw(self, u: Tensor, c_noise: Tensor) -> Tensor:
        """F(u, c_noise), of the type of ``u`` also where the network computes in bfloat16."""
        return self.net(u, c_noise).to(u.dtype)

    @property
    def parameters_count(self) -> int:
        return sum(p.numel() for p in self.parameters())
