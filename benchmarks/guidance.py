"""Class-conditional pictures over the guidance scale: how many are of the class, and how varied they are.

    python benchmarks/guidance.py --model cifar10 --classifier cifar10-classifier --judge cifar10-judge \
        --data cifar10-val.npz --per-class 20 --scales 0 1 2 3 5 8 --show guidance.png

The judge is a classifier of clean pictures from its own training (``invsolve train --classifier --preset
cifar10-clean``); it never took part in making the pictures. ``--judge stranger`` is one trained by others (benchmarks/stranger.py). Diversity is the mean distance of two pictures of a class in
the judge's features, over that of as many real ones. The expected time is printed first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import stranger
import torch
from harness import machine, seconds_per_call
from PIL import Image

from invsolve.evaluation.sample_quality import Features, classifier_features, diversity
from invsolve.pictures import to_pixels
from invsolve.posterior import Posterior
from invsolve.pretrained import load_classifier, load_prior
from invsolve.tasks.generation import generate, grid
from invsolve.training.sources import load_labelled


def judge_of(name: str, device: torch.device) -> tuple[Callable[[torch.Tensor], torch.Tensor], Features]:
    """Logits of clean pictures (of CIFAR-10's classes in their order, for the stranger), and features."""
    if name == stranger.NAME:
        network = stranger.load_stranger()
        return lambda pictures: network(pictures.cpu()), stranger.stranger_features(network)
    judge = load_classifier(name, device)
    return judge.forward_model.operator, classifier_features(judge)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--classifier", default="cifar10-classifier")
    parser.add_argument(
        "--judge", required=True, help="folder of an independent classifier of clean pictures, or stranger"
    )
    parser.add_argument("--data", required=True, help="labelled validation pictures (.npz)")
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--scales", type=float, nargs="+", default=[0, 1, 2, 3, 5, 8])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sampler", default="heun_sde")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--show", type=Path, help="a grid here: a row per class, at the scale nearest 3")
    options = parser.parse_args(argv)
    prior = load_prior(options.model, options.device)
    guide = load_classifier(options.classifier, prior.device).forward_model
    judge, features = judge_of(options.judge, prior.device)
    known = load_labelled(options.data, prior.channels)
    real = torch.from_numpy(np.stack(known.pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255)

    def right(pictures: torch.Tensor, label: int) -> float:
        logits = judge(pictures.to(prior.device))
        return float((logits.argmax(dim=1) == label).float().mean())

    groups = [real[known.labels == k] for k in range(len(known.classes))]
    real_share = float(np.mean([right(group, k) for k, group in enumerate(groups)]))
    real_diversity = [diversity(group[: options.per_class], features) for group in groups]
    print(json.dumps(machine()), f"prior {prior.card.sha256[:12]}, features: {features.name}")
    print(f"real pictures: {real_share:.1%} judged in their class")

    def draw(name: str, steps: int, **run: Any) -> Posterior:
        return generate(
            prior, guide, name, samples=options.per_class, steps=steps, sampler=options.sampler, batch=options.batch, **run,
        )  # fmt: skip

    # Calls grow with the levels; two short runs tell how, and the time covers the classifier's gradient too.
    each = seconds_per_call(lambda: draw(known.classes[0], 3))
    one, two = (draw(known.classes[0], steps).network_calls for steps in (1, 3))
    cells = len(options.scales) * len(known.classes)
    needed = cells * (one + (two - one) * (options.steps - 1) // 2)
    print(
        f"{needed} guided network calls at {1 / each:.0f} a second: about {needed * each / 60:.0f} minutes", flush=True
    )
    shown, rows = min(options.scales, key=lambda s: abs(s - 3)), {}
    for scale in options.scales:
        shares, varied, sheets = [], [], []
        for k, name in enumerate(known.classes):
            drawn = draw(name, options.steps, guidance=scale, seed=1000 * k)
            pictures = drawn.samples[:, 0].clamp(0, 1)
            shares.append(right(pictures, k))
            varied.append(diversity(pictures, features) / real_diversity[k])
            sheets.append(pictures[:10])
        by_class = ", ".join(f"{n} {s:.0%}" for n, s in zip(known.classes, shares, strict=True))
        share, count = float(np.mean(shares)), options.per_class * len(known.classes)
        error = (share * (1 - share) / count) ** 0.5
        print(
            f"guidance {scale:g}: {share:.1%} +- {error:.1%} of {count} in the class, "
            f"diversity {np.mean(varied):.2f} ({by_class})",
            flush=True,
        )
        rows[scale] = {"share": share, "error": error, "diversity": float(np.mean(varied)), "pictures": count}
        if options.show and scale == shown:
            sheet = grid(torch.cat(sheets), columns=len(sheets[0])).permute(1, 2, 0).numpy()
            Image.fromarray(to_pixels(sheet)).save(options.show)
    print(json.dumps({"real": real_share, "scales": rows}))


if __name__ == "__main__":
    main()
