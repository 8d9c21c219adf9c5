"""Where there is no data, a learned score is wrong; noise carries data there and mends it (Song & Ermon 2019, fig. 2).

A small network learns the score of two far modes from samples, once without noise (sliced score matching) and once at
noise 3 (denoising). Red: the error relative to the true score's typical size.

Run from the repository: python examples/wrong_scores.py
"""

import torch
from drawing import INK, PAPER_TO_RED, Panel, sheet
from mixture import TWO_FAR
from torch import Tensor, nn

from invsolve.training.objectives import denoising, draw_directions, sliced


def learn(sigma: float, steps: int = 1500) -> nn.Module:
    """A network's score of the data blurred by ``sigma``; 0 learns from the data as they are."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    data = TWO_FAR.sample(20_000, generator).flatten(1).float()
    for _ in range(steps):
        x0 = data[torch.randint(len(data), (256,), generator=generator)]
        if sigma:
            loss = sigma**2 * denoising(net, x0, sigma, torch.randn(x0.shape, generator=generator)).mean()
        else:
            loss = sliced(net, x0, draw_directions(x0, 1, "rademacher", generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def field(net: nn.Module) -> object:
    def score(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x.flatten(1).float()).double().reshape(x.shape)

    return score


panels = []
for sigma in (0.0, 3.0):
    learned = field(learn(sigma))
    span, level = (-8.0, 8.0), max(sigma, 0.01)
    truth = Panel(f"true score, noise {sigma:g}, and data", span, span)
    truth.arrows(lambda x, s=level: TWO_FAR.score(x, s))
    noisy = TWO_FAR.sample(400, torch.Generator().manual_seed(1))
    noisy = noisy + sigma * torch.randn(noisy.shape, generator=torch.Generator().manual_seed(2), dtype=noisy.dtype)
    truth.points(noisy, (60, 120, 190))
    wrong = Panel("learned score; red where it is wrong", span, span)
    places = wrong.grid(80)
    exact = TWO_FAR.score(places, level)
    error = (learned(places) - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1).median()
    wrong.map(error.reshape(80, 80).numpy(), PAPER_TO_RED)
    wrong.arrows(learned, colour=INK)
    panels += [truth, wrong]
    print(f"noise {sigma:g}: median relative error over the square {float(error.median()):.2f}")
sheet(panels, 2, "wrong-scores.png")
