"""Many pictures, one after the other, so that nothing is lost and nothing done twice: :func:`run_folder`.

What is done with a picture is a function of the caller's; what was done is kept in a manifest beside the results
(:mod:`invsolve.manifests`). Whoever is killed at whatever moment runs the same again, and it goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from invsolve.atomic import make_folder
from invsolve.errors import InputError, InvsolveError, OutputError, UsageError, first_line
from invsolve.files import regular_file
from invsolve.finding import Picture
from invsolve.manifests import (
    Journal,
    Manifest,
    Record,
    Shard,
    differences,
    join,
    locked,
    manifest_name,
    manifest_paths,
    newest,
    now,
    record_line,
    run_line,
    settings_hash,
)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


Work = Callable[[Picture, Path, bool], Sequence[Path]]
"""``work(picture, folder, force) -> outputs`` : writes one picture's results into ``folder``, whole or not at all, under names
that begin with ``<stem>.<task>.``; over older ones only if ``force``."""


class Failure(NamedTuple):
    """A picture that has no result, and why."""

    name: str
    reason: str


class Step(NamedTuple):
    """Where a run is: at the ``number``-th of ``total`` pictures, about to begin with it, or done, failed or not."""

    picture: Picture
    number: int
    total: int
    seconds_left: float | None  # None where no picture has been done yet
    ended: Record | None = None


@dataclass
class Outcome:
    """What a run did: the pictures it finished, those that were done before, those that failed, all by name."""

    done: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)


def run_folder(
    work: Work,
    pictures: Sequence[Picture],
    folder: Path,
    *,
    task: str,
    settings: Mapping[str, Any],
    beside: Callable[[Picture], Mapping[str, Path]] = lambda _: {},
    shard: Shard | None = None,
    force: bool = False,
    fail_fast: bool = False,
    tell: Callable[[Step], None] = lambda _: None,
) -> Outcome:
    """Do ``work`` for every picture that is not done yet, and keep in a manifest what was done.

    A picture is done if the manifest says so, with the same settings and the same content of its file and of those
    beside it, and if what was written is there. One that fails does not stop the others, unless the disk is full.
    Results of ``x/a.png`` go into the sub-folder ``x``. After an interrupt, which is raised, or a kill the same call goes on.

    Parameters
    ----------
    work : what is done with one picture.
    pictures : all of them, as from :func:`invsolve.finding.find_pictures`, for a shard as well.
    folder : where results and manifest go; made where it is not there.
    task : what is in the names of the results, such as "inpaint".
    settings : what decides on the results beside the picture, as JSON can hold it; "seed" is noted with every picture.
    beside : the files that go with a picture, such as ``{"mask": path}``; InputError where there is none.
    shard : do this share only. Shards run at once, and :func:`invsolve.manifests.merge_manifests` joins them.
    force : do all again, also over files that others made, and with other settings than before.
    fail_fast : stop at the first failure.
    tell : gets a :class:`Step` before and after every picture that is worked on.

    Raises
    ------
    UsageError : two pictures would have results of one name, results would lie among the pictures, or there are results
        of other settings; or the first picture's work raises one.
    InputError : a damaged manifest.
    OutputError : another run is writing there, the folder cannot be written, or the disk is full.
    """
    settings = json.loads(json.dumps(settings))  # as it will be read again
    _check_names(pictures, folder, task)
    make_folder(folder, hint="choose another place with -o")
    with locked(folder, shard):
        manifests = [Manifest.read(path) for path in manifest_paths(folder)]
        path, names = folder / manifest_name(shard), [picture.name for picture in pictures]
        if not force:
            _check_settings(folder, manifests, path, settings)
        if shard is None and manifests:
            join(folder, manifests, settings, names)
        with Journal(path) as journal:
            if shard is not None or not manifests:
                journal.append(run_line(settings, names))
            others = _Results.listed(folder, pictures, task)
            run = _Run(work, folder, task, settings, beside, force, journal, newest(manifests), others)
            outcome = run.all(pictures if shard is None else shard.of(pictures), fail_fast, tell)
    return outcome


@dataclass
class _Run:
    """A run within its lock."""

    work: Work
    folder: Path
    task: str
    settings: Mapping[str, Any]
    beside: Callable[[Picture], Mapping[str, Path]]
    force: bool
    journal: Journal
    known: Mapping[str, Record]
    others: _Results

    def all(self, pictures: Sequence[Picture], fail_fast: bool, tell: Callable[[Step], None]) -> Outcome:
        """First see what is done, which is quick, then do the rest."""
        outcome, wanted = Outcome(), []
        for picture in pictures:
            try:
                if self.is_done(picture):
                    outcome.before.append(picture.name)
                else:
                    wanted.append(picture)
            except InvsolveError as error:
                outcome.failed.append(Failure(picture.name, str(error)))
        first, started = len(pictures) - len(wanted), time.monotonic()
        for count, picture in enumerate(wanted):
            if fail_fast and outcome.failed:
                break
            left = (time.monotonic() - started) / count * (len(wanted) - count) if count else None
            step = Step(picture, first + count + 1, len(pictures), left)
            tell(step)
            ended = self.one(picture, sole=not outcome.done and not outcome.failed)
            if ended.error is None:
                outcome.done.append(picture.name)
            else:
                outcome.failed.append(Failure(picture.name, ended.error))
            tell(step._replace(ended=ended))
        self.journal.compact()
        return outcome

    def is_done(self, picture: Picture) -> bool:
        """Whether a picture needs no work.

        Raises
        ------
        InputError : it was another one when it was done, or cannot be read.
        OutputError : there is a result that nobody of ours made, or a link in its place.
        """
        before = self.known.get(picture.name)
        there = self.others.of(picture.prefix(self.task))
        if link := next((path for path in there if path.is_symlink()), None):
            raise OutputError(f"{link} is a symbolic link", hint="remove it: a result is written in its place")
        if self.force:
            return False
        if before is None or before.status == "failed":
            ours = self.ours(picture)
            if stranger := next((path for path in there if path.relative_to(self.folder).as_posix() not in ours), None):
                raise OutputError(f"{stranger} exists", hint="use --force to overwrite it, or -o for another folder")
            return False
        if before.status == "started" or before.settings != settings_hash(self.settings):
            return False  # killed on the way, or --force with new settings was: what is there is ours
        if not all((self.folder / output).is_file() for output in before.outputs):
            return False
        now_beside = {what: sha256_of(path, what) for what, path in self.beside(picture).items()}
        then_beside = {what: sha256 for what, (_, sha256) in before.beside.items()}
        for what, same in (
            (str(picture.path), sha256_of(picture.path) == before.sha256),
            (f"what goes with {picture.path}", now_beside == then_beside),
        ):
            if not same and not before.outputs:
                return False  # nothing was made of it, as of a picture without scratches
            if not same:
                raise InputError(
                    f"{what} has changed since {', '.join(before.outputs)} was made of it",
                    hint="remove that result to have it made again, or choose another folder with -o",
                )
        return True

    def ours(self, picture: Picture) -> Sequence[str]:
        """Results of a picture that earlier runs wrote, as the manifest says; all that are there, if a kill left them."""
        before = self.known.get(picture.name)
        if before is None:
            return ()
        if before.status != "started":
            return before.outputs
        return [path.relative_to(self.folder).as_posix() for path in self.others.of(picture.prefix(self.task))]

    def one(self, picture: Picture, *, sole: bool) -> Record:
        """Do one picture, and note it before and after.

        Raises
        ------
        UsageError : the work raised it, and the picture is the ``sole`` one so far: it holds for all of them.
        OutputError : the manifest cannot be written, or the disk is full.
        """
        started, ours = time.monotonic(), self.ours(picture)
        record = Record(
            picture.name, str(picture.path), "", settings_hash(self.settings), "failed", self.settings.get("seed"),
            outputs=ours,
        )  # fmt: skip
        try:
            files = self.beside(picture)
            marks = {what: [str(path), sha256_of(path, what)] for what, path in files.items()}
            record = replace(record, sha256=sha256_of(picture.path), beside=marks)
            target = self.folder / picture.folder
            make_folder(target, hint="choose another place with -o")
            self.note(replace(record, status="started"))
            written = self.work(picture, target, self.force or bool(ours))
            outputs = [path.relative_to(self.folder).as_posix() for path in written]
            record = replace(record, status="done", outputs=outputs)
        except Exception as error:
            record = replace(record, error=reason_of(error))
            if _is_full(error) or (sole and isinstance(error, UsageError)):
                with contextlib.suppress(OutputError):
                    self.note(record)
                raise
        return self.note(replace(record, seconds=round(time.monotonic() - started, 3)))

    def note(self, record: Record) -> Record:
        record = replace(record, when=now())
        self.journal.append(record_line(record))
        return record


class _Results(NamedTuple):
    """What lies in the folder of the results when a run begins, as sorted paths within it."""

    folder: Path
    names: list[str]
    prefixes: list[str]  # of all pictures, sorted

    @classmethod
    def listed(cls, folder: Path, pictures: Sequence[Picture], task: str) -> _Results:
        names: list[str] = []
        for part in sorted({picture.folder for picture in pictures}):
            if (folder / part).is_dir():
                names += [str(PurePosixPath(part, path.name)) for path in (folder / part).iterdir()]
        return cls(folder, sorted(names), sorted(picture.prefix(task) for picture in pictures))

    def of(self, prefix: str) -> list[Path]:
        """Results of the picture of this prefix; not those of one of a longer name, as ``a.inpaint.png`` is to ``a.png``."""
        longer = [other for other in _starting(self.prefixes, prefix) if other != prefix]
        mine = [name for name in _starting(self.names, prefix) if not name.startswith(tuple(longer))]
        return [self.folder / name for name in mine]


def _starting(names: Sequence[str], prefix: str) -> list[str]:
    """Those of sorted ``names`` that start with it."""
    first = last = bisect_left(names, prefix)
    while last < len(names) and names[last].startswith(prefix):
        last += 1
    return list(names[first:last])


def sha256_of(path: Path, what: str = "picture") -> str:
    """
    Raises
    ------
    InputError : no file that can be read.
    """
    try:
        with regular_file(path, what).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="copy it again from the original") from None


def reason_of(error: BaseException) -> str:
    """An error in a line."""
    return str(error) if isinstance(error, InvsolveError) else f"{type(error).__name__}: {first_line(error)}"


def _is_full(error: BaseException | None) -> bool:
    """Whether an error comes of a disk that is full, which no other picture would do better on."""
    while error is not None and not (isinstance(error, OSError) and error.errno in FULL):
        error = error.__cause__ or error.__context__
    return error is not None


def _check_names(pictures: Sequence[Picture], folder: Path, task: str) -> None:
    """Raise a UsageError where results would have the same name, or lie among the pictures."""
    owners: dict[str, Picture] = {}
    for picture in pictures:
        other = owners.setdefault(picture.prefix(task), picture)
        if other is not picture:
            raise UsageError(
                f"{other.path} and {picture.path} would have the same name in {folder}",
                hint="rename one; or give the folder above them, or a quoted glob, which keeps folders apart",
            )
    target = os.path.realpath(folder)
    among = next((picture for picture in pictures if os.path.realpath(picture.path.parent) == target), None)
    if among is not None:
        raise UsageError(f"the results would lie beside {among.path}", hint="choose another folder with -o")


def _check_settings(folder: Path, manifests: Sequence[Manifest], own: Path, settings: Mapping[str, Any]) -> None:
    """Raise a UsageError where what is there has other settings; those that --force brought in are this run's own."""
    for manifest in sorted(manifests, key=lambda manifest: manifest.path != own):
        if manifest.settings and settings_hash(manifest.settings) != settings_hash(settings):
            raise UsageError(
                f"{folder} holds results of other settings: {differences(manifest.settings, settings)}",
                hint="choose another folder with -o, or --force to do all of them again",
            )
        if manifest.path == own and manifest.settings:
            return
