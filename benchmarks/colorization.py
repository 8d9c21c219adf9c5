"""Colorization against the colour table (mean chroma by luma and height, fitted on the training pictures) and grey.

python benchmarks/colorization.py --data photos-val.npz
python benchmarks/colorization.py --data photos-val.npz --whole
"""

from __future__ import annotations

import time

import numpy as np
from common import arguments, centre_crops, machine, print_table
from numpy.typing import NDArray
from PIL import Image

from invsolve import Posterior, colorize, load_prior
from invsolve.evaluation.metrics import ciede2000, mean_chroma, score
from invsolve.pictures import channels_last, to_pixels
from invsolve.pretrained import find_prior
from invsolve.tasks.baselines import ColourTable
from invsolve.tasks.colorization import STEPS
from invsolve.training.sources import load_pictures


def judged(result: Posterior, truth: NDArray[np.uint8]) -> dict[str, float]:
    """PSNR and chroma averaged over the samples, share of the true values in their range, spread over the mean's error."""
    unit = truth.transpose(2, 0, 1) / 255
    samples, error = result.samples[:, 0].numpy(), result.mean[0].numpy() - unit
    half = 0.5 / 255  # what rounding the truth to 8 bits leaves open
    inside = (unit >= samples.min(axis=0) - half) & (unit <= samples.max(axis=0) + half)
    pictures = [to_pixels(channels_last(x)) for x in result.samples[:, 0]]
    return {
        "psnr": float(np.mean([score(truth, picture)["psnr"] for picture in pictures])),
        "chroma": float(np.mean([mean_chroma(picture / 255) for picture in pictures])),
        "range": float(inside.mean()),
        "spread": float(np.sqrt(np.square(result.std.numpy()).mean() / np.square(error).mean())),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(model="thumbnails", sampler="heun_sde", steps=STEPS)
    parser.add_argument("--whole", action="store_true", help="pictures of any shape, instead of the middle 256 x 256")
    options = parser.parse_args()
    prior = load_prior(options.model, options.device)
    table = ColourTable.load(find_prior("photos") / "colour-table.json")
    print(machine(), vars(options), prior.card.sha256[:12])
    rows: dict[str, list[dict[str, float]]] = {}
    strips, seconds = [], []
    some = options.pictures
    pictures = load_pictures(options.data)[:some] if options.whole else centre_crops(options.data, some)
    for index, truth in enumerate(pictures):
        grey = np.asarray(Image.fromarray(truth).convert("L"))
        unit = grey.astype(np.float32) / 255
        started = time.perf_counter()
        result = colorize(
            unit, prior, samples=options.samples, steps=options.steps, sampler=options.sampler, rule=options.rule,
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
        candidates = {
            "grey": np.repeat(grey[..., None], 3, axis=2),
            "colour table": to_pixels(table.colorize(unit.astype(np.float64))),
            "invsolve one sample": to_pixels(channels_last(result.samples[0, 0])),
            f"invsolve mean of {options.samples}": to_pixels(channels_last(result.mean[0])),
            "truth": truth,
        }
        for method, estimate in candidates.items():
            figures = {} if method == "truth" else score(truth, estimate)
            figures |= {"ciede2000": ciede2000(truth / 255, estimate / 255), "chroma": mean_chroma(estimate / 255)}
            rows.setdefault(method, []).append(figures)
        rows.setdefault("all samples", []).append(judged(result, truth))
        if index < 6:
            samples = [to_pixels(channels_last(x[0])) for x in result.samples[:3]]
            strips.append(np.concatenate([truth, candidates["grey"], candidates["colour table"], *samples], axis=1))
    print(f"{np.median(seconds):.1f} s a picture")
    print_table(rows)
    if options.show:
        Image.fromarray(np.concatenate(strips)).save(options.show)


if __name__ == "__main__":
    main()
