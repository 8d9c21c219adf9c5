"""How near the true posterior is found under each noise model, against importance sampling.

Pixels of two correlated Gaussian channels, of which one weighted sum is measured with noise: bias is the error of the
mean in posterior standard deviations (the larger of the channels', ideal 0), ratio the standard deviation over the true one (the
one farther from 1). The rule annealed with langevin takes the noise as it is; the quadratic is solved in closed form,
so that all of its bias is its own. A value off the prior's middle was measured; ``--few`` takes fewer photons.

    python benchmarks/noises.py
    python benchmarks/noises.py --few
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve import solve
from invsolve.forward_models import (
    ForwardModel,
    Grayscale,
    LaplaceNoise,
    NoiseModel,
    PoissonGaussianNoise,
    PoissonNoise,
    QuantizationNoise,
    SaltAndPepperNoise,
    TransmissionNoise,
)
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.score_model import FunctionPrior
from invsolve.samplers.sigmas import geometric

WEIGHTS = (0.5, 0.8)
MEAN = torch.tensor([0.6, 0.4], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.03, 0.01], [0.01, 0.02]], dtype=torch.float64)

NOISES: dict[str, tuple[NoiseModel, float]] = {
    "PoissonNoise(40)": (PoissonNoise(40.0), 31.0),
    "PoissonGaussianNoise(40, 3)": (PoissonGaussianNoise(40.0, 3.0), 31.5),
    "TransmissionNoise(60, 2)": (TransmissionNoise(60.0, 2.0), 12.0),
    "LaplaceNoise(0.06)": (LaplaceNoise(0.06), 0.75),
    "QuantizationNoise(0.25)": (QuantizationNoise(0.25), 0.75),
    "QuantizationNoise(0.25, high=0.75)": (QuantizationNoise(0.25, high=0.75), 0.75),
    "SaltAndPepperNoise(0.2, 0.08)": (SaltAndPepperNoise(0.2, 0.08), 0.75),
}
FEW: dict[str, tuple[NoiseModel, float]] = {
    "PoissonNoise(4)": (PoissonNoise(4.0), 4.0),
    "PoissonGaussianNoise(4, 1)": (PoissonGaussianNoise(4.0, 1.0), 4.0),
    "TransmissionNoise(8, 2)": (TransmissionNoise(8.0, 2.0), 1.0),
}


def pixels() -> FunctionPrior:
    """Independent pixels: every one of a picture is a draw of the same problem."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + float(sigma[0]) ** 2 * torch.eye(2, dtype=x.dtype))
        mean = MEAN.reshape(2, 1, 1)
        return mean + torch.einsum("cd,bdhw->bchw", gain, x - mean)

    return FunctionPrior(denoise, channels=2, sigma_min=0.002, sigma_max=10.0, sigma_data=0.16)


def truth(noise: NoiseModel, value: float) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of both channels, by importance sampling from the prior."""
    z = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = MEAN + z @ torch.linalg.cholesky(COVARIANCE).T
    clean = (x @ torch.tensor(WEIGHTS, dtype=torch.float64))[:, None]
    weights = torch.softmax(noise.log_likelihood(clean, torch.full_like(clean, value)), dim=0)
    mean = weights @ x
    return mean, (weights @ (x - mean).square()).sqrt()


def annealed(noise: NoiseModel, value: float, count: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of ``count`` samples by the rule annealed with langevin, 720 steps."""
    operator = Grayscale((2, 1, count), WEIGHTS)
    y = torch.full((1, 1, 1, count), value, dtype=torch.float64)
    found = solve(
        pixels(), ForwardModel(operator, noise), y, rule="annealed", sampler="langevin", langevin_steps=60,
        sigmas=torch.cat([geometric(12, 0.02, 0.5)[:-1], torch.tensor([0.01, 0.0])]), consistent=False,
        start=MEAN.reshape(1, 2, 1, 1).expand(1, 2, 1, count), step_size=0.3 * 0.01**2,
    )  # fmt: skip
    draws = found.samples[0, 0, :, 0]
    return draws.mean(dim=1), draws.std(dim=1)


def quadratic(noise: NoiseModel, value: float) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of the posterior of the noise's quadratic, where it has one."""
    if not hasattr(noise, "quadratic"):
        return None
    y = torch.full((1, 1, 1, 1), value, dtype=torch.float64)
    prior = GaussianPrior(MEAN.reshape(2, 1, 1), COVARIANCE)
    found = prior.posterior(*noise.quadratic(Grayscale((2, 1, 1), WEIGHTS), y))
    return found.mean.flatten(), found.covariance.diagonal().sqrt()


def judged(found: tuple[Tensor, Tensor] | None, true: tuple[Tensor, Tensor]) -> str:
    """``bias / ratio``, each of the channel that is farther off."""
    if found is None:
        return "none"
    bias = float(((found[0] - true[0]) / true[1]).abs().max())
    ratios = found[1] / true[1]
    return f"{bias:.3f} / {float(ratios[(ratios - 1).abs().argmax()]):.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", action="store_true", help="few photons, where quadratics fail")
    parser.add_argument("--pixels", type=int, default=4000, help="samples of each posterior")
    options = parser.parse_args(arguments)
    print("| noise | annealed, langevin | quadratic |\n| --- | --- | --- |")
    for name, (noise, value) in (FEW if options.few else NOISES).items():
        true = truth(noise, value)
        sampled = judged(annealed(noise, value, options.pixels), true)
        print(f"| `{name}` | {sampled} | {judged(quadratic(noise, value), true)} |", flush=True)


if __name__ == "__main__":
    main()
