"""A prior of one size repairs the scratches of a photograph of 512 x 384: time, memory, PSNR, and whether seams show.

The photograph is scikit-image's astronaut, its upper 384 rows. Patches of --fit tile have borders all over the picture: the jump
is the mean difference of neighbouring pixels' errors in the scratches, across borders over that elsewhere, 1 where no seam
shows. The other fits have none, as each scratch lies in one square.

for fit in tile crop resize; do python benchmarks/fit.py --fit $fit; done
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness import machine
from PIL import Image, ImageDraw
from skimage import data

from invsolve import inpaint, load_prior
from invsolve.evaluation.metrics import psnr
from invsolve.models.tiling import patch_starts
from invsolve.pictures import UnitPicture

Mask = npt.NDArray[np.bool_]


def scratches(height: int, width: int, count: int, seed: int = 0) -> Mask:
    """True on ``count`` straight scratches, 1 to 4 pixels wide and 15 to 35 long, anywhere."""
    image, rng = Image.new("1", (width, height)), np.random.default_rng(seed)
    for _ in range(count):
        x, y, angle, length = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, np.pi), rng.uniform(15, 35)
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        ImageDraw.Draw(image).line([(x, y), end], fill=1, width=int(rng.integers(1, 5)))
    return np.asarray(image, dtype=bool)


def borders(height: int, width: int, size: int) -> tuple[Mask, Mask]:
    """Where a patch begins or ends: between rows (H - 1, 1) and between columns (1, W - 1)."""
    found = []
    for length in (height, width):
        between = np.zeros(length + 1, bool)
        for start in patch_starts(length, size, size // 2):
            between[[start, start + size]] = True
        found.append(between[1:-1])
    return found[0][:, None], found[1][None]


def jump(error: UnitPicture, missing: Mask, between: tuple[Mask, Mask]) -> float:
    """Mean difference of neighbours in ``error`` (H, W, C), both filled, across borders over that elsewhere."""
    across, elsewhere = [], []
    for axis, border in enumerate(between):
        steps = np.abs(np.diff(error, axis=axis)).mean(axis=2)
        filled = _both(missing, axis)
        across.append(steps[filled & border])
        elsewhere.append(steps[filled & ~border])
    return float(np.concatenate(across).mean() / np.concatenate(elsewhere).mean())


def _both(missing: Mask, axis: int) -> Mask:
    first, second = (missing[:-1], missing[1:]) if axis == 0 else (missing[:, :-1], missing[:, 1:])
    return first & second


def peak_memory() -> float:
    """Most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", choices=["tile", "crop", "resize"], default="tile")
    parser.add_argument("--model", default="flowers64", help="a prior of one size")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--scratches", type=int, default=60)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--show", type=Path, help="the damaged and the repaired picture, side by side")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device, patches=chosen.fit == "tile")
    size = prior.patch or prior.size
    if size is None:
        parser.error("--model is a prior of any size")
    print(machine(), {name: str(value) for name, value in vars(chosen).items()}, prior.card.sha256[:12])
    picture = data.astronaut()[: chosen.height, : chosen.width].astype(np.float32) / 255
    missing = scratches(chosen.height, chosen.width, chosen.scratches)
    before, started, busy = peak_memory(), time.perf_counter(), time.process_time()
    fit = None if chosen.fit == "tile" else chosen.fit
    posterior = inpaint(picture, missing, prior, fit=fit, steps=chosen.steps, samples=chosen.samples)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    found = posterior.mean[0].permute(1, 2, 0).numpy()
    quality = psnr(picture[missing], found[missing], data_range=1.0)
    print(
        f"{chosen.fit}: {missing.mean():.1%} missing, {seconds:.0f} s ({busy:.0f} s of processors), {peak_memory():.0f} MB at "
        f"most ({before:.0f} before), PSNR of the filled pixels {quality:.2f} dB"
    )
    if chosen.fit == "tile":
        seams = jump(found - picture, missing, borders(*missing.shape, size))
        print(f"jump across the borders of patches: {seams:.2f} times that elsewhere")
    if chosen.show:
        damaged = np.where(missing[..., None], 1.0, picture)
        both = np.concatenate([damaged, found.clip(0, 1)], axis=1)
        Image.fromarray((both * 255).round().astype(np.uint8)).save(chosen.show)


if __name__ == "__main__":
    main()
