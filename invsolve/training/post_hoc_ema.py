"""Averages of a run's weights over any length, chosen after the run: post-hoc EMA (Karras et al. 2024, section 3).

A power-function EMA of exponent g gives the weights after step k of T the share ((k / T)^(g + 1) - ((k - 1) / T)^(g + 1)). The
standard deviation of that profile over T is its *length*, sigma_rel in the paper, as a share of the run. Two lengths are
averaged during training, and both averages stored now and then. An average of another length is a linear combination of all
that was stored: the one whose profile is nearest to the wanted profile, by least squares. Averages over the true steps are
taken, not integrals, so that what the snapshots span comes out exactly.

| here | paper |
| --- | --- |
| ``length`` | sigma_rel |
| ``exponent`` | gamma |
| ``Fit.coefficients`` | x of eq. 4 |
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from invsolve.errors import InputError, ModelError, OutputError, UsageError
from invsolve.pretrained.weight_files import read_metadata, read_weights
from invsolve.training.optimizer import check_tensors
from invsolve.training.validation import validate

Array = NDArray[np.float64]
M = TypeVar("M", bound=nn.Module)

FOLDER = "snapshots"
NAME = re.compile(r"(\d{9,10})\.safetensors")
LENGTHS = (0.015, 0.025, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25)
"""What is tried unless told otherwise; the paper's best ones lie between 0.02 and 0.2."""

LONGEST = 0.28
"""All steps alike, an exponent of 0, would be 0.289."""

LARGEST_MISFIT = 0.1
"""Of a profile, relative to its norm. Above that an average would be one of another length."""

MOST_EXAMPLES = 64
"""Pictures that lengths are compared on: all by the same noise, so that few tell."""

CELLS = 20_000
"""Longer runs have their profiles compared on so many stretches of steps; their curves are smooth."""


def exponent(length: float) -> float:
    """The exponent of the profile of that ``length``: solves ``length = sqrt((g + 1) / ((g + 2)^2 (g + 3)))`` (eq. 3)."""
    t = length**-2
    return max(float(r.real) for r in np.roots([1, 7, 16 - t, 12 - t]) if abs(r.imag) < 1e-9)


def ema_decay(step: int, length: float) -> float:
    """What the average keeps of itself in step ``step``, counted from 0 (eq. 2): its length stays a share of the run so far."""
    return float((1 - 1 / (step + 1)) ** (exponent(length) + 1))


class Stored(NamedTuple):
    """One average on disk."""

    step: int
    length: float


class Fit(NamedTuple):
    """A profile as a combination of stored ones."""

    coefficients: Array  # (averages,), their sum about 1
    misfit: float  # norm of the difference over that of the profile


def fitted(stored: Sequence[Stored], last: int, length: float) -> Fit:
    """The combination of ``stored`` averages that is nearest to an EMA of ``length`` after ``last`` steps.

    Where they can be combined in several ways, the one of least coefficients: those magnify the rounding of what is stored.
    """
    ticks = np.linspace(0, last, min(last, CELLS) + 1).round()
    edges = np.unique(np.concatenate([ticks, [float(one.step) for one in stored]]))
    basis = np.stack([_profile(one, edges) for one in stored], axis=1)
    target = _profile(Stored(last, length), edges)
    norms = np.linalg.norm(basis, axis=0)
    x = np.linalg.lstsq(basis / norms, target, rcond=1e-6)[0] / norms
    return Fit(x, float(np.linalg.norm(basis @ x - target) / np.linalg.norm(target)))


def _profile(average: Stored, edges: Array) -> Array:
    """Its weight in each stretch of steps between ``edges``, over the root of the stretch's length: sums are inner products."""
    share = np.minimum(edges / average.step, 1.0) ** (exponent(average.length) + 1)
    return np.asarray(np.diff(share) / np.sqrt(np.diff(edges)))


def is_due(before: float, after: float, count: int) -> bool:
    """Whether one of ``count`` snapshots, at equal shares of a run, is due after a step that led from one share to another."""
    return math.floor(min(after, 1.0) * count + 1e-9) > math.floor(before * count + 1e-9)


def snapshot(folder: Path, step: int, averages: Mapping[float, nn.Module]) -> tuple[Path, bytes]:
    """Where a run in ``folder`` stores its ``averages``, by length, after ``step`` steps, and what goes there.

    Raises
    ------
    OutputError : there can be no folder for it.
    """
    parts = {
        f"{number}/{name}": value.detach().cpu().contiguous()
        for number, average in enumerate(averages.values())
        for name, value in average.named_parameters()
    }
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder / FOLDER}: {error.strerror}", hint="choose another place"
        ) from None
    lengths = " ".join(repr(length) for length in averages)
    return folder / FOLDER / f"{step:09}.safetensors", save(parts, metadata={"lengths": lengths})


def snapshots(folder: Path) -> list[Path]:
    """The snapshots of the run in ``folder``, in the order of their steps."""
    found = [path for path in (folder / FOLDER).glob("*.safetensors") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem))


def remove_snapshots(folder: Path) -> None:
    """Forget the snapshots of a run; raises OutputError if one cannot go."""
    for path in snapshots(folder):
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror}", hint="remove it yourself") from None


def averaged(folder: Path, length: float, model: M) -> M:
    """A copy of ``model``, of the network trained in ``folder``, with its weights averaged over ``length``.

    The average is that after the step of the last snapshot.

    Raises
    ------
    UsageError : no average has that length, or the snapshots are too few for it.
    InputError : no snapshots, damaged ones, or those of another network.
    """
    if not 0 < length <= LONGEST:
        raise UsageError(f"an average of length {length:g}", hint=f"wanted a share of the run, up to {LONGEST}")
    files = snapshots(folder)
    if not files:
        raise InputError(f"no snapshots in {folder / FOLDER}", hint="train with --snapshots")
    lengths = [_lengths(path) for path in files]
    stored = [Stored(int(path.stem), one) for path, some in zip(files, lengths, strict=True) for one in some]
    fit = fitted(stored, stored[-1].step, length)
    if fit.misfit > LARGEST_MISFIT:
        raise UsageError(
            f"{len(files)} snapshots miss an average of length {length:g} by {fit.misfit:.0%}",
            hint="ask for another length, or train with more --snapshots",
        )
    shapes = {name: value.shape for name, value in model.named_parameters()}
    total = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    upcoming = iter(fit.coefficients)
    for path, some in zip(files, lengths, strict=True):
        for content in _read(path, len(some), shapes):
            weight = float(next(upcoming))
            for name, value in content.items():
                total[name].add_(value.double(), alpha=weight)
    result = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            parameter.copy_(total[name])
    return result


def _lengths(path: Path) -> list[float]:
    try:
        lengths = [float(part) for part in read_metadata(path).get("lengths", "").split()]
    except (ModelError, ValueError) as error:
        raise _damaged(path, error) from None
    if not lengths or not all(0 < length <= LONGEST for length in lengths) or int(path.stem) < 1:
        raise _damaged(path, ValueError("it states no lengths"))
    return lengths


def _read(path: Path, count: int, shapes: Mapping[str, Sequence[int]]) -> list[dict[str, Tensor]]:
    """The ``count`` averages in a file."""
    try:
        content = read_weights(path)
        check_tensors(content, {f"{k}/{name}": shape for k in range(count) for name, shape in shapes.items()})
    except (ModelError, ValueError) as error:
        raise _damaged(path, error) from None
    return [{name: content[f"{k}/{name}"] for name in shapes} for k in range(count)]


def _damaged(path: Path, error: Exception) -> InputError:
    reason = error.message if isinstance(error, ModelError) else str(error)
    return InputError(
        f"{path} is damaged, or another run's: {reason[:200]}", hint="remove it: the others may do without"
    )


def lengths_tried(
    folder: Path, model: nn.Module, examples: Tensor, sigmas: Sequence[float], lengths: Sequence[float] = LENGTHS
) -> dict[float, float]:
    """PSNR of denoising ``examples`` (N, C, H, W), in dB of a range of 1, the mean over ``sigmas``, by length of average.

    Of MOST_EXAMPLES of them, evenly spread. Lengths for which there are too few snapshots are left out.

    Raises
    ------
    InputError : no snapshots, damaged ones, or too few for any length.
    """
    some = examples[:: -(-len(examples) // MOST_EXAMPLES)]
    tried: dict[float, float] = {}
    for length in lengths:
        try:
            average = averaged(folder, length, model)
        except UsageError:
            continue
        errors = validate(average, some, sigmas, batch=16)
        tried[length] = float(np.mean([-10 * math.log10(error) for error in errors.values()]))
    if not tried:
        raise InputError(f"too few snapshots in {folder / FOLDER}", hint="train with more --snapshots")
    return tried


def best_of(tried: Mapping[float, float]) -> float:
    """The length with the best figure."""
    return max(tried, key=lambda length: tried[length])
