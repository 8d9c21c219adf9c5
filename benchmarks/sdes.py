"""Solvers of the reverse SDE and ODE in the states of VE, VP and sub-VP: network calls against error, in closed form.

``exact``: the laws of fixed steps on the Gaussian problems of ``invsolve verify``, with the rule ``exact`` and without Monte
Carlo: bias in posterior standard deviations / standard deviation over the exact one, on each SDE's own ladder (even in its
time; ``edm`` has Karras' levels). ``calls``: the two-mode prior of examples/two_modes.py from noise 20, by 20000 draws: share,
mean and standard deviation of the bright mode (0.700, 1.000, 0.300) beside the largest of their errors; the adaptive solver's calls
are means over images alone. ``rejected``: the same with the noise of rejected steps drawn anew, as the paper's Algorithm 1
has it, and with the path remembered.

    python benchmarks/sdes.py exact
    python benchmarks/sdes.py calls
    python benchmarks/sdes.py rejected
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from unittest import mock

import torch
from torch import Tensor

from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.models.score_model import CountedModel, ScoreModel, Sigma
from invsolve.models.sde import SDES
from invsolve.samplers import Sampler, heun_sde, ode, reverse_sde, sde_adaptive
from invsolve.samplers.sigmas import karras
from invsolve.verification.judge import verify
from invsolve.verification.problems import problems

GAUSSIAN = ("inpainting", "colorization", "blur")
SHARE, MEAN, SPREAD = 0.7, 1.0, 0.3
SIGMA_MIN, SIGMA_MAX = 0.01, 20.0


def ladder(sde: str, steps: int, low: float, high: float) -> Tensor:
    """Even in the SDE's time; Karras' levels where sigma itself is time."""
    return karras(steps, low, high) if sde == "edm" else SDES[sde].levels(steps, low, high)


def exact(calls: Sequence[int]) -> None:
    """The table of laws."""
    print(f"{'sampler':<12} {'sde':<6} {'calls':>5}  " + "   ".join(f"{name:>15}" for name in GAUSSIAN))
    for name, sampler in (("reverse_sde", reverse_sde), ("ode", ode)):
        for sde in SDES:
            for budget in calls:
                steps, cells = budget if sampler is reverse_sde else (budget + 1) // 2, []
                for problem in (problems[kind](0) for kind in GAUSSIAN):
                    sigmas = ladder(sde, steps, problem.sigma_min, problem.sigma_max)
                    found = verify(problem, rule="exact", sampler=partial(sampler, sde=sde), sigmas=sigmas)
                    cells.append(f"{found.bias:7.3f} / {found.std_ratio:5.3f}")
                print(f"{name:<12} {sde:<6} {budget:>5}  " + "   ".join(cells), flush=True)


def two_modes() -> GaussianMixturePrior:
    covariance = SPREAD**2 * torch.tensor([[1.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    modes = [GaussianPrior(torch.tensor([[[0.0, m]]], dtype=torch.float64), covariance) for m in (MEAN, -MEAN)]
    return GaussianMixturePrior(torch.tensor([SHARE, 1 - SHARE], dtype=torch.float64), modes)


class Working(CountedModel):
    """Counts the pictures above the ``last`` noise level, those that are still under way, and one call more for each."""

    def __init__(self, model: ScoreModel, last: float) -> None:
        super().__init__(model)
        self.last = last

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        self.calls += int((torch.as_tensor(sigma).expand(len(x)) > self.last * (1 + 1e-9)).sum())
        return self.model.score(x, sigma)


def measure(name: str, sampler: Sampler, sigmas: Tensor, draws: int) -> None:
    """One row of the table of calls; where only the ends of a ladder matter, those of pictures that are done are left out."""
    generator, started = torch.Generator().manual_seed(0), time.perf_counter()

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    counted = Working(two_modes(), SIGMA_MIN if len(sigmas) == 3 else 0.0)
    start = counted.model.components[0].mean * 0  # type: ignore[attr-defined]
    x = start + SIGMA_MAX * noise(start.expand(draws, *start.shape))
    drawn = sampler(counted, x, sigmas, noise)
    second = drawn[..., 1].flatten()
    bright = second[second > 0]
    share, mean, spread = len(bright) / draws, float(bright.mean()), float(bright.std())
    worst = max(abs(share - SHARE), abs(mean - MEAN), abs(spread - SPREAD))
    seconds = time.perf_counter() - started
    print(
        f"{name:<34} {counted.calls / draws:7.1f} calls  {share:.3f} {mean:.3f} {spread:.3f}  error {worst:.3f}"
        f"  first value {float(drawn[..., 0].std()):.3f}  {seconds:.1f} s",
        flush=True,
    )


def calls(draws: int) -> None:
    """The table of calls against error."""
    ends, deviation = karras(2, SIGMA_MIN, SIGMA_MAX), (SHARE * (1 - SHARE) / draws) ** 0.5
    print(f"Monte Carlo: the share of {draws} exact draws has a standard deviation of {deviation:.3f}")
    for sde in ("vp", "subvp", "ve", "edm"):
        for rtol in (0.5, 0.2, 0.1, 0.05, 0.02):
            sampler = partial(sde_adaptive, sde=sde, rtol=rtol, atol=0.2 * rtol)
            measure(f"sde_adaptive, {sde}, rtol {rtol}", sampler, ends, draws)
    for sde in SDES:
        for steps in (25, 50, 100, 200, 400):
            measure(
                f"reverse_sde, {sde}", partial(reverse_sde, sde=sde), ladder(sde, steps, SIGMA_MIN, SIGMA_MAX), draws
            )
    for steps in (13, 25, 50, 100, 200):
        measure("heun_sde", heun_sde, karras(steps, SIGMA_MIN, SIGMA_MAX), draws)


def rejected(draws: int) -> None:
    """Noise of rejected steps drawn anew, and remembered."""
    path = sys.modules["invsolve.samplers.sde_adaptive"].BrownianPath
    forgetful = mock.patch.object(path, "put_back", lambda path, h, dw, rejected: None)
    for rtol in (0.5, 0.1, 0.03):
        sampler = partial(sde_adaptive, rtol=rtol, atol=0.2 * rtol)
        for name, way in (("remembered", nullcontext()), ("drawn anew", forgetful)):
            with way:
                measure(f"{name}, rtol {rtol}", sampler, karras(2, SIGMA_MIN, SIGMA_MAX), draws)
                found = verify(problems["inpainting"](0), rule="exact", sampler=sampler, steps=2, samples=draws // 10)
            print(
                f"{'':<12} inpainting, 192 values: bias {found.bias:.3f}, ratio {found.std_ratio:.3f} "
                f"+-{found.std_ratio_error:.3f}, coverage {found.coverage:.3f}, KSD p {found.ksd_p:.3f}, {found.calls:.0f} calls",
                flush=True,
            )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("exact", "calls", "rejected"))
    parser.add_argument("--calls", type=int, nargs="+", default=[25, 50, 100, 200], help="of the exact laws")
    parser.add_argument("--samples", type=int, default=20_000, help="draws of the two modes")
    chosen = parser.parse_args(argv)
    if chosen.table == "exact":
        exact(chosen.calls)
    else:
        {"calls": calls, "rejected": rejected}[chosen.table](chosen.samples)


if __name__ == "__main__":
    main()
