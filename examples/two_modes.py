"""Bayes' rule or the best estimate? Rules and samplers on a posterior with two modes whose weights are known.

A picture of two pixels, the second one bright in 70 % and dark in 30 % of all pictures; only the first is measured.
Every row shows what a pair makes of the second pixel: the share of bright samples and their standard deviation.

Run from anywhere: python examples/two_modes.py
"""

import torch

from invsolve import condition
from invsolve.forward_models import ForwardModel, GaussianNoise, Mask
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.samplers import find_sampler
from invsolve.samplers.sigmas import geometric

covariance = 0.3**2 * torch.tensor([[1.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
modes = [GaussianPrior(torch.tensor([[[0.0, level]]], dtype=torch.float64), covariance) for level in (1.0, -1.0)]
prior = GaussianMixturePrior(torch.tensor([0.7, 0.3], dtype=torch.float64), modes)

forward_model = ForwardModel(Mask(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)), GaussianNoise(0.1))
y = torch.tensor([[[[0.1, 0.0]]]], dtype=torch.float64)
posterior = prior.posterior(forward_model, y)
share, spread = float(posterior.log_weights[0].exp()), float(posterior.components[0].covariance[1, 1]) ** 0.5
print(f"{'truth':>25}: {share:.3f} bright, standard deviation {spread:.3f}")

generator, sigmas = torch.Generator().manual_seed(0), geometric(100, 0.01, 20.0)


def noise(x: torch.Tensor) -> torch.Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


with torch.no_grad():
    for rule in ("proximal", "wiener", "annealed", "moment_matching", "exact"):
        model = condition(prior, forward_model, y, rule)
        drawing = ("redrawing",) if rule in ("wiener", "exact") else ()
        for sampler in ("renoising", "renoising(momentum=0.5)", *drawing, "ancestral", "multistep", "heun_sde"):
            x = 20.0 * noise(torch.zeros(10_000, 1, 1, 2, dtype=torch.float64))
            second = find_sampler(sampler)(model, x, sigmas, noise)[..., 1].flatten()
            bright = second[second > 0]
            share, spread = len(bright) / len(second), float(bright.std())
            print(f"{rule:>15} {sampler:>23}: {share:.3f} bright, standard deviation {spread:.3f}")
