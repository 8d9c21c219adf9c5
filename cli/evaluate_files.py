"""Which result goes with which truth, and what is in their files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt
import tifffile

from invsolve.cli.ct_files import ENDINGS as ARRAYS
from invsolve.cli.ct_files import quiet_libraries, read_array
from invsolve.cli.formats import PICTURES
from invsolve.errors import InputError, InvsolveError, UsageError
from invsolve.files import read_json, regular_file
from invsolve.named import nearest

if TYPE_CHECKING:
    from invsolve.evaluation.comparison import Scale

Array = npt.NDArray[Any]

COMPANIONS = ("std", "std-prior", "low", "high", "compare", "residual", "samples", "shown", "error")
"""Last part of the name of files that stand beside a result and are none; skipped in folders."""


class Pair(NamedTuple):
    """A result and its truth."""

    result: Path
    truth: Path
    group: (
        str  # what it is averaged with: the part of its name behind the truth's, and its folder where there are several
    )


class Values(NamedTuple):
    """What their files hold, of one shape."""

    truth: Array
    estimate: Array
    scale: Scale
    picture: bool  # pixels, not numbers
    stacked: bool  # (slices, H, W)


def parse_range(text: str | None) -> Scale | None:
    """``LOW,HIGH`` or ``HU``.

    Raises
    ------
    UsageError : neither.
    """
    if text is None:
        return None
    from invsolve.evaluation.comparison import HOUNSFIELD, Scale

    if text.upper() == "HU":
        return HOUNSFIELD
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(high - low) and high > low):
        raise UsageError(f"--data-range {text!r}", hint="wanted LOW,HIGH, such as 0,1, or HU")
    return Scale(low, high)


def find_pairs(results: list[Path], truth: Path, *, arrays: bool = False) -> list[Pair]:
    """Every result with its truth: two files as they are given, in folders by their names.

    Raises
    ------
    InputError : no such file, an empty folder, a result without a truth or with two.
    """
    truths = files_in(truth, "truth") if truth.is_dir() else [regular_file(truth, "truth")]
    found: list[tuple[Path, Path]] = []
    for given in dict.fromkeys(results):
        if given.is_dir():
            for result in without_companions(files_in(given, "result")):
                matched = match(result, truths)
                if matched is not None:
                    found.append((result, matched))
        else:
            regular_file(given, "result")
            matched = truths[0] if not truth.is_dir() else match(given, truths)
            if matched is None:
                raise InputError(f"{given} is a {kind_of(given)}, its truth is not", hint="give two of one kind")
            found.append((given, matched))
    if not found:
        raise InputError(
            f"no result of the truth's kind in {results[0]}", hint="wanted pictures for pictures, arrays for arrays"
        )
    folders = {result.parent for result, _ in found}
    return [Pair(r, t, group_of(r, t, folder=len(folders) > 1)) for r, t in dict.fromkeys(found)]


def files_in(folder: Path, what: str) -> list[Path]:
    """The pictures and arrays of a folder, by name; those within its folders are not.

    Raises
    ------
    InputError : there are none, or it cannot be read.
    """
    try:
        inside = sorted(path for path in folder.iterdir() if path.suffix.lower() in (*PICTURES, *ARRAYS))
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}", hint="check its permissions") from None
    files = [path for path in inside if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise InputError(f"the folder {folder} holds no picture and no array", hint=f"give a folder of {what}s")
    return files


def without_companions(files: list[Path]) -> list[Path]:
    """Without maps, bounds and strips, and without the .tif of an .npy of that name."""
    names = {path.name for path in files}
    kept = [path for path in files if path.stem.rpartition(".")[2] not in COMPANIONS]
    return [path for path in kept if not (path.suffix.lower() in (".tif", ".tiff") and f"{path.stem}.npy" in names)]


def match(result: Path, truths: list[Path]) -> Path | None:
    """The truth whose stem is the result's, or all of it before a point, the longest; None where it is of another kind.

    Raises
    ------
    InputError : none, or two.
    """
    fitting = [path for path in truths if result.stem == path.stem or result.stem.startswith(f"{path.stem}.")]
    if not fitting:
        hint = nearest(result.stem, [path.stem for path in truths])
        raise InputError(
            f"no truth has the name of {result}",
            hint=f"{hint}wanted {result.stem.partition('.')[0]}.* in {truths[0].parent}",
        )
    longest = max(len(path.stem) for path in fitting)
    closest = [path for path in fitting if len(path.stem) == longest]
    alike = [path for path in closest if comparable(result, path)]
    same = [path for path in alike if path.suffix.lower() == result.suffix.lower()] or alike
    if len(same) > 1:
        raise InputError(f"{result} has two truths: {same[0].name} and {same[1].name}", hint="remove one of them")
    return same[0] if same else None


def kind_of(path: Path) -> str:
    return "array" if path.suffix.lower() in (".npy", ".npz") else "picture"


def comparable(result: Path, truth: Path) -> bool:
    """Pictures with pictures, arrays with arrays; a TIFF is either."""
    either = {".tif", ".tiff"} & {result.suffix.lower(), truth.suffix.lower()}
    return bool(either) or kind_of(result) == kind_of(truth)


def group_of(result: Path, truth: Path, *, folder: bool) -> str:
    """``photo.inpaint.mean.png`` of ``photo.png`` -> ``inpaint.mean``."""
    part = result.stem.removeprefix(truth.stem).lstrip(".") if result.stem.startswith(truth.stem) else ""
    return " ".join(filter(None, (result.absolute().parent.name if folder else "", part)))


def read_pair(pair: Pair, scale: Scale | None) -> Values:
    """Both files, after checking that they fit; ``scale`` as from --data-range.

    Raises
    ------
    InputError : they cannot be read, or differ in size or kind.
    """
    from invsolve.cli.ct_scan import truth_in_hu
    from invsolve.evaluation.comparison import HOUNSFIELD, range_of

    if not is_array(pair, given=scale is not None):
        return read_pictures(pair)
    truth, estimate = read_array(pair.truth, "slice"), read_array(pair.result, "slice")
    check_shapes(pair, truth.shape, estimate.shape)
    if truth.ndim not in (2, 3):
        raise InputError(f"{pair.result} has shape {estimate.shape}", hint="wanted a slice (H, W) or a stack of slices")
    found = scale or (HOUNSFIELD if in_hounsfield(pair.result) or in_hounsfield(pair.truth) else None)
    if found == HOUNSFIELD:
        truth = truth_in_hu(truth, truth.shape, stacked=True)
    return Values(truth, estimate, found or range_of(truth), picture=False, stacked=truth.ndim == 3)


def read_pictures(pair: Pair) -> Values:
    """Two pictures, in [0, 1]."""
    from invsolve.cli.files import read_picture
    from invsolve.evaluation.comparison import UNIT
    from invsolve.pictures import to_unit

    try:
        truth, estimate = (to_unit(read_picture(path)) for path in (pair.truth, pair.result))
    except InputError as error:
        if is_tiff_name(pair.truth) and is_tiff_name(pair.result):
            error.hint = "if they are numbers and not pictures, say of what range: --data-range LOW,HIGH or HU"
        raise
    check_shapes(pair, truth.shape, estimate.shape)
    return Values(truth, estimate, UNIT, picture=True, stacked=False)


def check_shapes(pair: Pair, truth: tuple[int, ...], result: tuple[int, ...]) -> None:
    """Raise an InputError where they differ."""
    if truth != result:
        raise InputError(
            f"{pair.result} has shape {result}, its truth {pair.truth} {truth}",
            hint="give a truth of the same size, both grey or both in colour",
        )


def is_tiff_name(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


def is_array(pair: Pair, *, given: bool) -> bool:
    """Numbers, not pixels: .npy and .npz, what `invsolve ct` wrote, and any TIFF whose range was given."""
    endings = {pair.result.suffix.lower(), pair.truth.suffix.lower()}
    if endings & {".npy", ".npz"}:
        return True
    both = is_tiff_name(pair.result) and is_tiff_name(pair.truth)
    return both and (given or in_hounsfield(pair.result))


def in_hounsfield(path: Path) -> bool:
    """Whether a file says so: a TIFF of `invsolve ct` in itself, an .npy in the report beside it."""
    try:
        if is_tiff_name(path):
            with quiet_libraries(), tifffile.TiffFile(path) as tiff:
                facts = json.loads(tiff.pages.first.description)
        else:
            facts = read_json(path.with_suffix(".json"), "report")
    except (InvsolveError, OSError, ValueError, AttributeError, RecursionError):
        return False
    except Exception:  # noqa: BLE001 - a damaged TIFF fails in many ways; who reads its pixels says how
        return False
    return isinstance(facts, dict) and facts.get("task") == "ct" and "invsolve" in str(facts.get("software"))
