"""Figures of merit of a sampler: kept in files, averaged, compared."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch

from invsolve.atomic import write_files
from invsolve.errors import InputError, OutputError, UsageError


@dataclass(frozen=True)
class Figures:
    """How far a sampler's law is from the true posterior; ``*_error`` is the Monte Carlo standard error, 0 if exact."""

    problem: str
    rule: str
    sampler: str
    steps: int
    method: str  # "exact" or "monte carlo"
    samples: int
    bias: float  # rms over x of the mean's error, in posterior standard deviations; ideal 0
    bias_error: float
    std_ratio: float  # rms standard deviation over the exact one's; ideal 1
    std_ratio_error: float
    coverage: float  # share of true values inside the range of 19 samples; ideal 0.9
    coverage_error: float
    sliced_wasserstein: float  # SW2, in the units of x
    sliced_wasserstein_error: float
    floor: float  # SW2 of as many exact draws against exact draws; 0 where the law is exact
    calls: float  # network calls per sample, forwards and backwards
    seconds: float
    ksd_squared: float = math.nan  # squared kernel Stein discrepancy, ideal 0; NaN where it was not asked
    ksd_p: float = math.nan  # its p-value: of exact draws, the share that seems farther; of several problems, Fisher's

    @property
    def key(self) -> tuple[str, str, str, int]:
        return (self.problem, self.rule, self.sampler, self.steps)

    @property
    def calibrated(self) -> bool:
        """Bias at most .1 and standard deviations within 10 %, beyond two standard errors."""
        centred = self.bias <= 0.1 + 2 * self.bias_error
        return centred and abs(self.std_ratio - 1) <= 0.1 + 2 * self.std_ratio_error


LATER = ("ksd_squared", "ksd_p")
"""Figures that files from before they were thought of lack."""


# -- keeping and comparing ------------------------------------------------------------------------------------------------
def average(figures: Sequence[Figures]) -> Figures:
    """The mean over problems of one kind; errors are those of the mean, from the scatter between them."""
    first, count = figures[0], len(figures)
    if count == 1:
        return first
    means: dict[str, Any] = {}
    for name in ("bias", "std_ratio", "coverage", "sliced_wasserstein"):
        values = torch.tensor([getattr(f, name) for f in figures], dtype=torch.float64)
        means[name] = float(values.mean())
        means[f"{name}_error"] = float(values.std() / math.sqrt(count))
    means["ksd_p"] = _combined([f.ksd_p for f in figures])
    for name in ("floor", "calls", "ksd_squared"):
        means[name] = sum(getattr(f, name) for f in figures) / count
    return replace(first, seconds=sum(f.seconds for f in figures), **means)


def _combined(p_values: Sequence[float]) -> float:
    """One p-value of several problems' (Fisher's method); NaN if one is."""
    from scipy.stats import combine_pvalues

    return math.nan if any(map(math.isnan, p_values)) else float(combine_pvalues(p_values).pvalue)


def as_json(figures: Sequence[Figures]) -> list[dict[str, Any]]:
    """One object per row; figures that are infinite or undefined become null."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: plain(value) for name, value in asdict(f).items()} for f in figures]


def save_figures(path: str | Path, figures: Sequence[Figures]) -> None:
    """Write figures as JSON, whole or not at all.

    Raises
    ------
    OutputError : it cannot be written, or something other than a file is there.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise OutputError(f"{path} is not a file", hint="choose another name")
    text = json.dumps(as_json(figures), indent=1, allow_nan=False) + "\n"
    write_files({target: text.encode()})


def load_figures(path: str | Path) -> list[Figures]:
    """Read what :func:`save_figures` wrote; a null becomes NaN.

    Raises
    ------
    InputError : missing, not a file, not JSON, or not a list of figures: a name missing or unknown, a value of the
        wrong type, a number that is not finite.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for
            raise ValueError("not a file")
        entries = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_not_finite)
        if not isinstance(entries, list):
            raise TypeError("not a list")
        return [_figures(entry) for entry in entries]
    except (OSError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"cannot read {path} as saved figures: {error}", hint="write it with --save") from error


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _figures(entry: Any) -> Figures:
    """One row, its names and types checked."""
    if not isinstance(entry, dict):
        raise TypeError(f"a row is {type(entry).__name__}, wanted an object")
    types = get_type_hints(Figures)
    entry = dict.fromkeys(LATER) | entry
    if entry.keys() != types.keys():
        odd = sorted(entry.keys() ^ types.keys())
        raise ValueError(f"missing or unknown: {', '.join(map(repr, odd[:3]))}")
    return Figures(**{name: _value(name, entry[name], kind) for name, kind in types.items()})


def _value(name: str, value: Any, kind: type) -> Any:
    if kind is float and value is None:
        return math.nan
    right: Any = (int, float) if kind is float else kind
    if not isinstance(value, right) or isinstance(value, bool):
        raise TypeError(f"{name} is {type(value).__name__}, wanted {kind.__name__}")
    if kind is not float:
        return value
    if not math.isfinite(value):
        raise ValueError(f"{name} is not finite")
    return float(value)


class Change(NamedTuple):
    """A figure that moved by more than three standard errors."""

    text: str
    worse: bool  # further from its ideal


def changes(new: Sequence[Figures], old: Sequence[Figures]) -> list[Change]:
    """What moved between two runs of the same problems, rules, samplers and steps.

    A rule that was biased can come nearer to the truth by a new error, so all that moved is named, and what got worse
    is marked.

    Raises
    ------
    UsageError : no row of ``new`` has a counterpart.
    """
    before = {f.key: f for f in old}
    shared = [(f, before[f.key]) for f in new if f.key in before]
    if not shared:
        raise UsageError("nothing to compare", hint="use the problems, rules, samplers and steps of the saved run")
    found = []
    for f, g in shared:
        for name, ideal, slack in (
            ("bias", 0.0, 1e-3),
            ("std_ratio", 1.0, 1e-3),
            ("coverage", 0.9, 1e-3),
            ("sliced_wasserstein", 0.0, 1e-3),
            ("calls", 0.0, 0.5),
        ):
            a, b = getattr(f, name), getattr(g, name)
            margin = slack + 3 * math.hypot(*(getattr(one, f"{name}_error", 0.0) for one in (f, g)))
            if math.isnan(b) or abs(a - b) <= margin:  # a NaN in ``a`` is a change
                continue
            text = f"{f.problem}, {f.rule}, {f.sampler}, {f.steps} steps: {name} was {b:.4g}, is {a:.4g}"
            found.append(Change(text, worse=not abs(a - ideal) <= abs(b - ideal) + margin))
    return found


def worse(new: Sequence[Figures], old: Sequence[Figures]) -> list[str]:
    """The lines of :func:`changes` that got worse."""
    return [change.text for change in changes(new, old) if change.worse]
