"""The one way files are written: a whole set or nothing, never half a file, never over something by halves.

Every file is staged beside its target. Only when all are complete do they take their names, which is a matter of
milliseconds: an error there puts back what was replaced, and Ctrl-C waits. Killed outright in those milliseconds, a set
lacks its ``last`` file, the mark that it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import platform
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO

from invsolve.errors import OutputError

Content = bytes | Callable[[IO[bytes]], None]
"""What goes into a file: its bytes, or a function that writes them."""

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_STAGED = f".invsolve-{_HOST}-"


_absent: set[Path] = set()
"""Files that were not there when a run was allowed to make them."""


def expect_absent(paths: Iterable[Path], *, anyway: bool = False) -> None:
    """Remember which files are not there yet: :func:`write_files` will not put its own in the place of one that somebody else
    makes meanwhile, unless ``anyway``."""
    for path in paths:
        target = Path(os.path.realpath(path))
        if anyway or target.exists():
            _absent.discard(target)
        else:
            _absent.add(target)


def write_files(files: Mapping[Path, Content], *, last: Path | None = None) -> None:
    """Write all of ``files``, or leave everything as it was.

    Parameters
    ----------
    files : what goes where; the folders exist. A symbolic link is written through.
    last : the one of ``files`` that marks the set as whole: an old one goes first, the new one comes last.

    Raises
    ------
    OutputError : a file cannot be written, the disk is full; what was there before is there still. Or one that was expected to
        be absent is not: all of ``files`` then have names beside it.
    """
    for folder in {path.parent for path in files}:
        sweep(folder)
    staged: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            target = Path(os.path.realpath(path))
            staged[target] = _staging_name(target.parent)
            with _create(staged[target]) as file:
                content(file) if callable(content) else file.write(content)
                file.flush()
                os.fsync(file.fileno())
        mark = None if last is None else Path(os.path.realpath(last))
        with uninterrupted():
            theirs = sorted(target for target in staged if target in _absent and target.exists())
            names = _free_names(staged) if theirs else {target: target for target in staged}
            _take_names({names[target]: file for target, file in staged.items()}, names.get(mark) if mark else None)
        _absent.difference_update(staged)
        if theirs:
            raise OutputError(
                f"{theirs[0]} was made by another program meanwhile, and is left as it is",
                hint=f"the results of this run are there as well: {', '.join(path.name for path in names.values())}",
            )
    except OSError as error:
        reason = error.strerror or str(error)
        where = next(iter(files)) if len(files) == 1 else next(iter(files)).parent
        raise OutputError(
            f"cannot write {where}: {reason}", hint="free some space, or choose another place for the result"
        ) from None
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed runs of this machine staged in ``folder`` and never named."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_STAGED}*.part"):
            number = path.name.removeprefix(_STAGED).partition("-")[0]
            if number.isdigit() and not _alive(int(number)):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C and a request to terminate off until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    waiting: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        waiting.append(number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {
        number: signal.signal(number, note) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def _take_names(staged: Mapping[Path, Path], mark: Path | None) -> None:
    """Rename every staged file to its target, the mark at the end; on an error put everything back."""
    kept: dict[Path, Path] = {}
    named: list[Path] = []
    try:
        for target in staged:
            if target.is_dir():
                raise IsADirectoryError(0, f"{target} is a folder")
            if target.exists():
                kept[target] = _staging_name(target.parent)
                _keep(target, kept[target])
        if mark is not None:
            named.append(mark)
            mark.unlink(missing_ok=True)
        for target in sorted(staged, key=lambda path: path == mark):
            named.append(target)
            staged[target].replace(target)
    except OSError:
        for target in dict.fromkeys(named):
            if target in kept:
                kept[target].replace(target)
            else:
                target.unlink(missing_ok=True)
        raise
    finally:
        for backup in kept.values():
            backup.unlink(missing_ok=True)


def _free_names(targets: Iterable[Path]) -> dict[Path, Path]:
    """For each of a set of files a name beside it that is free, with one number for all: ``a-2.png``."""
    for number in itertools.count(2):
        names = {target: target.with_name(f"{target.stem}-{number}{target.suffix}") for target in targets}
        if not any(name.exists() or name.is_symlink() for name in names.values()):
            return names
    raise AssertionError("numbers have no end")


def _keep(target: Path, backup: Path) -> None:
    """A second name for ``target``, or a copy where the file system has no such thing."""
    try:
        os.link(target, backup)
    except OSError:
        shutil.copy2(target, backup)


def _staging_name(folder: Path) -> Path:
    """A name of its own for this process; short, because the target's may be as long as names can be."""
    return folder / f"{_STAGED}{os.getpid()}-{secrets.token_hex(6)}.part"


def _create(path: Path) -> IO[bytes]:
    """A new file with the permissions that a user's other files get."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666), "wb")


def _alive(process: int) -> bool:
    """Whether a process of this number runs; where that cannot be told, it is taken to."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def make_folder(folder: Path, hint: str = "choose another place") -> None:
    """Create a folder for results, if it is not there yet.

    Raises
    ------
    OutputError : it cannot be made; ``hint`` says what to do about it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        files = [one for one in (folder, *folder.parents) if os.path.lexists(one) and not one.is_dir()]
        reason = f"{files[0]} is no folder" if files else error.strerror or str(error)
        raise OutputError(f"cannot make the folder {folder}: {reason}", hint=hint) from error
