"""A folder of files through a cluster: one task a file, a result written for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from invsolve.atomic import Content, make_folder, write_files
from invsolve.distributed.bounded import Note, bounded
from invsolve.distributed.resident import Prior, Resident, resident, settled
from invsolve.errors import InvsolveError, UsageError
from invsolve.models.score_model import ScoreModel
from invsolve.tasks.task import Progress

if TYPE_CHECKING:
    from distributed import Client, Future

Function = Callable[[Path, ScoreModel], Content]
"""What is done with a file: from its path and the prior to the content of the result, bytes or a function that writes it,
such as ``posterior.write``."""


class Mapped(NamedTuple):
    """What became of the files, by their paths."""

    written: dict[Path, Path]  # results of this run
    skipped: dict[Path, Path]  # results that were there
    failed: dict[Path, InvsolveError]


@dataclass(frozen=True)
class FileJob:
    """What every file's task needs to know."""

    function: Function


def map_files(
    client: Client,
    function: Function,
    files: Iterable[str | Path],
    output: str | Path,
    *,
    ending: str = ".npz",
    prior: Prior = "photos",
    device: str = "auto",
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    note: Note = lambda sentence: None,
) -> Mapped:
    """Run ``function(path, prior)`` for every file on a Dask cluster, and write what it returns into a folder.

    A worker loads the prior once, works at one file at a time, with its share of the cores, and writes the result whole or
    not at all. Files whose result is there are skipped, so that a run that was stopped goes on. A file that cannot be done
    does not stop the others. The function takes its randomness from seeds it is given or makes from the path, as
    :func:`invsolve.denoise` and the other tasks do; then a file that is tried again comes out the same.

    Parameters
    ----------
    client : of any cluster, whose workers have this package and see the files and ``output`` under the same paths.
    function : see :data:`Function`; sent to the workers by pickle, a function of a script by value.
    files : with names that differ in more than their endings.
    output : folder of the results, ``name`` + ``ending`` for ``name.jpg``; made where it is not there.
    ending : of the results, such as ``.png``.
    prior, device, threads : as for :func:`invsolve.distributed.map_slices`.
    force : do files again whose result is there.
    progress : called with the share of the files that are done.
    note : called with sentences for a person.

    Raises
    ------
    UsageError : two files would have the same result.
    OutputError : the folder cannot be made.
    ModelError : the prior, or this package on the workers, is missing.
    SolveError : the scheduler is gone.
    """
    sources = [Path(file).absolute() for file in files]
    folder = Path(output).absolute()
    targets = [folder / f"{source.stem}{ending}" for source in sources]
    for number, target in enumerate(targets):
        first = targets.index(target)
        if first != number:
            raise UsageError(
                f"{sources[first]} and {sources[number]} would both become {target.name}", hint="rename one of them"
            )
    make_folder(folder, hint="choose another")
    mapped = Mapped({}, {}, {})
    there = [number for number, target in enumerate(targets) if target.exists() and not force]
    mapped.skipped.update((sources[number], targets[number]) for number in there)
    kept = Resident(prior, device, threads, FileJob(function))

    def submit(number: int) -> Future[Any]:
        future: Future[Any] = client.submit(solve_file, sources[number], targets[number], kept.name, pure=False)
        return future

    def failed(number: int, error: InvsolveError) -> None:
        mapped.failed[sources[number]] = error
        tell()

    def tell() -> None:
        if progress is not None:
            progress(sum(len(part) for part in mapped) / len(sources))

    missing = [number for number in range(len(sources)) if number not in set(there)]
    with settled(client, kept):
        for number, _ in bounded(
            client, submit, missing, note=note, failed=failed, describe=lambda n: str(sources[n])
        ):  # fmt: skip
            mapped.written[sources[number]] = targets[number]
            tell()
    return mapped


def solve_file(source: Path, target: Path, name: str) -> None:
    """On a worker: do a file, and write the result."""
    kept: Any = resident(name)
    with kept.at_work():
        write_files({target: kept.job.function(source, kept.loaded)})
