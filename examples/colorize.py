"""Colour a grey photograph: three of the many colourings that fit.

Run from the repository: python examples/colorize.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from invsolve import colorize, load_prior

OUT = Path("invsolve-examples")
OUT.mkdir(exist_ok=True)

grey = np.asarray(Image.open(Path(__file__).parent / "cat-grey.png").convert("L")) / np.float32(255)  # (H, W)

prior = load_prior("thumbnails")
posterior = colorize(grey, prior, samples=3)

pictures = [np.repeat(grey[..., None], 3, axis=2), *(x[0].permute(1, 2, 0).numpy() for x in posterior.samples)]
Image.fromarray((np.concatenate(pictures, axis=1).clip(0, 1) * 255).round().astype(np.uint8)).save(OUT / "colorize.png")
print(f"wrote {OUT / 'colorize.png'}: grey, three samples")
