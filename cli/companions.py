"""What goes with each of several pictures: the mask, PSF, hints or truth that has its name in a folder of those."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invsolve.cli.formats import ARRAYS, PICTURES
from invsolve.errors import InputError
from invsolve.finding import Picture

MATCHED = frozenset({"truth"})
"""Options that name a file for each picture in every command, but do not change the result."""


def is_word(value: Any) -> bool:
    """Whether an option's value is one of its words, such as ``alpha``, and no file."""
    return str(value) in ("alpha", "auto", "centre", "espirit")


def as_given(options: Mapping[str, Any], found: Mapping[str, Path]) -> dict[str, Any]:
    """Files in the type in which the options named them or their folder."""
    return {name: str(path) if isinstance(options[name], str) else path for name, path in found.items()}


def matching(given: Path, picture: Picture, what: str) -> Path:
    """``given`` itself, or, of a folder, the file in it that belongs to a picture: of ``x/a.png`` and an option ``mask``
    ``x/a.*``, ``x/a.mask.*`` or, as ``--scratches`` writes it, ``x/a.scratches.png``.

    Raises
    ------
    InputError : there is none, or there are two.
    """
    if not given.is_dir():
        return given
    folder, stem = given / picture.folder, Path(picture.name).stem
    written = (f"{stem}.scratches",) if what == "mask" else ()
    for name in (stem, f"{stem}.{what}", *written):
        found = [path for path in by_stem(folder).get(name, []) if path != picture.path]
        if len(found) > 1:
            raise InputError(
                f"{found[0]} and {found[1].name} may both be the {what} of {picture.name}", hint="remove one"
            )
        if found:
            return found[0]
    raise InputError(f"no {what} for {picture.name} in {given}", hint=f"wanted {folder / stem}.png or another ending")


@functools.lru_cache(maxsize=64)
def by_stem(folder: Path) -> dict[str, list[Path]]:
    """The pictures and arrays in a folder, by their names without the ending."""
    found: dict[str, list[Path]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in PICTURES | ARRAYS and not path.name.startswith("."):
                found.setdefault(path.stem, []).append(path)
    return found
