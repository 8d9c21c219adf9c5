"""What a posterior's samples say about how sure they are, in one record."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from invsolve.forward_models import LinearOperator
from invsolve.posterior import Posterior
from invsolve.uncertainty.conformal import LEVEL, Calibration
from invsolve.uncertainty.intervals import Interval, attainable_interval, prior_share, split_std
from invsolve.uncertainty.psnr_bound import expected_error


class Scaling(NamedTuple):
    """Calibrations of a run's settings."""

    applied: Calibration | None = None  # the one that scales the interval
    alike: Calibration | None = None  # one that says what such intervals hold without
    warning: str | None = None  # where the measurement is unlike those that the applied one was learned on


NO_SCALING = Scaling()


class Summary(NamedTuple):
    """What a run's samples say about how sure they are, in the units of x."""

    samples: int
    determined: float  # share of the values that the data determine, NaN of a measurement that is not linear
    prior_share: float  # of the samples' variance, NaN for one sample and for such a measurement
    prior_std: Tensor | None  # (B, C, H, W): standard deviation of what the prior filled in
    interval: Interval | None
    width: float  # mean over what the data left open
    scaling: Scaling
    warning: str | None
    chi2: float | None
    diagnostics: dict[str, list[float]]
    psnr: float | None = None  # dB that the mean reaches at least, by the applied calibration; None where it has no say


def summarize(
    posterior: Posterior,
    operator: LinearOperator | None,
    determined: float,
    *,
    scaling: Scaling = NO_SCALING,
    most: int | None = None,
    open_values: Tensor | None = None,
    share: float = 1.0,
    white: float = 1.0,
) -> Summary:
    """Read a posterior.

    Parameters
    ----------
    operator : what the data see of a sample (C, H, W); its pseudo-inverse is asked for. None where that is not linear.
    determined : share of the values that the data determine.
    scaling : its applied calibration scales the interval.
    most : samples to split into what was measured and what was not, where that is work; default all.
    open_values : where the interval's mean width is taken, broadcast to a sample; default everywhere.
    share : of a picture, what the samples hold; in the rest they agree.
    white : what the PSNR that is bounded takes for the brightest value, in the units of x.
    """
    of_prior, prior_std, interval, width = math.nan, None, None, math.nan
    if len(posterior.samples) > 1:
        if operator is not None:
            data_std, prior_std = split_std(operator, posterior.samples[:most], antithetic=posterior.antithetic)
            of_prior = prior_share(data_std, prior_std)
        found = scaling.applied
        interval = found.apply(posterior.samples) if found else attainable_interval(posterior.samples, LEVEL)
        widths = interval.high - interval.low
        width = float((widths if open_values is None else widths[open_values.expand_as(widths)]).mean())
    return Summary(
        samples=len(posterior.samples),
        determined=determined,
        prior_share=of_prior,
        prior_std=prior_std,
        interval=interval,
        width=width,
        scaling=scaling,
        warning=posterior.warning,
        chi2=float(posterior.chi2.mean()) if posterior.chi2.numel() else None,
        diagnostics=posterior.diagnostics,
        psnr=least_psnr(posterior, scaling, share, white),
    )


def least_psnr(posterior: Posterior, scaling: Scaling, share: float = 1.0, white: float = 1.0) -> float | None:
    """The PSNR in dB of the posterior mean, as commands judge it, bounded from below by the applied calibration.

    None without one, for measurements unlike those it was learned on, which a probability of its own would be false for,
    and for a stack: the calibration knows single slices.
    """
    bound = scaling.applied.psnr if scaling.applied else None
    if bound is None or scaling.warning or posterior.samples.shape[1] != 1:
        return None
    samples = posterior.samples if white == 1 else posterior.samples / white
    return bound.at_least(share * expected_error(samples, antithetic=posterior.antithetic))
