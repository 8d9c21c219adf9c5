"""Colorization at 1024 x 1024, as the score SDE paper shows it (Song et al. 2021, fig. 12 on): grey, three samples.

Colours are found at 64 x 64 and follow the edges of the grey picture up to full size, so this takes seconds.

Run from the repository: python examples/colorize_large.py [picture]
"""

import sys
import time
from pathlib import Path

import numpy as np
from drawing import OUT
from PIL import Image

from invsolve import colorize, load_prior

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "astronaut.png"
picture = Image.open(path).convert("L").resize((1024, 1024), Image.Resampling.LANCZOS)
grey = np.asarray(picture, np.float32) / 255

prior = load_prior("thumbnails")
started = time.perf_counter()
posterior = colorize(grey, prior, samples=3)
print(f"{time.perf_counter() - started:.1f} s for three samples")

tiles = [np.repeat(grey[..., None], 3, axis=2), *(x[0].permute(1, 2, 0).numpy() for x in posterior.samples)]
sheet = np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)], axis=0)
OUT.mkdir(exist_ok=True)
Image.fromarray((sheet.clip(0, 1) * 255).round().astype(np.uint8)).save(OUT / "colorize-1024.png")
print(f"wrote {OUT / 'colorize-1024.png'}: grey, three samples, 1024 x 1024 each")
