"""From the engine's real numbers to the 8 bits of a picture file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def to_pixels(picture: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Clip to [0, 1] and round to 8 bits; each value moves by at most half a level, and so does the luma of RGB."""
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
