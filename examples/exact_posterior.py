"""How right is a sampler? A Gaussian prior has a known posterior; compare each rule and sampler with it, exactly.

Run from anywhere: python examples/exact_posterior.py
"""

import torch

from invsolve import condition
from invsolve.forward_models import ForwardModel, GaussianNoise, Grayscale
from invsolve.models.gaussian import smooth_gaussian_prior
from invsolve.samplers import ancestral, renoising
from invsolve.samplers.sigmas import karras
from invsolve.verification.exactness import bias, sampler_law, start_law

prior = smooth_gaussian_prior((3, 6, 6))
generator = torch.Generator().manual_seed(0)
forward_model = ForwardModel(Grayscale((3, 6, 6)), GaussianNoise(0.05))
y = forward_model.simulate(prior.sample(1, generator), generator)
truth = prior.posterior(forward_model, y)

sigmas = karras(50, 0.005, 5.0)
for rule in ("exact", "proximal", "annealed", "replacement"):
    model = condition(prior, forward_model, y, rule)
    for sampler in (renoising, ancestral):
        law = sampler_law(sampler, model, start_law(prior.mean, float(sigmas[0])), sigmas)
        assert law is not None  # all four rules are linear in x
        found = bias(law, truth)
        print(f"{rule:>11} {sampler.__name__:>9}: bias {found.mean:.3f} posterior std, std ratio {found.std_ratio:.3f}")
