"""Quality of new pictures by sampler and number of network calls, and a grid to look at.

    python benchmarks/sample_quality.py --model cifar10 --features cifar10-classifier --data cifar10-val.npz \
        --count 1000 --show samples/

Every sampler gets the same seeds and as many network calls per picture as the column says. Distances are to the
validation pictures; the same number of training pictures, when given with --train, shows what perfect samples reach.
The last column is the whole time over the time inside the network.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invsolve.data import load_pictures
from invsolve.generation import grid, ladder, sample
from invsolve.pretrained import load_classifier, load_prior
from invsolve.quality import classifier_features, inception_features, quality
from invsolve.rounding import to_pixels
from invsolve.score_model import ScoreModel, Sigma, WrappedModel

LEVELS = {  # network calls -> noise levels
    "ode": lambda calls: (calls + 1) // 2,
    "heun_sde": lambda calls: (calls + 1) // 2,
    "pc": lambda calls: (calls + 1) // 2,
    "reverse_sde": lambda calls: calls,
    "ancestral": lambda calls: calls,
    "renoising": lambda calls: calls,
    "langevin": lambda calls: max(1, (calls - 1) // 5),
}


class Timed(WrappedModel):
    """Adds up the seconds spent in ``model``."""

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.seconds = 0.0

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        started = time.perf_counter()
        out = self.model.denoise(x, sigma)
        if x.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - started
        return out


def as_tensor(path: str, channels: int, count: int) -> Tensor:
    pictures = load_pictures(path, channels)
    chosen = np.stack(pictures[:: max(1, len(pictures) // count)][:count])
    return torch.from_numpy(chosen.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def save_grid(pictures: Tensor, path: Path) -> None:
    sheet = grid(pictures.clamp(0, 1)).permute(1, 2, 0).numpy()
    Image.fromarray(to_pixels(sheet).squeeze()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--features", default="cifar10-classifier", help="a classifier, or inception")
    parser.add_argument("--data", required=True, help="validation pictures: folder or .npz")
    parser.add_argument("--train", help="training pictures, for the figure of real ones")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--calls", type=int, nargs="+", default=[20, 50, 100, 500])
    parser.add_argument("--samplers", nargs="+", default=list(LEVELS))
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--show", type=Path, help="folder for a grid of 64 pictures of every row")
    options = parser.parse_args()
    prior = load_prior(options.model, options.device)
    guide = options.features
    features = (
        inception_features() if guide == "inception" else classifier_features(load_classifier(guide, prior.device))
    )
    real = as_tensor(options.data, prior.channels, options.count)
    rows = {}
    print(f"features: {features.name}")
    if options.train:
        best = quality(real, as_tensor(options.train, prior.channels, options.count), features)
        print(f"{'training pictures':>17}            : fid {best.fid:.4f}  kid {best.kid:.5f}")
        rows["training pictures"] = best._asdict()
    for name in options.samplers:
        for calls in options.calls:
            timed, started = Timed(prior), time.perf_counter()
            # The textbook's ladder is geometric and long; all others take Karras levels.
            drawn = sample(
                timed, (prior.size, prior.size) if prior.size else real.shape[-2:], samples=options.count,
                sampler=name, sigmas=ladder(prior, LEVELS[name](calls)), batch=options.batch, device=prior.device,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            pictures = (drawn.samples[:, 0].clamp(0, 1) * 255).round() / 255
            found = quality(real, pictures, features)
            per_picture = drawn.network_calls / options.count
            print(
                f"{name:>17}, {per_picture:5.0f} calls: fid {found.fid:.4f}  kid {found.kid:.5f} +- {found.kid_std:.5f}  "
                f"{seconds / options.count:.2f} s a picture, step / call {seconds / timed.seconds:.3f}",
                flush=True,
            )
            rows[f"{name}, {calls}"] = {**found._asdict(), "calls": per_picture, "seconds": seconds / options.count}
            if options.show:
                options.show.mkdir(parents=True, exist_ok=True)
                save_grid(pictures[:64], options.show / f"{name}-{calls}.png")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
