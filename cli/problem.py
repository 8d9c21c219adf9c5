"""The file of ``invsolve solve``: what was measured and how it is solved, read from TOML and checked key by key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from invsolve.cli.limits import LARGEST_SEED, MOST_SAMPLES, MOST_STEPS
from invsolve.errors import InputError, InvsolveError, UsageError, first_line
from invsolve.files import BOTH, LARGEST_JSON, regular_file
from invsolve.named import nearest
from invsolve.options import AUTO, SolveOptions
from invsolve.typed import brief, describe, fits

Table = dict[str, Any]

TOP: Table = {
    "base": str, "prior": Table, "picture": Table, "measurement": Table | list[Table], "operator": Table | list[Table],
    "noise": Table, "solve": Table, "output": Table,
}  # fmt: skip
PRIOR: Table = {"name": str, "patches": bool}
PICTURE: Table = {"size": tuple[int, int], "start": str}
MEASUREMENT: Table = {"file": str, "operator": Table | list[Table], "noise": Table}
SOLVE: Table = {
    "rule": str, "sampler": str, "schedule": str, "steps": int, "sigma_start": float, "samples": int, "seed": int,
}  # fmt: skip
OUTPUT: Table = {"folder": str, "interval": bool, "diagnostics": bool}
KEYS: dict[str, Table] = {
    "": TOP, "prior": PRIOR, "picture": PICTURE, "measurement": MEASUREMENT, "solve": SOLVE, "output": OUTPUT,
}  # fmt: skip
"""Every key of every table with its type; operators and noises have ``type`` and the arguments of what it names."""

LIMITS = {"samples": MOST_SAMPLES, "steps": MOST_STEPS, "seed": LARGEST_SEED}

LARGEST_SIDE = 2**20
"""Pixels."""


@dataclass(frozen=True)
class Named:
    """An operator or a noise as the file names it."""

    type: str
    arguments: Table


@dataclass(frozen=True)
class Block:
    """A measurement as the file describes it."""

    name: str
    file: Path
    operators: list[Named]
    noise: Named


@dataclass(frozen=True)
class ProblemFile:
    """A file that was read: every key is known and of its type, nothing that it names was opened."""

    path: Path
    text: str
    base: Path
    prior: str
    patches: bool
    size: tuple[int, int] | None  # (height, width)
    start: Path | None
    blocks: list[Block]
    options: SolveOptions
    folder: Path
    interval: bool
    diagnostics: bool

    def copy(self, folder: Path) -> str:
        """The file's text for a copy in ``folder``, from which its paths are found as from here."""
        here, there = self.base.resolve(), folder.resolve()
        base = Path(*[".."] * len(there.relative_to(here).parts)) if there.is_relative_to(here) else here
        line = f"base = {_quoted(base.as_posix())}"
        head, table, rest = self.text.partition("\n[") if not self.text.startswith("[") else ("", "", self.text)
        kept = re.sub(r"^\s*base\s*=.*$\n?", "", head, flags=re.MULTILINE)
        return f"{line}  # where relative paths begin\n{kept}{table}{rest}"


def read_problem(path: Path) -> ProblemFile:
    """Read and check.

    Raises
    ------
    InputError : no such file, not TOML, a key that is not known, missing, or of another type.
    """
    file = regular_file(path, "problem file")
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ValueError(f"larger than {LARGEST_JSON >> 20} MiB")
        text = file.read_text(encoding=BOTH)
        tables = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no TOML file: {first_line(error)}", hint="see docs/solve.md for an example"
        ) from None
    try:
        return _problem(path, text, tables)
    except InvsolveError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from None


def _problem(path: Path, text: str, tables: Table) -> ProblemFile:
    top = checked(tables, TOP, "top level")
    base = path.parent / top.get("base", ".")
    prior = checked(top.get("prior", {}), PRIOR, "[prior]")
    picture = checked(top.get("picture", {}), PICTURE, "[picture]")
    output = checked(top.get("output", {}), OUTPUT, "[output]")
    if "name" not in prior:
        raise InputError("no prior", hint='wanted [prior] with name = "photos" or another one of `invsolve models`')
    size = picture.get("size")
    if size is not None and not all(0 < side <= LARGEST_SIDE for side in size):
        raise InputError(f"[picture]: size is {brief(size)}", hint="wanted [width, height] in pixels")
    options = read_options(checked(top.get("solve", {}), SOLVE, "[solve]"))
    interval = output.get("interval", False)
    if interval and options.samples < 2:
        raise InputError(
            "[output]: interval of 1 sample", hint="wanted [solve] with samples = 19 for 90 %, or at least 2"
        )
    return ProblemFile(
        path=path,
        text=text,
        base=base,
        prior=str(base / prior["name"]) if (base / prior["name"]).is_dir() else prior["name"],
        patches=prior.get("patches", False),
        size=None if size is None else (size[1], size[0]),
        start=base / picture["start"] if "start" in picture else None,
        blocks=read_blocks(top, base),
        options=options,
        folder=base / output.get("folder", f"{path.stem}-solved"),
        interval=interval,
        diagnostics=output.get("diagnostics", False),
    )


def read_options(table: Table) -> SolveOptions:
    """How to solve; rule and sampler "auto" where they are left out. Their names are checked when torch is there."""
    for name, most in LIMITS.items():
        if name in table and not 0 <= table[name] <= most:
            raise InputError(f"[solve]: {name} is {table[name]}", hint=f"wanted at most {most}, and not below 0")
    try:
        return replace(SolveOptions(rule=AUTO, sampler=AUTO), **table)
    except UsageError as error:
        raise InputError(f"[solve]: {error.message}", hint=error.hint) from None


def read_blocks(top: Table, base: Path) -> list[Block]:
    """The measurements; operators and noise at the top level are those of a single one."""
    given = top.get("measurement", [])
    tables = given if isinstance(given, list) else [given]
    if not tables:
        raise InputError("no measurement", hint='wanted [measurement] with file = "y.png"')
    outside = {key: top[key] for key in ("operator", "noise") if key in top}
    if outside and len(tables) > 1:
        raise InputError(
            f"{' and '.join(outside)} at the top level, and {len(tables)} measurements",
            hint="write them as [[measurement.operator]] and [measurement.noise] below the [[measurement]] they belong to",
        )
    blocks = []
    for number, table in enumerate(tables, 1):
        name = f"measurement {number}" if len(tables) > 1 else "measurement"
        block = checked(table, MEASUREMENT, f"[{name}]")
        if twice := [key for key in outside if key in block]:
            raise InputError(f"{twice[0]} both at the top level and in [{name}]", hint="keep one of them")
        block = dict(block) | outside
        if "file" not in block:
            raise InputError(
                f"[{name}]: 'file' is missing", hint="wanted the measurement's file: .npy, .npz or a picture"
            )
        operators = block.get("operator", [])
        blocks.append(
            Block(
                name=name,
                file=base / block["file"],
                operators=[
                    _named(one, f"{name}, operator {place}")
                    for place, one in enumerate(operators if isinstance(operators, list) else [operators], 1)
                ],
                noise=_named(block.get("noise", {"type": "gaussian"}), f"{name}, noise"),
            )
        )
    return blocks


def checked(table: Any, wanted: Mapping[str, Any], where: str) -> Table:
    """``table``, if all its keys are ``wanted`` and of their types.

    Raises
    ------
    InputError : the first that is not.
    """
    if not isinstance(table, dict):
        raise InputError(f"{where} is {brief(table)}", hint="wanted a table")
    for name, value in table.items():
        if name not in wanted:
            raise InputError(
                f"{where}: {brief(name)} is not known", hint=f"{nearest(name, wanted)}known: {', '.join(wanted)}"
            )
        if not fits(value, wanted[name]):
            raise InputError(f"{where}: {name} is {brief(value)}", hint=f"wanted {describe(wanted[name])}")
    return table


def _named(table: Table, where: str) -> Named:
    kind = table.get("type")
    if not isinstance(kind, str):
        missing = "'type' is missing" if kind is None else f"type is {brief(kind)}"
        raise InputError(f"{where}: {missing}", hint='wanted a name, such as type = "blur"')
    return Named(kind, {key: value for key, value in table.items() if key != "type"})


def _quoted(text: str) -> str:
    """A TOML literal or basic string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
