"""From one picture to another through the prior's latent space, above; below, plain cross-fading.

Run from the repository: python examples/interpolation.py [--model flowers64 a.png b.png]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from drawing import strip
from PIL import Image

from invsolve import load_prior
from invsolve.ode.latent import interpolate

HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("pictures", nargs="*", type=Path, default=[HERE / "astronaut.png", HERE / "cat-grey.png"])
parser.add_argument("--model", default="photos")
parser.add_argument("--count", type=int, default=7)
parser.add_argument("--tolerance", type=float, default=1e-6)
options = parser.parse_args()

prior = load_prior(options.model)
side = prior.size or 48
ends = []
for path in options.pictures:
    square = Image.open(path).convert("RGB")
    square = square.crop((0, 0, min(square.size), min(square.size))).resize((side, side), Image.Resampling.BOX)
    ends.append(torch.from_numpy(np.asarray(square, np.float32) / 255).permute(2, 0, 1).to(prior.device))
a, b = ends
way = interpolate(prior, a, b, options.count, rtol=options.tolerance, atol=options.tolerance)
fade = torch.stack([torch.lerp(a, b, k / (options.count - 1)) for k in range(options.count)])
print(f"ends come back to within {255 * float((way[[0, -1]] - torch.stack(ends)).abs().max()):.1f} grey levels")
strip(torch.cat([way, fade]), options.count, "interpolation.png", enlarge=2)
