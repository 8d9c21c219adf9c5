"""How sure a result is, as commands say, write and report it: intervals, what was measured, misfit, the run's trace."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from invsolve.cli.console import say
from invsolve.cli.files import encode_picture
from invsolve.errors import OutputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from invsolve.forward_models import LinearOperator
    from invsolve.posterior import Posterior
    from invsolve.uncertainty.conformal import Calibration
    from invsolve.uncertainty.intervals import Interval

SAMPLES_FOR_90 = 19

SHIPPED_CALIBRATION = "shipped"
"""What --calibration takes instead of a file."""


class Scaling(NamedTuple):
    """Calibrations of a run's settings: the one to apply, and one that says what such intervals hold without."""

    applied: Calibration | None = None
    alike: Calibration | None = None


NO_SCALING = Scaling()


class Summary(NamedTuple):
    """What a run's samples say about how sure they are, in the units of x."""

    samples: int
    determined: float  # share of the values that the data determine
    prior_share: float  # of the samples' variance, NaN for one sample
    prior_std: Tensor | None  # (B, C, H, W): standard deviation of what the prior filled in
    interval: Interval | None
    width: float  # mean over what the data left open
    scaling: Scaling
    warning: str | None
    chi2: float | None
    diagnostics: dict[str, list[float]]


def check_interval(interval: bool, samples: int) -> None:
    """Before any work: one sample has no interval."""
    if interval and samples < 2:
        raise UsageError("--interval of 1 sample", hint=f"add --samples {SAMPLES_FOR_90} for 90 %, or at least 2")


def check_diagnostics(path: Path | None, results: list[Path]) -> list[Path]:
    """The picture of the run as a list of files to write, none or one; it must not be one of the ``results``."""
    if path is None:
        return []
    if path.suffix.lower() != ".png":
        raise OutputError(f"--diagnostics {path} does not end in .png", hint="name a .png file")
    if path.absolute() in [result.absolute() for result in results]:
        raise OutputError(f"--diagnostics {path} is the name of a result", hint="name another file")
    return [path]


def load_calibration(path: Path | None, problem: dict[str, float], **settings: Any) -> Scaling:
    """A calibration that fits this run; says so where the measurement is unlike those it was learned on.

    ``path`` SHIPPED_CALIBRATION chooses among those that came with the prior; without any, a shipped one for such
    measurements is found, but not applied.

    Raises
    ------
    InputError : not a calibration.
    UsageError : learned with another prior, task or settings, or none is shipped for these.
    """
    from invsolve.rules import rule_name
    from invsolve.samplers import sampler_name
    from invsolve.uncertainty.conformal import Calibration

    settings |= {"rule": rule_name(settings["rule"]), "sampler": sampler_name(settings["sampler"])}
    if path is None:
        alike = [one for one in shipped_calibrations(settings) if one.warning(problem) is None]
        return Scaling(alike=alike[0] if alike else None)
    found = shipped_calibration(problem, settings) if str(path) == SHIPPED_CALIBRATION else Calibration.load(path)
    found.check(**settings)
    if warning := found.warning(problem):
        say(f"warning: {warning}")
    return Scaling(applied=found)


def shipped_calibrations(settings: dict[str, Any]) -> list[Calibration]:
    """Those that came with the prior and have these settings (any fields, such as ``task``)."""
    from invsolve.pretrained.loading import SHIPPED
    from invsolve.uncertainty.conformal import Calibration

    known = [Calibration.load(file) for file in sorted(SHIPPED.glob("*/calibrations/*.json"))]
    return [one for one in known if all(getattr(one, part) == value for part, value in settings.items())]


def shipped_calibration(problem: dict[str, float], settings: dict[str, Any]) -> Calibration:
    """The shipped calibration of these settings, of several the one learned on measurements most like this one."""
    fitting = shipped_calibrations(settings)
    if not fitting:
        known = shipped_calibrations({part: settings[part] for part in ("task", "prior_sha256")})
        shown = [f"{c.rule}, {c.sampler}, {c.steps} steps, {c.samples} samples" for c in known]
        raise UsageError(
            f"no calibration is shipped for {settings['task']} with {settings['rule']}, {settings['sampler']}, "
            f"{settings['steps']} steps, {settings['samples']} samples and this prior",
            hint=f"shipped: {'; '.join(shown) or 'none'}; or learn one (docs/uncertainty.md)",
        )

    def unlike(one: Calibration) -> float:
        return sum(abs(math.log((problem[k] + 1e-3) / (v + 1e-3))) for k, v in one.problem.items() if k in problem)

    return min(fitting, key=unlike)


def summarize(
    posterior: Posterior, operator: LinearOperator, determined: float, *, scaling: Scaling = NO_SCALING,
    most: int | None = None, open_values: Tensor | None = None,
) -> Summary:  # fmt: skip
    """Read a posterior.

    Parameters
    ----------
    operator : what the data see of a sample (C, H, W); its pseudo-inverse is asked for.
    determined : share of the values that the data determine.
    scaling : its applied calibration scales the interval.
    most : samples to split into what was measured and what was not, where that is work; default all.
    open_values : where the interval's mean width is taken, broadcast to a sample; default everywhere.
    """
    from invsolve.uncertainty.conformal import LEVEL
    from invsolve.uncertainty.intervals import attainable_interval, prior_share, split_std

    count = len(posterior.samples)
    share, prior_std, interval, width = math.nan, None, None, math.nan
    if count > 1:
        data_std, prior_std = split_std(operator, posterior.samples[:most], antithetic=posterior.antithetic)
        share = prior_share(data_std, prior_std)
        interval = (
            scaling.applied.apply(posterior.samples)
            if scaling.applied
            else attainable_interval(posterior.samples, LEVEL)
        )
        widths = interval.high - interval.low
        width = float((widths if open_values is None else widths[open_values.expand_as(widths)]).mean())
    chi2 = float(posterior.chi2.mean()) if posterior.chi2.numel() else None
    return Summary(
        count, determined, share, prior_std, interval, width, scaling, posterior.warning, chi2,
        posterior.diagnostics,
    )  # fmt: skip


def say_uncertainty(summary: Summary, *, unit: str, factor: float = 1.0, interval: bool = False) -> None:
    """Lines on stderr: a warning if there is one, what was measured, and the interval where it was asked for.

    ``factor`` turns the units of x into ``unit``.
    """
    if summary.warning:
        say(f"warning: {summary.warning}")
    line = f"the data determine {summary.determined:.1%} of the values, the prior filled in the rest"
    if not math.isnan(summary.prior_share):
        line += f"; {summary.prior_share:.1%} of the samples' variance is the prior's"
    say(line)
    if interval and summary.interval:
        say(f"interval: {interval_text(summary)}; mean width {factor * summary.width:.3g} {unit}")


def interval_text(summary: Summary) -> str:
    """What the interval is, and the probability it has."""
    assert summary.interval is not None
    found, alike = summary.scaling
    if found is not None:
        return (
            f"scaled by {found.factor:.3g} to cover {found.level:.0%} of {found.where} (in {len(found.groups)} groups, each "
            f"left out in turn: {found.before:.1%} before, {found.after:.1%} after)"
        )
    few = summary.samples < SAMPLES_FOR_90
    which = f"smallest to largest of {summary.samples} samples" if few else f"of {summary.samples} samples"
    more = f" (--samples {SAMPLES_FOR_90} for 90 %)" if few else ""
    if alike is not None:
        more = (
            f"; such intervals held {alike.before:.1%} in {len(alike.groups)} measurements like it "
            "(--calibration shipped scales them)"
        )
    return f"{which}, level {summary.interval.level:.1%} if the samples are the posterior's{more}"


def uncertainty_json(summary: Summary, *, factor: float = 1.0) -> dict[str, Any]:
    """``warning``, ``uncertainty`` and ``diagnostics`` of a report; undefined figures are null, widths in its unit."""
    found, interval = summary.scaling.applied, None
    if summary.interval is not None:
        interval = {
            "level": round(summary.interval.level, 6),
            "mean_width": figure(factor * summary.width),
            "calibration": None if found is None else {
                "factor": found.factor, "where": found.where, "groups": len(found.groups),
                "coverage_before": found.before, "coverage_after": found.after, "guaranteed": found.guaranteed,
            },
        }  # fmt: skip
    return {
        "warning": summary.warning,
        "uncertainty": {
            "determined": figure(summary.determined),
            "prior_share_of_variance": figure(summary.prior_share),
            "chi2_of_samples": None if summary.chi2 is None else figure(summary.chi2),
            "interval": interval,
        },
        "diagnostics": {name: [figure(v) for v in values] for name, values in summary.diagnostics.items()},
    }


def figure(value: float) -> float | None:
    """Six digits of a number; None for what is infinite or undefined, which JSON has no word for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def diagnostics_file(
    path: Path | None, diagnostics: dict[str, list[float]], facts: dict[str, Any]
) -> dict[Path, bytes]:
    """The picture of misfit and step against the noise level, if a path was given."""
    if path is None:
        return {}
    from invsolve.uncertainty.trace import trace_picture

    content = "misfit and step against the noise level"
    return {path: encode_picture(trace_picture(diagnostics), path, {**facts, "content": content})}
