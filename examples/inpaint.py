"""Fill scratches in a photograph: four samples, their mean, where they differ.

Run from the repository: python examples/inpaint.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from invsolve import inpaint, load_prior

HERE = Path(__file__).parent
OUT = Path("invsolve-examples")
OUT.mkdir(exist_ok=True)

picture = np.asarray(Image.open(HERE / "astronaut-damaged.png")) / np.float32(255)  # (H, W, 3) in [0, 1]
missing = np.asarray(Image.open(HERE / "astronaut-mask.png")) > 127  # (H, W), True = missing

prior = load_prior("photos")
posterior = inpaint(picture, missing, prior, samples=4, steps=16)

sample, mean, std = (t.permute(1, 2, 0).numpy() for t in (posterior.samples[0, 0], posterior.mean[0], posterior.std[0]))
strip = np.concatenate([picture, sample, mean, 4 * std], axis=1)
Image.fromarray((strip.clip(0, 1) * 255).round().astype(np.uint8)).save(OUT / "inpaint.png")
print(f"wrote {OUT / 'inpaint.png'}: damaged, one sample, mean of 4, 4 x standard deviation")
