"""All that changes during training, and its file: a run goes on where it stopped."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, NamedTuple

import torch
from torch import Tensor

from invsolve.atomic import write_files
from invsolve.errors import InputError, OutputError, first_line
from invsolve.models.network import EDMDenoiser
from invsolve.training.loss import DENOISING, M, Task
from invsolve.training.optimizer import MuonAdamW, check_tensors
from invsolve.training.post_hoc_ema import remove_snapshots, snapshot
from invsolve.training.presets import MOST_STEPS, TrainingConfig

CHECKPOINT = "checkpoint.pt"


class TrainingState(NamedTuple, Generic[M]):
    """All that changes during training; a checkpoint holds just this and the configuration."""

    model: M
    ema: M
    optimizer: MuonAdamW
    step: int
    seconds: float
    wide: M | None = None  # another average, over twice the length, where the run stores snapshots


def averages(state: TrainingState[M], config: TrainingConfig) -> dict[float, M]:
    """The averages of a run by their length, as a share of the run."""
    length = config.ema_relative_width
    return {length: state.ema} if state.wide is None else {length: state.ema, 2 * length: state.wide}


def initial_state(config: TrainingConfig, device: torch.device) -> TrainingState[EDMDenoiser]:
    """A prior before its first step."""
    return start(DENOISING, config, device)


def start(
    task: Task[M], config: TrainingConfig, device: torch.device, initial: Mapping[str, Tensor] | None = None
) -> TrainingState[M]:
    """Freshly initialised weights, or those of ``initial``."""
    torch.manual_seed(config.seed)
    model = task.build(config).to(device).to(memory_format=torch.channels_last)
    if initial is not None:
        model.load_state_dict(initial)
    optimizer = MuonAdamW(model, config.learning_rate, config.muon_rate)
    wide = _copied(task, config, model, device) if config.snapshots else None
    return TrainingState(model, _copied(task, config, model, device), optimizer, 0, 0.0, wide)


def _copied(task: Task[M], config: TrainingConfig, model: M, device: torch.device) -> M:
    """What starts as the model and becomes an average."""
    average = task.build(config).to(device).to(memory_format=torch.channels_last)
    average.load_state_dict(model.state_dict())
    average.requires_grad_(False)
    return average


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a run to resume in ``folder``.

    Raises
    ------
    InputError : something of that name is there which is no file.
    """
    path = folder / CHECKPOINT
    if not os.path.lexists(path):
        return False
    if not path.is_file():
        raise InputError(f"{path} is not a file", hint="remove it, or choose another folder")
    return True


def remove_checkpoint(folder: Path) -> None:
    """Forget the run in ``folder`` and its snapshots, if there are any; errors as :func:`has_checkpoint`, OutputError if
    something cannot go."""
    remove_snapshots(folder)
    if has_checkpoint(folder):
        try:
            (folder / CHECKPOINT).unlink()
        except OSError as error:
            raise OutputError(
                f"cannot remove {folder / CHECKPOINT}: {error.strerror}", hint="remove it yourself"
            ) from None


def save_checkpoint(folder: Path, config: TrainingConfig, state: TrainingState[M], *, snap: bool = False) -> None:
    """Write the checkpoint so that an interruption leaves either the old or the new one.

    With ``snap`` a snapshot of the averages is written with it, both or neither: none is of steps that a resumed run takes
    again, perhaps with other results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "config": asdict(config),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
    }
    if state.wide is not None:
        content["wide"] = state.wide.state_dict()
    both = averages(state, config)
    more = dict([snapshot(folder, state.step, both)]) if snap else {}
    write_files({folder / CHECKPOINT: lambda file: torch.save(content, file), **more})


class Checkpoints(Generic[M]):
    """Saves a run now and then and, as a context manager, at its end, however it ends.

    ``offer`` hands over the state after each step. A step overwrites what was offered last, so ``withhold`` comes before
    it: broken off in between, weights and count of steps would not belong together, and are not saved.
    """

    def __init__(self, folder: Path, config: TrainingConfig, seconds: float, every: float) -> None:
        self.folder, self.config, self.every = folder, config, every
        self._saved_at = seconds
        self._offered: TrainingState[M] | None = None

    def withhold(self) -> None:
        self._offered = None

    def offer(self, state: TrainingState[M], *, snap: bool = False) -> None:
        self._offered = state
        if snap or state.seconds - self._saved_at > self.every:
            self._save(snap)

    def _save(self, snap: bool = False) -> None:
        if self._offered is not None:
            save_checkpoint(self.folder, self.config, self._offered, snap=snap)
            self._saved_at, self._offered = self._offered.seconds, None

    def __enter__(self) -> Checkpoints[M]:
        return self

    def __exit__(self, *_: object) -> None:
        self._save()


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down, so that a stored configuration compares equal."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _with_defaults(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with the settings that came later at their defaults, so that old runs resume."""
    defaults = asdict(TrainingConfig())
    nested = {part: {**defaults[part], **stored.get(part, {})} for part in ("network", "augmentation")}
    return {**defaults, **stored, **nested}


def load_checkpoint(folder: Path, config: TrainingConfig, device: torch.device, task: Task[M]) -> TrainingState[M]:
    """Read a checkpoint back; only tensors and plain values are unpickled (``weights_only``).

    Raises
    ------
    InputError : the file is damaged, no checkpoint, or that of another run.
    """
    path = folder / CHECKPOINT
    content = _read(path)
    try:
        was, now = _differences(content["config"], config)
        step, seconds = _count(content["step"]), _duration(content["seconds"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _damaged(path, error) from error
    if now:
        raise InputError(
            f"{folder} holds the checkpoint of another run: it has {was}, this one {now}",
            hint="resume with the settings it was started with, choose another folder, or --fresh to start anew",
        )
    state = start(task, config, device)
    try:
        for module, part in ((state.model, "model"), (state.ema, "ema"), (state.wide, "wide")):
            if module is None:
                continue
            check_tensors(content[part], {name: value.shape for name, value in module.state_dict().items()})
            module.load_state_dict(content[part])
        state.optimizer.load_state_dict(content["optimizer"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return state._replace(step=step, seconds=seconds)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged: {first_line(error)[:120]}", hint="start anew with --fresh, or choose another folder"
    )


def _read(path: Path) -> dict[str, Any]:
    """The file's content, plain values and tensors on the CPU that take no more memory than the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
        content = None if compressed else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever zipfile and the unpickler make of damaged bytes
        raise _damaged(path, ValueError("it is no checkpoint, or not a whole one")) from error
    if not isinstance(content, dict):
        raise _damaged(path, ValueError("it is no checkpoint"))
    return content


def _differences(stored: dict[str, Any], config: TrainingConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings in which a stored configuration differs: there, and in ``config``. Only the steps may."""
    wanted, found = _plain(asdict(config)), _plain(_with_defaults(stored))
    changed = [name for name in wanted if name != "steps" and wanted[name] != found.get(name)]
    return {name: found.get(name) for name in changed}, {name: wanted[name] for name in changed}


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= MOST_STEPS:
        raise ValueError(f"step {value!r}")
    return value


def _duration(value: object) -> float:
    if not isinstance(value, float) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} seconds")
    return value
