"""How sure a result is, as commands say and report it: intervals, what was measured, misfit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from invsolve.cli.console import percent, say
from invsolve.errors import UsageError

if TYPE_CHECKING:
    from invsolve.summary import Summary

SAMPLES_FOR_90 = 19


def check_interval(interval: bool, samples: int) -> None:
    """Before any work: one sample has no interval."""
    if interval and samples < 2:
        raise UsageError("--interval of 1 sample", hint=f"add --samples {SAMPLES_FOR_90} for 90 %, or at least 2")


def say_uncertainty(summary: Summary, *, unit: str, factor: float = 1.0, interval: bool = False) -> None:
    """Lines on stderr: a warning if there is one, what was measured, and the interval where it was asked for.

    ``factor`` turns the units of x into ``unit``.
    """
    if summary.warning:
        say(f"warning: {summary.warning}")
    for line in uncertainty_lines(summary, unit=unit, factor=factor, interval=interval):
        say(line)


def uncertainty_lines(summary: Summary, *, unit: str, factor: float = 1.0, interval: bool = False) -> list[str]:
    """What was measured, the interval where it was asked for, and how good the mean is at least, as far as known."""
    lines = []
    if not math.isnan(summary.determined):
        line = f"the data determine {percent(summary.determined)} of the values, the prior filled in the rest"
        if not math.isnan(summary.prior_share):
            line += f"; {summary.prior_share:.1%} of the samples' variance is the prior's"
        lines.append(line)
    if interval and summary.interval:
        lines.append(f"interval: {interval_text(summary)}; mean width {factor * summary.width:.3g} {unit}")
    if text := psnr_text(summary):
        lines.append(text)
    return lines


def interval_text(summary: Summary) -> str:
    """What the interval is, and the probability it has."""
    assert summary.interval is not None
    found, alike, _ = summary.scaling
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


def psnr_text(summary: Summary) -> str | None:
    """How good the mean is at least, or why that is not said; None where the calibration knows nothing of it."""
    found = summary.scaling.applied
    if found is None or found.psnr is None:
        return None
    if summary.psnr is not None:
        return (
            f"mean of {summary.samples}: PSNR at least {summary.psnr:.2f} dB with {found.psnr.level:.1%}, "
            f"learned from {len(found.psnr.groups)} results like it"
        )
    unlike = "on other measurements" if summary.scaling.warning else "on single slices, not on stacks"
    return f"no bound on the PSNR of the mean: the calibration was learned {unlike}"


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
            "psnr_of_mean": psnr_json(summary),
        },
        "diagnostics": {name: [figure(v) for v in values] for name, values in summary.diagnostics.items()},
    }


def psnr_json(summary: Summary) -> dict[str, Any] | None:
    """The bound on the mean's PSNR with its probability; None where there is none."""
    found = summary.scaling.applied
    if summary.psnr is None or found is None or found.psnr is None:
        return None
    bound = found.psnr
    return {"at_least": figure(summary.psnr), "level": figure(bound.level), "groups": len(bound.groups)}


def figure(value: float) -> float | None:
    """Six digits of a number; None for what is infinite or undefined, which JSON has no word for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
