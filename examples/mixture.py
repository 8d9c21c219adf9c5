"""Mixtures in the plane whose every score is known; the teaching pictures' data."""

from __future__ import annotations

import torch

from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior


def plane(weights: list[float], means: list[tuple[float, float]], variance: float = 1.0) -> GaussianMixturePrior:
    """Round Gaussians in the plane, as pictures of shape (2, 1, 1)."""
    eye = torch.eye(2, dtype=torch.float64)
    parts = [GaussianPrior(torch.tensor(m, dtype=torch.float64).reshape(2, 1, 1), variance * eye) for m in means]
    return GaussianMixturePrior(torch.tensor(weights, dtype=torch.float64), parts)


THREE = plane([0.5, 0.3, 0.2], [(-2.0, -1.2), (2.0, -0.6), (0.2, 2.2)], 0.25)
TWO_FAR = plane([0.2, 0.8], [(5.0, 5.0), (-5.0, -5.0)])
"""The two modes of Song & Ermon 2019, section 3.2.2."""
