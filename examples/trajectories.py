"""From noise to data: the ODE's smooth paths and the SDE's rough ones cross the same marginals (Song et al. 2021, fig. 2).

The data are three spikes on a line. Left is noise, right is data; the noise level falls from 3 to .02.

Run from the repository: python examples/trajectories.py
"""

import math

import numpy as np
import torch
from drawing import RED, Panel, sheet

from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.samplers import ode, reverse_sde
from invsolve.samplers.sigmas import geometric

PATHS, TOP = 12, 3.0
parts = [GaussianPrior(torch.tensor([[[m]]]), torch.tensor([[0.01]])) for m in (-1.5, 0.0, 1.2)]
line = GaussianMixturePrior(torch.tensor([0.3, 0.2, 0.5]), parts)
sigmas = geometric(200, 0.02, TOP)[:-1]


def across(sigma: float) -> float:
    """Position of a noise level, logarithmic."""
    return math.log(TOP / sigma) / math.log(TOP / 0.02)


panels = []
for title, sampler in (("probability-flow ODE", ode), ("reverse SDE", reverse_sde)):
    panel = Panel(title + ": marginals and paths", (0, 1), (-5, 5), width=520)
    levels = [TOP * (0.02 / TOP) ** (k / 199) for k in range(200)]
    heights = torch.linspace(5, -5, 240).reshape(-1, 1, 1, 1)
    density = np.stack([line.log_density(heights, s).exp().numpy() for s in levels], axis=1)
    panel.map((density / density.max(axis=0)) ** 0.7 * 0.75)
    generator = torch.Generator().manual_seed(3)
    x = TOP * torch.linspace(-1.5, 1.5, PATHS).reshape(-1, 1, 1, 1)
    paths = [x.flatten().numpy()]
    at = [0.0]

    def watch(info, paths=paths, at=at) -> None:  # type: ignore[no-untyped-def]
        paths.append(info.x.flatten().numpy())
        at.append(across(float(sigmas[info.step])))

    sampler(line, x, sigmas, lambda x, g=generator: torch.randn(x.shape, generator=g, dtype=x.dtype), callback=watch)
    for path in np.stack(paths, axis=1):
        panel.line(np.stack([at, path], axis=1), RED, 1.2)
    panels.append(panel)
sheet(panels, 2, "trajectories.png")
