"""How noisy a sinogram is, from the sinogram alone: by its quietest parts, checked by what every scan must fulfil.

White noise is as strong at every place and at every frequency, and it knows nothing of the other views. What comes from a
slice is neither white nor free: the views of one slice fulfil the consistency conditions of Helgason (1965) and Ludwig
(1966), noise does not.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

Array = npt.NDArray[Any]

TILE = (16, 16)
"""Neighbouring views and bins over which the noise is taken together."""

CHANCE = 2.5
"""Standard deviations by which a tile of pure noise may be above the mean of the quieter ones."""

FLATNESS = 1.06
"""Third over seventh differences of what counts as white noise; of edges it is 1.1 to 2."""

LEAST_NOISE = 4e-4
"""Noise of less than this share of the largest value changes no reconstruction: it counts as none."""

LEAST_INCONSISTENCY = 1.2e-3
"""What pixels and bins of a noiseless scan leave of the consistency conditions is less than this share of the largest
value (measured: 0.0001 to 0.001)."""

ORDERS = 8
"""Highest order of the consistency conditions; higher ones see more of the bins' edges and have fewer views to spare."""

RARE = 1e-3
"""Probability at which chance is ruled out."""


def estimate_noise(
    sinogram: Array, angles: tuple[float, ...] | None = None, seen: npt.NDArray[np.bool_] | None = None
) -> float:
    """Standard deviation of white noise, 0 where there is none or it cannot be told from the slice.

    The noise of the quietest tiles (:func:`quietest_noise`) is believed where the views are at least that inconsistent with
    each other: white noise in every ray makes them so. Where they are not, or where no tile is quiet, the inconsistency of
    parallel views is itself the noise if it is white.

    Parameters
    ----------
    sinogram : (..., views, detectors), line integrals.
    angles : of parallel views, in degrees; None where the views are a fan's or their angles are not known. Then the sum over
        the detector is the one thing compared.
    seen : same shape, False for rays that were filled in and tell nothing.
    """
    if sinogram.shape[-1] < 32:
        return 0.0
    y = np.asarray(sinogram, dtype=np.float64).reshape(-1, *sinogram.shape[-2:])
    known = np.ones(y.shape, dtype=bool) if seen is None else np.asarray(seen, dtype=bool).reshape(y.shape)
    largest = float(np.abs(y).max())
    quiet, between = quietest_noise(y, known), inconsistency(y, angles)
    if math.isfinite(quiet) and quiet <= between.bound:
        return quiet if quiet > LEAST_NOISE * largest else 0.0
    return between.noise if between.white and between.noise > LEAST_INCONSISTENCY * largest else 0.0


# -- within a view --------------------------------------------------------------------------------------------------
def quietest_noise(y: Array, seen: npt.NDArray[np.bool_]) -> float:
    """Noise of the quietest tiles of (S, views, detectors), infinite where none is white.

    High differences along the detector cancel smooth shadows and keep noise, but also something of edges and of the slice's
    own texture, which changes from bin to bin and fades towards high frequencies. So the differences' energy is taken over
    tiles of neighbouring views and bins, and the noise is that of the quietest tiles, as many as are equal within chance and
    as strong in third as in seventh differences. In a sinogram with air in it these are the tiles of air.
    """
    energy, count = _tile_energies(y, seen)
    energy = energy[:, np.argsort(energy[1])]
    tiles = energy.shape[1]
    quietest = np.arange(1, tiles + 1)
    mean = np.cumsum(energy, axis=1) / quietest
    chance = math.sqrt(2 / (0.35 * count))  # relative, of a tile's mean: fifth differences of neighbours are correlated
    equal = np.append(True, energy[1, 1:] <= (1 + CHANCE * chance) * mean[1, :-1])
    white = (mean[0] <= FLATNESS**2 * mean[2]) & (mean[2] <= FLATNESS**2 * mean[0])
    enough = quietest >= max(2, math.ceil(0.04 * tiles))
    fitting = np.flatnonzero(np.logical_and.accumulate(equal)[:tiles] & white & enough)
    return math.sqrt(mean[1, fitting[-1]]) if fitting.size else math.inf


def _tile_energies(y: Array, seen: npt.NDArray[np.bool_]) -> tuple[Array, int]:
    """Mean squares of third, fifth and seventh differences of (S, views, detectors) over tiles: (3, tiles), and a tile's
    number of values; each is noise^2 for white noise. Tiles that are constant in parts, masked or clipped, are left out.
    """
    slices, views, _ = y.shape
    rows = max(1, views // TILE[0])
    height, columns = views // rows, (y.shape[-1] - 7) // TILE[1]

    def tiled(values: Array) -> Array:
        cut = values[:, : rows * height, : columns * TILE[1]]
        return cut.reshape(slices, rows, height, columns, TILE[1]).mean(axis=(2, 4)).ravel()

    energy = np.stack([tiled(_difference(y, order)[..., (7 - order) // 2 :] ** 2) for order in (3, 5, 7)])
    constant = tiled((np.diff(y, axis=-1) == 0)[..., 3:-3])
    return energy[:, (constant < 0.1) & (tiled(~_around(seen)) == 0)], height * TILE[1]


def _difference(y: Array, order: int) -> Array:
    """The ``order``-th differences along the detector, scaled to keep the variance of white noise."""
    return np.diff(y, n=order, axis=-1) / math.sqrt(math.comb(2 * order, order))


def _around(seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether all eight rays that a seventh difference takes were seen; (..., detectors - 7)."""
    return np.asarray(np.lib.stride_tricks.sliding_window_view(seen, 8, axis=-1).all(axis=-1))


# -- between the views ----------------------------------------------------------------------------------------------
class Inconsistency(NamedTuple):
    """How far the views are from those of one slice."""

    noise: float  # the standard deviation of white noise that makes them so
    bound: float  # the most that white noise can have, by chance
    white: bool  # whether it is one noise at every order and in every view


def inconsistency(y: Array, angles: tuple[float, ...] | None) -> Inconsistency:
    """What the views (S, views, detectors) leave of the consistency conditions.

    The k-th moment along the detector is a trigonometric polynomial of degree k in the angle, with the parity of k (Helgason
    1965; Ludwig 1966). Legendre polynomials instead of powers keep the noise of the moments apart: in each it has the
    standard deviation of one ray. Without angles only the sums are compared, which are constant.
    """
    views, bins = y.shape[-2:]
    orders = [k for k in range(ORDERS + 1) if 2 * (k + 1) <= views] if angles is not None else [0] * (views > 1)
    if not orders:
        return Inconsistency(0.0, math.inf, False)
    legendre = np.polynomial.legendre.legvander(np.linspace(-1, 1, bins), orders[-1])
    basis = np.linalg.qr(legendre)[0]
    live = np.concatenate([np.diff(y, axis=-1) != 0, np.ones((*y.shape[:2], 1), dtype=bool)], axis=-1)
    share = np.einsum("svb,bk->k", live, basis**2) / (len(y) * views)  # of the noise's variance, where parts are masked
    left, spare = [], []
    for order in orders:
        moment = (y @ basis[:, order]).T  # (views, S)
        design = _harmonics(order, np.zeros(views) if angles is None else np.deg2rad(angles))
        residual = moment - design @ np.linalg.lstsq(design, moment, rcond=None)[0]
        left.append(residual / math.sqrt(max(share[order], 1e-3)))
        spare.append(len(y) * (views - np.linalg.matrix_rank(design)))
    energy, freedom = np.array([(one**2).sum() for one in left]), np.array(spare)
    noise = math.sqrt(energy.sum() / freedom.sum())
    bound = math.sqrt(energy.sum() / chi2.ppf(RARE, freedom.sum()))
    return Inconsistency(noise, bound, len(orders) > 2 and noise > 0 and _is_white(left, energy, freedom))


def _harmonics(order: int, theta: Array) -> Array:
    """cos(j a) and sin(j a) for j = order, order - 2, ... (views, order + 1)."""
    degrees = np.arange(order % 2, order + 1, 2)
    return np.concatenate([np.cos(np.outer(theta, degrees)), np.sin(np.outer(theta, degrees[degrees > 0]))], axis=1)


def _is_white(left: list[Array], energy: Array, freedom: Array) -> bool:
    """Whether every order has the same noise within chance, and neighbouring views know nothing of each other."""
    noise = energy.sum() / freedom.sum()
    low, high = chi2.ppf(RARE, freedom), chi2.ppf(1 - RARE, freedom)
    equal = bool(((energy / noise > low) & (energy / noise < high)).all())
    residual = np.concatenate(left, axis=1)
    follows = (residual[1:] * residual[:-1]).sum() / max((residual**2).sum(), 1e-300)
    return equal and float(follows) < 3 / math.sqrt(residual.size)
