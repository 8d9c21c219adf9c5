"""Checkpoints: what is damaged is refused with one line and the way out; nothing but tensors is ever unpickled."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invsolve.errors import InputError, UsageError
from invsolve.models.network import NetworkConfig
from invsolve.training.checkpoint import CHECKPOINT, TrainingState, load_checkpoint
from invsolve.training.loop import train
from invsolve.training.loss import DENOISING
from invsolve.training.presets import PRESETS

CPU = torch.device("cpu")
CONFIG = replace(
    PRESETS["tiny"],
    network=NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,)),
    steps=2,
    batch=2,
    crop=16,
    crop_late=16,
)
PICTURES = [np.full((20, 20, 3), value, np.uint8) for value in (10, 200)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(PICTURES, CONFIG, folder, device=CPU)
    return folder / CHECKPOINT


def load(folder: Path) -> TrainingState[Any]:
    return load_checkpoint(folder, CONFIG, CPU, DENOISING)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("touched"),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
        lambda path, whole: path.write_bytes(b""),
        lambda path, whole: path.write_bytes(np.random.default_rng(0).bytes(5000)),
        lambda path, whole: path.write_bytes(whole[:3000] + bytes(200) + whole[3200:]),
        lambda path, whole: path.write_bytes(pickle.dumps(Evil())),
        lambda path, whole: torch.save(Evil(), path),
        lambda path, whole: torch.save([1, 2], path),
        lambda path, whole: np.savez(path.open("wb"), images=np.zeros(3)),
    ],
    ids=["truncated", "empty", "random", "flipped", "pickle", "code", "list", "npz"],
)
def test_other_bytes_are_no_checkpoint(
    damage: Callable[[Path, bytes], object], sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage(tmp_path / CHECKPOINT, sound.read_bytes())
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged.*--fresh") as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)
    assert not Path("touched").exists()


def huge(shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor that claims ``shape`` and holds one number."""
    return torch.zeros(1).expand(shape)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("model"),
        lambda c: c.pop("step"),
        lambda c: c.pop("config"),
        lambda c: c.update(step=-1),
        lambda c: c.update(step=1.5),
        lambda c: c.update(step=10**30),
        lambda c: c.update(seconds=float("nan")),
        lambda c: c.update(config=[1]),
        lambda c: c["config"].update(network=7),
        lambda c: c["config"].update(seed=torch.zeros(3)),
        lambda c: c.update(model=3),
        lambda c: c["model"].popitem(),
        lambda c: c["model"].update(extra=torch.zeros(1)),
        lambda c: c["model"].update({name: value[None] for name, value in c["model"].items()}),
        lambda c: c["ema"].update({name: value.to(torch.complex64) for name, value in c["ema"].items()}),
        lambda c: c["ema"].update({name: huge((10**6, 10**6)) for name in c["ema"]}),
        lambda c: c["optimizer"].pop("muon"),
        lambda c: c["optimizer"]["muon"].update(state={0: {}}),
        lambda c: c["optimizer"]["muon"]["state"][0].update(momentum_buffer=torch.zeros(2, 2)),
        lambda c: c["optimizer"]["adamw"]["state"].update({99: {}}),
        lambda c: c["optimizer"]["adamw"]["state"][0].update(exp_avg=huge((10**6, 10**6))),
        lambda c: c["optimizer"]["adamw"]["state"][0].pop("step"),
    ],
)
def test_missing_and_misshapen_parts_are_named(
    change: Callable[[dict[str, Any]], object], sound: Path, tmp_path: Path
) -> None:
    content = torch.load(sound, weights_only=True)
    change(content)
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged.*--fresh") as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_rates_in_the_file_do_not_matter(sound: Path, tmp_path: Path) -> None:
    content = torch.load(sound, weights_only=True)
    content["optimizer"]["adamw"]["param_groups"] = []
    torch.save(content, tmp_path / CHECKPOINT)
    assert load(tmp_path).optimizer.adamw.param_groups[0]["betas"] == (0.9, 0.99)


def test_records_that_claim_more_than_they_hold_are_refused(sound: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(sound) as whole, zipfile.ZipFile(tmp_path / CHECKPOINT, "w") as lying:
        for name in whole.namelist():
            content = whole.read(name)
            lying.writestr(name, content[:-4] if "/data/" in name else content)
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path)
    with zipfile.ZipFile(sound) as whole, zipfile.ZipFile(tmp_path / CHECKPOINT, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():  # a small file could unpack to any size
            packed.writestr(name, whole.read(name))
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_refused_before_the_first_step(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / CHECKPOINT)
    for resume in (True, False):
        with pytest.raises(InputError, match="is not a file"):
            train(PICTURES, CONFIG, tmp_path, device=CPU, resume=resume)


def test_a_fresh_start_forgets_a_damaged_checkpoint(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    assert train(PICTURES, CONFIG, tmp_path, device=CPU, resume=False).step == 2
    assert load(tmp_path).step == 2


def test_impossible_settings_are_named(tmp_path: Path) -> None:
    for wrong in ({"steps": 10**12}, {"steps": 0}, {"batch": 10**9}, {"batch": 0}, {"seed": 2**31}, {"seed": -1}):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))}.*wanted"):
            replace(CONFIG, **wrong)
    assert train(PICTURES, replace(CONFIG, seed=2**31 - 1), tmp_path, device=CPU).step == 2
