"""Variants of the photos prior at equal training time: stem, normalisation, depth, optimizer.

    python benchmarks/training_variants.py --minutes 3 --train photos-train.npz --val photos-val.npz

Prints each variant's denoising PSNR on the validation pictures, by noise level. A few minutes rank what learns fastest,
not what ends best.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from invsolve import training
from invsolve.models.network import NetworkConfig
from invsolve.training import checkpoint, presets
from invsolve.training.optimizer import MuonAdamW
from invsolve.training.sources import load_pictures
from invsolve.training.validation import validation_pictures

BASE = replace(
    presets.PRESETS["photos"], steps=1_000_000, crop_late=64, network=NetworkConfig(widths=(32, 64, 128, 192))
)


class AdamWOnly:
    """AdamW for all parameters, with the interface the trainer wants."""

    def __init__(self, model: nn.Module, adamw_rate: float, muon_rate: float) -> None:
        self.rate = adamw_rate
        self.adamw = torch.optim.AdamW(
            model.parameters(), lr=adamw_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
        )

    def scale_rates(self, factor: float) -> None:
        for group in self.adamw.param_groups:
            group["lr"] = factor * self.rate

    def zero_grad(self) -> None:
        self.adamw.zero_grad(set_to_none=True)

    def step(self) -> None:
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        return self.adamw.state_dict()


def with_network(**changes: Any) -> presets.TrainingConfig:
    return replace(BASE, network=replace(BASE.network, **changes))


VARIANTS: dict[str, tuple[presets.TrainingConfig, type]] = {
    "AdamW 1e-3": (replace(BASE, learning_rate=1e-3), AdamWOnly),
    "AdamW 2e-3": (replace(BASE, learning_rate=2e-3), AdamWOnly),
    "AdamW 1e-3, no normalisation": (replace(with_network(normalize_from=9), learning_rate=1e-3), AdamWOnly),
    "AdamW 1e-3, unshuffle stem": (
        replace(
            with_network(
                stem=2, widths=(64, 128, 192), encoder_blocks=(2, 2, 2), decoder_blocks=(2, 2), normalize_from=9
            ),
            learning_rate=1e-3,
        ),
        AdamWOnly,
    ),
    "AdamW 1e-3, deeper": (
        replace(
            with_network(encoder_blocks=(1, 2, 2, 2), decoder_blocks=(1, 2, 2), normalize_from=9), learning_rate=1e-3
        ),
        AdamWOnly,
    ),
    "Muon": (BASE, MuonAdamW),
    "Muon, deeper": (with_network(encoder_blocks=(1, 2, 2, 2), decoder_blocks=(1, 2, 2)), MuonAdamW),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--only", nargs="*", help="names of variants")
    options = parser.parse_args(argv)
    pictures, held_out = load_pictures(options.train), validation_pictures(load_pictures(options.val), 256)
    for name, (config, optimizer) in VARIANTS.items():
        if options.only and name not in options.only:
            continue
        checkpoint.MuonAdamW = optimizer  # type: ignore[misc]
        with tempfile.TemporaryDirectory() as folder:
            state = training.train(
                pictures,
                config,
                Path(folder),
                device=torch.device("cpu"),
                time_limit=60 * options.minutes,
                resume=False,
            )
        errors = training.validate(state.ema, held_out, [0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 4.0, 16.0])
        figures = "  ".join(f"{s:g}: {-10 * math.log10(e):.2f}" for s, e in errors.items())
        print(f"{name:<32} {state.step:>6} steps   dB at sigma {figures}", flush=True)


if __name__ == "__main__":
    main()
