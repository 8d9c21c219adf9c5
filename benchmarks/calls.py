"""Quality against network calls: every number of noise levels by every number of samples, and ways of solving beside each other.

    python benchmarks/calls.py inpainting --data photos-val.npz --levels 6 12 24 48
    python benchmarks/calls.py ct --data ct-val.npz --levels 10 20 30 50
    python benchmarks/calls.py colorization --data photos-val.npz --levels 10 20 30 50 100 --model thumbnails
    python benchmarks/calls.py inpainting --data photos-val.npz --levels 24 --ways wiener 'wiener(steps=10)' --pictures 10

Each case is solved once for each way and number of levels, one way after the other; the means of 1, 2, 4, ... of the samples are
judged from that one run. Per row: PSNR of those means, the share of open values between the least and the largest sample, the
samples' spread over the error of their mean (ideal 1), seconds, and their ratio to the first way's of the same levels. ``--chart``
draws PSNR against calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from charts import chart
from harness import SAMPLES, Case, Figures, Report, Result, Rows, Table, arguments, options_of, solve_case
from tasks import TASKS

from invsolve.evaluation.coverage import ideal_coverage
from invsolve.options import COLORIZATION, INPAINTING, RECONSTRUCTION, SolveOptions
from invsolve.pictures import channels_last
from invsolve.pretrained import load_prior

DEFAULTS = {"inpainting": INPAINTING, "colorization": COLORIZATION, "ct": RECONSTRUCTION}
SAMPLES_DRAWN = 8


class Way(NamedTuple):
    """A rule and a number of levels."""

    rule: str
    levels: int


def counts(samples: int) -> Iterator[int]:
    """1, 2, 4, ... and the number itself."""
    count = 1
    while count < samples:
        yield count
        count *= 2
    yield samples


def judged_means(result: Result) -> Rows:
    """The means of the first samples, and how honest all of them are."""
    samples, case = result.posterior.samples, result.case
    rows: Rows = {}
    for count in counts(len(samples)):
        mean = channels_last(samples[:count, 0].mean(dim=0))
        estimate = case.stored(mean[..., 0] if mean.shape[2] == 1 else mean)
        rows[f"mean of {count}"] = case.judge(case.truth, estimate)
    rows[SAMPLES] = result.reliability()._asdict()
    return rows


def line(table: Table, baseline: Table) -> str:
    """A row in few figures."""
    means = table.means
    quality = "  ".join(f"{figures['psnr']:.3f}" for name, figures in means.items() if name != SAMPLES)
    ratio = np.median(np.divide(table.seconds, baseline.seconds))
    return (
        f"{quality}  inside {means[SAMPLES]['coverage']:.3f}  spread {means[SAMPLES]['spread']:.3f}  "
        f"{np.median(table.seconds):.2f} s  ratio {ratio:.2f}"
    )


def difference(table: Table, baseline: Table) -> Figures:
    """PSNR of the mean of all samples less the baseline's: mean over the cases, least and most, standard error."""
    name = [method for method in table.rows if method != SAMPLES][-1]
    lost = [a["psnr"] - b["psnr"] for a, b in zip(table.rows[name], baseline.rows[name], strict=True)]
    error = float(np.std(lost, ddof=1) / len(lost) ** 0.5) if len(lost) > 1 else float("nan")
    return {"mean": float(np.mean(lost)), "least": min(lost), "most": max(lost), "standard_error": error}


def curves(tables: Mapping[Way, Table], samples: int) -> dict[str, list[tuple[float, float]]]:
    """Calls and PSNR of the mean of 1, 2, 4, ... samples, each a curve over the numbers of levels."""
    found: dict[str, list[tuple[float, float]]] = {}
    for way, table in tables.items():
        for name, figures in table.means.items():
            if name != SAMPLES:
                share = int(name.rpartition(" ")[2]) / samples
                curve = f"{way.rule}, {name}" if len({other.rule for other in tables}) > 1 else name
                found.setdefault(curve, []).append((share * float(np.mean(table.calls)), figures["psnr"]))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(
        __doc__, SolveOptions(samples=SAMPLES_DRAWN), model=None, cases=6, own=("steps", "rule", "sampler")
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--levels", type=int, nargs="+", default=None, help="default: the command's own number")
    parser.add_argument("--ways", nargs="+", metavar="RULE", default=None, help="default: the command's own rule")
    parser.add_argument("--sampler", default=None, help="default: the command's own")
    parser.add_argument("--lines", action="store_true", help="inpainting of lines instead of random pixels")
    parser.add_argument("--chart", type=Path, metavar="PNG", help="PSNR of the means against the calls that they took")
    chosen = parser.parse_args(argv)
    make, model = TASKS[chosen.task]
    defaults = DEFAULTS[chosen.task]
    prior = load_prior(chosen.model or model, chosen.device)
    options = replace(options_of(chosen, defaults), sampler=chosen.sampler or defaults.sampler)
    levels = chosen.levels or [defaults.steps]
    ways = [Way(rule, count) for count in levels for rule in chosen.ways or [str(defaults.rule)]]
    report = Report(chosen, prior, ideal=ideal_coverage(chosen.samples, antithetic=options.antithetic))
    tables = {way: Table() for way in ways}
    cases: list[Case] = make(chosen, prior)
    solve_case(cases[0], prior, replace(options, steps=2), baselines=False)  # the first call of a size takes longer
    for case in cases:
        for way, table in tables.items():
            result = solve_case(case, prior, replace(options, rule=way.rule, steps=way.levels), baselines=False)
            table.add(result, judged_means(result))
    differences: dict[str, Figures] = {}
    print(f"{'levels':>6} {'rule':<20} PSNR of the mean of {', '.join(map(str, counts(chosen.samples)))} samples")
    for way, table in tables.items():
        first = next(other for other in ways if other.levels == way.levels)
        report.tables[f"{way.rule}, {way.levels} levels"] = table
        print(f"{way.levels:>6} {way.rule:<20} {line(table, tables[first])}", flush=True)
        if way != first:
            differences[f"{way.rule}, {way.levels} levels"] = difference(table, tables[first])
    for name, figures in differences.items():
        print(f"{name} less the first: " + "  ".join(f"{what} {value:+.4f}" for what, value in figures.items()))
    report.finish(differences=differences)
    if chosen.chart:
        title = f"{chosen.task}, {len(cases)} cases, the mean of so many samples"
        chart(chosen.chart, title, "network calls", "PSNR in dB", curves(tables, chosen.samples))


if __name__ == "__main__":
    main()
