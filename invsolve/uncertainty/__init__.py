"""How sure a result is: intervals, their calibration, and what a run did."""

from invsolve.uncertainty.conformal import Calibration, learn_factor, leave_one_out, scale, scores
from invsolve.uncertainty.intervals import (
    Interval,
    attainable_interval,
    coverage,
    determined,
    interval,
    misfit_warning,
    prior_share,
    split_std,
    standard_deviation,
)
from invsolve.uncertainty.psnr_bound import PsnrBound, expected_error, learn_psnr_bound

__all__ = [
    "Calibration",
    "Interval",
    "PsnrBound",
    "attainable_interval",
    "coverage",
    "determined",
    "expected_error",
    "interval",
    "learn_factor",
    "learn_psnr_bound",
    "leave_one_out",
    "misfit_warning",
    "prior_share",
    "scale",
    "scores",
    "split_std",
    "standard_deviation",
]
