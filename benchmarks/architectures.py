"""Networks of the cifar10 prior at equal training time, each with the best average of its weights.

    OMP_NUM_THREADS=1 python benchmarks/architectures.py --train cifar10-train.npz --val cifar10-val.npz --minutes 3 -o runs/

First the processor time of a step of each variant is measured, in turns: it gets as many steps as fit the minutes, so that what
else the machine does counts for none. Each is trained in a folder of its own and stores snapshots of its weights' averages. Then
lengths of the average are tried on validation pictures, and with the best one denoising PSNR is measured on others, by noise
level, and FID and KID of samples, by the features of a stranger's network (`benchmarks/stranger.py`) or of a classifier. A few
minutes rank what learns fastest, not what ends best. A run that is broken off goes on; what is finished is not run again, so that
`--only` takes one variant after another into the same folder. The table in the end is of all that are finished there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sample_quality import as_tensor, draw, judge_by, rated, save_grid, shown

from invsolve.models.network import EDMDenoiser
from invsolve.models.score_model import FunctionPrior
from invsolve.training import DENOISING, TrainingConfig, train, validate
from invsolve.training.batches import batch_at
from invsolve.training.checkpoint import start
from invsolve.training.loop import gradient, in_prior_units, updated
from invsolve.training.post_hoc_ema import averaged, best_of, lengths_tried
from invsolve.training.presets import PRESETS
from invsolve.training.sources import Picture, load_pictures

SIGMAS = [0.01, 0.025, 0.06, 0.15, 0.4, 1.0, 3.0, 10.0]
ROUNDS = 10
BASE = replace(PRESETS["cifar10"], batch=32, snapshots=32)


def with_network(**changes: Any) -> TrainingConfig:
    return replace(BASE, network=replace(BASE.network, **changes))


VARIANTS: dict[str, TrainingConfig] = {
    "as it ships": BASE,
    # More blocks, and so attention layers, and more width at 16 x 16 and 8 x 8, less at 32 x 32, which costs the most.
    "more at low resolution": with_network(widths=(32, 128, 256), encoder_blocks=(1, 2, 3), decoder_blocks=(1, 2)),
    "wider bottom": with_network(widths=(48, 96, 384)),
    "fourth level": with_network(
        widths=(48, 96, 192, 320), encoder_blocks=(1, 1, 1, 2), decoder_blocks=(1, 1, 1), attention_from=2
    ),
    # Patch diffusion (Wang et al. 2023) without its coordinates: crops of 16 x 16 for two thirds of the steps, then all.
    "crops first": replace(BASE, crop=16, crop_late=32, batch=4 * BASE.batch),
}


def costs(pictures: Sequence[Picture]) -> dict[str, float]:
    """Processor seconds of a step, by variant: all in turns and the least of ROUNDS, as what else runs only adds to it.

    Of crops of two sizes the mean over the run, which takes the first for two thirds of its steps.
    """
    states = {name: start(DENOISING, config, torch.device("cpu")) for name, config in VARIANTS.items()}
    least = {name: dict.fromkeys((config.crop, config.crop_late), math.inf) for name, config in VARIANTS.items()}
    for round_ in range(ROUNDS):
        for name, config in VARIANTS.items():
            for crop, before in least[name].items():
                began = time.process_time()
                batch = in_prior_units(batch_at(round_, crop, config, [pictures]), 255.0, config)
                gradient(DENOISING, states[name].model, batch, config, round_)
                states[name] = updated(states[name], 1.0, config)
                least[name][crop] = min(before, time.process_time() - began)
    return {name: (2 * least[name][c.crop] + least[name][c.crop_late]) / 3 for name, c in VARIANTS.items()}


def as_prior(network: EDMDenoiser, config: TrainingConfig, size: int) -> FunctionPrior:
    """The network as a prior of pictures of one size."""
    low, high = config.density.low, config.density.high
    channels, spread = config.network.channels, config.network.sigma_rms
    frozen: EDMDenoiser = network.eval().requires_grad_(False)
    return FunctionPrior(frozen, channels=channels, sigma_min=low, sigma_max=high, sigma_data=spread, size=size)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="training pictures: folder or .npz")
    parser.add_argument("--val", required=True, help="validation pictures: folder or .npz")
    parser.add_argument("--minutes", type=float, default=3.0, help="of one core, a variant")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--features", default="stranger", help="a classifier, inception, or stranger")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--calls", type=int, default=36, help="network calls a sample, heun_sde")
    parser.add_argument("--real", type=int, default=2000, help="validation pictures that samples are compared with")
    parser.add_argument("--pictures", type=int, default=200, help="validation pictures that are denoised")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for runs, figures and sheets")
    options = parser.parse_args(argv)
    pictures = load_pictures(options.train, 3)
    real = as_tensor(options.val, 3, max(options.real, options.pictures))
    size, judge = int(real.shape[-1]), judge_by(options.features, torch.device("cpu"))
    options.output.mkdir(parents=True, exist_ok=True)
    paces: Path = options.output / "seconds-a-step.json"
    if not paces.is_file():
        paces.write_text(json.dumps(costs(pictures)), encoding="utf-8")
    pace = json.loads(paces.read_text())
    print(
        "processor seconds a step: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in pace.items()), flush=True
    )
    for name in options.only:
        figures, config = figures_of(options.output, name), VARIANTS[name]
        folder = figures.parent
        if not figures.is_file():
            config = replace(config, steps=max(1, round(60 * options.minutes / pace[name])))
            network = train(pictures, config, folder, device=torch.device("cpu")).ema
            # Two halves, so that the figures are of pictures that chose nothing.
            choosing, judging = real[: options.pictures : 2], real[1 : options.pictures : 2]
            tried = lengths_tried(folder, network, choosing, SIGMAS)
            best = averaged(folder, best_of(tried), network)
            denoised = {
                kind: {sigma: 10 * -torch.tensor(error).log10().item() for sigma, error in found.items()}
                for kind, found in (
                    ("best", validate(best, judging, SIGMAS, batch=25)),
                    ("0.05", validate(network, judging, SIGMAS, batch=25)),
                )
            }
            prior = as_prior(best, config, size)
            samples, facts = draw(
                prior, "heun_sde", options.calls, options.samples, (size, size), batch=options.samples
            )
            save_grid(samples[:64], folder / "samples.png")
            row = {**rated(samples, real, judge), **facts}
            parameters = sum(p.numel() for p in network.parameters())
            found = {
                "steps": config.steps,
                "parameters": parameters,
                "lengths": tried,
                "denoised": denoised,
                "samples": row,
            }
            figures.write_text(json.dumps(found, indent=1), encoding="utf-8")
        show(name, json.loads(figures.read_text()))
    finished = {name: figures_of(options.output, name) for name in VARIANTS}
    print(as_table({name: json.loads(path.read_text()) for name, path in finished.items() if path.is_file()}))


def figures_of(output: Path, name: str) -> Path:
    """Where a variant's figures are, in a folder of its own."""
    return output / name.replace(" ", "-") / "figures.json"


def as_table(found: dict[str, Any]) -> str:
    """Variants below one another, in markdown: denoising in dB by noise level with the best average, and what that brought.

    The length of the average is that of the best; the gain is over the usual 0.05, the mean over the noise levels.
    """
    columns = ["steps", "M parameters", *map(str, SIGMAS), "mean", "KID", "FID", "length", "gain"]
    lines = ["| | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for name, row in found.items():
        best, usual = (list(row["denoised"][kind].values()) for kind in ("best", "0.05"))
        lengths, samples = {float(k): v for k, v in row["lengths"].items()}, row["samples"]
        cells = [str(row["steps"]), f"{row['parameters'] / 1e6:.2f}", *(f"{figure:.2f}" for figure in best)]
        cells += [f"{np.mean(best):.2f}", f"{samples['kid']:.3f}", f"{samples['fid']:.1f}"]
        cells += [str(best_of(lengths)), f"{np.mean(best) - np.mean(usual):+.3f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def show(name: str, found: dict[str, Any]) -> None:
    """A variant's figures, a few lines."""
    print(f"{name}: {found['steps']} steps, {found['parameters'] / 1e6:.2f} M parameters")
    print("  dB by length of average: " + ", ".join(f"{k}: {v:.3f}" for k, v in found["lengths"].items()))
    for kind, errors in found["denoised"].items():
        print(
            f"  average {kind}, dB at sigma " + "  ".join(f"{sigma}: {figure:.2f}" for sigma, figure in errors.items())
        )
    print(f"  samples, {found['samples']['features']}: {shown(found['samples'])}", flush=True)


if __name__ == "__main__":
    main()
