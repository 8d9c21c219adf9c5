"""Quality against network calls: every number of noise levels by every number of samples, and ways of solving beside each other.

    python benchmarks/calls.py inpainting --data photos-val.npz --levels 6 12 24 48
    python benchmarks/calls.py ct --data ct-val.npz --calls 10 20 30 50 100 --samplers renoising heun_sde multistep
    python benchmarks/calls.py colorization --data photos-val.npz --levels 10 20 30 50 100 --model thumbnails
    python benchmarks/calls.py inpainting --data photos-val.npz --ways 'wiener(steps=50)' 'wiener(steps=15)' --hole 64
    python benchmarks/calls.py x4 --data photos-val.npz --ways 'wiener(steps=50)' 'wiener(steps=15)'

Each case is solved once for each way and number of levels, one way after the other; the means of 1, 2, 4, ... of the samples are
judged from that one run. ``--calls`` gives each sampler as many levels as so many network calls a sample pay for. The table is
printed after each case, over those so far. Per row: PSNR of those means, the share of open values between the least and the largest
sample, the samples' spread over the error of their mean (ideal 1), seconds, seconds of the processor, and the ratio of these to the
first way's of the same calls. ``--chart`` draws PSNR against calls.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cases import centre_crops, inpainting_case
from charts import chart
from ct import SCANS, Scan, ct_case, one_slice_per_patient, scan
from harness import SAMPLES, Case, Figures, Report, Result, Rows, Table, arguments, options_of, solve_case
from restoration import TASKS as RESTORATIONS
from tasks import CROP, TASKS
from wide_holes import Hole

from invsolve.evaluation.coverage import ideal_coverage
from invsolve.forward_models import projector
from invsolve.options import COLORIZATION, INPAINTING, RECONSTRUCTION, SolveOptions
from invsolve.pictures import channels_last
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.samplers import find_sampler
from invsolve.samplers.info import calls_per_level

DEFAULTS = {"inpainting": INPAINTING, "colorization": COLORIZATION, "ct": RECONSTRUCTION}
DEFAULTS |= {name: options for name, (_, options) in RESTORATIONS.items()}
SAMPLES_DRAWN = 8
VIEWS = 23


class Way(NamedTuple):
    """A rule, a sampler, and how often the network is called for each sample, about."""

    name: str  # of the rule, and of the sampler where there are several
    rule: str
    sampler: str
    calls: int
    levels: int


def ways_of(chosen: argparse.Namespace, defaults: SolveOptions) -> list[Way]:
    """All that are compared, by their number of calls or levels first."""
    samplers = chosen.samplers or [replace(defaults, samples=chosen.samples).settled.sampler]
    rules = chosen.ways or [str(defaults.rule)]
    found = []
    for number in chosen.calls or chosen.levels or [defaults.steps]:
        for rule, sampler in itertools.product(rules, samplers):
            each = calls_per_level(find_sampler(sampler))
            levels = max(1, round(number / each)) if chosen.calls else number
            name = f"{rule}, {sampler}" if len(samplers) > 1 else rule
            found.append(Way(name, rule, sampler, round(levels * each), levels))
    return found


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
    if len(samples) > 1:
        rows[SAMPLES] = result.reliability()._asdict()
    return rows


def line(table: Table, baseline: Table) -> str:
    """A row in few figures."""
    means = table.means
    quality = "  ".join(f"{figures['psnr']:.3f}" for name, figures in means.items() if name != SAMPLES)
    ratio = np.median(np.divide(table.used, baseline.used))
    honesty = means.get(SAMPLES)
    spread = "" if honesty is None else f"  inside {honesty['coverage']:.3f}  spread {honesty['spread']:.3f}"
    return (
        f"{quality}{spread}  {np.median(table.seconds):.2f} s, {np.median(table.used):.2f} of the processor  "
        f"ratio {ratio:.2f}"
    )


def lines(tables: Mapping[Way, Table], samples: int) -> Iterator[str]:
    """The table as it is so far."""
    width = max(len(way.name) for way in tables)
    yield f"calls levels {'':<{width}} PSNR of the mean of {', '.join(map(str, counts(samples)))} samples"
    for way, table in tables.items():
        first = next(other for other in tables if other.calls == way.calls)
        yield f"{way.calls:>5} {way.levels:>6} {way.name:<{width}} {line(table, tables[first])}"


def difference(table: Table, baseline: Table) -> Figures:
    """PSNR of the mean of all samples less the baseline's: mean over the cases, least and most, standard error."""
    name = [method for method in table.rows if method != SAMPLES][-1]
    lost = [a["psnr"] - b["psnr"] for a, b in zip(table.rows[name], baseline.rows[name], strict=True)]
    error = float(np.std(lost, ddof=1) / len(lost) ** 0.5) if len(lost) > 1 else float("nan")
    return {"mean": float(np.mean(lost)), "least": min(lost), "most": max(lost), "standard_error": error}


def curves(tables: Mapping[Way, Table], samples: int) -> dict[str, list[tuple[float, float]]]:
    """Calls and PSNR of the mean of 1, 2, 4, ... samples, each a curve over the numbers of levels; of several ways, those of
    one draw and of all of them."""
    found: dict[str, list[tuple[float, float]]] = {}
    rules, samplers = ({getattr(way, part) for way in tables} for part in ("rule", "sampler"))
    shown = set(counts(samples)) if len(rules) * len(samplers) == 1 else {1, samples}
    for way, table in tables.items():
        called = [part for part, all_of_them in ((way.rule, rules), (way.sampler, samplers)) if len(all_of_them) > 1]
        for name, figures in table.means.items():
            if name != SAMPLES and (count := int(name.rpartition(" ")[2])) in shown:
                curve = ", ".join([*called, name])
                found.setdefault(curve, []).append((count / samples * float(np.mean(table.calls)), figures["psnr"]))
    return found


def model_of(task: str) -> str:
    """The prior that a task takes unless told otherwise."""
    return TASKS[task][1] if task in TASKS else "photos"


def add_case_options(parser: argparse.ArgumentParser) -> None:
    """What :func:`cases_of` reads."""
    parser.add_argument("task", choices=DEFAULTS)
    parser.add_argument("--lines", action="store_true", help="inpainting of lines instead of random pixels")
    parser.add_argument("--hole", type=int, default=0, metavar="SIDE", help="inpainting of a square hole instead")
    parser.add_argument(
        "--missing", type=float, default=0.0, metavar="SHARE", help="inpainting of so many of the pixels"
    )
    parser.add_argument("--size", type=int, default=None, help="of slices the middle of so many pixels; default all")


def cases_of(chosen: argparse.Namespace, prior: NetworkPrior) -> list[Case]:
    """What is solved: the task's own cases, the middle of slices, a square hole in each picture, or a restoration."""
    if chosen.task == "ct" and chosen.size:
        how = Scan(scan(VIEWS, chosen.size), SCANS["photons"].photons)
        operator = projector(how.geometry, prior.device)
        slices = one_slice_per_patient(chosen.data, chosen.size)[: chosen.cases]
        return [ct_case(one, how, index, operator) for index, one in enumerate(slices)]
    if chosen.task in TASKS and not chosen.hole and not chosen.missing:
        return TASKS[chosen.task][0](chosen, prior)
    pictures = list(enumerate(centre_crops(chosen.data, chosen.cases, CROP)))
    if chosen.hole:
        holes = [Hole.at("random", index, chosen.hole, len(picture)).missing for index, picture in pictures]
        return [inpainting_case(f"picture {index}", picture, holes[index]) for index, picture in pictures]
    if chosen.missing:
        masks = [np.random.default_rng([1, index]).random(one.shape[:2]) < chosen.missing for index, one in pictures]
        return [inpainting_case(f"picture {index}", picture, masks[index]) for index, picture in pictures]
    make = RESTORATIONS[chosen.task][0]
    return [make(f"picture {index}", picture, index) for index, picture in pictures]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(
        __doc__, SolveOptions(samples=SAMPLES_DRAWN), model=None, cases=6, own=("steps", "rule", "sampler")
    )
    add_case_options(parser)
    parser.add_argument("--levels", type=int, nargs="+", default=None, help="default: the command's own number")
    parser.add_argument(
        "--calls", type=int, nargs="+", default=None, help="of the network, a sample, instead of levels"
    )
    parser.add_argument("--ways", nargs="+", metavar="RULE", default=None, help="default: the command's own rule")
    parser.add_argument("--samplers", nargs="+", default=None, help="default: the command's own")
    parser.add_argument("--chart", type=Path, metavar="PNG", help="PSNR of the means against the calls that they took")
    chosen = parser.parse_args(argv)
    defaults = DEFAULTS[chosen.task]
    prior = load_prior(chosen.model or model_of(chosen.task), chosen.device)
    options = options_of(chosen, defaults)
    ways = ways_of(chosen, defaults)
    several = chosen.samples > 1
    facts = {"ideal": ideal_coverage(chosen.samples, antithetic=options.antithetic)} if several else {}
    report = Report(chosen, prior, **facts)
    tables = {way: Table() for way in ways}
    cases = cases_of(chosen, prior)
    solve_case(cases[0], prior, replace(options, steps=2), baselines=False)  # the first call of a size takes longer
    for case in cases:
        for way, table in tables.items():
            own = replace(options, rule=way.rule, sampler=way.sampler, steps=way.levels)
            result = solve_case(case, prior, own, baselines=False)
            table.add(result, judged_means(result))
        print(f"{case.name} and those before it", *lines(tables, chosen.samples), sep="\n", flush=True)
    firsts = {way: next(other for other in ways if other.calls == way.calls) for way in ways}
    report.tables = {f"{way.name}, {way.levels} levels": table for way, table in tables.items()}
    differences = {
        f"{way.name}, {way.levels} levels": difference(table, tables[firsts[way]])
        for way, table in tables.items()
        if way != firsts[way]
    }
    for name, figures in differences.items():
        print(f"{name} less the first: " + "  ".join(f"{what} {value:+.4f}" for what, value in figures.items()))
    report.finish(differences=differences)
    if chosen.chart:
        title = f"{chosen.task}, {len(cases)} cases, the mean of so many samples"
        chart(chosen.chart, title, "network calls", "PSNR in dB", curves(tables, chosen.samples))


if __name__ == "__main__":
    main()
