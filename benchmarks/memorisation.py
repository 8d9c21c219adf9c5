"""Are new pictures copies of training pictures? Nearest neighbours, with validation pictures as the yardstick.

    python benchmarks/memorisation.py --model cifar10 --train cifar10-train.npz --data cifar10-val.npz --show pairs.png

Draws pictures from a prior, looks for the nearest training picture of each, by pixels and by a classifier's features, and
compares the distances with those of validation pictures, which the prior cannot have learned by heart. ``--show`` has the
samples that are nearest to the training pictures, each beside its neighbour by pixels and the one by features, and in the
rows below the same of validation pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from harness import save_sheet
from torch import Tensor

from invsolve.evaluation.neighbours import Neighbours, memorisation, nearest
from invsolve.evaluation.sample_quality import Features, classifier_features
from invsolve.pictures import channels_last, to_pixels
from invsolve.pretrained import load_classifier, load_prior
from invsolve.tasks.generation import sample
from invsolve.training.sources import load_pictures

PAIRS = 12
"""Pictures of a sheet's row."""


def stacked(source: str, channels: int, count: int | None) -> Tensor:
    """Pictures (N, C, H, W) as bytes, evenly from the whole of ``source``; all of them for None."""
    pictures = load_pictures(source, channels)
    every = max(1, len(pictures) // count) if count else 1
    return torch.from_numpy(np.stack(pictures[::every][:count]).astype(np.uint8)).permute(0, 3, 1, 2)


def in_parts(features: Features, pictures: Tensor, batch: int = 500) -> Tensor:
    """Features (N, d) of pictures as bytes or in [0, 1]."""
    return torch.cat([features(p.float() / 255 if p.dtype == torch.uint8 else p) for p in pictures.split(batch)])


def beside_neighbours(pictures: Tensor, training: Tensor, found: Sequence[Neighbours]) -> list[Tensor]:
    """The nearest pictures by the first of ``found`` in a row (n, C, H, W), and below it their neighbours by each."""
    order = found[0].distance.argsort()[:PAIRS]
    return [pictures[order], *(training[each.number[order]].float() / 255 for each in found)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--features", default="cifar10-judge", help="a classifier of the prior's pictures, or none")
    parser.add_argument("--train", required=True, help="the prior's training pictures: folder or .npz")
    parser.add_argument("--data", required=True, help="validation pictures")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--validation", type=int, default=2000)
    parser.add_argument("--training", type=int, help="look at so many training pictures only (all)")
    parser.add_argument("--sampler", default="heun_sde")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--show", type=Path, help="PNG of the nearest ones beside their neighbours")
    options = parser.parse_args(argv)
    prior = load_prior(options.model, options.device)
    training = stacked(options.train, prior.channels, options.training)
    validation = stacked(options.data, prior.channels, options.validation)
    size = (int(training.shape[2]), int(training.shape[3]))
    drawn = sample(
        prior, size, samples=options.samples, sampler=options.sampler, steps=options.steps, seed=options.seed
    )
    samples = (drawn.samples[:, 0].clamp(0, 1).cpu() * 255).round() / 255
    views: dict[str, Callable[[Tensor], Tensor]] = {"pixels": lambda x: x}
    if options.features != "none":
        features = classifier_features(load_classifier(options.features, prior.device))
        views[features.name] = lambda x: in_parts(features, x)
    ours, theirs, table = [], [], {}
    for name, view in views.items():
        known = view(training)
        ours.append(nearest(view(samples), known))
        theirs.append(nearest(view(validation), known))
        found = memorisation(ours[-1].distance, theirs[-1].distance)
        table[name] = found._asdict()
        print(f"{name:>9}: median distance {found.samples_distance:.4f}, of validation pictures "
              f"{found.validation_distance:.4f}; nearer than one of those in {100 * found.nearer:.1f} % of pairs "
              f"(z {found.z:.1f}); {100 * found.copied:.1f} % as near as the nearest {100 * found.expected:.0f} % of them",
              flush=True)  # fmt: skip
    if options.show:
        rows = beside_neighbours(samples, training, ours) + beside_neighbours(
            validation.float() / 255, training, theirs
        )
        save_sheet(options.show, [[to_pixels(channels_last(x)) for x in row] for row in rows], gap=2, enlarge=2)
    print(json.dumps({"training": len(training), **table}))


if __name__ == "__main__":
    main()
