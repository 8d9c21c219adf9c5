"""The pictures that are meant by files, folders and globs, each with a name that tells it from the others."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from invsolve.errors import InputError, UsageError


class Picture(NamedTuple):
    """A file to work on, and its path, with slashes, within the folder or the glob that it was found by."""

    path: Path
    name: str

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.name).parent)

    def prefix(self, task: str) -> str:
        """What the names of all its results begin with, within the folder of the results."""
        path = PurePosixPath(self.name)
        return str(path.with_name(f"{path.stem}.{task}."))


def find_pictures(
    given: Sequence[str | Path], endings: Collection[str], *, without: Path | None = None
) -> list[Picture]:
    """The files that are meant, in the order of their names.

    Parameters
    ----------
    given : files; folders, which are taken with their sub-folders; and globs, of which ``**`` is any depth.
    endings : of the files that are taken from folders, in small letters; hidden ones are left out.
    without : a folder within those given that is left out, where the results go.

    Raises
    ------
    InputError : no such file, a folder or a glob without any.
    UsageError : a glob that leads out of its own folder.
    """
    found: dict[tuple[str, str], Picture] = {}
    for one in given:
        path = Path(one)
        if path.is_dir():
            pictures = list(_within(path, endings, without))
            if not pictures:
                raise InputError(f"no picture in {path}", hint=f"wanted files that end in {', '.join(sorted(endings))}")
        elif not path.exists() and glob.has_magic(str(one)):
            pictures = _matches(str(one), without)
            if not pictures:
                raise InputError(f"no file matches {str(one)!r}", hint="check the pattern; ** is any depth of folders")
        else:
            pictures = [Picture(path, path.name)]
        found |= {(picture.name, str(picture.path)): picture for picture in pictures}
    return [found[key] for key in sorted(found)]


def _within(root: Path, endings: Collection[str], without: Path | None) -> Iterator[Picture]:
    """The pictures of a folder and its sub-folders; links to folders are not followed."""
    avoided = None if without is None else os.path.realpath(without)
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [
            name for name in subfolders if not name.startswith(".") and os.path.realpath(Path(folder, name)) != avoided
        ]
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in endings and not name.startswith("."):
                yield Picture(path, path.relative_to(root).as_posix())


def _matches(pattern: str, without: Path | None) -> list[Picture]:
    """The files that a glob matches, named from the last folder on that its signs do not touch; ``**`` follows no links."""
    parts = Path(pattern).parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    root, rest = Path(*parts[:first]), parts[first:]
    if ".." in rest:
        raise UsageError(f"{pattern!r} goes up again with '..'", hint="give the folder that it leads to")
    avoided = None if without is None else Path(os.path.realpath(without))
    hidden = any(part.startswith(".") for part in rest)
    try:
        found = list(root.glob(str(PurePosixPath(*rest))))
    except ValueError as error:
        raise UsageError(f"{pattern!r} is no pattern: {error}", hint="wanted ** as a folder of its own") from None
    pictures = []
    for path in found:
        name = path.relative_to(root).as_posix()
        if path.is_dir() or (not hidden and any(part.startswith(".") for part in name.split("/"))):
            continue
        if avoided is None or avoided not in (Path(os.path.realpath(path.parent)) / "-").parents:
            pictures.append(Picture(path, name))
    return pictures
