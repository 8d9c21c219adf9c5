"""Quality of new pictures by sampler and number of network calls, and a grid to look at.

    python benchmarks/sample_quality.py --model cifar10 --features cifar10-classifier --data cifar10-val.npz \
        --calls 20 50 100 500 --counts 500 500 500 200 --save quality.json --show samples/

Every sampler gets the same seeds and at most as many network calls per picture as the row says. The headline is KID, which
small numbers of pictures make noisy but not biased; FID falls with their number, so compare it between rows of one number
only. With features of a classifier the Inception score by that classifier stands beside them (at most its number of classes;
not that of papers, which is Inception's). Distances are to the validation pictures; training pictures, when given with --train, show what perfect samples
reach at each number. Several --features judge the same pictures, shrunk to the size that each network knows. The last column is the whole time over the time inside the
network. The expected time is printed first; a run that is broken off goes on from --save.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import stranger
import torch
from harness import Timed, machine, seconds_per_call
from PIL import Image
from torch import Tensor, nn

from invsolve.errors import SolveError, UsageError
from invsolve.evaluation.sample_quality import (
    FEATURE_NOISE,
    Features,
    Quality,
    classifier_features,
    inception_features,
    inception_score,
    quality,
)
from invsolve.models.score_model import ScoreModel
from invsolve.options import SolveOptions
from invsolve.pictures import to_pixels
from invsolve.pretrained import load_classifier, load_prior
from invsolve.samplers import calls_per_level, find_sampler
from invsolve.tasks.generation import grid, ladder, sample
from invsolve.training.sources import load_pictures

TABLE = ("ode", "heun_sde", "multistep", "ancestral", "reverse_sde", "pc", "langevin", "renoising")
"""The samplers of the table."""


def as_tensor(path: str, channels: int, count: int) -> Tensor:
    pictures = load_pictures(path, channels)
    chosen = np.stack(pictures[:: max(1, len(pictures) // count)][:count])
    return torch.from_numpy(chosen.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def save_grid(pictures: Tensor, path: Path) -> None:
    sheet = grid(pictures.clamp(0, 1)).permute(1, 2, 0).numpy()
    Image.fromarray(to_pixels(sheet).squeeze()).save(path)


def counts_for(calls: list[int], counts: list[int] | None) -> list[int]:
    """Pictures at each number of calls: one number for all, or one for each; fewer where calls are many."""
    if counts is None:
        return [500 if each <= 100 else 200 for each in calls]
    if len(counts) not in (1, len(calls)):
        raise UsageError(f"{len(counts)} --counts for {len(calls)} --calls", hint="give one for all, or one for each")
    return counts * len(calls) if len(counts) == 1 else counts


def levels_for(sampler: str, prior: ScoreModel, calls: int, dimension: int) -> Tensor:
    """The sampler's own ladder, of as many noise levels as cost about ``calls``."""
    each = calls_per_level(find_sampler(sampler))
    count = (calls + 1) // 2 if each == 2 else max(1, (calls - 1) // round(each)) if each > 1 else calls
    return ladder(prior, SolveOptions(steps=count, sampler=sampler), dimension)


def as_row(found: Quality) -> str:
    return f"kid {found.kid:9.5f} +- {found.kid_std:.5f}  fid {found.fid:8.4f}  of {found.pictures} pictures"


SPREAD = "inception score's spread"

Probabilities = Callable[[Tensor], Tensor]
"""Pictures (B, C, H, W) in [0, 1] to probabilities of classes (B, classes)."""


class Seen(nn.Module):
    """A network that is shown pictures in another way."""

    def __init__(self, seen: Callable[[Tensor], Tensor], network: nn.Module) -> None:
        super().__init__()
        self.seen, self.network = seen, network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.seen(x))


class Judge(NamedTuple):
    """Whose features the distances are between, and what it says of pictures where its classes are to be scored."""

    name: str
    features: Features
    probabilities: Probabilities | None  # none of Inception, whose classes are ImageNet's


def judge_by(guide: str, device: torch.device) -> Judge:
    """The judge of that name: ``inception``, ``stranger``, or a classifier trained here.

    Raises
    ------
    ModelError : it is not at hand.
    """
    if guide == "inception":
        return Judge(guide, inception_features(), None)
    if guide == stranger.NAME:
        network = stranger.load_stranger()
        return Judge(guide, stranger.stranger_features(network), lambda x: network(stranger.shrunk(x)).softmax(dim=1))
    classifier = load_classifier(guide, device)
    found, side = classifier_features(classifier), classifier.card.size

    def seen(x: Tensor) -> Tensor:
        return x if side is None else stranger.shrunk(x, side)

    return Judge(
        guide,
        Features(found.name, Seen(seen, found.extract), found.num_features),
        lambda x: classifier.logits(seen(x).to(device), FEATURE_NOISE).float().softmax(dim=1).cpu(),
    )


def scored(pictures: Tensor, judge: Probabilities | None) -> dict[str, float]:
    """The Inception score and its spread over parts of the pictures, where there is a judge."""
    if judge is None:
        return {}
    with torch.no_grad():
        told = torch.cat([judge(part) for part in pictures.split(100)])
    found = inception_score(told, splits=max(1, min(10, len(pictures) // 20)))
    return {"inception score": found.score, SPREAD: found.std}


def as_score(row: dict[str, Any]) -> str:
    if "inception score" not in row:
        return ""
    return f", Inception score {row['inception score']:.2f} +- {row[SPREAD]:.2f}"


def draw(
    prior: ScoreModel, sampler: str, calls: int, count: int, size: tuple[int, int], **run: Any
) -> tuple[Tensor, dict[str, float]]:
    """``count`` pictures of at most ``calls`` network calls each, (count, C, H, W) as files have them, and what they cost."""
    timed, started = Timed(prior), time.perf_counter()
    sigmas = levels_for(sampler, prior, calls, prior.channels * size[0] * size[1])
    drawn = sample(timed, size, samples=count, sampler=sampler, sigmas=sigmas, **run)
    seconds = time.perf_counter() - started
    facts = {
        "calls": drawn.network_calls / count, "seconds a picture": seconds / count, "step / call": seconds / timed.seconds,
    }  # fmt: skip
    return (drawn.samples[:, 0].clamp(0, 1) * 255).round() / 255, facts


def rated(pictures: Tensor, real: Tensor, judge: Judge) -> dict[str, Any]:
    """The distances of ``pictures`` from ``real`` ones, and the Inception score, by one judge."""
    return {**quality(real, pictures, judge.features)._asdict(), **scored(pictures, judge.probabilities)}


def shown(row: dict[str, Any]) -> str:
    return as_row(Quality(**{field: row[field] for field in Quality._fields})) + as_score(row)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument(
        "--features", nargs="+", default=["cifar10-classifier"], help="classifiers, inception, stranger"
    )
    parser.add_argument("--data", required=True, help="validation pictures: folder or .npz")
    parser.add_argument("--train", help="training pictures, for the figure of real ones")
    parser.add_argument("--real", type=int, default=2000, help="validation pictures to compare with")
    parser.add_argument("--calls", type=int, nargs="+", default=[20, 50, 100, 500])
    parser.add_argument("--counts", type=int, nargs="+", help="pictures at each of --calls (500, above 100 calls 200)")
    parser.add_argument("--samplers", nargs="+", choices=TABLE, default=TABLE)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", type=Path, help="rows as JSON; those already there are not run again")
    parser.add_argument("--show", type=Path, help="folder for a grid of 64 pictures of every row")
    options = parser.parse_args(argv)
    counts = counts_for(options.calls, options.counts)
    prior = load_prior(options.model, options.device)
    judges = [judge_by(guide, prior.device) for guide in options.features]
    real = as_tensor(options.data, prior.channels, options.real)
    size = (prior.size, prior.size) if prior.size else (int(real.shape[-2]), int(real.shape[-1]))
    run = {"batch": options.batch}
    save: Path | None = options.save
    rows: dict[str, Any] = json.loads(save.read_text()) if save and save.is_file() else {}

    def key(name: str, calls: int, count: int, judge: Judge) -> str:
        return f"{name}, {calls} calls, {count} pictures, by {judge.name}"

    plan = [
        (name, calls, count)
        for name in options.samplers
        for calls, count in zip(options.calls, counts, strict=True)
        if any(key(name, calls, count, judge) not in rows for judge in judges)
    ]
    features = ", ".join(judge.features.name for judge in judges)
    print(json.dumps(machine()), f"prior {prior.card.sha256[:12]}, features: {features}, {len(real)} real pictures")
    needed = sum(calls * count for _, calls, count in plan)
    each = seconds_per_call(lambda: sample(prior, size, samples=options.batch, sampler="ode", steps=2, **run))
    print(f"{needed} network calls at {1 / each:.0f} a second: about {needed * each / 60:.0f} minutes", flush=True)
    for count in sorted(set(counts)) if options.train else []:
        training = as_tensor(options.train, prior.channels, count)
        for judge in judges:
            row = rated(training, real, judge)
            print(f"{'training pictures':>17}, {judge.name}: {shown(row)}", flush=True)
            rows[f"training pictures, {count}, by {judge.name}"] = row
    for name, calls, count in plan:
        try:
            pictures, facts = draw(prior, name, calls, count, size, **run)
        except SolveError as error:
            print(f"{name:>17}, {calls:4} calls: {error}", flush=True)
            continue
        for judge in judges:
            row = {**rated(pictures, real, judge), **facts}
            print(
                f"{name:>17}, {facts['calls']:4.0f} calls, {judge.name}: {shown(row)}, "
                f"{facts['seconds a picture']:.2f} s each, step / call {facts['step / call']:.3f}",
                flush=True,
            )
            rows[key(name, calls, count, judge)] = row
        if save:
            save.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        if options.show:
            options.show.mkdir(parents=True, exist_ok=True)
            save_grid(pictures[:64], options.show / f"{name}-{calls}.png")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
