"""The calibrations that came with the priors, and which of them fits a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invsolve.errors import UsageError
from invsolve.options import SolveOptions
from invsolve.pretrained.loading import SHIPPED
from invsolve.rules import rule_name
from invsolve.samplers import sampler_name
from invsolve.summary import Scaling
from invsolve.uncertainty.conformal import Calibration

SHIPPED_CALIBRATION = "shipped"
"""What stands for one of the shipped calibrations instead of a file."""


def find_scaling(
    path: Path | None, task: str, problem: Mapping[str, float], prior_sha256: str, options: SolveOptions
) -> Scaling:
    """A calibration that fits this run, with a warning where the measurement is unlike those it was learned on.

    ``path`` SHIPPED_CALIBRATION chooses among those that came with the prior; without any, a shipped one for such
    measurements is found, but not applied.

    Raises
    ------
    InputError : not a calibration.
    UsageError : learned with another prior, task or settings, or none is shipped for these.
    """
    settings = {
        "task": task,
        "prior_sha256": prior_sha256,
        "rule": rule_name(options.rule),
        "sampler": sampler_name(options.sampler),
        "steps": options.steps,
        "samples": options.samples,
    }
    known = dict(problem)
    if path is None:
        alike = [one for one in shipped_calibrations(settings) if one.warning(known) is None]
        return Scaling(alike=alike[0] if alike else None)
    found = shipped_calibration(known, settings) if str(path) == SHIPPED_CALIBRATION else Calibration.load(path)
    found.check(**settings)
    return Scaling(applied=found, warning=found.warning(known))


def shipped_calibrations(settings: Mapping[str, Any]) -> list[Calibration]:
    """Those that came with the prior and have these settings (any fields, such as ``task``)."""
    known = [Calibration.load(file) for file in sorted(SHIPPED.glob("*/calibrations/*.json"))]
    return [one for one in known if all(getattr(one, part) == value for part, value in settings.items())]


def shipped_calibration(problem: Mapping[str, float], settings: Mapping[str, Any]) -> Calibration:
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
