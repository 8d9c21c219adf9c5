"""Inpainting against scikit-image's biharmonic and OpenCV's Telea and Navier-Stokes, on the same masks in one run.

python benchmarks/inpainting.py --data photos-val.npz
"""

from __future__ import annotations

import time

import cv2
import numpy as np
from common import arguments, centre_crops, machine, print_table, random_lines, random_pixels
from PIL import Image

from invsolve import inpaint, load_prior
from invsolve.evaluation.metrics import score
from invsolve.pictures import channels_last, to_pixels
from invsolve.tasks.baselines import biharmonic
from invsolve.tasks.inpainting import STEPS

TASKS = {"pixels": random_pixels, "lines": random_lines}
"""(a) half of the pixels missing, (b) lines 5 pixels wide over 10 % of them."""


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(steps=STEPS)
    parser.add_argument("--only", choices=TASKS, nargs="+", default=list(TASKS))
    options = parser.parse_args()
    prior = load_prior(options.model, options.device)
    pictures = centre_crops(options.data, options.pictures)
    print(machine(), vars(options), prior.card.sha256[:12])
    strips = []
    for task in options.only:
        mask = TASKS[task]
        rows: dict[str, list[dict[str, float]]] = {}
        seconds = []
        for index, truth in enumerate(pictures):
            missing = mask(index)
            unit = np.where(missing[..., None], 0, truth / np.float32(255)).astype(np.float32)
            started = time.perf_counter()
            result = inpaint(
                unit, missing, prior, samples=options.samples, steps=options.steps, sampler=options.sampler,
                rule=options.rule,
            )  # fmt: skip
            seconds.append(time.perf_counter() - started)
            bgr = np.where(missing[..., None], 0, truth)[..., ::-1].copy()
            telea, stokes = (
                cv2.inpaint(bgr, missing.astype(np.uint8), 5, flag)[..., ::-1]
                for flag in (cv2.INPAINT_TELEA, cv2.INPAINT_NS)
            )
            candidates = {
                "biharmonic": to_pixels(biharmonic(unit, missing)),
                "OpenCV Telea": telea,
                "OpenCV Navier-Stokes": stokes,
                "invsolve one sample": to_pixels(channels_last(result.samples[0, 0])),
                f"invsolve mean of {options.samples}": to_pixels(channels_last(result.mean[0])),
            }
            for method, estimate in candidates.items():
                rows.setdefault(method, []).append(score(truth, estimate))
            if index < 3:
                holes = np.where(missing[..., None], 255, truth).astype(np.uint8)
                strips.append(
                    np.concatenate([truth, holes, candidates["biharmonic"], *list(candidates.values())[-2:]], axis=1)
                )
        print(f"{task}; {np.median(seconds):.1f} s a picture")
        print_table(rows)
    if options.show:
        Image.fromarray(np.concatenate(strips)).save(options.show)


if __name__ == "__main__":
    main()
