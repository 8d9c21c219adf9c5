"""Colorization against the colour table (mean chroma by luma and height, fitted on the training pictures) and grey.

python benchmarks/colorization.py --data photos-val.npz
"""

from __future__ import annotations

import time

import numpy as np
from common import arguments, centre_crops, machine, print_table
from PIL import Image

from invsolve import colorize, load_prior
from invsolve.baselines import ColourTable
from invsolve.cli.results import channels_last, score
from invsolve.colorization import STEPS
from invsolve.metrics import ciede2000, mean_chroma
from invsolve.pretrained import find_prior
from invsolve.rounding import to_pixels


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(sampler="ancestral_corrected", steps=STEPS)
    options = parser.parse_args()
    prior = load_prior(options.model, options.device)
    table = ColourTable.load(find_prior("photos") / "colour-table.json")
    print(machine(), vars(options), prior.card.sha256[:12])
    rows: dict[str, list[dict[str, float]]] = {}
    strips, seconds = [], []
    for index, truth in enumerate(centre_crops(options.data, options.pictures)):
        grey = np.asarray(Image.fromarray(truth).convert("L"))
        unit = grey.astype(np.float32) / 255
        started = time.perf_counter()
        result = colorize(
            unit, prior, samples=options.samples, steps=options.steps, sampler=options.sampler, rule=options.rule,
            device=prior.device,
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
        if index < 6:
            samples = [to_pixels(channels_last(x[0])) for x in result.samples[:3]]
            strips.append(np.concatenate([truth, candidates["grey"], candidates["colour table"], *samples], axis=1))
    print(f"{np.median(seconds):.1f} s a picture")
    print_table(rows)
    if options.show:
        Image.fromarray(np.concatenate(strips)).save(options.show)


if __name__ == "__main__":
    main()
