"""Bits per dimension of a prior on validation pictures, with the Monte Carlo error and the cost, beside lossless files.

    python benchmarks/likelihood.py --data cifar10-val.npz --model cifar10 --pictures 50
    python benchmarks/likelihood.py --known

``--known`` measures a Gaussian and a mixture whose density is known instead, by number of probes. ``--write-card``
puts mean and spread into the card of a prior's folder, where `invsolve likelihood` looks for what is usual.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from invsolve.evaluation.compression import stored_bits
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior, smooth_gaussian_prior
from invsolve.ode.density import likelihood, validated_bits
from invsolve.pretrained import Card, find_prior, load_prior
from invsolve.pretrained.loading import CARD
from invsolve.training.sources import load_pictures


def known() -> None:
    """Errors against closed forms, 4 pictures each."""
    smooth = smooth_gaussian_prior((3, 8, 8), length=1.0)
    covariance = smooth_gaussian_prior((3, 8, 8), std=0.15, length=1.0).covariance
    parts = [GaussianPrior(torch.full((3, 8, 8), m, dtype=torch.float64), covariance) for m in (0.3, 0.7)]
    priors: dict[str, GaussianPrior | GaussianMixturePrior] = {
        "gaussian": smooth,
        "mixture": GaussianMixturePrior(torch.tensor([0.8, 0.2], dtype=torch.float64), parts),
    }
    for name, prior in priors.items():
        x = prior.sample(4, torch.Generator().manual_seed(0))
        truth = -prior.log_density(x, 0.005) / (x[0].numel() * math.log(2))
        prior.facts = replace(prior.facts, sigma_min=0.005, sigma_max=50.0)
        for probes in (0, 4, 64, 1024):
            found = likelihood(prior, x, probes=max(1, probes), exact_trace=not probes, dequantize=False)
            error = float((found.bits_per_dimension - truth).square().mean().sqrt())
            claimed = float(found.standard_error.square().mean().sqrt())
            trace = f"{probes} probes" if probes else "exact trace"
            print(f"{name:>9} {trace:>12}: rms error {error:.4f} bits/dim, claimed {claimed:.4f}", flush=True)


def stored(pictures: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Mean bits of each of ``pictures`` (N, H, W, C) as a lossless file of its own."""
    found = [stored_bits(picture.squeeze()) for picture in pictures]
    means = {"PNG": float(np.mean([f.png for f in found]))}
    webp = [f.webp for f in found if f.webp is not None]
    return {**means, "WebP": float(np.mean(webp))} if webp else means


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--known", action="store_true")
    parser.add_argument("--data", help="validation pictures: folder or .npz")
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--probes", type=int, default=1)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--write-card", action="store_true")
    options = parser.parse_args(argv)
    if options.known:
        known()
        return
    if options.data is None:
        parser.error("wanted --data, or --known")
    prior = load_prior(options.model, options.device)
    pictures = load_pictures(options.data, prior.channels)
    chosen = np.stack(pictures[:: max(1, len(pictures) // options.pictures)][: options.pictures])
    x = torch.from_numpy(chosen.transpose(0, 3, 1, 2).astype(np.float32) / 255).to(prior.device)
    results, started = [], time.perf_counter()
    for k, picture in enumerate(x):
        results.append(
            likelihood(
                prior, picture[None], probes=options.probes, seed=k, rtol=options.tolerance, atol=options.tolerance
            )
        )
        bits = torch.cat([r.bits_per_dimension for r in results])
        print(f"{k + 1:4d}: {float(bits[-1]):.3f}, mean so far {float(bits.mean()):.3f}", flush=True)
    facts = validated_bits(results)
    seconds = (time.perf_counter() - started) / len(results)
    calls = sum(r.network_calls for r in results) / len(results)
    error = facts["std"] / math.sqrt(len(results))
    print(f"{facts['mean']:.3f} +- {error:.3f} bits/dim over {len(results)} pictures (spread {facts['std']:.3f}), "
          f"{calls:.0f} calls and {seconds:.1f} s a picture")  # fmt: skip
    values = x[0].numel()
    ours, by_file = facts["mean"] * values, stored(chosen)
    print(f"bits a picture: {ours:.0f} by the prior, " + ", ".join(f"{n} {b:.0f}" for n, b in by_file.items())
          + f"; uncompressed {8 * values}")  # fmt: skip
    print(json.dumps({**facts, "standard_error": error, "calls": calls, "seconds": seconds,
                      "bits_per_picture": ours, **by_file}))  # fmt: skip
    if options.write_card:
        path: Path = find_prior(options.model) / CARD
        path.write_text(replace(Card.read(path), bits_per_dimension=facts).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
