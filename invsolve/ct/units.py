"""Units of CT: the prior's n, with HU = 2000 n - 1000, and physical line integrals.

The attenuation is mu = 2 n mu_water and air is 0: a pure scaling.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[Any]


MU_WATER = 0.0192
"""Attenuation of water per mm at about 70 keV, the usual effective energy of a CT scanner."""


def to_hounsfield(n: Tensor | Array) -> Any:
    """The prior's units to Hounsfield units: 2000 n - 1000."""
    return 2000.0 * n - 1000.0


def from_hounsfield(hu: Tensor | Array) -> Any:
    """Hounsfield units to the prior's: air 0, water 0.5."""
    return (hu + 1000.0) / 2000.0


def attenuation_per_unit(pixel_size: float, mu_water: float = MU_WATER) -> float:
    """Physical line integral (dimensionless) per unit of the inner sinogram: ``2 mu_water * pixel_size``, in mm."""
    return 2 * mu_water * pixel_size
