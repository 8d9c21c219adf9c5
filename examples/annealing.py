"""What annealing looks like on the way: noise turns into pictures, coarse things first.

Each row is one sample; from left to right the noise level falls. The last column is the result.

Run from the repository: python examples/annealing.py [--model cifar10]
"""

import argparse

import torch
from drawing import strip

from invsolve import load_prior, sample
from invsolve.samplers import StepInfo
from invsolve.samplers.sigmas import karras

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="photos")
parser.add_argument("--samples", type=int, default=4)
options = parser.parse_args()

prior = load_prior(options.model)
seen: list[torch.Tensor] = []


def watch(info: StepInfo) -> None:
    if info.step % 5 == 0:
        # Noise of size sigma drawn into the range of a picture: contrast falls as the noise grows.
        seen.append(0.5 + (info.x - 0.5) / max(1.0, 3 * info.sigma))


size = None if prior.size else (48, 48)
sigmas = karras(40, prior.sigma_min, prior.sigma_max)
drawn = sample(prior, size, samples=options.samples, sampler="ancestral", sigmas=sigmas, callback=watch)
table = torch.stack(seen, dim=1).flatten(0, 1)
strip(table, len(seen), "annealing.png", enlarge=2)
