"""Measure a prior's error spectrum (:mod:`invsolve.models.error_spectrum`) on pictures and write it to its card.

    python benchmarks/measure_spectrum.py --model photos --data photos-train.npz --pictures 48 --size 160
    python benchmarks/measure_spectrum.py --model ct --data ct-train.npz --pictures 44 --size 256

``invsolve train`` does the same with the pictures it holds out. The shipped priors' spectra are of training pictures, so that
the validation pictures stay unseen; every n-th of them is taken, for CT the first slice of each patient.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import Array

from invsolve.atomic import write_files
from invsolve.colours import from_rgb
from invsolve.models.error_spectrum import channel_mix, measure_error_spectrum
from invsolve.pretrained import load_prior
from invsolve.pretrained.loading import CARD, find_prior
from invsolve.training.crops import center_crops, unit_scale
from invsolve.training.sources import load_pictures

LEVELS = 14


def chosen_pictures(path: str, channels: int, count: int) -> list[Array]:
    """``count`` pictures spread over a source, or a slice of each of ``count`` patients."""
    pictures = load_pictures(path, channels)
    with np.load(path, allow_pickle=False) as archive:
        if "patient" in archive:
            first = np.unique(archive["patient"], return_index=True)[1]
            return [pictures[i] for i in first[:count]]
    return list(pictures[:: max(1, len(pictures) // count)][:count])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a prior's name or folder; its card is rewritten")
    parser.add_argument("--data", required=True, help="an .npz of pictures")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--size", type=int, default=192, help="of the centre crops")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args(arguments)
    prior = load_prior(chosen.model, chosen.device)
    pictures = chosen_pictures(chosen.data, prior.channels, chosen.pictures)
    crops = from_rgb(center_crops(pictures, chosen.size, unit_scale(pictures)), prior.colours).to(prior.device)
    lowest, highest = max(prior.sigma_min, 0.005), min(prior.sigma_max, 5.0)
    sigmas = np.geomspace(lowest, highest, LEVELS).tolist()
    mix = channel_mix(prior.channels, rgb=prior.colours == "rgb")
    spectrum = measure_error_spectrum(lambda x, sigma: prior.denoise(x, sigma), crops, sigmas, mix)
    card = replace(prior.card, error_spectrum=spectrum.to_dict())
    write_files({Path(find_prior(chosen.model)) / CARD: card.to_json().encode()})
    for sigma, rows, errors in zip(spectrum.sigmas, spectrum.variances, spectrum.errors, strict=True):
        shown = " ".join(f"{v**0.5:.2f}" for v in rows[0])
        quiet, busy = (errors[k] ** 0.5 for k in (0, -1))
        print(f"{sigma:.3g}: rms error {quiet:.2g} where it is flat to {busy:.2g}; its spectrum, slow to fine: {shown}")


if __name__ == "__main__":
    main()
