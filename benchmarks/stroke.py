"""Pictures from paintings over the strength: how faithful they are to the painting, and how much like real pictures.

    python benchmarks/stroke.py --model cifar10 --features cifar10-judge --data cifar10-val.npz --brush 0.22 --show stroke.png

Paintings are made of validation pictures by a median filter and few colours (``invsolve simulate stroke``). Faithfulness is the
rms distance of a sample from its painting, in units of the range; realism is KID by the features of a shipped classifier
against other validation pictures, small numbers of which are noisy but not biased (compare rows of one run only). Beside the
strengths stand the paintings themselves and the pictures that they were made of. In the sheet every row is one picture: itself,
its painting, and one sample for each strength.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import machine, save_sheet
from torch import Tensor

from invsolve.evaluation.sample_quality import Features, classifier_features, quality
from invsolve.models.score_model import ScoreModel
from invsolve.options import SAMPLING, SolveOptions
from invsolve.pictures import Pixels, channels_last, to_pixels
from invsolve.pretrained import load_classifier, load_prior
from invsolve.tasks.stroke import BRUSH, distances, painted, strength_sigma, stroke
from invsolve.training.sources import load_pictures

STRENGTHS = (0.3, 0.4, 0.5, 0.6)
SHOWN = 8


def unit(pictures: Sequence[Pixels]) -> Tensor:
    """(N, C, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def row(real: Tensor, paintings: Sequence[Pixels], pictures: Sequence[Pixels], features: Features) -> dict[str, float]:
    """Faithfulness and realism of one picture of each painting."""
    pairs = zip(paintings, pictures, strict=True)
    found = quality(real, unit(pictures), features)
    return {
        "distance": float(np.mean([distances(painting, [picture]) for painting, picture in pairs])),
        "kid": found.kid,
        "kid_std": found.kid_std,
    }


def drawn(prior: ScoreModel, paintings: Sequence[Pixels], strength: float, options: SolveOptions) -> list[Pixels]:
    """One sample after each painting, each from its own seed."""
    samples = [
        stroke(painting / np.float32(255), prior, options, strength=strength, seed=seed).samples[0, 0]
        for seed, painting in enumerate(paintings)
    ]
    return [to_pixels(channels_last(sample)) for sample in samples]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--features", default="cifar10-judge", help="a classifier's name or folder")
    parser.add_argument("--data", required=True, help="validation pictures of the prior's size: folder or .npz")
    parser.add_argument("--pictures", type=int, default=200, help="paintings, one sample of each")
    parser.add_argument("--real", type=int, default=1000, help="other validation pictures to compare with")
    parser.add_argument("--brush", type=float, default=BRUSH, help="width of the strokes over the pictures' side")
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    parser.add_argument("--steps", type=int, default=8, help="noise levels, from the strength's down")
    parser.add_argument("--sampler", default=SAMPLING.sampler)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first results")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    features = classifier_features(load_classifier(chosen.features, prior.device))
    pictures = [np.asarray(picture, np.uint8) for picture in load_pictures(chosen.data)]
    truths, real = pictures[: chosen.pictures], unit(pictures[chosen.pictures :][: chosen.real])
    paintings = [painted(picture, brush=chosen.brush) for picture in truths]
    options = SolveOptions(**{**vars(SAMPLING), "samples": 1, "steps": chosen.steps, "sampler": chosen.sampler})
    print(
        json.dumps(machine()), f"prior {prior.card.sha256[:12]}, features: {features.name}, {len(real)} real pictures"
    )
    rows: dict[str, dict[str, Any]] = {}

    def report(name: str, shown: Sequence[Pixels], **facts: float) -> None:
        rows[name] = {**row(real, paintings, shown, features), **facts}
        figures = "  ".join(f"{key} {value:.4f}" for key, value in rows[name].items())
        print(f"{name:>14}: {figures}", flush=True)

    report("pictures", truths)
    report("paintings", paintings)
    columns = [truths, paintings]
    for strength in chosen.strengths:
        started = time.perf_counter()
        columns.append(drawn(prior, paintings, strength, options))
        seconds = (time.perf_counter() - started) / len(paintings)
        report(f"strength {strength:g}", columns[-1], sigma=strength_sigma(prior, strength), seconds=seconds)
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1), encoding="utf-8")
    if chosen.show:
        save_sheet(chosen.show, list(zip(*columns, strict=True))[:SHOWN], gap=2, enlarge=2)


if __name__ == "__main__":
    main()
