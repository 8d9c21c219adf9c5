"""A bound on a result's PSNR that needs no truth: how far errors exceed what the samples' spread makes one expect.

Each **group**, a picture or a patient whose truth is known, has one score: the mean squared error of its posterior mean
over the error that its samples' spread predicts. If the next picture is exchangeable with the n groups, its score is
among the k smallest of the n + 1 with probability k / (n + 1) at least, so the k-th smallest of the n bounds it from
above, its error with it, and its PSNR from below: split conformal prediction, one-sided (Vovk, Gammerman & Shafer 2005,
"Algorithmic learning in a random world"; Angelopoulos & Bates 2021, "A gentle introduction to conformal prediction",
section 1). That holds whatever the sampler does; a spread that tells hard pictures from easy ones makes the bound
tight, and a spread that says nothing makes it loose.

The PSNR is the one that the commands print of the mean: of the picture as it is stored, clipped to the data's range and,
in a photograph, rounded to grey levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_type_hints

from torch import Tensor

from invsolve.errors import InputError, UsageError
from invsolve.typed import first_misfit
from invsolve.uncertainty.intervals import standard_deviation, variance_of_mean

PSNR_LEVEL = 0.95
"""Probability that is wanted of a bound; 19 groups are needed for it."""

LEAST_ERROR = 1e-12
"""Mean squared error, for data in [0, 1], below which samples agree up to rounding: 120 dB."""

VALUES_AT_ONCE = 2**20
"""Of every sample."""


class Judged(NamedTuple):
    """A picture whose truth is known."""

    psnr: float  # of the posterior mean, in dB
    expected: float  # mean squared error that the samples' spread predicts, of :func:`expected_error`

    @property
    def ratio(self) -> float:
        """The error over the expected one; 1 on average where the samples are the posterior's."""
        return 10 ** (-self.psnr / 10) / self.expected


class BoundedGroup(NamedTuple):
    """A group, and the bound that the others' scores give it."""

    group: str
    psnr: float  # of the posterior mean, in dB
    ratio: float  # of its error to the expected one
    bound: float  # of its PSNR, in dB, learned without it


@dataclass(frozen=True)
class PsnrBound:
    """The largest ratio of an error to the expected one that is to be reckoned with.

    Parameters
    ----------
    level : the probability it has, for a picture exchangeable with those it was learned on.
    ratio : learned from all groups.
    groups : a line per group.
    """

    level: float
    ratio: float
    groups: list[BoundedGroup]

    def at_least(self, expected: float) -> float:
        """The PSNR in dB that a result of this :func:`expected_error` has at least."""
        return _bound(self.ratio, expected)

    @property
    def held(self) -> float:
        """Share of the groups whose PSNR is above the bound that the others give.

        Of groups so few that the largest ratio of the others is the bound, all but one, whatever the samples are worth:
        what the groups then tell is how far above.
        """
        return sum(one.psnr >= one.bound for one in self.groups) / len(self.groups)

    @property
    def margin(self) -> float:
        """How many dB the groups' PSNR is above their bounds, on average: the less, the more a bound says."""
        return sum(one.psnr - one.bound for one in self.groups) / len(self.groups)

    def as_json(self) -> dict[str, Any]:
        """What :meth:`of_json` reads."""
        return {"level": self.level, "ratio": self.ratio, "groups": [one._asdict() for one in self.groups]}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> PsnrBound:
        """From what :meth:`as_json` made.

        Raises
        ------
        InputError : a part is absent, unknown, of a wrong type or out of range.
        """
        hint = "wanted what benchmarks/calibration.py --save wrote"
        wrong = _misfit(values, {"level": float, "ratio": float, "groups": list[dict[str, Any]]})
        for group in [] if wrong else values["groups"]:
            wrong = wrong or _misfit(group, get_type_hints(BoundedGroup))
        if wrong:
            raise InputError(f"in the bound of the PSNR, {wrong}", hint=hint)
        found = cls(values["level"], values["ratio"], [BoundedGroup(**group) for group in values["groups"]])
        if not (0 < found.level < 1 and found.ratio > 0 and found.groups):
            raise InputError(
                f"a bound of the PSNR of level {found.level}, ratio {found.ratio}, {len(found.groups)} groups",
                hint=hint,
            )
        return found


def expected_error(samples: Tensor, *, antithetic: bool = False) -> float:
    """The mean squared error of the samples' average, if the samples were the posterior's; a task's estimate of the mean may be
    nearer (:attr:`invsolve.posterior.Posterior.estimate`), and a bound is learned from that.

    The posterior's variance and that of the mean of so few samples (Fortin, Abaza, Anctil & Turcotte 2014), averaged over
    all values; where the samples agree, as in known pixels, there is none.

    Parameters
    ----------
    samples : (n, ...), two at least, for data in [0, 1], to which they are clipped as results are.
    antithetic : samples 2m and 2m + 1 come from noise of opposite sign.

    Raises
    ------
    UsageError : fewer than two samples.
    """
    if len(samples) < 2:
        raise UsageError(f"{len(samples)} sample", hint="wanted at least 2: one has no spread")
    total, values = 0.0, samples.flatten(1)
    for part in values.split(VALUES_AT_ONCE, dim=1):  # of large pictures, the copies would take as much again
        clipped = part.clamp(0, 1)
        variance = standard_deviation(clipped, antithetic=antithetic).double().square()
        total += float((variance + variance_of_mean(clipped, antithetic=antithetic).double()).sum())
    return max(total / values.shape[1], LEAST_ERROR)


def learn_psnr_bound(groups: Mapping[str, Judged], level: float = PSNR_LEVEL) -> PsnrBound:
    """The bound of all groups, and for each of them the one of the others.

    Parameters
    ----------
    groups : of pictures or patients, by name.
    level : probability that is wanted. Of n groups n / (n + 1) is the most there is, and what the result then has.

    Raises
    ------
    UsageError : fewer than two groups, or a level outside (0, 1).
    InputError : a PSNR that is not finite.
    """
    if not 0 < level < 1:
        raise UsageError(f"level {level}", hint="wanted a probability between 0 and 1")
    if len(groups) < 2:
        raise UsageError(f"{len(groups)} group to leave out", hint="wanted at least 2 pictures or patients")
    for name, one in groups.items():
        if not math.isfinite(one.psnr):
            raise InputError(f"{name} has a PSNR of {one.psnr}", hint="wanted pictures with something to get wrong")
    ratio, reached = ratio_bound([one.ratio for one in groups.values()], level)
    lines = []
    for name, one in groups.items():
        of_others, _ = ratio_bound([other.ratio for key, other in groups.items() if key != name], level)
        lines.append(BoundedGroup(name, one.psnr, one.ratio, _bound(of_others, one.expected)))
    return PsnrBound(reached, ratio, lines)


def ratio_bound(ratios: Sequence[float], level: float = PSNR_LEVEL) -> tuple[float, float]:
    """The k-th smallest of n ratios, k = ceil((n + 1) level), and the probability k / (n + 1) that it bounds another.

    Where n is too small for the level, the largest, of probability n / (n + 1).
    """
    count = len(ratios)
    rank = min(math.ceil((count + 1) * level - 1e-9), count)
    return sorted(ratios)[rank - 1], rank / (count + 1)


def _misfit(values: Mapping[str, Any], types: Mapping[str, Any]) -> str | None:
    absent = sorted(types.keys() - values.keys())
    return f"no {absent[0]}" if absent else first_misfit(values, types)


def _bound(ratio: float, expected: float) -> float:
    return -10 * (math.log10(ratio) + math.log10(expected))
