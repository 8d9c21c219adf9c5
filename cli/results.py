"""From a Posterior to files, a line to read and a JSON object."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from invsolve.atomic import Content
from invsolve.cli.console import say
from invsolve.cli.files import encode_picture
from invsolve.cli.formats import Encoding
from invsolve.cli.streams import shown
from invsolve.errors import OutputError
from invsolve.pictures import Pixels, to_pixels

STD_WHITE = 0.25
"""Standard deviation drawn as white in the std map, in units of the full grey range."""

PLAIN = Encoding()


@dataclass(frozen=True)
class ResultPaths:
    """Names of everything one run writes."""

    result: Path
    samples: list[Path]
    mean: Path | None
    std: Path | None
    low: Path | None = None
    high: Path | None = None

    @classmethod
    def plan(cls, result: Path, count: int, *, interval: bool = False) -> ResultPaths:
        """One sample is the result itself; of several, all are written, with mean and std map, and bounds if asked."""
        if count == 1:
            return cls(result, [], None, None)

        def beside(part: str) -> Path:
            return result.with_name(f"{result.stem}.{part}{result.suffix}")

        samples = [beside(f"sample-{j}") for j in range(1, count)]
        bounds = (beside("low"), beside("high")) if interval else (None, None)
        return cls(result, samples, beside("mean"), beside("std"), *bounds)

    @property
    def all(self) -> list[Path]:
        return [self.result, *self.samples, *(p for p in (self.mean, self.std, self.low, self.high) if p)]


def check_diagnostics(path: Path | None, results: list[Path]) -> list[Path]:
    """The picture of the run as a list of files to write, none or one; it must not be one of the ``results``."""
    if path is None:
        return []
    if path.suffix.lower() != ".png":
        raise OutputError(f"--diagnostics {path} does not end in .png", hint="name a .png file")
    if path.absolute() in [result.absolute() for result in results]:
        raise OutputError(f"--diagnostics {path} is the name of a result", hint="name another file")
    return [path]


def std_picture(std: npt.NDArray[np.floating]) -> Pixels:
    """(H, W, C) standard deviation as grey: black 0, white STD_WHITE or more."""
    overall = np.sqrt((std**2).mean(axis=2))
    return to_pixels(overall / STD_WHITE)


def encode_results(
    paths: ResultPaths,
    samples: Sequence[Pixels],
    seeds: Sequence[int],
    mean: Pixels | None,
    std: Pixels | None,
    facts: dict[str, Any],
    encoding: Encoding = PLAIN,
    bounds: list[Pixels] | None = None,
) -> dict[Path, Content]:
    """The whole set as files; ``samples`` (H, W[, 2, 3 or 4]) in order of their ``seeds``, each taken when it is written.
    Of one sample there are no ``mean`` and ``std``.

    ``bounds`` are the interval's lower and upper picture.
    """
    files: dict[Path, Content] = {}
    plain = Encoding(quality=encoding.quality)
    for number, path in enumerate([paths.result, *paths.samples]):
        own: dict[str, Any] = {"seed": seeds[number]}
        if number > 0 and seeds[number] == seeds[number - 1]:
            own["noise"] = "that of the seed with the opposite sign"
        files[path] = partial(_write_sample, samples, number, path, facts | own, encoding)
    if paths.mean and paths.std and mean is not None and std is not None:
        files[paths.mean] = encode_picture(
            mean, paths.mean, {**facts, "content": "mean of the pictures that fit"}, encoding
        )
        content = f"standard deviation, white = {STD_WHITE}"
        files[paths.std] = encode_picture(std, paths.std, {**facts, "content": content}, plain)
    if paths.low and paths.high and bounds:
        for path, picture, side in zip((paths.low, paths.high), bounds, ("lower", "upper"), strict=True):
            content = f"{side} bound of each pixel's interval"
            files[path] = encode_picture(picture, path, {**facts, "content": content}, encoding)
    return files


def _write_sample(
    samples: Sequence[Pixels], number: int, path: Path, facts: dict[str, Any], encoding: Encoding, file: IO[bytes]
) -> None:
    file.write(encode_picture(samples[number], path, facts, encoding))


def encode_trace(diagnostics: dict[str, list[float]], path: Path, facts: dict[str, Any]) -> bytes:
    """The picture of misfit and step against the noise level."""
    from invsolve.uncertainty.trace import trace_picture

    content = "misfit and step against the noise level"
    return encode_picture(trace_picture(diagnostics), path, {**facts, "content": content})


def say_results(paths: ResultPaths, seconds: float, calls: int, *, sampler: str = "") -> None:
    """Where the pictures are, and what they are, of a run with ``sampler``."""
    say(f"wrote {shown(paths.result)} ({seconds:.1f} s, {calls} network calls)")
    if paths.mean and paths.std:
        say(
            f"it is one sample of {1 + len(paths.samples)}; the others: {paths.samples[0].name} ...; "
            f"{paths.mean.name}: their mean, closest to the truth but smoother; "
            f"{paths.std.name}: where they differ (white: {STD_WHITE:g} of the range)"
        )
        if paths.low and paths.high:
            say(f"{paths.low.name} and {paths.high.name}: bounds of each pixel")
    elif sampler == "posterior_mean":
        say(
            "it is the mean of the pictures that fit, smoother than any; --samples 8 draws some and shows where they differ"
        )
    else:
        say("it is one sample, one of many pictures that fit; --samples 8 adds more, their mean and where they differ")


def say_scores(scores: dict[str, dict[str, float]]) -> None:
    """A line per method."""
    for method, figures in scores.items():
        say(f"{method:>16}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))


def report_json(
    facts: dict[str, Any], outputs: list[str], seconds: float, calls: int, scores: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """The run as one JSON object; figures that are infinite or undefined become null."""
    return {
        **facts,
        "output": outputs[0],
        "outputs": outputs,
        "seconds": round(seconds, 3),
        "network_calls": calls,
        "scores": {
            method: {name: value if math.isfinite(value) else None for name, value in figures.items()}
            for method, figures in scores.items()
        },
    }


def json_text(report: dict[str, Any]) -> str:
    """A report in one line."""
    return json.dumps(report, allow_nan=False)


def print_json(
    facts: dict[str, Any],
    paths: list[Path],
    seconds: float,
    calls: int,
    scores: dict[str, dict[str, float]],
    certainty: dict[str, Any],
) -> None:
    """The run's JSON object, alone on stdout; ``certainty`` as from ``uncertainty_json``."""
    report = report_json(facts, [str(path) for path in paths], seconds, calls, scores) | certainty
    sys.stdout.write(json_text(report) + "\n")
    sys.stdout.flush()
