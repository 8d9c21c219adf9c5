"""All that changes during training, and its file: a run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, NamedTuple

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.models.network import EDMDenoiser
from invsolve.training.loss import DENOISING, M, Task
from invsolve.training.optimizer import MuonAdamW
from invsolve.training.presets import TrainingConfig

CHECKPOINT = "checkpoint.pt"


class TrainingState(NamedTuple, Generic[M]):
    """All that changes during training; a checkpoint holds just this and the configuration."""

    model: M
    ema: M
    optimizer: MuonAdamW
    step: int
    seconds: float


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
    ema = task.build(config).to(device).to(memory_format=torch.channels_last)
    ema.load_state_dict(model.state_dict())
    ema.requires_grad_(False)
    return TrainingState(model, ema, MuonAdamW(model, config.learning_rate, config.muon_rate), 0, 0.0)


def save_checkpoint(folder: Path, config: TrainingConfig, state: TrainingState[M]) -> None:
    """Write the checkpoint so that an interruption leaves either the old or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "config": asdict(config),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
    }
    temporary = folder / (CHECKPOINT + ".part")
    torch.save(content, temporary)
    temporary.replace(folder / CHECKPOINT)


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
    """Read a checkpoint back; only tensors and plain values are unpickled (``weights_only``)."""
    content: dict[str, Any] = torch.load(folder / CHECKPOINT, map_location=device, weights_only=True)
    wanted, stored = _plain(asdict(config)), _plain(_with_defaults(content["config"]))
    changed = [name for name in wanted if name != "steps" and wanted[name] != stored.get(name)]
    if changed:
        was, now = ({name: settings.get(name) for name in changed} for settings in (stored, wanted))
        raise InputError(
            f"{folder} holds the checkpoint of another run: it has {was}, this one {now}",
            hint="resume with the settings it was started with, choose another folder, or --fresh to start anew",
        )
    state = start(task, config, device)
    state.model.load_state_dict(content["model"])
    state.ema.load_state_dict(content["ema"])
    state.optimizer.load_state_dict(content["optimizer"])
    return state._replace(step=content["step"], seconds=content["seconds"])
