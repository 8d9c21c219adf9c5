"""Computed tomography: a slice from few views, and the classical methods beside it."""

from invsolve.ct.reconstruction import check_ct_prior, reconstruct_ct, starting_level
from invsolve.ct.units import MU_WATER, attenuation_per_unit, from_hounsfield, to_hounsfield

__all__ = [
    "MU_WATER",
    "attenuation_per_unit",
    "check_ct_prior",
    "from_hounsfield",
    "reconstruct_ct",
    "starting_level",
    "to_hounsfield",
]
