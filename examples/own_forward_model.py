"""Plug in your own forward model: write A and its adjoint, everything else follows. Here: a blur along the rows.

Run from the repository: python examples/own_forward_model.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from invsolve import load_prior, solve
from invsolve.evaluation.metrics import psnr
from invsolve.forward_models import ForwardModel, GaussianNoise, LinearOperator
from invsolve.samplers.sigmas import karras

OUT = Path("invsolve-examples")
OUT.mkdir(exist_ok=True)


class RowBlur(LinearOperator):
    """Mean of 7 neighbouring pixels along each row, wrapping around: (C, H, W) -> (C, H, W)."""

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.roll(k, -1) for k in range(-3, 4)]).mean(0)

    _adjoint = _apply  # symmetric


grey = np.asarray(Image.open(Path(__file__).parent / "cat-grey.png").convert("L").resize((128, 128)))
truth = torch.from_numpy(grey / np.float32(255)).expand(1, 3, -1, -1)

forward_model = ForwardModel(RowBlur(truth.shape[1:], truth.shape[1:]), GaussianNoise(0.01))
y = forward_model.simulate(truth, torch.Generator().manual_seed(0))

prior = load_prior("photos")
posterior = solve(
    prior, forward_model, y.to(prior.device), start=y.to(prior.device), sigmas=karras(25, 0.005, 0.5), samples=2
)

pictures = [t[0].permute(1, 2, 0).numpy() for t in (truth, y, posterior.mean)]
print(
    f"blurred {psnr(pictures[0], pictures[1], data_range=1.0):.1f} dB, restored {psnr(pictures[0], pictures[2], data_range=1.0):.1f} dB"
)
Image.fromarray((np.concatenate(pictures, axis=1).clip(0, 1) * 255).round().astype(np.uint8)).save(OUT / "deblur.png")
print(f"wrote {OUT / 'deblur.png'}: truth, blurred, restored; chi2 per pixel {float(posterior.chi2.mean()):.2f}")
