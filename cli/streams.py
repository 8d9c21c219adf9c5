"""``-`` for stdin and stdout in the commands that work on pictures.

What comes in is kept in a temporary file and what goes out is made in one, so that nothing else differs; only a whole
result reaches stdout.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from invsolve.cli.formats import FORMATS
from invsolve.errors import InputError, InvsolveError, OutputError, UsageError

if TYPE_CHECKING:
    from invsolve.cli.common import Common

STREAM = Path("-")

KINDS = tuple(dict.fromkeys(kind.upper() for kind in FORMATS.values()))

_names: dict[Path, str] = {}
"""What stands in temporary files, by their paths."""


def shown(path: Path) -> str:
    """A path as people know it: ``-`` for what comes from stdin or goes to stdout."""
    return _names.get(path, str(path))


def over_streams(command: Callable[..., Any], picture: Path, common: Common, **options: Any) -> Any:
    """Run a picture command whose input or output, or both, may be ``-``; without an output, stdin goes to stdout.

    Raises
    ------
    UsageError : a terminal where a picture should go, or more results than one for stdout.
    InputError : stdin is empty.
    OutputError : stdout is closed.
    """
    reads = picture == STREAM
    writes = common.output == STREAM or (reads and common.output is None)
    if not (reads or writes):
        return command(picture, **options, common=common)
    if writes and not common.dry_run:
        check_single(common, options)
        check_open()
        check_terminal(
            sys.stdout, "stdout", "send it to a file or a program, such as ... > result.png, or name one with -o"
        )
    with tempfile.TemporaryDirectory(prefix="invsolve-") as name:
        source, target, changed = picture, None, common
        if reads:
            source = Path(name) / "stdin"
            source.write_bytes(read_stdin())
            _names[source] = "-"
        if writes:
            target = Path(name) / f"stdout{common.ending or ending_of(source)}"
            changed = replace(common, output=target)
            _names[target] = "-"
        try:
            result = command(source, **options, common=changed)
            if target is not None and not common.dry_run:
                sys.stdout.buffer.write(target.read_bytes())
                sys.stdout.flush()
        except InvsolveError as error:  # the temporary files are nobody's business
            for path, stream in ((source, "stdin"), (target, "stdout")):
                if path in _names:
                    error.message = error.message.replace(str(path), stream)
            raise
        finally:
            _names.clear()
    return result


def check_single(common: Common, options: dict[str, Any]) -> None:
    """Raise a UsageError where more than one picture would have to go to stdout."""
    for name, more in (
        (f"--samples {common.samples}", common.samples > 1), ("--json", common.as_json),
        ("--scratches", options.get("scratches", False)),
    ):  # fmt: skip
        if more:
            raise UsageError(f"{name} with the result on stdout", hint="name a file or a folder with -o")


def check_open() -> None:
    """Raise an OutputError where stdout was closed, before the work: see :func:`invsolve.cli.console.open_standard_streams`."""
    try:
        os.write(1, b"")
    except OSError as error:
        if error.errno != errno.EBADF:
            raise  # such as of a disk that is full
        raise OutputError(
            "stdout is closed, and the result goes there", hint="give it a reader, or name a file with -o"
        ) from None


def check_terminal(stream: Any, what: str, hint: str) -> None:
    """Raise a UsageError where a stream of bytes is a terminal."""
    if stream.isatty():
        raise UsageError(f"{what} is a terminal, and pictures are binary", hint=hint)


def read_stdin() -> bytes:
    """All of it."""
    check_terminal(sys.stdin, "stdin", "pipe a picture into it, such as ... < photo.png, or name a file")
    try:
        content = sys.stdin.buffer.read()
    except OSError as error:
        raise InputError(
            f"cannot read stdin: {error.strerror}", hint="pipe a picture into it, or name a file"
        ) from None
    if not content:
        raise InputError("stdin is empty (0 bytes)", hint="pipe a picture into it, or name a file")
    return content


def ending_of(picture: Path) -> str:
    """That of a result of the same kind as a picture file; of a kind that is not written, ``.png``, or ``.tif`` of floats."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(picture.read_bytes()), formats=KINDS) as image:
                found = image.format
    except Exception:  # noqa: BLE001 - who reads its pixels says what is wrong with it; floats of colour are TIFF's alone
        return ".tif" if is_float_tiff(picture) else ".png"
    endings = [ending for ending, kind in FORMATS.items() if kind.upper() == found]
    return endings[0] if endings else ".png"


def is_float_tiff(picture: Path) -> bool:
    from invsolve.cli.deep import is_tiff

    try:
        return is_tiff(picture)
    except OSError:
        return False
