"""How right is a sampler? A Gaussian prior has a known posterior; compare each rule and sampler with it, exactly.

Run from anywhere: python examples/exact_posterior.py
"""

import torch

from invsolve import condition
from invsolve.forward_models import ForwardModel, GaussianNoise, Grayscale
from invsolve.models.gaussian import smooth_gaussian_prior
from invsolve.samplers.sigmas import karras
from invsolve.verification.exactness import bias, renoising_law, start_law

prior = smooth_gaussian_prior((3, 6, 6))
generator = torch.Generator().manual_seed(0)
forward_model = ForwardModel(Grayscale((3, 6, 6)), GaussianNoise(0.05))
y = forward_model.simulate(prior.sample(1, generator), generator)
truth = prior.posterior(forward_model, y)

sigmas = karras(50, 0.005, 5.0)
for rule in ("exact", "proximal", "annealed", "replacement"):
    model = condition(prior, forward_model, y, rule)
    for name, eta in (("renoising", 1.0), ("ancestral", None)):
        found = bias(renoising_law(model, start_law(prior.mean, float(sigmas[0])), sigmas, eta), truth)
        print(f"{rule:>11} {name:>9}: bias {found.mean:.3f} posterior std, std ratio {found.std_ratio:.3f}")
