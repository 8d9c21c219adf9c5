"""What was done with a folder of pictures: a manifest that survives whatever kills the run, and the lock beside it.

A manifest is a file of JSON lines in the folder of the results. A line with ``pictures`` begins a run; every other is a
:class:`Record` of one picture, and of one picture's records the newest counts. Lines are appended whole, and synced to disk;
a torn last line, which a crash can leave, counts for nothing. A finished run has one line per picture. Of a run in shards
each has a manifest of its own, until :func:`merge_manifests` joins them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar

from invsolve.atomic import write_files
from invsolve.errors import InputError, InvsolveError, OutputError, UsageError, first_line

WHOLE = "manifest.jsonl"
_PART = re.compile(r"manifest-(\d+)-of-(\d+)\.jsonl")
_PART_LOCK = re.compile(r"\.manifest-(\d+)-of-(\d+)\.lock")

PATIENCE = 5.0
"""Seconds to wait for a lock that another run may hold for a moment only, to see whether it is free."""

T = TypeVar("T")
Status = Literal["started", "done", "failed"]


@dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``count`` shares of a list, ``index`` from 1: every ``count``-th of its pictures."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``3/8``; ``0/8`` is ``8/8``, so that counting from 0 gives every share as well.

        Raises
        ------
        UsageError : it is no such thing.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not found or not int(found[2]) >= 1 or int(found[1]) > int(found[2]):
            raise UsageError(f"--shard {text!r}", hint="wanted I/N, such as 3/8: the third of eight shares")
        index, count = int(found[1]), int(found[2])
        return cls(index or count, count)

    def of(self, things: Sequence[T]) -> Sequence[T]:
        return things[self.index - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Record:
    """What became of one picture.

    Parameters
    ----------
    name : its path within the folder that was given, with slashes: what tells it from the others.
    input : its path as it was given.
    sha256 : of its content.
    beside : files that go with it, such as its mask: what it is -> [path, sha256].
    outputs : what was written, as paths within the folder of the results, with slashes.
    settings : hash of the settings, as from :func:`settings_hash`.
    seconds : that it took.
    error : why it failed.
    when : the end of it, or the start where it has not ended; UTC, ISO 8601.
    """

    name: str
    input: str
    sha256: str
    settings: str
    status: Status
    seed: int | None = None
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    seconds: float | None = None
    error: str | None = None
    when: str = ""

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> Record:
        """From a line of JSON; a ValueError where it is no record, or names files outside the folder."""
        record = cls(**{**line, "outputs": tuple(line.get("outputs", ()))})
        texts = (record.name, record.input, record.sha256, record.settings, record.when, *record.outputs)
        if not all(isinstance(text, str) for text in texts) or record.status not in ("started", "done", "failed"):
            raise ValueError("a field of the wrong type")
        for path in (PurePosixPath(record.name), *map(PurePosixPath, record.outputs)):
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{path} lies outside the folder")
        return record


@dataclass
class Manifest:
    """A manifest's file as it is; ``settings`` and ``pictures`` are those of its newest run."""

    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """
        Raises
        ------
        InputError : a line, other than a torn last one, is none of a manifest; or it is a link, a folder or a pipe.
        """
        found = cls(path)
        if path.is_symlink() or not path.is_file():  # what a run appends would go elsewhere, and a pipe never ends
            raise InputError(f"{path} is a link, a folder or a pipe", hint="remove it, or choose another folder")
        try:
            *lines, _torn = path.read_bytes().split(b"\n")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from None
        for number, text in enumerate(lines, 1):
            try:
                line = json.loads(text)
                if "pictures" in line:
                    found.settings, found.pictures = dict(line["settings"]), list(line["pictures"])
                else:
                    record = Record.read(line)
                    found.records[record.name] = record
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise InputError(
                    f"line {number} of {path} is damaged: {first_line(error)}",
                    hint="remove that line; its picture is then done again, with --force if its result is there",
                ) from None
        return found

    def text(self) -> bytes:
        """The same as a file of one line per picture."""
        order = {name: number for number, name in enumerate(self.pictures)}
        records = sorted(self.records.values(), key=lambda record: (order.get(record.name, len(order)), record.name))
        return run_line(self.settings, self.pictures) + b"".join(map(record_line, records))


def settings_hash(settings: Mapping[str, Any]) -> str:
    """The first 16 digits of the SHA-256 of settings as JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def run_line(settings: Mapping[str, Any], pictures: Sequence[str]) -> bytes:
    """The line that begins a run over ``pictures``, which are all, not a shard's alone."""
    run = {"pictures": list(pictures), "settings": dict(settings), "settings_hash": settings_hash(settings)}
    return json.dumps(run).encode() + b"\n"


def record_line(record: Record) -> bytes:
    return json.dumps(asdict(record)).encode() + b"\n"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def manifest_name(shard: Shard | None) -> str:
    return WHOLE if shard is None else f"manifest-{shard.index}-of-{shard.count}.jsonl"


def manifest_paths(folder: Path) -> list[Path]:
    """The manifests in a folder: that of all, and those of shards."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - names are all that is wanted
    return [folder / name for name in names if name == WHOLE or _PART.fullmatch(name)]


def newest(manifests: Iterable[Manifest]) -> dict[str, Record]:
    """Of every picture the record that counts."""
    found: dict[str, Record] = {}
    for manifest in manifests:
        for name, record in manifest.records.items():
            if name not in found or record.when >= found[name].when:
                found[name] = record
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any], *, now: str = "now ") -> str:
    """In which settings two runs differ, in words: ``seed 0, now 1``."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return "; ".join(f"{name} {before.get(name, 'not given')}, {now}{after.get(name, 'not given')}" for name in names)


class Journal:
    """A manifest opened to append lines to it, each with one write, synced to disk; an old torn line goes first.

    Raises
    ------
    OutputError : it cannot be written; what stands in it stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reported():
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            content = path.read_bytes()
            self._whole = content.rfind(b"\n") + 1
            if self._whole < len(content):
                os.ftruncate(self._file, self._whole)

    def append(self, line: bytes) -> None:
        with self._reported():
            try:
                written = os.write(self._file, line)
                if written < len(line):  # a disk that was full in the middle of it
                    raise OSError(28, "no space left on device")
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, self._whole)
                raise
            self._whole += written

    def compact(self) -> None:
        """Leave one line per picture; where that cannot be written, the manifest is as good as it was."""
        with contextlib.suppress(InvsolveError):
            write_files({self.path: Manifest.read(self.path).text()})

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}",
                hint="free some space, and run the same command again: it goes on from there",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)


@contextlib.contextmanager
def locked(folder: Path, shard: Shard | None) -> Iterator[None]:
    """Keep other runs out of a folder of results: all of them, or, for a shard, all but the other shards.

    The system frees the lock when the process ends, however it ends.

    Raises
    ------
    OutputError : another run has it.
    """
    import filelock

    busy = OutputError(
        f"another run is writing into {folder}", hint="wait until it has ended, or choose another folder with -o"
    )

    def lock(name: str, seconds: float) -> Any:
        try:
            return filelock.FileLock(folder / name).acquire(timeout=seconds)
        except filelock.Timeout:
            raise busy from None
        except OSError as error:
            raise OutputError(
                f"cannot lock {folder}: {error.strerror or error}", hint="choose another place with -o"
            ) from None

    whole = f".{WHOLE.removesuffix('.jsonl')}.lock"
    own = whole if shard is None else f".{manifest_name(shard).removesuffix('.jsonl')}.lock"
    with lock(own, 1.0 if shard is None else 0.0):
        others = [whole] if shard is not None else []
        for name in sorted(os.listdir(folder)):  # noqa: PTH208
            if (part := _PART_LOCK.fullmatch(name)) and (shard is None or int(part[2]) != shard.count):
                others.append(name)
        for name in others:
            with lock(name, PATIENCE if name == whole else 0.0):
                pass
        yield


class Merged(NamedTuple):
    """What the manifests of a folder say together; complete where nothing is ``missing`` and nothing ``failed``."""

    pictures: list[str]
    shards: int
    missing: list[str]
    failed: list[Record]


def merge_manifests(folder: Path) -> Merged:
    """Join the manifests of all shards into one, if they are complete; otherwise leave them, and say what is missing.

    A picture is missing where no run has finished it, or where a file that it wrote is gone.

    Raises
    ------
    InputError : there is no manifest; shards of different runs, with different settings, or of different pictures.
    OutputError : a run is still writing.
    """
    if not manifest_paths(folder):
        raise InputError(f"no manifest in {folder}", hint="give the folder that was -o of the shards")
    with locked(folder, None):
        manifests = [Manifest.read(path) for path in manifest_paths(folder)]
        parts = {found[0]: int(found[2]) for m in manifests if (found := _PART.fullmatch(m.path.name))}
        whole = _checked([m for m in manifests if m.path.name in parts] or manifests, set(parts.values()))
        records, wanted = newest(manifests), settings_hash(whole.settings)
        missing, failed = [], []
        for name in whole.pictures:
            record = records.get(name)
            if record is None or record.status == "started" or record.settings != wanted:
                missing.append(name)
            elif record.status == "failed":
                failed.append(record)
            elif not all((folder / output).exists() for output in record.outputs):
                missing.append(name)
        if not missing and not failed and parts:
            join(folder, manifests, whole.settings, whole.pictures)
    return Merged(whole.pictures, max(parts.values(), default=0), missing, failed)


def join(folder: Path, manifests: Sequence[Manifest], settings: Mapping[str, Any], pictures: Sequence[str]) -> Manifest:
    """Write one manifest in the place of all; whoever is killed on the way leaves records twice, which does no harm."""
    whole = Manifest(folder / WHOLE, dict(settings), list(pictures), newest(manifests))
    write_files({whole.path: whole.text()})
    for manifest in manifests:
        if manifest.path != whole.path:
            manifest.path.unlink(missing_ok=True)
    return whole


def _checked(manifests: Sequence[Manifest], counts: set[int]) -> Manifest:
    """The first of manifests that agree on the number of shards, the settings and the pictures."""
    folder = manifests[0].path.parent
    if len(counts) > 1:
        raise InputError(
            f"{folder} has shards of {' and of '.join(map(str, sorted(counts)))}",
            hint="run the whole without --shard: it does what is missing, and joins them",
        )
    first = manifests[0]
    for other in manifests[1:]:
        if different := differences(first.settings, other.settings, now=f"in {other.path.name} "):
            raise InputError(
                f"the settings differ: {different} (the other is {first.path.name}'s)",
                hint="run the shards that are wrong again, with --force",
            )
        if apart := sorted(set(first.pictures) ^ set(other.pictures)):
            raise InputError(
                f"{first.path.name} and {other.path.name} are of different pictures, such as {apart[0]}",
                hint="pictures were added or removed meanwhile: run all shards again, they do only what is missing",
            )
    return first
