"""How the shipped priors were trained on: from their last generation's weights, for some minutes of a GPU, or of a CPU.

python benchmarks/gpu_priors.py photos --train photos-train.npz --val photos-val.npz --init photos --minutes 11 -o photos3
python benchmarks/gpu_priors.py ct --train ct-couches.npz --val ct-val.npz --init ct --minutes 96 -o ct2

Half a dozen of these runs share one GPU: each keeps a processor core busy with crops and launches, none the whole GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from invsolve.models.network import NetworkConfig
from invsolve.pretrained.loading import resolve_device
from invsolve.training.crops import Augmentation
from invsolve.training.export import About, export_prior, initial_weights
from invsolve.training.loop import Execution, TrainingInfo, fit
from invsolve.training.loss import DENOISING
from invsolve.training.presets import PRESETS, SigmaDensity, TrainingConfig
from invsolve.training.sources import load_split
from invsolve.training.validation import prior_examples

EVERY = 15.0
"""Seconds between lines of progress."""


def trained_on(preset: str, **changes: object) -> TrainingConfig:
    """A preset for weights that are trained already: lower rates, which fall for most of the run; the time ends it."""
    rates = {"learning_rate": 1.3e-3, "muon_rate": 2e-3, "decay_share": 0.85, "steps": 10**6, "seed": 3}
    return replace(PRESETS[preset], **{**rates, **changes})  # type: ignore[arg-type]


LARGER = {"crop": 96, "crop_late": 96, "batch": 64}
"""Networks see up to 90 pixels around: in crops of 64 most of what they see is the padding."""

CONFIGS: dict[str, TrainingConfig] = {
    "photos": trained_on("photos", **LARGER),
    # Six blocks more, where they cost few parameters, which begin as they would in a new network: at the preset's rates.
    "photos-deeper": trained_on(
        "photos",
        network=NetworkConfig(encoder_blocks=(1, 2, 2, 2), decoder_blocks=(2, 2, 2)),
        crop=128,
        crop_late=128,
        batch=48,
        learning_rate=2e-3,
        muon_rate=3e-3,
    ),
    # Enlarged slices stand for pixels down to 0.65 mm. Scans are solved from noise 0.35 down: there it learns most.
    "ct": trained_on(
        "ct",
        crop=128,
        crop_late=128,
        batch=8,
        density=SigmaDensity(split=0.5, high=5.0, lower_share=0.9),
        augmentation=Augmentation("flips", rotation=10.0, zoom=(0.8, 2.0), share=0.5),
    ),
    "mri": trained_on("mri", **LARGER),
    "cifar10": trained_on("cifar10", batch=256),
    "flowers64": trained_on("flowers64", batch=96),
    "thumbnails": trained_on("thumbnails", batch=128),
}


def progress() -> Callable[[TrainingInfo], None]:
    """A function to be told of every step, which prints now and then."""
    last = [0.0]

    def show(info: TrainingInfo) -> None:
        if time.monotonic() - last[0] > EVERY:
            last[0] = time.monotonic()
            rate = f"{info.images_per_second:.0f} crops/s, {info.seconds:.0f} s, {info.remaining:.0f} s left"
            print(f"step {info.step}: loss {info.loss:.5f}, {rate}", flush=True)

    return show


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=CONFIGS)
    parser.add_argument("--train", required=True, nargs="+", help="pictures to learn from: folders or .npz")
    parser.add_argument("--val", required=True, help="pictures to validate on")
    parser.add_argument("--init", required=True, help="a prior of the same network to start from")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-compile", action="store_true", help="run the network as it is on a GPU too")
    parser.add_argument("--batch", type=int, help="crops per step; default the configuration's")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of checkpoint, weights and card")
    chosen = parser.parse_args(arguments)
    config = CONFIGS[chosen.preset]
    config = replace(config, batch=chosen.batch or config.batch)
    split = load_split(chosen.train, chosen.val, config.network.channels)
    device = resolve_device(chosen.device)
    state = fit(
        DENOISING, split.training, config, chosen.output, device=device,
        initial=initial_weights(chosen.init, config), time_limit=60 * chosen.minutes,
        execution=Execution(compile=device.type == "cuda" and not chosen.no_compile), on_step=progress(), on_note=print,
    )  # fmt: skip
    print(f"{state.step} steps in {state.seconds:.0f} s; validating", flush=True)
    about = About(chosen.preset, ", ".join(Path(source).name for source in chosen.train), "as the training data")
    card = export_prior(chosen.output, config, state, prior_examples(config, split.held_out), about)
    print(", ".join(f"{sigma:.3g}: {error**0.5:.5f}" for sigma, error in card.validation_mse))


if __name__ == "__main__":
    main()
