"""High dynamic range: what is brighter than the sensor can tell is cut off."""

from __future__ import annotations

from torch import Tensor

from invsolve.errors import InputError


class Saturation:
    """y = min(max(x, low), high), pixel by pixel; shapes and units are those of x.

    Not linear. The derivative is 1 where x lies between the ends, and 0 beyond: a picture that is too bright where y is ``high`` is as
    good as any other, one that is too dark is pulled up. Take ``high`` well inside the prior's range, 0.5 for a picture
    exposed twice as long; a y of another scale is first divided by it, as rules count |J| as 1. Source: Chung et al. 2023 and Mardani
    et al. 2023 (high dynamic range). With known noise of its own :class:`invsolve.forward_models.QuantizationNoise` is the likelihood.

    Parameters
    ----------
    high, low : the ends, in the units of x.
    """

    def __init__(self, high: float, low: float = 0.0) -> None:
        if not low < high:
            raise InputError(f"clipped from {low} to {high}", hint="wanted the lower end first")
        self.high, self.low = high, low

    def __call__(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)
