"""Kernel Stein discrepancy: do samples go with a density? It needs the density's score, and no samples of it, no truth.

For a density p with score s and a kernel k, the Stein kernel

    u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k

has mean 0 over samples of p, so the mean of u over pairs of samples of q, the squared discrepancy, is 0 where q is p and
positive elsewhere (Liu, Lee & Jordan 2016, "A kernelized Stein discrepancy for goodness-of-fit tests"; Chwialkowski,
Strathmann & Gretton 2016, "A kernel test of goodness of fit"). The kernel is the inverse multiquadric (c^2 + |x - y|^2)^b,
-1 < b < 0, with which samples that drift away are noticed too (Gorham & Mackey 2017, "Measuring sample quality with
kernels").

It is blind to how much each of several far modes weighs: the score inside a mode does not know of the others (Wenliang &
Kanagawa 2020, "Blindness of score-based methods to isolated components and mixing proportions"). Seen through noise as
wide as the modes are apart, which :func:`smoothed` adds, they are one again and the weights come back into sight, but what
is inside the modes is drowned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.models.score_model import ScoreModel

BOOTSTRAPS = 1000


class Stein(NamedTuple):
    """How far samples are from a density."""

    squared: float  # the squared discrepancy, without bias: where they go with it about 0, as often negative as not
    p_value: float  # of samples that do go with it, the share that seems farther


def kernel_stein_discrepancy(
    samples: Tensor,
    scores: Tensor,
    generator: torch.Generator,
    *,
    bootstraps: int = BOOTSTRAPS,
    exponent: float = -0.5,
    offset: float | None = None,
    flip: float = 0.5,
) -> Stein:
    """The squared kernel Stein discrepancy as a U-statistic, with its p-value by the wild bootstrap.

    Code name -> symbol of Gorham & Mackey 2017: exponent -> beta, offset -> c; of Chwialkowski et al. 2016, section 4:
    flip -> a_n, signs -> W.

    Parameters
    ----------
    samples : (n, d), of similar scale in all directions, and independent unless ``flip`` says otherwise.
    scores : (n, d), gradients of the log density at the samples.
    generator : of the bootstrap's signs.
    bootstraps : draws of them; the least p-value is 1 / (bootstraps + 1).
    exponent : of the kernel, between -1 and 0.
    offset : distance within which samples are near, in the units of x; None for sqrt(d), the scale of standard normal
        samples.
    flip : probability that a sample's sign is not its predecessor's; 0.5 for independent samples, less for those of a
        Markov chain.

    Raises
    ------
    InputError : shapes differ, fewer than two samples, or values that are not finite.
    """
    if samples.shape != scores.shape or samples.ndim != 2 or len(samples) < 2:
        raise InputError(
            f"samples of shape {tuple(samples.shape)}, scores {tuple(scores.shape)}",
            hint="wanted (n, d) of both, n >= 2",
        )
    if not (samples.isfinite().all() and scores.isfinite().all()):
        raise InputError("samples or scores that are not finite", hint="the sampler may have diverged")
    count, dimension = samples.shape
    near = math.sqrt(dimension) if offset is None else offset
    kernel = stein_kernel(samples.double(), scores.double(), exponent, near).fill_diagonal_(0)
    flipped = torch.rand(bootstraps, count, generator=generator, dtype=torch.float64) < flip
    signs = 1 - 2 * (flipped.cumsum(dim=1) % 2).to(kernel)
    pairs = count * (count - 1)
    found = float(kernel.sum()) / pairs
    null = ((signs @ kernel) * signs).sum(dim=1) / pairs
    return Stein(found, (1 + int((null >= found).sum())) / (bootstraps + 1))


def stein_kernel(samples: Tensor, scores: Tensor, exponent: float, offset: float) -> Tensor:
    """u of all pairs of samples, (n, n), for the inverse multiquadric kernel."""
    d = samples.shape[1]
    products = samples @ samples.T
    squares = products.diagonal()
    distances = (squares[:, None] + squares - 2 * products).clamp(min=0)
    q = offset**2 + distances
    own = (samples * scores).sum(dim=1)
    # (s(x) - s(y)).(x - y), from products of the vectors: an (n, n, d) array of differences is not needed.
    cross = scores @ samples.T
    along = own[:, None] + own - cross - cross.T
    first = 2 * exponent * q ** (exponent - 1)  # grad_x k = first (x - y) = -grad_y k
    second = 4 * exponent * (exponent - 1) * q ** (exponent - 2)
    return (scores @ scores.T) * q**exponent - first * along - d * first - second * distances


def smoothed(model: ScoreModel, draws: Tensor, sigma: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws with noise added, and the score of what they then should be the samples of.

    If draws are of the model's x0, draws plus sigma z are of p_sigma, whose score is (D - x) / sigma^2. What a sampler
    does below its last noise level is no longer seen.

    Parameters
    ----------
    draws : (n, C, H, W).
    sigma : in the units of x.

    Returns
    -------
    (n, d) each, on the CPU.
    """
    noise = torch.randn(draws.shape, generator=generator, dtype=draws.dtype).to(draws.device)
    x = draws + sigma * noise
    scores = (model.denoise(x, sigma) - x) / sigma**2
    return x.flatten(1).double().cpu(), scores.flatten(1).double().cpu()


def resolved(samples: Tensor, scores: Tensor, covariance: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Samples and scores (n, d) along the principal directions of ``covariance`` (d, d) that noise sigma does not drown.

    They are in units of the standard deviation that they have with the noise, so that no direction outweighs the others.
    The score along some directions is, on average over the others, that of their marginal density, so the discrepancy of
    the marginal has mean 0 as well; directions narrower than the noise would only add to its scatter.

    Returns
    -------
    (n, k) each; all d directions where the noise drowns every one.
    """
    variances, directions = torch.linalg.eigh(covariance)
    kept = variances >= sigma**2
    if not kept.any():
        kept = torch.ones_like(kept)
    std = (variances[kept].clamp(min=0) + sigma**2).sqrt()
    chosen = directions[:, kept]
    return samples @ chosen / std, scores @ chosen * std
