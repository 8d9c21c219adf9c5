"""Files that were dropped on the page: taken in up to a limit, looked at once, kept until the page ends."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from invsolve.errors import InputError, InvsolveError, UsageError

Kind = Literal["picture", "mask", "hints", "sinogram", "geometry"]
KINDS: tuple[str, ...] = get_args(Kind)

LARGEST_UPLOAD = 2**28
"""Bytes of one file."""

MOST_PIXELS = 50_000_000
"""Pixels of one picture: a canvas, and a prior, take no more in reasonable time."""

MOST_UPLOADS = 40
"""The oldest is forgotten then; a job has its own copies."""

LONGEST_STEM = 60

VIEW = ".view.png"
"""No upload has such a name, see :func:`safe_name`."""


class View(NamedTuple):
    """What a page needs of a file."""

    png: bytes  # the picture in 8 bits, upright; of a mask white where missing; none of a geometry
    width: int
    height: int
    about: str  # a line on it
    stack: int = 1  # slices of a sinogram


Reader = Callable[[Path, str, int], View]
"""Looks at a file of a kind: ``reader(path, kind, most_pixels)``. Raises what the commands raise."""


@dataclass(frozen=True)
class Upload:
    """A file that was taken in."""

    number: str
    path: Path
    kind: str
    width: int
    height: int
    about: str
    stack: int

    @property
    def view(self) -> Path:
        """Its picture, beside it: large ones would fill the memory."""
        return self.path.with_name(VIEW)

    def described(self) -> dict[str, Any]:
        """For the page, as JSON has it."""
        return {
            "id": self.number, "name": self.path.name, "kind": self.kind, "width": self.width, "height": self.height,
            "about": self.about, "stack": self.stack,
        }  # fmt: skip


def safe_name(name: str, kind: str) -> str:
    """A file's own name, without folders, signs that mean something to a shell or a command, and length without end."""
    plain = re.split(r"[/\\]", name)[-1]
    stem, dot, ending = plain.rpartition(".")
    if not dot:
        stem, ending = plain, ""
    stem = re.sub(r"[^\w. -]+", "_", stem).strip(" .-_")[:LONGEST_STEM].strip(" .-_") or kind
    ending = re.sub(r"[^A-Za-z0-9]+", "", ending)[:8].lower()
    return f"{stem}.{ending}" if ending else stem


@dataclass
class Uploads:
    """The files of one page.

    Parameters
    ----------
    folder : where they are kept.
    reader : looks at one.
    largest, most_pixels : what is still taken in.
    """

    folder: Path
    reader: Reader
    largest: int = LARGEST_UPLOAD
    most_pixels: int = MOST_PIXELS
    files: dict[str, Upload] = field(default_factory=dict)

    async def receive(self, chunks: AsyncIterator[bytes], name: str, kind: str, announced: int | None) -> Path:
        """Store what comes in under a name of its own folder.

        Raises
        ------
        UsageError : no such kind of file.
        InputError : larger than the limit, or empty.
        """
        if kind not in KINDS:
            raise UsageError(f"unknown kind of file {kind[:20]!r}", hint=f"wanted one of {', '.join(KINDS)}")
        self._check_size(announced or 0, name)
        own = self.folder / secrets.token_hex(8)
        own.mkdir(parents=True)
        path, size = own / safe_name(name, kind), 0
        try:
            with path.open("xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    self._check_size(size, name)
                    file.write(chunk)
            if not size:
                raise InputError(f"{path.name} is empty (0 bytes)", hint=f"copy the {kind} again from the original")
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)
            raise
        return path

    def _check_size(self, size: int, name: str) -> None:
        if size > self.largest:
            raise InputError(
                f"{safe_name(name, 'the file')} is larger than {self.largest / 2**20:.0f} MiB",
                hint="use the command on it: it has no such limit",
            )

    def look(self, path: Path, kind: str, like: Upload | None = None) -> Upload:
        """Read what :meth:`receive` stored, and remember it; ``like`` has the size that a mask or hints must have.

        Raises
        ------
        InvsolveError : whatever the commands say of such a file; it is not kept then.
        """
        try:
            view = self.reader(path, kind, self.most_pixels)
            if like is not None and (view.width, view.height) != (like.width, like.height):
                what = "the hints are" if kind == "hints" else f"the {kind} is"
                raise InputError(
                    f"{what} {view.width} x {view.height} pixels, the picture {like.width} x {like.height}",
                    hint="give one of the picture's size",
                )
        except InvsolveError as error:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise type(error)(error.message.replace(str(path), path.name), hint=error.hint) from None
        upload = Upload(path.parent.name, path, kind, view.width, view.height, view.about, view.stack)
        upload.view.write_bytes(view.png)
        self.files[upload.number] = upload
        while len(self.files) > MOST_UPLOADS:
            oldest = self.files.pop(next(iter(self.files)))
            shutil.rmtree(oldest.path.parent, ignore_errors=True)
        return upload

    def find(self, number: str, kinds: tuple[str, ...] = KINDS) -> Upload:
        """An upload by its number.

        Raises
        ------
        InputError : none of these kinds has it.
        """
        found = self.files.get(number)
        if found is None or found.kind not in kinds:
            raise InputError("that file is not there any more", hint="drop it on the page again")
        return found
