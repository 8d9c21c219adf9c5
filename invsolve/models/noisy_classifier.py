"""A classifier of noisy pictures: the way down of the prior's U-Net, averaged over the picture."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.models.network import Encoder, NetworkConfig, normalize_pixels, pad_to_multiple, register_scale


class NoisyClassifier(nn.Module):
    """Logits of p(label | x = x0 + sigma z).

    ``x`` (B, C, H, W) in the prior's units, ``sigma`` (B,) in the same units; returns (B, classes) float32.
    """

    sigma_data: Tensor
    center: Tensor

    def __init__(self, config: NetworkConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.net = Encoder(config)
        self.head = nn.Linear(config.widths[-1], classes)
        register_scale(self, config)

    def features(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The last layer but one, averaged over the picture: (B, widths[-1])."""
        s = sigma[:, None, None, None]
        scaled = (x - self.center) / (s**2 + self.sigma_data**2).sqrt()
        levels, _ = self.net.encode(pad_to_multiple(scaled, self.config.multiple), sigma.log() / 4)
        return F.silu(normalize_pixels(levels[-1]).float()).mean(dim=(2, 3))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.head(self.features(x, sigma)).float()

    @property
    def parameters_count(self) -> int:
        return sum(p.numel() for p in self.parameters())
