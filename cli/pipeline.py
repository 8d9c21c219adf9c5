"""The course of every command that solves: read, plan, solve, summarize, write. A command adds what is its own.

A command declares its own options and takes the rest as one :class:`Common`; it makes a :class:`PictureJob` from its
input and hands it to :func:`run_pictures`.
"""

from __future__ import annotations

import functools
import sys
import time
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from invsolve.cli.budget import keep_to_budget, say_pace
from invsolve.cli.common import Common
from invsolve.cli.console import clean_stdout, progress_bar, reporting, say
from invsolve.cli.dry_run import announce_time, files_among, plan_text
from invsolve.cli.files import (
    Photo,
    check_apart,
    check_writable,
    encode_picture,
    output_path,
    provenance,
    read_picture,
)
from invsolve.cli.formats import Encoding, check_format, default_endings, format_of, is_lossy, kept_type
from invsolve.cli.memory import keep_to_memory
from invsolve.cli.metadata import resized_exif
from invsolve.cli.report import report_path, write_page
from invsolve.cli.report_pages import picture_page
from invsolve.cli.results import (
    ResultPaths,
    check_diagnostics,
    encode_results,
    encode_trace,
    print_json,
    say_results,
    say_scores,
    std_picture,
)
from invsolve.cli.streams import shown
from invsolve.cli.uncertainty import check_interval, say_uncertainty, uncertainty_json
from invsolve.errors import InputError
from invsolve.pictures import Pixels, channels_last, to_pixels

if TYPE_CHECKING:
    from invsolve.posterior import Posterior
    from invsolve.pretrained.network_prior import NetworkPrior
    from invsolve.summary import Summary
    from invsolve.tasks.task import Task

Scores = dict[str, dict[str, float]]
T = TypeVar("T")


class Solved(NamedTuple):
    """A task's posterior, and all that is said of it."""

    prior: NetworkPrior
    posterior: Posterior
    summary: Summary
    seconds: float
    facts: dict[str, Any]  # provenance


def solve_task(
    task: Task,
    prior: NetworkPrior,
    common: Common,
    *,
    most: int | None = None,
    photo: Photo | None = None,
    **facts: Any,
) -> Solved:
    """Find the calibration, estimate the time, solve with a progress bar, and summarize.

    ``photo`` : what the task is about, where memory is limited. ``most`` : samples that are split into what was measured and
    what was not, where that is work; ``facts`` go into the provenance of every file.
    """
    from invsolve.pretrained.calibrations import find_scaling
    from invsolve.summary import summarize

    wanted = common.solve_options(task)
    if photo is not None:
        wanted = keep_to_memory(common.memory, task, prior, wanted, photo)
    scaling = find_scaling(common.calibration, task.name, task.problem, prior.card.sha256, wanted)
    if scaling.warning:
        say(f"warning: {scaling.warning}")
    if wanted.pace is None:
        announce_time(task, prior, wanted)
    started = time.perf_counter()
    with progress_bar(*["region {task.fields[region]} of " + str(len(task.ends))] * (len(task.ends) > 1)) as bar:
        running = bar.add_task(task.name, total=1.0, region=1)

        def show(done: float) -> None:
            bar.update(running, completed=done, region=min(bisect(task.ends, done) + 1, len(task.ends)))

        posterior = task.solve(prior, wanted, progress=reporting(show))
    seconds = time.perf_counter() - started
    say_pace(wanted.pace)
    summary = summarize(
        posterior, task.operator, task.determined(), scaling=scaling, most=most, open_values=task.open_values,
        share=task.share, white=task.white,
    )  # fmt: skip
    made = provenance(
        task=task.name, **facts, model=prior.card.name, model_sha256=prior.card.sha256, seed=wanted.seed,
        samples=wanted.samples, device=str(prior.device), **posterior.settings,
    )  # fmt: skip
    return Solved(prior, posterior, summary, seconds, made)


def score_pixels(truth: Pixels, candidates: Mapping[str, Pixels]) -> Scores:
    """PSNR in dB and SSIM of each picture."""
    from invsolve.evaluation.metrics import score

    return {name: score(truth, candidate) for name, candidate in candidates.items()}


@functools.lru_cache(maxsize=1)
def prior_of(model: str, device: str, patches: bool) -> NetworkPrior:
    """A prior, loaded once for all pictures of a command, which forgets it when it begins and ends."""
    from invsolve.pretrained.loading import load_prior

    return load_prior(model, device, patches=patches)


@dataclass(frozen=True)
class PictureJob:
    """What a picture command adds to the common course.

    Parameters
    ----------
    task : what was measured.
    about : a line on it, for the start.
    facts : what its files' provenance says beside the common facts.
    finish : from a result (H, W, C) of real numbers to pixels; by default rounded to as many bits as the input has.
    opaque : pixels that are no longer transparent, where the file has transparency.
    keep_profile : whether the input's colour profile still describes the result.
    judge : scores of candidates against the truth, by name.
    keeps_pixels : whether some pixels are the input's.
    place : from grey (H', W') of a result's size to the picture's, where the task's posterior holds a part of it.
    check : of the first result as it is written, a line on how it fits the measurement, and the same as figures.
    """

    task: Task
    about: str
    facts: dict[str, Any]
    finish: Callable[[npt.NDArray[np.floating]], Pixels] | None = None
    opaque: npt.NDArray[np.bool_] | None = None
    keep_profile: bool = True
    judge: Callable[[Pixels, Mapping[str, Pixels]], Scores] = score_pixels
    keeps_pixels: bool = False
    place: Callable[[Pixels], Pixels] | None = None
    check: Callable[[Pixels], tuple[str, dict[str, float]]] | None = None


def run_pictures(
    name: str,
    source: Path,
    photo: Photo,
    common: Common,
    reference: Pixels | None,
    make: Callable[[], PictureJob],
    *,
    squares: bool = False,
    also: Sequence[str | None] = (),
) -> list[Path]:
    """From a photograph and what was asked to the files, which are returned, lines and JSON of a picture command.

    ``make`` is called once all that can be checked without torch is checked; ``squares`` as for :meth:`Common.in_patches`;
    ``also`` are values of options that may be files that are read.
    """
    patches = common.in_patches(name, squares)
    result = output_path(common.output, source, name, common.endings(photo.pixels.dtype))
    check_format(result, photo.pixels.shape[1], photo.pixels.shape[0], common.quality)
    if common.budget is not None:
        check_writable([result], force=common.force, make=not common.dry_run)
        common, make = with_budget(common, make, photo, patches)
    check_interval(common.wants_interval, common.samples)
    paths = ResultPaths.plan(result, common.samples, interval=common.wants_interval)
    outputs = [*paths.all, *check_diagnostics(common.diagnostics, paths.all)]
    page = report_path(common.report, result, outputs)
    outputs += page
    check_writable(outputs, force=common.force, make=not common.dry_run)
    with clean_stdout() as restored:
        from invsolve.tasks.task import check_colour_prior

        job = make()
        reads = files_among([source, common.truth, common.calibration, *dict.fromkeys([*job.facts.values(), *also])])
        check_apart(outputs, reads, common.output)
        prior = prior_of(common.model, common.device, patches)
        check_colour_prior(prior)
        if common.dry_run:
            plan = plan_text(f"{name} {source.name}", job.about, reads, outputs, common, job.task, prior)
            restored()
            sys.stdout.write(plan)
            return []
        say(f"{source.name}: {job.about}, on {prior.device}")
        solved = solve_task(job.task, prior, common, photo=photo, input=shown(source), **job.facts)
        finish = job.finish or functools.partial(to_pixels, dtype=photo.pixels.dtype)
        pictures = Finished(lambda x: finish(channels_last(x[0])), solved.posterior.samples)
        mean, std = None, None
        if len(pictures) > 1:
            mean, std = (
                finish(channels_last(solved.posterior.mean[0])),
                std_picture(channels_last(solved.posterior.std[0])),
            )
            std = job.place(std) if job.place else std
        bounds = None
        if common.wants_interval and solved.summary.interval:
            ends = (solved.summary.interval.low, solved.summary.interval.high)
            bounds = [finish(channels_last(end[0])) for end in ends]
        fit, figures = job.check(pictures[0]) if job.check else ("", {})
        solved.facts.update(figures)
        write_pictures(paths, job, photo, common, solved, pictures, mean, std, bounds)
        say_results(paths, solved.seconds, solved.posterior.network_calls, sampler=solved.posterior.settings["sampler"])
        if fit:
            say(fit)
        say_uncertainty(solved.summary, unit="of the range", interval=common.wants_interval)
        say_loss(result, photo.pixels.dtype, common.quality, keeps_pixels=job.keeps_pixels)
        say(", ".join(f"{key} {value}" for key, value in solved.posterior.settings.items()), level=1)
        scores: Scores = {}
        compared = candidates(job.task, pictures, mean, photo.pixels.dtype) if page or reference is not None else {}
        if reference is not None:
            scores = job.judge(reference, compared)
            say_scores(scores)
        if page:
            about = f"{name}: {source.name}"
            found = picture_page(
                about, photo, job.about, solved, pictures, mean, std, bounds or (), compared, scores, reference
            )
            write_page(page[0], found)
    if common.as_json:
        certainty = uncertainty_json(solved.summary)
        print_json(solved.facts, outputs, solved.seconds, solved.posterior.network_calls, scores, certainty)
    return outputs


class Finished(Sequence[Any]):
    """What ``finish`` makes of each of ``parts``, made anew whenever it is asked for: large pictures are held one at a time."""

    def __init__(self, finish: Callable[[Any], Any], parts: Any) -> None:
        self.finish, self.parts = finish, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.finish(self.parts[number])


def say_loss(path: Path, dtype: np.dtype[Any], quality: int | None, *, keeps_pixels: bool) -> None:
    """A line where a file of this name holds less than the input did."""
    kept, better = kept_type(path, dtype), default_endings(dtype)[0]
    if kept != dtype:
        say(f"{format_of(path)} has {8 * kept.itemsize} bits a channel, the input {8 * dtype.itemsize}: "
            f"name a {better} file to keep them")  # fmt: skip
    elif keeps_pixels and is_lossy(path, quality):
        say(f"{format_of(path)} changes known pixels a little; name a {better} file to keep them bit for bit")


def candidates(task: Task, pictures: Sequence[Pixels], mean: Pixels | None, dtype: npt.DTypeLike) -> dict[str, Pixels]:
    """The classical estimates, rounded to ``dtype`` as a file would be, one sample and the mean, by name."""
    found = {name: to_pixels(picture, dtype) for name, picture in task.baselines().items()}
    found["invsolve sample"] = pictures[0]
    if mean is not None:
        found[f"mean of {len(pictures)}"] = mean
    return found


def write_pictures(
    paths: ResultPaths,
    job: PictureJob,
    photo: Photo,
    common: Common,
    solved: Solved,
    pictures: Sequence[Pixels],
    mean: Pixels | None,
    std: Pixels | None,
    bounds: list[Pixels] | None,
) -> None:
    """Write samples, mean, standard deviation, bounds and the picture of the run: all or nothing."""
    from invsolve.atomic import write_files

    mean = None if mean is None else photo.with_alpha(mean, opaque=job.opaque)
    files = encode_results(
        paths,
        Finished(lambda picture: photo.with_alpha(picture, opaque=job.opaque), pictures),
        solved.posterior.seeds,
        mean,
        std,
        solved.facts,
        Encoding(
            photo.icc_profile if job.keep_profile else None,
            resized_exif(photo.exif, photo.pixels.shape[1], photo.pixels.shape[0]),
            common.quality,
        ),
        bounds and [photo.with_alpha(bound, opaque=job.opaque) for bound in bounds],
    )
    if common.diagnostics is not None:
        files[common.diagnostics] = encode_trace(solved.summary.diagnostics, common.diagnostics, solved.facts)
    write_files(files, last=paths.result)


def seconds_to_write(photo: Photo, quality: int | None) -> float:
    """What a picture like this one takes to encode."""
    started = time.perf_counter()
    encode_picture(photo.pixels, Path("sample.png"), {}, Encoding(quality=quality))
    return time.perf_counter() - started


def with_budget(
    common: Common, make: Callable[[], PictureJob], photo: Photo, patches: bool
) -> tuple[Common, Callable[[], PictureJob]]:
    """What the budget buys, and what gives the job, which had to be made for that."""
    single = common.output is not None and shown(common.output) == "-"
    with clean_stdout():
        job, prior = make(), prior_of(common.model, common.device, patches)
        writing = seconds_to_write(photo, common.quality)
        common, task = keep_to_budget(common, job.task, prior, writing=writing, single=single)
    return common, functools.partial(replace, job, task=task)


def read_truth(path: Path | None, shape: tuple[int, ...], what: str, hint: str) -> Pixels | None:
    """The true picture, of the same size and kind as the result; None where none was named."""
    if path is None:
        return None
    truth = read_picture(path, what)
    if truth.shape != shape:
        raise InputError(f"--truth has shape {truth.shape}, wanted {shape}", hint=hint)
    return truth
