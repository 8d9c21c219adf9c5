"""Latent codes of real pictures: there and back, contrast on the way between two, and whether two networks agree.

    python benchmarks/codes.py trip --model cifar10 --data cifar10-val.npz --pictures 20 [--grey] [--unscaled]
    python benchmarks/codes.py trip --model cifar10 examples/cat-grey.png
    python benchmarks/codes.py way examples/astronaut.png examples/cat-grey.png --show way.png
    python benchmarks/codes.py agree --train cifar10-train.npz --data cifar10-val.npz --shrink 4

``trip`` encodes pictures and decodes the codes: the largest error in grey levels, and network calls; with
``--unscaled`` by the ODE of x itself. ``way`` prints the
contrast (standard deviation) of the pictures between two, by slerp of the codes as they are and of codes made equally
long first. ``agree`` trains two networks of other widths and seeds, each on its own half of the pictures, and correlates
the codes they give the same new pictures (Song et al. 2021, appendix D.5), beside those of unrelated pictures and of a
Gaussian of the training pictures' mean and covariance, which says how much of the agreement takes no network.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from harness import save_sheet
from PIL import Image
from small_priors import Pixels, as_tensor, shrunk, train_prior
from torch import Tensor

from invsolve.cli.likelihood import as_known, bytes_of
from invsolve.evaluation.identifiability import code_correlation, mean_correlation
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.precision import full_precision
from invsolve.models.score_model import CountedModel, ScoreModel
from invsolve.ode.flow import integrate
from invsolve.ode.latent import TOLERANCE, decode, encode, slerp
from invsolve.pictures import channels_last, to_pixels
from invsolve.pretrained import load_prior
from invsolve.training.sources import load_pictures


def spread(source: str, count: int) -> Pixels:
    """``count`` colour pictures (N, H, W, 3), evenly from the whole of ``source``."""
    pictures = load_pictures(source)
    return np.stack(pictures[:: max(1, len(pictures) // count)][:count]).astype(np.uint8)


def along_x(model: ScoreModel, x: Tensor, *, rtol: float, atol: float) -> Tensor:
    """Pictures carried to the highest noise level by the ODE of x, ``dx / d log(sigma) = x - D(x, sigma)``."""
    return _carried(model, x, model.sigma_min, model.sigma_max, rtol, atol)


def back_along_x(model: ScoreModel, x: Tensor, *, rtol: float, atol: float) -> Tensor:
    """The inverse of :func:`along_x`."""
    return _carried(model, x, model.sigma_max, model.sigma_min, rtol, atol)


@torch.no_grad()
def _carried(model: ScoreModel, x: Tensor, sigma_from: float, sigma_to: float, rtol: float, atol: float) -> Tensor:
    def velocity(state: Tensor, sigma: float) -> Tensor:
        return state - model.denoise(state.reshape(x.shape), sigma).flatten()

    with full_precision():
        return integrate(velocity, x.flatten(), sigma_from, sigma_to, rtol=rtol, atol=atol).reshape(x.shape)


def trip(options: argparse.Namespace) -> None:
    prior = load_prior(options.model, options.device)
    there, again = (along_x, back_along_x) if options.unscaled else (encode, decode)
    if options.files:
        fitted = [as_known(Image.open(path), 3, prior.size, fit=True) for path in options.files]
        pictures = np.stack([bytes_of(x) for x in fitted])
    else:
        pictures = spread(options.data, options.pictures)
    if options.grey:
        pictures = np.stack([np.asarray(Image.fromarray(p).convert("L").convert("RGB")) for p in pictures])
    worst, calls, started = [], [], time.perf_counter()
    for k, x in enumerate(as_tensor(pictures).to(prior.device)):
        counted = CountedModel(prior)
        z = there(counted, x[None], rtol=options.tolerance, atol=options.tolerance)
        back = again(counted, z, rtol=options.tolerance, atol=options.tolerance)
        worst.append(255 * float((back[0] - x).abs().max()))
        calls.append(counted.calls)
        print(f"{k:4d}: off by {worst[-1]:.3f} grey levels, {calls[-1]} calls", flush=True)
    seconds = (time.perf_counter() - started) / len(worst)
    print(f"{len(worst)} pictures there and back at tolerance {options.tolerance:g}: largest error {max(worst):.2f} grey "
          f"levels, median {np.median(worst):.2f}; {np.mean(calls):.0f} calls and {seconds:.1f} s each")  # fmt: skip
    print(json.dumps({"largest": max(worst), "median": float(np.median(worst)), "calls": float(np.mean(calls))}))


def equally_long(a: Tensor, b: Tensor, share: float) -> Tensor:
    """On the great circle of the directions, at the lengths' weighted mean."""
    length = torch.lerp(a.norm(), b.norm(), share)
    return length * slerp(a / a.norm(), b / b.norm(), share)


def way(options: argparse.Namespace) -> None:
    prior = load_prior(options.model, options.device)
    ends = [as_known(Image.open(path), 3, prior.size, fit=True) for path in options.ends]
    a, b = encode(prior, torch.stack([torch.from_numpy(x) for x in ends]).to(prior.device))
    print(f"rms of the codes: {float(a.square().mean().sqrt()):.2f} and {float(b.square().mean().sqrt()):.2f}")
    table, rows = {}, []
    ways: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"as they are": slerp, "equally long": equally_long}
    for name, between in ways.items():
        codes = torch.stack([between(a, b, k / (options.count - 1)) for k in range(options.count)])
        rows.append(decode(prior, codes).clamp(0, 1).cpu())
        table[name] = [round(float(x.std()), 3) for x in rows[-1]]
        print(f"contrast, codes {name}: " + " ".join(f"{c:.3f}" for c in table[name]), flush=True)
    if options.show:
        strips = [[to_pixels(channels_last(x)) for x in row] for row in rows]
        save_sheet(options.show, strips, gap=2, enlarge=3)
    print(json.dumps(table))


def gaussian_of(x: Tensor, like: ScoreModel) -> GaussianPrior:
    """Of the mean and covariance of pictures (N, C, H, W), with the noise levels of another prior."""
    flat = x.double().flatten(1)
    prior = GaussianPrior(flat.mean(dim=0).reshape(x.shape[1:]), torch.cov(flat.T))
    prior.facts = replace(prior.facts, sigma_min=like.sigma_min, sigma_max=like.sigma_max, sigma_data=like.sigma_data)
    return prior


def agree(options: argparse.Namespace) -> None:
    training = shrunk(spread(options.train, options.training), options.shrink)
    new = as_tensor(shrunk(spread(options.data, options.pictures), options.shrink))
    priors: list[ScoreModel] = []
    for number, width in enumerate(options.widths):
        started, half = time.perf_counter(), training[number::2]
        priors.append(train_prior(half, steps=options.steps, widths=(width, 2 * width), seed=number))
        print(
            f"network {number + 1}: width {width}, {len(half)} pictures, {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    by_gaussian = gaussian_of(as_tensor(training), priors[0])
    tolerance = {"rtol": options.tolerance, "atol": options.tolerance}
    first, second = (encode(prior, new, **tolerance) for prior in priors)
    gaussian = encode(by_gaussian, new.double(), **tolerance)
    table = {}
    for name, a, b in (("two networks", first, second), ("a network and a Gaussian", first, gaussian),
                       ("a network's code and the pixels", first, new)):  # fmt: skip
        found = code_correlation(a, b)
        table[name] = {
            "correlation": mean_correlation(found.same), "least": float(found.same.min()),
            "unrelated": mean_correlation(found.unrelated), "unrelated rms": float(found.unrelated.square().mean().sqrt()),
            "difference": found.difference,
        }  # fmt: skip
        print(f"{name:>32}: " + ", ".join(f"{what} {value:.3f}" for what, value in table[name].items()), flush=True)
    print(json.dumps(table))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="trip|way|agree")
    there = commands.add_parser("trip", help="picture, code and picture again")
    there.set_defaults(run=trip)
    there.add_argument("files", nargs="*", type=Path, help="pictures, their middle square scaled to the prior's size")
    there.add_argument("--data", help="validation pictures instead: folder or .npz")
    there.add_argument("--unscaled", action="store_true", help="follow x, not x over its standard deviation")
    there.add_argument("--grey", action="store_true", help="take the colours away first")
    there.add_argument("--tolerance", type=float, default=TOLERANCE)
    there.add_argument("--pictures", type=int, default=20)
    between = commands.add_parser("way", help="contrast between two pictures")
    between.set_defaults(run=way)
    between.add_argument("ends", nargs=2, type=Path)
    between.add_argument("--count", type=int, default=8)
    between.add_argument("--show", type=Path, help="PNG of both ways")
    for one in (there, between):
        one.add_argument("--model", default="cifar10")
        one.add_argument("--device", default="auto")
    two = commands.add_parser("agree", help="codes by two networks")
    two.set_defaults(run=agree)
    two.add_argument("--train", required=True, help="training pictures: folder or .npz")
    two.add_argument("--data", required=True, help="new pictures: folder or .npz")
    two.add_argument("--shrink", type=int, default=4, help="take the mean of squares of so many pixels")
    two.add_argument("--training", type=int, default=10_000)
    two.add_argument("--pictures", type=int, default=200)
    two.add_argument("--steps", type=int, default=1200)
    two.add_argument("--widths", type=int, nargs=2, default=[32, 48])
    two.add_argument("--tolerance", type=float, default=1e-4)
    options = parser.parse_args(argv)
    if options.run is trip and bool(options.files) == bool(options.data):
        parser.error("trip wants pictures, or --data")
    options.run(options)


if __name__ == "__main__":
    main()
