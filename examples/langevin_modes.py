"""Langevin dynamics gets the weights of far modes wrong, annealed Langevin right (Song & Ermon 2019, section 3.2.2).

The score is exact; what fails is mixing. Of the data 80 % lie at the lower left, 20 % at the upper right.

Run from the repository: python examples/langevin_modes.py
"""

import torch
from drawing import Panel, sheet
from mixture import TWO_FAR

from invsolve.samplers import annealed_langevin
from invsolve.samplers.sigmas import geometric

COUNT = 4000
generator = torch.Generator().manual_seed(0)
start = 16 * torch.rand(COUNT, 2, 1, 1, generator=generator, dtype=torch.float64) - 8


def noise(x: torch.Tensor) -> torch.Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


truth = TWO_FAR.sample(COUNT, generator)
# One low level only: plain Langevin dynamics on the data's own score, 1000 steps.
low = torch.tensor([0.05, 0.0], dtype=torch.float64)
plain = annealed_langevin(TWO_FAR, start, low, noise, langevin_steps=1000, step_size=0.05, consistent=False)
# About as many calls over 60 falling levels; slowly, for the modes part at noise 8 to 2 and must fill up until then.
sigmas = geometric(60, 0.5, 15.0)
annealed = annealed_langevin(
    TWO_FAR, 15 * noise(start), sigmas, noise, langevin_steps=20, step_size=0.2 * 0.5**2, consistent=False
)

panels = []
for name, found in (("data", truth), ("Langevin", plain), ("annealed Langevin", annealed)):
    share = float((found.sum(dim=1) < 0).double().mean())
    panel = Panel(f"{name}: {share:.1%} at the lower left", (-9, 9), (-9, 9))
    panel.points(found, radius=0.9)
    panels.append(panel)
    print(panel.title)
sheet(panels, 3, "langevin-modes.png")
