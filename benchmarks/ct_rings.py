"""What `invsolve ct --rings` takes out of a scan whose detector bins measure too much or too little, and what it costs one
without rings.

    python benchmarks/ct_rings.py --show rings.png

Scans of 128 x 128 pixels and 187 bins, projected on a grid twice as fine, with noise of 0.3 % of the largest value. Every bin is
off by a random amount, one in 25 by four times as much. Printed is the RMSE of filtered back-projection in HU: of the scan
without rings, of the one with them, and of that corrected. The shell is round and lies on the axis, which looks like rings.
Where algotom (Vo, Atwood & Drakopoulos 2018) is installed, two of its ways stand beside, for comparison.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ct_scans import BINS, SIZE, noisy, slices
from PIL import Image

from invsolve.atomic import write_files
from invsolve.cli.ct_files import labelled_row, windowed
from invsolve.cli.files import encode_picture
from invsolve.ct.classical import classical
from invsolve.ct.rings import find_rings
from invsolve.ct.simulation import project_slice
from invsolve.forward_models import Geometry, even_angles, projector

Array = npt.NDArray[Any]
LEVELS = (0.0, 0.005, 0.02)
"""Standard deviation of the bins' errors, as a share of the largest value."""

NOISE = 0.003


def objects() -> dict[str, Array]:
    """In the units of n."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    radius = np.hypot(x, y)
    return slices() | {"shell": np.where(radius < 50, 0.5, 0.0) + np.where((radius < 40) & (radius > 30), 0.3, 0.0)}


def errors(seed: int) -> Array:
    """Of the bins, (detectors,)."""
    random = np.random.default_rng(seed)
    off = random.standard_normal(BINS)
    off[random.choice(BINS, BINS // 25, replace=False)] *= 4
    return off


def corrected(way: str) -> Callable[[Array], Array]:
    def correct(y: Array) -> Array:
        return y - find_rings(y[None], np.ones((1, *y.shape), dtype=bool), (BINS - 1) / 2, way).excess[0]

    return correct


def ways() -> dict[str, Callable[[Array], Array]]:
    """From a sinogram (views, detectors) to one without rings, by name."""
    found: dict[str, Callable[[Array], Array]] = {
        "as it is": lambda y: y, "auto": corrected("auto"), "median": corrected("median")
    }  # fmt: skip
    if importlib.util.find_spec("algotom") is not None:
        from algotom.prep import removal

        found["algotom, sorting"] = lambda y: removal.remove_stripe_based_sorting(y, 9)
        found["algotom, all"] = lambda y: removal.remove_all_stripe(y, 3.0, 51, 9)
    return found


def reconstructed(y: Array, scan: Geometry) -> Array:
    given = torch.from_numpy(np.ascontiguousarray(y[None], dtype=np.float32))
    return classical("fbp", projector(scan, torch.device("cpu")), scan, given)[0].numpy()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=[23, 60, 180], help="over half a turn")
    parser.add_argument("--objects", nargs="+", choices=sorted(objects()), default=list(objects()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=Path, metavar="FILE.png", help="the slices at the last number of views")
    options = parser.parse_args(argv)
    shown: list[Array] = []
    print(f"| slice | views | bins off by | {' | '.join(ways())} |\n{'| --- ' * (3 + len(ways()))}|")
    for name in options.objects:
        image, pictures = objects()[name], {}
        for views in options.views:
            scan = Geometry(even_angles(views), BINS, (SIZE, SIZE))
            y0 = project_slice(image, scan)
            for share in LEVELS:
                y = (noisy(y0, NOISE, options.seed) + share * y0.max() * errors(options.seed)).astype(np.float32)
                results = {way: reconstructed(correct(y), scan) for way, correct in ways().items()}
                cells = " | ".join(f"{2000 * np.sqrt(((r - image) ** 2).mean()):.1f}" for r in results.values())
                print(f"| {name} | {views} | {share:.1%} | {cells} |", flush=True)
                pictures = {"truth": image} | results
        grey = {label: windowed(2000 * np.asarray(n) - 1000, (0, 1200)) for label, n in pictures.items()}
        enlarged = {k: np.asarray(Image.fromarray(p).resize((256, 256))) for k, p in grey.items()}
        shown.append(labelled_row(enlarged))
    if options.show:
        write_files({options.show: encode_picture(np.concatenate(shown), options.show, {})})


if __name__ == "__main__":
    main()
