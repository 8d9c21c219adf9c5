"""What the benchmarks share: options, the course over cases whose truth is known, tables, JSON, strips of pictures.

A benchmark says which measurements it makes (:mod:`cases`), what else stands beside them and how it is all judged;
:func:`measure` solves, times and judges, :class:`Report` prints and writes. ``--json`` writes the settings, the machine, the
prior's hash and every figure of every case.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from invsolve.atomic import write_files
from invsolve.errors import ModelError
from invsolve.evaluation.coverage import Reliability, reliability
from invsolve.evaluation.metrics import score
from invsolve.models.score_model import ScoreModel, Sigma, WrappedModel
from invsolve.options import SolveOptions
from invsolve.pictures import Pixels, channels_last, to_pixels
from invsolve.posterior import Posterior
from invsolve.pretrained import NetworkPrior
from invsolve.tasks.task import Task

Array = npt.NDArray[Any]
Figures = dict[str, float]
Rows = dict[str, Figures]
"""Figures by method."""

ONE_SAMPLE = "invsolve one sample"
SAMPLES = "invsolve samples"
SHOWN = 6
"""Cases of a table that are kept to be shown."""

SOLVING = {"samples": int, "steps": int, "sampler": str, "rule": str, "sigma_start": float}
"""Fields of :class:`SolveOptions` that the command line sets."""


def arguments(
    description: str | None,
    defaults: SolveOptions,
    *,
    model: str | None,
    count: str = "--pictures",
    cases: int = 20,
    own: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Options of every benchmark that solves tasks.

    Parameters
    ----------
    description : the benchmark's docstring, which says how to run it.
    defaults : how it solves unless told otherwise.
    model : the prior; None lets the benchmark choose.
    count, cases : the option for how many cases it takes, and its default.
    own : of the ways of solving, those the benchmark sets itself.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="what no prior was trained on: folder or .npz")
    parser.add_argument("--model", default=model, help="a prior's name or folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument(count, dest="cases", type=int, default=cases, help=f"how many, default {cases}")
    for name, kind in SOLVING.items():
        if name not in own:
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=getattr(defaults, name))
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every case")
    return parser


def options_of(chosen: argparse.Namespace, defaults: SolveOptions) -> SolveOptions:
    """``defaults`` with what was chosen on the command line."""
    return replace(defaults, **{name: getattr(chosen, name) for name in SOLVING if hasattr(chosen, name)}).settled


@dataclass(frozen=True)
class Case:
    """A measurement whose truth is known, and how estimates of it are judged.

    Parameters
    ----------
    name : of the picture or the patient.
    task : what was measured.
    truth : (H, W) or (H, W, C), in grey levels (uint8) or in the task's units; estimates are judged as they would be
        stored in the same way.
    judge : (truth, estimate) to figures; the first of them is printed case by case.
    baselines : classical estimates by name, in the task's units, that stand beside the task's own.
    where : of a posterior, the values (1, C, H, W) whose coverage counts; default the task's open values.
    rounding : how far, in the task's units, the truth may lie outside the samples' range and still count as inside.
    seed : added to that of the options. With the same noise for all, cases whose samples differ in few ways, as in the casts of
        colours, are no independent ones.
    """

    name: str
    task: Task
    truth: Array
    judge: Callable[[Array, Array], Figures] = score
    baselines: Callable[[], dict[str, Array]] = dict
    where: Callable[[Posterior], Tensor] | None = None
    rounding: float = 0.0
    seed: int = 0

    @property
    def rounded(self) -> bool:
        """Whether the truth is in grey levels."""
        return self.truth.dtype == np.uint8

    @property
    def unit_truth(self) -> Tensor:
        """The truth (1, C, H, W) float32 in the task's units."""
        unit = self.truth / np.float32(255) if self.rounded else self.truth
        planes = unit[None] if unit.ndim == 2 else unit.transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32))[None]

    def stored(self, estimate: Array) -> Array:
        """An estimate (H, W[, C]) in the task's units as it is judged."""
        return to_pixels(estimate) if self.rounded else estimate


@dataclass(frozen=True)
class Result:
    """A case, solved: ``estimates`` by method as they are judged, the baselines first."""

    case: Case
    posterior: Posterior
    seconds: float
    estimates: dict[str, Array]
    used: float = 0.0  # seconds of the processor, over all threads

    @property
    def where(self) -> Tensor | None:
        """The values whose coverage counts, broadcast to the truth; None all."""
        return self.case.task.open_values if self.case.where is None else self.case.where(self.posterior)

    @property
    def samples(self) -> list[Array]:
        """Every sample as it is judged."""
        return [self.case.stored(_picture(x[0])) for x in self.posterior.samples]

    def reliability(self) -> Reliability:
        """Do the samples differ as much as they err?"""
        posterior, rounding = self.posterior, self.case.rounding
        return reliability(
            posterior.samples, self.case.unit_truth, where=self.where, rounding=rounding, antithetic=posterior.antithetic
        )  # fmt: skip


def _picture(x: Tensor) -> Array:
    """(C, H, W) -> (H, W, C), or (H, W) of one channel."""
    picture = channels_last(x)
    return picture[..., 0] if picture.shape[2] == 1 else picture


def mean_of(samples: int) -> str:
    """The name of the mean's row."""
    return f"invsolve mean of {samples}"


def solve_case(case: Case, prior: NetworkPrior, options: SolveOptions, *, baselines: bool = True) -> Result:
    """Solve one case, with what stands beside it if wanted; only the solution is timed."""
    classical = {**case.task.baselines(), **case.baselines()} if baselines else {}
    started, before = time.perf_counter(), time.process_time()
    posterior = case.task.solve(prior, replace(options, seed=options.seed + case.seed))
    seconds, used = time.perf_counter() - started, time.process_time() - before
    ours = {ONE_SAMPLE: _picture(posterior.samples[0, 0])}
    if len(posterior.samples) > 1:
        ours[mean_of(len(posterior.samples))] = _picture(posterior.mean[0])
    return Result(case, posterior, seconds, {name: case.stored(x) for name, x in {**classical, **ours}.items()}, used)


def solved(
    cases: Iterable[Case], prior: NetworkPrior, options: SolveOptions, *, baselines: bool = True
) -> Iterator[Result]:
    """Solve case after case."""
    return (solve_case(case, prior, options, baselines=baselines) for case in cases)


def judged(result: Result) -> Rows:
    """Every estimate by its case's judge, then whether the samples differ as much as they err."""
    rows = {name: result.case.judge(result.case.truth, estimate) for name, estimate in result.estimates.items()}
    if len(result.posterior.samples) > 1:
        rows[SAMPLES] = result.reliability()._asdict()
    return rows


@dataclass
class Table:
    """Figures of several cases by method, and the first results to look at."""

    rows: dict[str, list[Figures]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    shown: list[Result] = field(default_factory=list)

    def add(self, result: Result, rows: Rows) -> None:
        """A case more."""
        self.names.append(result.case.name)
        self.seconds.append(result.seconds)
        self.used.append(result.used)
        self.calls.append(result.posterior.network_calls)
        if len(self.shown) < SHOWN:
            self.shown.append(result)
        self.put(rows)

    def put(self, rows: Rows) -> None:
        """Figures of methods that were not solved here."""
        for method, figures in rows.items():
            self.rows.setdefault(method, []).append(figures)

    @property
    def means(self) -> Rows:
        """Means over the cases."""
        return {m: {name: float(np.mean([f[name] for f in fs])) for name in fs[0]} for m, fs in self.rows.items()}

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "cases": self.names,
            "seconds": self.seconds,
            "processor_seconds": self.used,
            "calls": self.calls,
            "means": self.means,
            "rows": self.rows,
        }


def measure(
    cases: Iterable[Case],
    prior: NetworkPrior,
    options: SolveOptions,
    *,
    judge: Callable[[Result], Rows] = judged,
    baselines: bool = True,
    quiet: bool = False,
) -> Table:
    """Solve and judge every case, and say so case by case."""
    table = Table()
    for result in solved(cases, prior, options, baselines=baselines):
        rows = judge(result)
        table.add(result, rows)
        if not quiet:
            print(f"{result.case.name:>26}: {_line(result, rows)}", flush=True)
    return table


def _line(result: Result, rows: Rows) -> str:
    first = [f"{method} {next(iter(rows[method].values())):.2f}" for method in result.estimates]
    return "  ".join([*first, f"{result.posterior.network_calls} calls", f"{result.seconds:.1f} s"])


class Report:
    """Prints what was run and every table; writes ``--json`` and the last line from the same figures."""

    def __init__(self, chosen: argparse.Namespace, prior: NetworkPrior, **facts: Any) -> None:
        settings = {
            name: value if isinstance(value, int | float) else str(value) for name, value in vars(chosen).items()
        }
        self.path: Path | None = chosen.json
        self.facts = {"machine": machine(), "settings": settings, "prior": prior.card.sha256[:12], **facts}
        self.tables: dict[str, Table] = {}
        print(*self.facts.values(), flush=True)

    def add(self, title: str, table: Table) -> None:
        """Print a table: median seconds, calls, means of every method."""
        self.tables[title] = table
        print(f"{title}: median {np.median(table.seconds):.1f} s, {np.mean(table.calls):.0f} calls a case")
        for method, figures in table.means.items():
            print(f"{method:>22}: " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()), flush=True)

    def finish(self, **more: Any) -> None:
        """Print the means as a line of JSON, and write ``--json``."""
        print(json.dumps({**{title: table.means for title, table in self.tables.items()}, **more}))
        if self.path:
            tables = {title: table.record() for title, table in self.tables.items()}
            write_files({self.path: json.dumps({**self.facts, "tables": tables, **more}, indent=1).encode()})


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


class Timed(WrappedModel):
    """Adds up the seconds spent in ``model``."""

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.seconds = 0.0

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        started = time.perf_counter()
        denoised = self.model.denoise(x, sigma)
        if x.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - started
        return denoised


def seconds_per_call(run: Callable[[], Posterior]) -> float:
    """Seconds for each picture and network call of a short ``run``, the second time it runs."""
    run()
    started = time.perf_counter()
    calls = run().network_calls
    return (time.perf_counter() - started) / calls


def save_sheet(path: Path, strips: Iterable[Sequence[Pixels]], *, gap: int = 0, enlarge: int = 1) -> None:
    """Write pictures (H, W[, 3]) of any size in rows, on white; every pixel ``enlarge`` times as large."""
    rows = [_beside([np.atleast_3d(picture) for picture in strip], gap) for strip in strips]
    width = max(row.shape[1] for row in rows)
    padded = [_on_white(row, row.shape[0] + gap, width) for row in rows]
    sheet = _on_white(np.concatenate(padded), sum(map(len, padded)), width)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.repeat(enlarge, axis=0).repeat(enlarge, axis=1)).save(path)


def _beside(pictures: Sequence[Pixels], gap: int) -> Pixels:
    height = max(len(picture) for picture in pictures)
    return np.concatenate([_on_white(p, height, p.shape[1] + gap) for p in pictures], axis=1)


def _on_white(picture: Pixels, height: int, width: int) -> Pixels:
    """(h, w, 1 or 3) in the upper left corner of white (height, width, 3)."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return canvas


def package_file(package: str, file: Path, install: str) -> Path:
    """Where a file of an installed package is; the package itself is not imported, so what it wants need not be there.

    Raises
    ------
    ModelError : the package is not installed; ``install`` is the way out.
    """
    elsewhere = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    found = PathFinder.find_spec(package, elsewhere)  # a benchmark may be called as the package is
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"{package} is not installed", hint=install)
    return Path(found.submodule_search_locations[0]) / file
