"""Classification by likelihoods: one small prior per class, and the class whose prior finds a picture likeliest.

    python benchmarks/generative_classifier.py --train fashion-mnist-train.npz --data fashion-mnist-val.npz

Beside it multinomial logistic regression on the pixels, its weight decay the best of five *on the validation pictures*,
which flatters it, and one Gaussian per class. Likelihoods are by the probability-flow ODE (Song et al. 2021, section
4.3), every class given the same noise and the same probe, at each of ``--sigmas``: of the picture with noise of that level
added. At low levels the many values that hardly vary decide; smoothed densities look at shapes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np
import torch
from small_priors import Pixels, as_tensor, shrunk, train_prior
from torch import Tensor

from invsolve.evaluation.classification import accuracy, class_posterior
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.score_model import FunctionPrior
from invsolve.ode.density import likelihood
from invsolve.training.sources import load_labelled


def labelled(source: str, channels: int, shrink: int, count: int | None = None) -> tuple[Pixels, Tensor]:
    """Pictures (N, H, W, C), shrunk, and their class numbers (N,)."""
    found = load_labelled(source, channels)
    every = max(1, len(found.pictures) // (count or len(found.pictures)))
    pictures = np.stack(found.pictures[::every][:count]).astype(np.uint8)
    return shrunk(pictures, shrink), torch.as_tensor(np.asarray(found.labels)[::every][:count], dtype=torch.long)


def logistic_regression(x: Tensor, labels: Tensor, classes: int, decay: float) -> torch.nn.Linear:
    """Multinomial, by L-BFGS; ``decay`` weighs the squared weights."""
    flat = x.flatten(1)
    model = torch.nn.Linear(flat.shape[1], classes)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(flat), labels) + decay * model.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return model


def gaussian_log_likelihoods(x: Tensor, labels: Tensor, new: Tensor, classes: int, sigma: float) -> Tensor:
    """(n, classes), one Gaussian per class, of ``new`` with noise of level ``sigma``."""
    columns = []
    for label in range(classes):
        own = x[labels == label].double().flatten(1)
        prior = GaussianPrior(own.mean(dim=0).reshape(x.shape[1:]), torch.cov(own.T))
        columns.append(prior.log_density(new.double(), sigma))
    return torch.stack(columns, dim=1)


def ode_log_likelihoods(priors: Sequence[FunctionPrior], noisy: Tensor, sigma: float, tolerance: float) -> Tensor:
    """(n, classes) of pictures ``noisy`` with noise of level ``sigma``; the same probes for every class."""
    columns = []
    for prior in priors:
        there = FunctionPrior(prior.function, **{**vars(prior.facts), "sigma_min": sigma})
        found = likelihood(there, noisy, probes=1, dequantize=False, rtol=tolerance, atol=tolerance)
        columns.append(found.log_density)
    return torch.stack(columns, dim=1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="labelled training pictures: .npz, or a folder of folders")
    parser.add_argument("--data", required=True, help="labelled validation pictures")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1)
    parser.add_argument("--shrink", type=int, default=2, help="take the mean of squares of so many pixels")
    parser.add_argument("--pictures", type=int, default=100, help="validation pictures")
    parser.add_argument("--steps", type=int, default=400, help="training steps of each class's prior")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.2, 0.05])
    parser.add_argument("--tolerance", type=float, default=1e-2)
    options = parser.parse_args(argv)
    pixels, labels = labelled(options.train, options.channels, options.shrink)
    shown, truth = labelled(options.data, options.channels, options.shrink, options.pictures)
    x, new, classes = as_tensor(pixels), as_tensor(shown), int(labels.max()) + 1
    table: dict[str, float] = {}

    def say(name: str, found: float) -> None:
        table[name] = found
        error = (found * (1 - found) / len(truth)) ** 0.5
        print(f"{name:>40}: {100 * found:.0f} +- {100 * error:.0f} % of {len(truth)} pictures", flush=True)

    decays = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)
    linear = [logistic_regression(x, labels, classes, decay)(new.flatten(1)).detach() for decay in decays]
    say("logistic regression", max(accuracy(logits, truth) for logits in linear))
    for sigma in options.sigmas:
        logs = gaussian_log_likelihoods(x, labels, new, classes, sigma)
        say(f"a Gaussian per class, noise {sigma:g}", accuracy(class_posterior(logs), truth))
    started, priors = time.perf_counter(), []
    for label in range(classes):
        own = pixels[(labels == label).numpy()]
        priors.append(train_prior(own, steps=options.steps, widths=tuple(options.widths), seed=label, batch=32))
    print(f"{classes} priors of {len(pixels)} pictures in {time.perf_counter() - started:.0f} s", flush=True)
    for sigma in options.sigmas:
        started = time.perf_counter()
        noisy = new + sigma * torch.randn(new.shape, generator=torch.Generator().manual_seed(0))
        found = class_posterior(ode_log_likelihoods(priors, noisy, sigma, options.tolerance))
        say(f"a score model per class, noise {sigma:g}", accuracy(found, truth))
        sure = float(found.amax(dim=1).mean())
        print(
            f"{'':>40}  sure of it by {100 * sure:.0f} % on average, {time.perf_counter() - started:.0f} s", flush=True
        )
        table[f"sure, noise {sigma:g}"] = sure
    print(json.dumps(table))


if __name__ == "__main__":
    main()
