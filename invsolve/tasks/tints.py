"""Whether a colour picture is a black-and-white one that was toned, as sepia prints are and yellowed paper is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from invsolve.colours import BLUE, RED, luma

BINS = 64
"""Of luma, over which a tone may change."""

LEAST_CHROMA = 2 / 255
"""Mean distance from grey below which a picture counts as grey: a JPEG's grey errs by less."""

MOST_SPREAD = 3 / 255
"""Root mean square by which the colours of one luma may differ: what JPEG does to a toned picture, and far less than colours of
things do."""


def is_toned(picture: npt.NDArray[np.floating]) -> bool:
    """Whether all colours of a picture lie near one line from black to white, so that its luma says all there is.

    Parameters
    ----------
    picture : (H, W, 3) RGB in [0, 1].

    Returns
    -------
    True for a toned picture: Cb and Cr are, up to ``MOST_SPREAD``, functions of the luma, and not both 0. False for a grey one and
    for one whose things differ in colour.
    """
    y = luma(picture)
    chroma = _chroma(picture, y)
    if not _beyond_grey(chroma):
        return False
    # The spread about a line through each bin's colours: a tone changes with the luma within a bin as well.
    place = np.clip(y.ravel(), 0, 1) * (BINS - 1)
    low = np.minimum(place.astype(np.intp), BINS - 2)
    part = place - low
    spread = 0.0
    for channel in chroma.T:
        curve = _fitted(low, part, channel)
        spread += float(((channel - (1 - part) * curve[low] - part * curve[low + 1]) ** 2).mean())
    return spread <= MOST_SPREAD**2


def is_coloured(picture: npt.NDArray[np.floating]) -> bool:
    """Whether a picture (H, W, 3) is more than grey: toned, or of things that differ in colour."""
    return _beyond_grey(_chroma(picture, luma(picture)))


def _beyond_grey(chroma: npt.NDArray[np.floating]) -> bool:
    return float(np.hypot(chroma[:, 0], chroma[:, 1]).mean()) >= LEAST_CHROMA


def _chroma(picture: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Cb and Cr of every pixel, (H * W, 2), of a picture whose luma is ``y``."""
    return np.stack([(picture[..., 2] - y) / BLUE, (picture[..., 0] - y) / RED], axis=-1).reshape(-1, 2)


def _fitted(
    low: npt.NDArray[np.intp], part: npt.NDArray[np.floating], values: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    """The knots of the piecewise linear curve that is nearest to ``values`` in the mean square."""
    diagonal = np.bincount(low, (1 - part) ** 2, BINS) + np.bincount(low + 1, part**2, BINS)
    beside = np.bincount(low, part * (1 - part), BINS)[:-1]
    right = np.bincount(low, (1 - part) * values, BINS) + np.bincount(low + 1, part * values, BINS)
    matrix = np.diag(diagonal + 1e-6) + np.diag(beside, 1) + np.diag(beside, -1)
    return np.linalg.solve(matrix, right)
