"""Classes from a prior that never saw a label: a row per class, led by a noise-conditional classifier.

Run from the repository: python examples/class_grid.py --model cifar10 --classifier cifar10-classifier
"""

import argparse

import torch
from drawing import strip

from invsolve import generate, load_classifier, load_prior

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="cifar10")
parser.add_argument("--classifier", default="cifar10-classifier")
parser.add_argument("--guidance", type=float, default=3.0)
parser.add_argument("--steps", type=int, default=25)
parser.add_argument("--columns", type=int, default=4)
options = parser.parse_args()

prior = load_prior(options.model)
guide = load_classifier(options.classifier, prior.device).forward_model
rows = []
for name in guide.classes:
    drawn = generate(prior, guide, name, guidance=options.guidance, samples=options.columns, steps=options.steps)
    rows.append(drawn.samples[:, 0])
    print(name)
strip(torch.cat(rows), options.columns, "class-grid.png", enlarge=2)
