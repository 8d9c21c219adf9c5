"""The RefineNets of NCSNv2 (Song & Ermon 2020): an encoder of residual blocks, and a decoder that refines what the deeper level
said by what the encoder saw.

They are told no noise level: what they say is minus the noise at whatever level there is, and the score is that over sigma
(the paper's section 3.3, eq. 5). The encoder halves the resolution once to three times and then widens its reach by dilation.

Source: the paper, 2006.09011, appendix A.1, after Lin et al. 2017 (1611.06612); github.com/ermongroup/ncsnv2:
``models/ncsnv2.py``, ``models/layers.py``, ``models/normalization.py``. Names of tensors are those of that library.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.typed import first_misfit

Activation = Literal["elu", "relu", "lrelu", "swish"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": F.elu,
    "relu": F.relu,
    "lrelu": lambda x: F.leaky_relu(x, 0.2),
    "swish": F.silu,
}

Stage = tuple[str, int, int, int]
"""Of the encoder: its name's ending, its width over the first one's, by how much it halves (0 or 1), and its dilation."""

STAGES: dict[str, tuple[Stage, ...]] = {
    "ncsnv2": (("1", 1, 0, 1), ("2", 2, 1, 1), ("3", 2, 0, 2), ("4", 2, 0, 4)),
    "deeper": (("1", 1, 0, 1), ("2", 2, 1, 1), ("3", 2, 1, 1), ("4", 4, 0, 2), ("5", 4, 0, 4)),
    "deepest": (("1", 1, 0, 1), ("2", 2, 1, 1), ("3", 2, 1, 1), ("31", 2, 1, 1), ("4", 4, 0, 2), ("5", 4, 0, 4)),
}
"""For pictures up to 64, 128 and 256 pixels."""

LARGEST_WIDTH, LARGEST_SIDE = 4096, 2**16


@dataclass(frozen=True)
class RefineNetConfig:
    """Architecture of an NCSNv2.

    Parameters
    ----------
    size : side of the square pictures it knows.
    channels : of the picture.
    width : channels of the first level.
    depth : which of :data:`STAGES`.
    activation : its nonlinearity.
    """

    size: int
    channels: int
    width: int
    depth: Literal["ncsnv2", "deeper", "deepest"]
    activation: Activation = "elu"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RefineNetConfig:
        """Of plain JSON.

        Raises
        ------
        ValueError : unknown or missing fields, or values no network can have.
        """
        if wrong := first_misfit(fields, get_type_hints(cls)):
            raise ValueError(f"the network's {wrong}")
        try:
            config = cls(**fields)
        except TypeError:
            raise ValueError("the network's description lacks fields") from None
        config.check()
        return config

    def check(self) -> None:
        """Raise a ValueError for what is out of range: known before anything is built."""
        if not 1 <= self.size <= LARGEST_SIDE:
            raise ValueError(f"the network's size {self.size} is out of range")
        if not 2 <= self.width <= LARGEST_WIDTH or self.channels not in (1, 3):
            raise ValueError(f"the network's width {self.width} or channels {self.channels} are out of range")

    @property
    def stages(self) -> tuple[Stage, ...]:
        return STAGES[self.depth]

    @property
    def multiple(self) -> int:
        """Height and width have to be multiples of this."""
        return int(2 ** sum(halves for _, _, halves, _ in self.stages))

    @property
    def classes(self) -> int:
        return 0


class InstanceNormPlus(nn.Module):
    """InstanceNorm++ (Song & Ermon 2019, appendix A.1): the channels' means, which the norm takes out, come back normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.gamma = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3))
        means = (means - means.mean(dim=1, keepdim=True)) / (means.var(dim=1, keepdim=True) + 1e-5).sqrt()
        plain = F.instance_norm(x) + (means * self.alpha)[..., None, None]
        return plain * self.gamma[:, None, None] + self.beta[:, None, None]


class MeanPooledConv(nn.Module):
    """A convolution, and the mean of every 2 x 2 pixels."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(x), 2)


class ResidualBlock(nn.Module):
    """Norm, activation and convolution twice; the first of a stage may halve, and has a convolution on the way around."""

    def __init__(self, inputs: int, outputs: int, config: RefineNetConfig, *, first: bool, halves: int, dilation: int):
        super().__init__()

        def dilated(before: int, after: int) -> nn.Conv2d:
            return nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation)

        between = inputs if first else outputs
        self.act = ACTIVATIONS[config.activation]
        self.normalize1, self.conv1 = InstanceNormPlus(inputs), dilated(inputs, between)
        self.normalize2 = InstanceNormPlus(between)
        self.conv2: nn.Module = MeanPooledConv(between, outputs, 3) if halves else dilated(between, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if halves:
            self.shortcut = MeanPooledConv(inputs, outputs, 1)
        elif dilation > 1 and first:
            self.shortcut = dilated(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.act(self.normalize1(x)))
        return self.shortcut(x) + self.conv2(self.act(self.normalize2(h)))


class ConvUnits(nn.Module):
    """RefineNet's residual convolution units: ``count`` times two convolutions."""

    def __init__(self, width: int, count: int, config: RefineNetConfig) -> None:
        super().__init__()
        self.act, self.count = ACTIVATIONS[config.activation], count
        for unit, part in itertools.product(range(1, count + 1), (1, 2)):
            self.add_module(f"{unit}_{part}_conv", nn.Conv2d(width, width, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        for unit in range(1, self.count + 1):
            h = x
            for part in (1, 2):
                h = self.get_submodule(f"{unit}_{part}_conv")(self.act(h))
            x = x + h
        return x


class Convolutions(nn.Module):
    """A list of them under "convs"."""

    def __init__(self, inputs: list[int], outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, outputs, 3, padding=1, bias=bias) for width in inputs)


class RefineBlock(nn.Module):
    """Adapt every input, sum them at the first one's resolution, pool in a chain, and refine once more."""

    def __init__(self, inputs: list[int], outputs: int, config: RefineNetConfig, *, last: bool) -> None:
        super().__init__()
        self.act = ACTIVATIONS[config.activation]
        self.adapt_convs = nn.ModuleList(ConvUnits(width, 2, config) for width in inputs)
        self.msf = Convolutions(inputs, outputs, bias=True) if len(inputs) > 1 else None
        self.crp = Convolutions([outputs, outputs], outputs, bias=False)
        self.output_convs = ConvUnits(outputs, 3 if last else 1, config)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        parts = [adapt(x) for adapt, x in zip(self.adapt_convs, inputs, strict=True)]
        x = parts[0]
        if self.msf is not None:
            fused = [conv(part) for conv, part in zip(self.msf.convs, parts, strict=True)]
            x = fused[0]
            for other in fused[1:]:
                x = x + F.interpolate(other, x.shape[-2:], mode="bilinear", align_corners=True)
        x = self.act(x)
        path = x
        for conv in self.crp.convs:
            path = conv(F.max_pool2d(path, 5, stride=1, padding=2))
            x = x + path
        return self.output_convs(x)


class RefineNet(nn.Module):
    """``forward(x, label, classes)``: what an NCSNv2 says of x (B, C, H, W) in [-1, 1], minus the noise in units of its level;
    the label and the classes do not matter."""

    def __init__(self, config: RefineNetConfig) -> None:
        super().__init__()
        self.config, self.act = config, ACTIVATIONS[config.activation]
        width = config.width
        self.begin_conv = nn.Conv2d(config.channels, width, 3, padding=1)
        before = width
        for name, factor, halves, dilation in config.stages:
            changes = halves > 0 or dilation > 1
            first = ResidualBlock(before, factor * width, config, first=changes, halves=halves, dilation=dilation)
            before = factor * width
            second = ResidualBlock(before, before, config, first=False, halves=0, dilation=dilation)
            self.add_module(f"res{name}", nn.ModuleList([first, second]))
        self._decoder: list[str] = []
        deeper: list[int] = []
        for level in reversed(range(len(config.stages))):
            name, factor, *_ = config.stages[level]
            inputs = [factor * width, *deeper]
            outputs = factor * width if not deeper else config.stages[max(level - 1, 0)][1] * width
            plain = sum(len(one) == len("refine1") for one in self._decoder)
            self._decoder.append(f"refine{plain + 1}" if len(name) == 1 else f"refine{name}")
            self.add_module(self._decoder[-1], RefineBlock(inputs, outputs, config, last=level == 0))
            deeper = [outputs]
        self.normalizer = InstanceNormPlus(width)
        self.end_conv = nn.Conv2d(width, config.channels, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        h, levels = self.begin_conv(x), []
        for name, *_ in self.config.stages:
            for block in self.get_submodule(f"res{name}").children():
                h = block(h)
            levels.append(h)
        refined: list[Tensor] = []
        for name in self._decoder:
            refined = [self.get_submodule(name)([levels.pop(), *refined])]
        return self.end_conv(self.act(self.normalizer(refined[0])))
