"""Intervals that cover what they say: one factor on their width, learned from groups whose truth is known.

A sampler's spread can be too small or too large by a factor that is much the same from picture to picture. The factor is
found here on pictures with known truth, by each pixel's **score**, the least factor at which its interval holds the
truth,

    score = max((center - truth) / (center - low), (truth - center) / (high - center)),

so an interval scaled by q holds exactly the pixels with score <= q. The score divides by each pixel's own half width
(Angelopoulos & Bates 2021, "A gentle introduction to conformal prediction", section 2.3): a factor widens an interval where
the samples differ and leaves it narrow where they agree, while a constant added to both ends (Romano, Patterson & Candes
2019, "Conformalized quantile regression") would widen the pixels that the data fix as well. Either side keeps its own half
width, about the samples' median, which unlike the mean is never outside the interval.

Pixels of one picture depend on each other; pictures or patients, the **groups**, are what repeats. Covered is the share of
a group's pixels, averaged over groups, as in Teneggi, Tivnan, Stayman & Sulam 2023, "How to trust your diffusion model".
The factor learned from all groups covers them by construction, which says nothing: :func:`leave_one_out` says what it does
for a group it has not seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from invsolve.atomic import write_files
from invsolve.errors import InputError, UsageError
from invsolve.files import read_json
from invsolve.typed import first_misfit
from invsolve.uncertainty.intervals import Interval, attainable_interval
from invsolve.uncertainty.psnr_bound import PsnrBound

FORMAT = 1

LEVEL = 0.9
"""Level of the intervals that are scaled, where there are samples enough for it."""

NO_WIDTH = 1e-6
"""Half widths, in the units of x, below which samples agree up to rounding: far less than a grey level or a HU."""

LARGEST_FACTOR = 1e9
"""A half width of NO_WIDTH scaled by so much is a thousand times the range of pictures."""

TOLERANCE = 0.1
"""Relative difference of two problems' numbers, such as the noise, that a calibration survives without a word."""


def scores(interval: Interval, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Each pixel's score, sorted, (m,) float64: the least factor at which its scaled interval holds the truth.

    Parameters
    ----------
    interval : bounds and centre, each shaped as ``truth``.
    truth : (B, C, H, W) or any other shape.
    where : the pixels that count, broadcast to ``truth``: what the data left open.

    Raises
    ------
    InputError : shapes differ, or no pixel counts.
    """
    if interval.low.shape != truth.shape:
        raise InputError(
            f"the truth has shape {tuple(truth.shape)}, the interval {tuple(interval.low.shape)}",
            hint="give the truth of the same picture",
        )
    low, center, high = (bound.double() for bound in interval[:3])
    below = (center - truth) / (center - low).clamp(min=NO_WIDTH)
    above = (truth - center) / (high - center).clamp(min=NO_WIDTH)
    each = torch.maximum(below, above).clamp(min=0)
    chosen = each.flatten() if where is None else each[where.bool().expand_as(each)]
    if chosen.numel() == 0:
        raise InputError("no pixel counts", hint="`where` is true nowhere")
    return chosen.sort().values


def covered(group: Tensor, factor: float = 1.0) -> float:
    """Share of a group's pixels inside their intervals scaled by ``factor``; ``group`` as from :func:`scores`."""
    return float((group <= factor).double().mean())


def learn_factor(groups: Sequence[Tensor], level: float = LEVEL, *, guaranteed: bool = False) -> float:
    """The least factor at which the groups' coverage is ``level`` on average; every group counts the same.

    Parameters
    ----------
    groups : the scores of each group, (m_g,).
    level : share of pixels to cover, between 0 and 1.
    guaranteed : leave at most ``((n + 1) (1 - level) - 1) / n`` of these n groups uncovered. Then it is at most
        ``1 - level`` of a new group in expectation, whatever the sampler does, if the groups are exchangeable
        (Angelopoulos, Bates, Fisch, Lei & Schuster 2022, "Conformal risk control", theorem 1). Without, the level is
        reached on average up to the chance of which groups were at hand; with few groups the guarantee is paid for
        with wide intervals.

    Raises
    ------
    UsageError : no groups, a level outside (0, 1), or too few groups for a guarantee: 9 for 90 %.
    """
    if not 0 < level < 1:
        raise UsageError(f"level {level}", hint="wanted a probability between 0 and 1")
    if not groups:
        raise UsageError("no groups to learn from", hint="give at least one picture with its truth")
    count = len(groups)
    missed = ((count + 1) * (1 - level) - 1) / count if guaranteed else 1 - level
    if missed < -1e-9:
        needed = math.ceil(1 / (1 - level) - 1 - 1e-9)
        raise UsageError(f"{count} groups for a guaranteed {level:.0%}", hint=f"wanted at least {needed} groups")
    values = torch.cat([group.double() for group in groups])
    weights = torch.cat([torch.full((len(g),), 1 / (count * len(g)), dtype=torch.float64) for g in groups])
    order = values.argsort()
    reached = weights[order].cumsum(0)
    index = int(torch.searchsorted(reached, 1 - missed - 1e-9))
    return float(values[order][min(index, len(values) - 1)])


class LeftOut(NamedTuple):
    """A group, and how the intervals of a factor learned from the others do on it."""

    group: str
    before: float  # share covered by the intervals as they are
    after: float  # share covered by the scaled ones
    factor: float  # learned from the other groups


def leave_one_out(groups: dict[str, Tensor], level: float = LEVEL, *, guaranteed: bool = False) -> list[LeftOut]:
    """What each group's coverage would have been, had the factor been learned without it.

    Raises
    ------
    UsageError : fewer than two groups, or as from :func:`learn_factor`.
    """
    if len(groups) < 2:
        raise UsageError(f"{len(groups)} group to leave out", hint="wanted at least 2 pictures or patients")
    out = []
    for name, own in groups.items():
        factor = learn_factor([g for other, g in groups.items() if other != name], level, guaranteed=guaranteed)
        out.append(LeftOut(name, covered(own), covered(own, factor), factor))
    return out


def scale(interval: Interval, factor: float) -> Interval:
    """The interval with both its half widths multiplied; its level is no longer known from the samples alone (NaN)."""
    low, center, high, _ = interval
    return Interval(center - factor * (center - low), center, center + factor * (high - center), math.nan)


@dataclass(frozen=True)
class Calibration:
    """A factor and what it was learned on: it holds for the same prior, task and settings only.

    Parameters
    ----------
    task : of the kind of problem, such as "inpaint", "ct" or "mri".
    prior_sha256 : hash of the prior's weights.
    rule, sampler, steps, samples : the settings of the runs; ``samples`` fixes the interval that is scaled.
    level : the share that the scaled intervals cover.
    factor : learned from all groups.
    groups : a line per group: coverage before and after, the factor learned without it.
    problem : numbers of the measurement, such as ``noise``, ``views``, ``missing``.
    where : the pixels that were counted, in words.
    guaranteed : see :func:`learn_factor`.
    psnr : what bounds the PSNR of the samples' mean; None in files from before there was one.
    ranges : of the numbers in ``problem`` that differed among the groups, from where to where; ``problem`` has their means.
    """

    task: str
    prior_sha256: str
    rule: str
    sampler: str
    steps: int
    samples: int
    level: float
    factor: float
    groups: list[LeftOut]
    problem: dict[str, float] = field(default_factory=dict)
    where: str = "all pixels"
    guaranteed: bool = False
    psnr: PsnrBound | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def before(self) -> float:
        """Mean coverage of the groups without the factor."""
        return sum(group.before for group in self.groups) / len(self.groups)

    @property
    def after(self) -> float:
        """Mean coverage of the groups, each with the factor learned from the others."""
        return sum(group.after for group in self.groups) / len(self.groups)

    def apply(self, samples: Tensor) -> Interval:
        """The scaled interval of ``samples`` (n, ...), n as calibrated."""
        if len(samples) != self.samples:
            raise UsageError(f"{len(samples)} samples", hint=f"the calibration was made for {self.samples}")
        return scale(attainable_interval(samples, LEVEL), self.factor)._replace(level=self.level)

    def check(self, **settings: Any) -> None:
        """Raise UsageError unless ``settings`` (any fields, such as ``task``) are those it was learned on."""
        for name, given in settings.items():
            wanted = getattr(self, name)
            if given != wanted:
                what = name.replace("_", " ").replace("sha256", "hash")
                raise UsageError(
                    f"the calibration does not fit: {what} {_short(given)}, learned with {_short(wanted)}",
                    hint="run with the calibration's settings, or learn one for these (docs/uncertainty.md)",
                )

    def warning(self, problem: dict[str, float]) -> str | None:
        """A sentence when the measurement is unlike those it was learned on."""
        unlike = []
        for name in sorted(problem.keys() & self.problem.keys()):
            low, high = self.ranges.get(name, (self.problem[name],) * 2)
            near = any(math.isclose(problem[name], end, rel_tol=TOLERANCE) for end in (low, high))
            if not (low <= problem[name] <= high or near):
                learned = f"{low:.3g}" if high == low else f"{low:.3g} to {high:.3g}"
                unlike.append(f"{name} {problem[name]:.3g} (learned with {learned})")
        return f"the calibration was learned on other measurements: {', '.join(unlike)}" if unlike else None

    def save(self, path: str | Path) -> None:
        """Write JSON, whole or not at all."""
        lines = [group._asdict() for group in self.groups]
        parts = {**asdict(self), "groups": lines, "psnr": self.psnr.as_json() if self.psnr else None}
        text = json.dumps({"format": FORMAT, **parts}, indent=2) + "\n"
        write_files({Path(path): text.encode()})

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError : no such file, not a calibration, or values that are of a wrong type or out of range.
        """
        hint = "wanted a file that benchmarks/calibration.py --save wrote"
        values = read_json(path, "calibration")
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise InputError(f"{path} is not a calibration of format {FORMAT}", hint=hint)
        needed = {one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING}
        hints = {**get_type_hints(cls), "groups": list[dict[str, Any]], "psnr": dict[str, Any] | None}
        missing = sorted(needed - values.keys())
        wrong = f"no {missing[0]}" if missing else first_misfit(values, hints)
        for group in [] if wrong else values["groups"]:
            absent = sorted(set(LeftOut._fields) - group.keys())
            wrong = wrong or (
                f"a group without {absent[0]}" if absent else first_misfit(group, get_type_hints(LeftOut))
            )
        if wrong:
            raise InputError(f"cannot read {path} as a calibration: {wrong}", hint=hint)
        values["groups"] = [LeftOut(**group) for group in values["groups"]]
        values["ranges"] = {name: tuple(ends) for name, ends in values.get("ranges", {}).items()}
        try:
            values["psnr"] = PsnrBound.of_json(values["psnr"]) if values.get("psnr") is not None else None
        except InputError as error:
            raise InputError(f"cannot read {path} as a calibration: {error.message}", hint=hint) from None
        found = cls(**values)
        if wrong := found._out_of_range():
            raise InputError(f"{path} has {wrong}", hint=hint)
        return found

    def _out_of_range(self) -> str | None:
        """What is wrong with the values; None if nothing is."""
        if not (0 < self.factor <= LARGEST_FACTOR and 0 < self.level < 1):
            return f"factor {self.factor}, level {self.level}"
        if self.steps < 1 or self.samples < 2:
            return f"{self.steps} steps, {self.samples} samples"
        if not self.groups:
            return "no groups"
        for name, (low, high) in self.ranges.items():
            if low > high:
                return f"{name} from {low} to {high}"
        for group in self.groups:
            if not (0 <= group.before <= 1 and 0 <= group.after <= 1 and 0 <= group.factor <= LARGEST_FACTOR):
                return f"group {group.group!r} with coverage {group.before}, {group.after}, factor {group.factor}"
        return None


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
