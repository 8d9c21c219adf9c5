"""Sliced score matching of data on a manifold never settles; a little noise mends that (Song & Ermon 2019, figure 1).

Patches of a photograph, brought onto 20 principal components of 64: almost everywhere there is no density, and no score.
The same network learns from them as they are, and with noise of variance 1e-4 added to the values in [0, 1]. With noise the
loss falls to what the noise's own score has, about -1/2 per direction off the manifold and unit of 1 / sigma^2.

Run from the repository: python examples/manifold.py
"""

from pathlib import Path

import numpy as np
import torch
from drawing import BLUE, RED, Panel, sheet
from PIL import Image
from torch import Tensor, nn

from invsolve.training.objectives import draw_directions, sliced

SIDE, COMPONENTS, STEPS, BATCH = 8, 20, 3000, 128
SIGMA = 0.01  # the square root of the paper's 1e-4


def patches() -> Tensor:
    """Grey patches in [0, 1], (N, 64), on their first COMPONENTS principal components."""
    picture = Image.open(Path(__file__).parent / "astronaut.png").convert("L")
    pixels = torch.from_numpy(np.asarray(picture, np.float32) / 255)
    found = pixels.unfold(0, SIDE, 2).unfold(1, SIDE, 2).reshape(-1, SIDE * SIDE)
    mean = found.mean(dim=0)
    basis = torch.linalg.svd(found - mean, full_matrices=False)[2][:COMPONENTS]
    return mean + (found - mean) @ basis.T @ basis


def losses(data: Tensor, sigma: float) -> list[float]:
    """The loss of every step of a network that learns the score of ``data`` with noise ``sigma``."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    width = data.shape[1]
    net = nn.Sequential(nn.Linear(width, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, width))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    found = []
    for _ in range(STEPS):
        x = data[torch.randint(len(data), (BATCH,), generator=generator)]
        x = x + sigma * torch.randn(x.shape, generator=generator)
        loss = sliced(net, x, draw_directions(x, 1, "rademacher", generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found
