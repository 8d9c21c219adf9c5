"""Score matching has no minimum on data that lie on a manifold; a little noise gives it one (Song & Ermon 2019, fig. 1).

Pictures of 8 x 8 pixels of one round spot each, its place and width at random: a surface of 3 dimensions among 64. Elsewhere
there is no density, and no score. The same network learns from them as they are, and with noise of variance 1e-4 added to
the values in [0, 1]. Without noise the loss leaps up and down and has no lower bound; with noise it falls smoothly. Blue:
-d / (2 sigma^2) for d = 64 and that noise, the bound of the expected loss of any score of the noisy pictures.

Run from the repository: python examples/manifold.py
"""

import numpy as np
import torch
from drawing import BLUE, RED, SCALE, Panel, sheet
from torch import Tensor, nn

from invsolve.training.objectives import draw_directions, sliced

SIDE, STEPS, BATCH = 8, 3000, 128
SIGMA = 0.01  # the root of the paper's 1e-4
BOUND = -(SIDE**2) / (2 * SIGMA**2)


def spots(count: int, generator: torch.Generator) -> Tensor:
    """Pictures of one spot each, (count, 64) in [0, 1]."""
    column, row = (torch.rand(2, count, 1, 1, generator=generator) * 0.5 + 0.2) * SIDE
    width = 1 + torch.rand(count, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return torch.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * width**2)).flatten(1)


class Score(nn.Module):
    """Two hidden layers, and a gain that is learned too: scores of thin data are large."""

    def __init__(self, dimension: int, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dimension, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, dimension)
        )
        self.log_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.log_gain.exp() * self.layers(x)


def losses(sigma: float) -> np.ndarray:
    """The loss at every step of a network that learns the score of the pictures with noise ``sigma``, (STEPS,)."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    score = Score(SIDE**2)
    optimizer = torch.optim.Adam(score.parameters(), lr=3e-3)
    found = []
    for _ in range(STEPS):
        x = spots(BATCH, generator)
        x = x + sigma * torch.randn(x.shape, generator=generator)
        loss = sliced(score, x, draw_directions(x, 1, "rademacher", generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return np.array(found)


panels = []
for sigma, name in ((0.0, "no noise"), (SIGMA, "noise of variance 1e-4")):
    curve = losses(sigma)
    panel = Panel(f"loss of {STEPS} steps, {name}", (0, STEPS), (3 * BOUND, -BOUND))
    for level, text in ((0.0, "0"), (BOUND, f"{BOUND:.0f}"), (2 * BOUND, f"{2 * BOUND:.0f}")):
        ends = np.array([(0, level), (STEPS, level)])
        panel.line(ends, BLUE if level == BOUND else (200, 200, 205))
        panel.draw.text(
            (4 * SCALE, panel.pixel(0, level)[1] - 13 * SCALE), text, fill=(90, 90, 100), font_size=10 * SCALE
        )
    panel.line(np.stack([np.arange(STEPS), curve], axis=1), RED if sigma == 0 else (30, 30, 40), 0.5)
    panels.append(panel)
    last = curve[-500:]
    print(
        f"{name}: mean of the last 500 steps {last.mean():.3g}, their spread {last.std():.2g}, largest {last.max():.3g}"
    )
sheet(panels, 2, "manifold.png")
