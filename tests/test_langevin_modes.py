"""Far modes: plain Langevin dynamics keeps the weights of its start, annealed Langevin finds the data's."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.samplers import annealed_langevin
from invsolve.samplers.sigmas import geometric

COUNT = 4000


def far_modes() -> GaussianMixturePrior:
    """Song & Ermon 2019, section 3.2.2: 1/5 N((5, 5), 1) + 4/5 N((-5, -5), 1)."""
    eye = torch.eye(2, dtype=torch.float64)
    means = [torch.full((2, 1, 1), m, dtype=torch.float64) for m in (5.0, -5.0)]
    return GaussianMixturePrior(torch.tensor([0.2, 0.8], dtype=torch.float64), [GaussianPrior(m, eye) for m in means])


def share_lower_left(x: Tensor) -> float:
    return float((x.sum(dim=1) < 0).double().mean())


def test_annealing_recovers_the_weights_that_plain_langevin_loses() -> None:
    prior, generator = far_modes(), torch.Generator().manual_seed(0)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    start = 16 * torch.rand(COUNT, 2, 1, 1, generator=generator, dtype=torch.float64) - 8
    low = torch.tensor([0.05, 0.0], dtype=torch.float64)
    plain = annealed_langevin(prior, start, low, noise, langevin_steps=300, step_size=0.05, consistent=False)
    assert abs(share_lower_left(plain) - 0.5) < 0.05  # half of the square is nearer to either mode
    sigmas = geometric(60, 0.5, 15.0)
    annealed = annealed_langevin(
        prior, 15 * noise(start), sigmas, noise, langevin_steps=20, step_size=0.2 * 0.5**2, consistent=False
    )
    # 4000 samples tell the share to .6 %.
    print(share_lower_left(annealed))
    assert abs(share_lower_left(annealed) - 0.8) < 0.02
