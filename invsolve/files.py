"""Files that somebody gives: refused with a reason before they are opened."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from invsolve.errors import InputError, InvsolveError

BOTH = "utf-8-sig"
"""Text as UTF-8, with the mark at its beginning that some editors set, or without."""

LARGEST_JSON = 2**24
"""Bytes of a JSON file beyond which it is none of ours: cards and calibrations have some thousand."""


def regular_file(path: str | Path, what: str, error: type[InvsolveError] = InputError) -> Path:
    """``path``, if it is a file that can be read: opening a pipe would wait for ever, a device never ends.

    Parameters
    ----------
    what : what the file should be, such as "calibration", for the messages.
    error : the exception to raise.

    Raises
    ------
    InputError (or ``error``) : no such file, a folder, pipe or device, empty, or not readable.
    """
    file = Path(path)
    try:
        facts = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"no such file: {file}", hint=f"check the path of the {what}") from None
    except (OSError, ValueError) as problem:  # a name too long, a loop of links, a null byte
        reason = getattr(problem, "strerror", None) or str(problem)
        raise error(f"cannot read {str(file)[:200]!r}: {reason}", hint=f"check the path of the {what}") from None
    if stat.S_ISDIR(facts.st_mode):
        raise error(f"{file} is a folder", hint=f"give one {what}")
    if not stat.S_ISREG(facts.st_mode):
        raise error(f"{file} is a pipe or a device", hint=f"give a {what} stored in a file")
    if facts.st_size == 0:
        raise error(f"cannot read {file}: it is empty (0 bytes)", hint=f"copy the {what} again from the original")
    if not os.access(file, os.R_OK):
        raise error(f"cannot read {file}: permission denied", hint="change its permissions, or copy it")
    return file


def read_json(path: str | Path, what: str, error: type[InvsolveError] = InputError) -> Any:
    """The content of a JSON file, unchecked.

    Raises
    ------
    InputError (or ``error``) : as from :func:`regular_file`, or not JSON.
    """
    file = regular_file(path, what, error)
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ValueError(f"larger than {LARGEST_JSON >> 20} MiB")
        return json.loads(file.read_text(encoding=BOTH))
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"cannot read {file} as a {what}: {problem}", hint="copy it again from the original") from None
