"""Averages of the weights over any length, made after the run."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from calling import call
from safetensors.torch import load_file, save_file
from torch import nn

from invsolve.errors import InputError, UsageError
from invsolve.models.network import NetworkConfig
from invsolve.pretrained import load_prior
from invsolve.training.checkpoint import CHECKPOINT
from invsolve.training.loop import TrainingInfo, train
from invsolve.training.post_hoc_ema import (
    LENGTHS,
    Stored,
    averaged,
    best_of,
    ema_decay,
    exponent,
    fitted,
    is_due,
    snapshot,
    snapshots,
)
from invsolve.training.presets import PRESETS

CPU = torch.device("cpu")
CONFIG = replace(
    PRESETS["tiny"],
    network=NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,)),
    steps=12,
    batch=2,
    crop=16,
    crop_late=16,
)
PICTURES = [np.random.default_rng(k).integers(0, 255, (20, 20, 3), np.uint8) for k in range(2)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A run of 12 steps with a snapshot after each, and its network."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    return folder, train(PICTURES, replace(CONFIG, snapshots=12), folder, device=CPU).ema


def apart(a: nn.Module, b: nn.Module) -> float:
    """Relative distance of two networks' weights."""
    ours, theirs = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (a, b))
    return float((ours - theirs).norm() / theirs.norm())


def test_exponents_are_those_of_the_paper() -> None:
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)


@pytest.mark.parametrize("length", [0.03, 0.07, 0.14, 0.2, 0.27])
def test_any_length_is_the_average_tracked_directly(length: float, run: tuple[Path, nn.Module], tmp_path: Path) -> None:
    """Snapshots of every step span all weights of the run, so only rounding is left."""
    folder, network = run
    direct = train(PICTURES, replace(CONFIG, ema_relative_width=length), tmp_path, device=CPU).ema
    found = averaged(folder, length, network)
    assert apart(found, direct) < 2e-6
    assert apart(network, direct) > 1e-4 or length == 0.05  # a test that could not fail would compare equal things
    for ours, theirs in zip(found.state_dict().values(), direct.state_dict().values(), strict=True):
        assert ours.shape == theirs.shape


def test_few_snapshots_of_a_long_run_are_nearly_enough(tmp_path: Path) -> None:
    """The weights of a walk of 4000 steps, 32 snapshots, against the averages tracked directly."""
    walk = torch.randn(4000, 50, generator=torch.Generator().manual_seed(0)).cumsum(0)

    @functools.cache
    def tracked(length: float) -> list[torch.Tensor]:
        averages = [torch.zeros(50)]
        for step in range(len(walk)):
            averages.append(averages[-1].lerp(walk[step], 1 - ema_decay(step, length)))
        return averages

    def direct(length: float, steps: int) -> torch.Tensor:
        return tracked(length)[steps]

    def network(weights: torch.Tensor) -> nn.Module:
        layer = nn.Linear(50, 1, bias=False)
        layer.weight.data = weights[None].clone()
        return layer

    for step in range(125, 4001, 125):
        path, content = snapshot(tmp_path, step, {one: network(direct(one, step)) for one in (0.05, 0.1)})
        path.write_bytes(content)
    for length in (0.025, 0.04, 0.07, 0.13, 0.2):
        wanted = network(direct(length, 4000))
        off = apart(averaged(tmp_path, length, wanted), wanted)
        assert off < 0.02, (length, off)
        assert off < 0.15 * min(apart(network(direct(one, 4000)), wanted) for one in (0.05, 0.1)), length


def test_the_misfit_tells_too_few_snapshots(tmp_path: Path) -> None:
    def misfit(count: int, length: float) -> float:
        stored = [Stored(3200 * (k + 1) // count, one) for k in range(count) for one in (0.05, 0.1)]
        return fitted(stored, 3200, length).misfit

    assert misfit(4, 0.1) == pytest.approx(0, abs=1e-5)  # one of those stored
    assert misfit(4, 0.02) > 0.3
    for length in LENGTHS:
        assert misfit(32, length) < min(0.1, misfit(8, length))
    path, content = snapshot(tmp_path, 1000, {0.05: nn.Linear(2, 2), 0.1: nn.Linear(2, 2)})
    path.write_bytes(content)
    with pytest.raises(UsageError, match="1 snapshots miss an average of length 0.02"):
        averaged(tmp_path, 0.02, nn.Linear(2, 2))


def test_long_runs_are_compared_on_stretches_of_steps() -> None:
    """A run's length in steps hardly matters to its profiles, nor, then, that there are more than are looked at one by one."""

    def found(steps: int) -> np.ndarray:
        stored = [Stored(steps * (k + 1) // 16, one) for k in range(16) for one in (0.05, 0.1)]
        return fitted(stored, steps, 0.07).coefficients

    np.testing.assert_allclose(found(1_600_000), found(16_000), atol=2e-3)


def test_snapshots_come_at_equal_shares() -> None:
    for count, steps in ((12, 12), (49, 49), (5, 23)):
        due = [step for step in range(1, steps + 1) if is_due((step - 1) / steps, step / steps, count)]
        assert due == [-(-steps * k // count) for k in range(1, count + 1)]
    assert not is_due(0.3, 1.0, 0)
    assert is_due(0.99, 1.2, 1)


def test_resuming_keeps_the_snapshots(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = replace(CONFIG, snapshots=4)

    class Stop(Exception):
        pass

    def stop(info: TrainingInfo) -> None:
        if info.step == 5:
            raise Stop

    train(PICTURES, config, tmp_path / "whole", device=CPU)
    with pytest.raises(Stop):
        train(PICTURES, config, tmp_path / "broken", device=CPU, on_step=stop)
    assert [path.name for path in snapshots(tmp_path / "broken")] == ["000000003.safetensors"]
    train(PICTURES, config, tmp_path / "broken", device=CPU)
    whole, broken = snapshots(tmp_path / "whole"), snapshots(tmp_path / "broken")
    assert [int(path.stem) for path in whole] == [3, 6, 9, 12] == [int(path.stem) for path in broken]
    for one, other in zip(whole, broken, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_snapshot_is_never_ahead_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from invsolve.training import checkpoint

    sets: list[set[str]] = []
    original = checkpoint.write_files

    def recorded(files: dict[Path, object]) -> None:
        sets.append({path.name for path in files})
        original(files)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "write_files", recorded)
    train(PICTURES, replace(CONFIG, snapshots=2), tmp_path, device=CPU)
    assert sets == [{CHECKPOINT, "000000006.safetensors"}, {CHECKPOINT, "000000012.safetensors"}]


def test_a_new_run_forgets_the_snapshots_of_the_old_one(run: tuple[Path, nn.Module], tmp_path: Path) -> None:
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "snapshots" / "mine.safetensors").write_bytes(b"kept")
    train(PICTURES, replace(CONFIG, snapshots=1), tmp_path / "run", device=CPU, resume=False)
    left = sorted(path.name for path in (tmp_path / "run" / "snapshots").iterdir())
    assert left == ["000000012.safetensors", "mine.safetensors"]


def test_a_run_without_snapshots_is_not_resumed_with_them(tmp_path: Path) -> None:
    train(PICTURES, replace(CONFIG, steps=2), tmp_path, device=CPU)
    with pytest.raises(InputError, match=r"another run: it has \{'snapshots': 0\}"):
        train(PICTURES, replace(CONFIG, snapshots=3), tmp_path, device=CPU)


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor]], object], **metadata: str) -> None:
    content = load_file(path)
    change(content)
    save_file(content, path, metadata or {"lengths": "0.05 0.1"})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:500]),
        lambda path: path.write_bytes(b""),
        lambda path: rewritten(path, lambda content: content.popitem()),
        lambda path: rewritten(path, lambda content: content.update({name: v[None] for name, v in content.items()})),
        lambda path: rewritten(path, lambda content: None, lengths="0.05 0.1 0.2"),
        lambda path: rewritten(path, lambda content: None, lengths="long"),
        lambda path: rewritten(path, lambda content: None, other="1"),
    ],
    ids=["truncated", "empty", "missing", "shape", "three", "no numbers", "no lengths"],
)
def test_damaged_snapshots_are_named(
    damage: Callable[[Path], object], run: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    shutil.copytree(run[0], tmp_path / "run")
    damage(snapshots(tmp_path / "run")[3])
    with pytest.raises(InputError, match=r"000000004\.safetensors is damaged, or another run's") as raised:
        averaged(tmp_path / "run", 0.08, run[1])
    assert "\n" not in str(raised.value)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 255, (8, 40, 40, 3), np.uint8))
    return path


def test_the_command_chooses_a_length_and_takes_another(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "train",
        data,
        "--preset",
        "tiny",
        "--steps",
        20,
        "--batch",
        2,
        "-o",
        tmp_path / "p",
        "--device",
        "cpu",
    )
    assert call(monkeypatch, *arguments, "--snapshots", 20) == 0
    said = capfd.readouterr().err
    chosen = load_prior(tmp_path / "p", "cpu")
    line = next(line for line in said.splitlines() if line.startswith("average over "))
    figures = {
        float(a): float(b) for a, b in (pair.split(": ") for pair in line.partition("by length: ")[2].split(", "))
    }
    assert len(figures) >= 5
    assert chosen.card.training["ema_relative_width"] == best_of(figures) == float(line.split()[2])
    wanted = averaged(tmp_path / "p", best_of(figures), chosen.network)
    assert apart(chosen.network, wanted) < 1e-3  # half precision
    # The same run again, which is over, and another length of its average.
    assert call(monkeypatch, *arguments, "--snapshots", 20, "--ema", 0.12) == 0
    other = load_prior(tmp_path / "p", "cpu")
    assert other.card.training["ema_relative_width"] == 0.12
    assert apart(other.network, averaged(tmp_path / "p", 0.12, other.network)) < 1e-3
    assert apart(other.network, wanted) > 2e-3


@pytest.mark.parametrize(
    "options",
    [
        ("--ema", 0.1),
        ("--snapshots", 4, "--ema", 0.5),
        ("--snapshots", 4, "--ema", "nan"),
        ("--snapshots", 0),
        ("--snapshots", 2000),
        ("--snapshots", 4, "--classifier"),
    ],
)
def test_what_cannot_be_is_refused_first(
    options: tuple[object, ...], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "train", data, "--preset", "tiny", "-o", tmp_path / "p", *options) == 2
    assert not (tmp_path / "p").exists()
