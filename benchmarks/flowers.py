"""A prior of one size on its own kind of pictures: the middle quarter missing, and colours, beside the baselines.

    python benchmarks/flowers.py --data flowers64-val.npz --train flowers64-train.npz --show flowers/
    python benchmarks/flowers.py --data flowers64-val.npz --train flowers64-train.npz --sampler pc --rule replacement \
        --steps 200

The square that is missing is half as wide as the picture. PSNR and SSIM over the whole picture and over the square alone;
"range" is the share of the square's values between the least and the largest sample (a perfect posterior's:
(n - 1) / (n + 1) for n samples). The colour table (mean chroma by luma and height) is fitted on the training pictures.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from common import arguments, machine, print_table
from PIL import Image

from invsolve import colorize, inpaint, load_prior
from invsolve.evaluation.metrics import ciede2000, mean_chroma, score
from invsolve.pictures import channels_last, to_pixels
from invsolve.posterior import Posterior
from invsolve.pretrained import NetworkPrior
from invsolve.tasks.baselines import ColourTable, biharmonic
from invsolve.tasks.generation import grid
from invsolve.training.sources import load_pictures

Picture = npt.NDArray[np.uint8]
COMPLETIONS = 5
SHOWN = 6


def every_kth(path: str, count: int) -> list[Picture]:
    """``count`` pictures spread evenly over the file."""
    pictures = load_pictures(path)
    return [np.asarray(p, np.uint8) for p in pictures[:: max(1, len(pictures) // count)][:count]]


def middle(size: int) -> tuple[slice, slice]:
    """The centre square of half the picture's width."""
    return (slice(size // 4, size // 4 + size // 2),) * 2


def estimates(result: Posterior) -> dict[str, Picture]:
    """One sample and the mean, as pictures."""
    return {
        "invsolve one sample": to_pixels(channels_last(result.samples[0, 0])),
        f"invsolve mean of {len(result.samples)}": to_pixels(channels_last(result.mean[0])),
    }


def inpainting_figures(truth: Picture, estimate: Picture) -> dict[str, float]:
    hole = middle(len(truth))
    inside = score(truth[hole], estimate[hole])
    return {**score(truth, estimate), "psnr in the hole": inside["psnr"], "ssim in the hole": inside["ssim"]}


def colour_figures(truth: Picture, estimate: Picture) -> dict[str, float]:
    difference = {"ciede2000": ciede2000(truth / 255, estimate / 255), "chroma": mean_chroma(estimate / 255)}
    # Infinite for the truth itself, which stands here for its chroma
    return {**score(truth, estimate), **difference} if estimate is not truth else difference


def spread(truth: Picture, result: Posterior) -> dict[str, float]:
    """How far apart the samples are in the hole, how far their mean is from the truth, what their range holds."""
    rows, columns = middle(len(truth))
    samples = result.samples[:, 0, :, rows, columns]
    target = torch.from_numpy(truth / 255).permute(2, 0, 1)[:, rows, columns]
    inside = (samples.amin(dim=0) <= target) & (target <= samples.amax(dim=0))
    return {
        "std": float(result.std[0, :, rows, columns].square().mean().sqrt()) if len(samples) > 1 else float("nan"),
        "error of the mean": float((samples.mean(dim=0) - target).square().mean().sqrt()),
        "range": float(inside.double().mean()),
    }


def fill_middle(prior: NetworkPrior, pictures: list[Picture], solving: dict[str, Any], show: Path | None) -> None:
    """Inpainting: tables, a strip per picture, and several completions of the first ones."""
    size = len(pictures[0])
    missing = np.zeros((size, size), bool)
    missing[middle(size)] = True
    rows: dict[str, list[dict[str, float]]] = {}
    apart, seconds, strips, completions, calls = [], [], [], [], 0
    for truth in pictures:
        unit = np.where(missing[..., None], 0, truth / np.float32(255)).astype(np.float32)
        started = time.perf_counter()
        result = inpaint(unit, missing, prior, **solving)
        seconds.append(time.perf_counter() - started)
        calls += result.network_calls
        bgr = np.where(missing[..., None], 0, truth)[..., ::-1].copy()
        found = {
            "biharmonic": to_pixels(biharmonic(unit, missing)),
            "OpenCV Telea": cv2.inpaint(bgr, missing.astype(np.uint8), 5, cv2.INPAINT_TELEA)[..., ::-1],
            **estimates(result),
        }
        for method, estimate in found.items():
            rows.setdefault(method, []).append(inpainting_figures(truth, estimate))
        apart.append(spread(truth, result))
        damaged = np.where(missing[..., None], 255, truth).astype(np.uint8)
        strips += [truth, damaged, *found.values()]
        samples = [to_pixels(channels_last(x[0])) for x in result.samples[:COMPLETIONS]]
        completions += [truth, damaged, *samples]
    print(f"inpainting the middle: {np.median(seconds):.1f} s and {calls / len(pictures):.0f} calls a picture")
    print_table(rows)
    print_table({"samples in the hole": apart})
    if show:
        save(strips, 6, show / "inpainting.png")
        save(completions, 2 + min(COMPLETIONS, solving["samples"]), show / "completions.png", enlarge=2)


def add_colours(
    prior: NetworkPrior, pictures: list[Picture], table: ColourTable, solving: dict[str, Any], show: Path | None
) -> None:
    """Colorization: a table, and a strip per picture."""
    rows: dict[str, list[dict[str, float]]] = {}
    seconds, strips, calls = [], [], 0
    for truth in pictures:
        grey = np.asarray(Image.fromarray(truth).convert("L"))
        unit = grey.astype(np.float32) / 255
        started = time.perf_counter()
        result = colorize(unit, prior, **solving)
        seconds.append(time.perf_counter() - started)
        calls += result.network_calls
        plain = np.repeat(grey[..., None], 3, axis=2)
        coloured = to_pixels(table.colorize(unit.astype(np.float64)))
        for method, estimate in {
            "grey": plain, "colour table": coloured, **estimates(result), "truth": truth,
        }.items():  # fmt: skip
            rows.setdefault(method, []).append(colour_figures(truth, estimate))
        strips += [truth, plain, coloured, *(to_pixels(channels_last(x[0])) for x in result.samples[:3])]
    print(f"colorization: {np.median(seconds):.1f} s and {calls / len(pictures):.0f} calls a picture")
    print_table(rows)
    if show:
        save(strips, 3 + min(3, solving["samples"]), show / "colorization.png", enlarge=2)


def save(pictures: list[Picture], columns: int, path: Path, enlarge: int = 1) -> None:
    """The first rows of pictures (H, W, 3), ``columns`` a row."""
    chosen = torch.from_numpy(np.stack(pictures[: SHOWN * columns])).permute(0, 3, 1, 2).float() / 255
    sheet = to_pixels(grid(chosen, columns=columns).permute(1, 2, 0).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.repeat(enlarge, axis=0).repeat(enlarge, axis=1)).save(path)


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(model="flowers64")
    parser.add_argument("--train", required=True, help="training pictures, for the colour table: folder or .npz")
    parser.add_argument("--sigma-start", type=float, help="first noise level; default that of the commands")
    parser.add_argument("--task", choices=("both", "inpainting", "colorization"), default="both")
    options = parser.parse_args()
    prior = load_prior(options.model, options.device)
    pictures = every_kth(options.data, options.pictures)
    for picture in pictures:
        prior.check_size(torch.from_numpy(picture).permute(2, 0, 1)[None])
    solving = {name: getattr(options, name) for name in ("samples", "steps", "sampler", "rule")}
    if options.sigma_start is not None:
        solving["sigma_start"] = options.sigma_start
    print(json.dumps(machine()), {k: str(v) for k, v in vars(options).items()}, prior.card.sha256[:12])
    if options.task != "colorization":
        fill_middle(prior, pictures, solving, options.show)
    if options.task != "inpainting":
        add_colours(prior, pictures, ColourTable.fit(load_pictures(options.train)), solving, options.show)


if __name__ == "__main__":
    main()
