"""Training in several processes, and in parts: the run of one process that takes each batch at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from invsolve.errors import UsageError
from invsolve.models.network import NetworkConfig
from invsolve.models.precision import full_precision
from invsolve.pretrained import load_prior
from invsolve.training.batches import batch_at
from invsolve.training.checkpoint import initial_state
from invsolve.training.distributed import ALONE, Processes, from_environment, own_device, shares
from invsolve.training.loop import in_prior_units, local_loss
from invsolve.training.loss import DENOISING
from invsolve.training.presets import PRESETS

# One process imports everything and forks those of each run, with the environment that torchrun gives them.
DRIVER = """
import json, os, signal, socket, sys, time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch, torch._dynamo

import invsolve.cli.main as program
from invsolve.models.network import NetworkConfig
from invsolve.models.precision import full_precision
from invsolve.training.distributed import from_environment, joined
from invsolve.training.loop import Execution, fit
from invsolve.training.checkpoint import initial_state
from invsolve.training.loss import DENOISING
from invsolve.training.presets import PRESETS
import invsolve.training.export

torch.set_num_threads(1)
root = Path(sys.argv[1])
network = NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,), dropout=0.3)
plain = replace(PRESETS["tiny"], network=network, steps=5, batch=7, crop=16, crop_late=16)
rng = np.random.default_rng(0)
pictures = [rng.integers(0, 255, (40, 40, 3), np.uint8) for _ in range(6)]


class Stop(Exception):
    pass


def api(name, rank, folder=None, stop=0, accumulate=1, failing=None, signalled=None, seconds=None, **changes):
    losses = []

    def on_step(info):
        losses.append(info.loss)
        if info.step == stop:
            raise Stop

    def loss(model, batch, config):
        if len(losses) == 3 and rank == failing:
            raise MemoryError("no more")
        if len(losses) == 3 and rank == 1 and signalled:
            os.kill(os.getpid(), signalled)
        return DENOISING.loss(model, batch, config)

    processes, cpu = from_environment(), torch.device("cpu")
    said, state = "", None
    try:
        with full_precision(), joined(processes, cpu):
            state = fit(
                replace(DENOISING, loss=loss), pictures, replace(plain, **changes), root / (folder or name), device=cpu,
                execution=Execution(processes, accumulate), on_step=on_step, time_limit=seconds,
            )
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    modules = [] if state is None else [state.model, state.ema]
    weights = [torch.cat([p.detach().flatten() for p in module.parameters()]) for module in modules]
    torch.save({"losses": losses, "said": said, "weights": weights}, root / f"{name}.{rank}.pt")
    os._exit(0)


def command(name, rank, arguments=(), **_):
    os.dup2(os.open(root / f"{name}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = ["invsolve", "train", *arguments]
    try:
        program.main()
    except SystemExit as stop:
        os._exit(stop.code or 0)
    os._exit(99)


def run(name, size=1, port=0, **case):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size),
                              LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size))
            (command if "arguments" in case else api)(name, rank, **case)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


untrained = initial_state(plain, torch.device("cpu")).model
torch.save(torch.cat([p.detach().flatten() for p in untrained.parameters()]), root / "untrained.pt")
print(json.dumps({case["name"]: run(**case) for case in json.loads(sys.stdin.read())}))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def arguments(root: Path, name: str, *more: str) -> list[str]:
    tiny = ["--preset", "tiny", "--steps", "4", "--batch", "4", "--device", "cpu"]
    return [str(root / "data.npz"), *tiny, "-o", str(root / name), *more]


@pytest.fixture(scope="module")
def codes(root: Path) -> dict[str, list[int]]:
    """Exit codes of the processes of every run."""
    np.savez(root / "data.npz", images=np.random.default_rng(0).integers(0, 255, (8, 40, 40, 3), np.uint8))
    cases: list[dict[str, Any]] = [
        {"name": "one"},
        {"name": "two", "size": 2},
        {"name": "parts", "accumulate": 3},
        {"name": "few crops", "batch": 1},
        {"name": "more processes than crops", "batch": 1, "size": 2, "accumulate": 2},
        {"name": "stopped", "size": 2, "stop": 3},
        {"name": "resumed", "folder": "stopped"},
        {"name": "failing", "size": 2, "failing": 1},
        {"name": "interrupted", "size": 2, "signalled": 2},
        {"name": "terminated", "size": 2, "signalled": 15},
        {"name": "killed", "size": 2, "signalled": 9},
        {"name": "by the clock", "size": 2, "steps": 10**6, "seconds": 1.0},
        {"name": "command", "size": 2, "arguments": arguments(root, "command", "--accumulate", "2")},
        {"name": "no data", "size": 2, "arguments": ["absent.npz", "-o", str(root / "no data")]},
        {"name": "too many", "size": 2, "arguments": arguments(root, "too many", "--batch", "1")},
    ]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(root)],
        check=False,
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[int]] = json.loads(done.stdout)
    return found


def outcome(root: Path, name: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(root / f"{name}.{rank}.pt", weights_only=True)
    return found


def apart(found: torch.Tensor, expected: torch.Tensor, root: Path) -> float:
    """How far weights are from those expected, as a share of how far training has moved them."""
    return float((found - expected).norm() / (expected - torch.load(root / "untrained.pt")).norm())


@pytest.mark.parametrize(
    ("name", "plain"),
    [("two", "one"), ("parts", "one"), ("more processes than crops", "few crops")],
)
def test_shares_and_parts_make_the_run_of_whole_batches(
    name: str, plain: str, root: Path, codes: dict[str, list[int]]
) -> None:
    """With dropout, in batches of 7 crops that nothing divides."""
    expected = outcome(root, plain)
    for rank in range(len(codes[name])):
        found = outcome(root, name, rank)
        assert found["said"] == expected["said"] == ""
        assert found["losses"] == pytest.approx(expected["losses"], abs=1e-5)
        for a, b in zip(found["weights"], expected["weights"], strict=True):
            assert apart(a, b, root) < 1e-2
    another = outcome(root, "few crops")["weights"][0]
    assert apart(another, outcome(root, "one")["weights"][0], root) > 0.1  # so that agreement says something


@pytest.mark.parametrize("objective", ["dsm", "ssm-vr"])
def test_parts_have_the_loss_and_the_gradient_of_the_whole(objective: Literal["dsm", "ssm-vr"]) -> None:
    """In float64, where rounding hides nothing: each process's rows in parts, dropout and all, added up."""
    network = NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,), dropout=0.3)
    config = replace(PRESETS["tiny"], network=network, batch=7, objective=objective)
    pictures = [np.random.default_rng(k).integers(0, 255, (40, 40, 3), np.uint8) for k in range(3)]
    model = initial_state(config, torch.device("cpu")).model.double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))

    def added(size: int, parts: int) -> torch.Tensor:
        total = torch.zeros(())
        for rank in range(size):
            batch = batch_at(2, 16, config, [pictures], processes=Processes(rank, size))
            batch = in_prior_units(batch, 255.0, config).mapped(torch.Tensor.double)
            with full_precision():
                loss = local_loss(DENOISING, model, batch, config, 2, parts)
            total = total + torch.cat(
                [loss[None], *(p.grad.flatten() for p in model.parameters() if p.grad is not None)]
            )
        return total

    whole = added(1, 1)
    for size, parts in ((1, 3), (2, 1), (3, 2)):
        torch.testing.assert_close(added(size, parts), whole, rtol=1e-6, atol=1e-12)


def test_one_process_resumes_the_run_of_two(root: Path, codes: dict[str, list[int]]) -> None:
    assert codes["resumed"] == [0]
    assert outcome(root, "stopped")["said"] == "Stop: "
    found, expected = outcome(root, "resumed"), outcome(root, "one")
    assert len(found["losses"]) == 2
    for a, b in zip(found["weights"], expected["weights"], strict=True):
        assert apart(a, b, root) < 1e-2


def checkpoint_step(root: Path, name: str) -> int:
    return int(torch.load(root / name / "checkpoint.pt", weights_only=True)["step"])


def test_what_ends_one_process_ends_all_and_the_checkpoint_is_saved(root: Path, codes: dict[str, list[int]]) -> None:
    said = [outcome(root, "failing", rank)["said"] for rank in (0, 1)]
    assert said[0].startswith("Elsewhere: process 1 of this run failed") and said[1] == "MemoryError: no more"
    assert codes["killed"] == [0, -9]
    assert outcome(root, "killed")["said"].startswith("Elsewhere: another process of this run ended")
    assert checkpoint_step(root, "failing") == checkpoint_step(root, "killed") == 3
    for name in ("interrupted", "terminated"):  # the step in hand is finished
        assert [outcome(root, name, rank)["said"] for rank in (0, 1)] == ["KeyboardInterrupt: "] * 2
        assert checkpoint_step(root, name) == 4


def test_schedules_by_the_clock_are_the_same_in_all_processes(root: Path, codes: dict[str, list[int]]) -> None:
    first, second = (outcome(root, "by the clock", rank) for rank in (0, 1))
    assert first["said"] == second["said"] == ""
    assert first["losses"] == second["losses"]
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))


def test_the_command_speaks_once_and_writes_once(root: Path, codes: dict[str, list[int]]) -> None:
    logs = {
        name: [(root / f"{name}.{k}.log").read_text() for k in (0, 1)] for name in ("command", "no data", "too many")
    }
    assert [codes[name] for name in logs] == [[0, 0], [3, 1], [2, 2]]
    assert all(second == "" for _, second in logs.values())
    assert "on cpu in 2 processes" in logs["command"][0]
    assert "no such file: absent.npz" in logs["no data"][0]
    assert "a batch of 1 for 2 processes" in logs["too many"][0]
    card = load_prior(root / "command", "cpu").card
    assert (card.training["steps"], card.training["batch"]) == (4, 8)  # two batches of four in each step


def test_rows_are_shared_out_once_each() -> None:
    for count, parts in ((7, 3), (2, 5), (64, 8)):
        rows = [row for share in shares(count, parts) for row in range(count)[share]]
        assert rows == list(range(count))
    assert {s.stop - s.start for s in shares(7, 3)} == {2, 3}


def test_the_environment_says_which_process_this_is() -> None:
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node0"}
    assert from_environment(given) == Processes(3, 4, 1, 2)
    assert from_environment({"RANK": "3", "WORLD_SIZE": "4"}) == ALONE  # somebody else's
    for wrong in ({"RANK": "4"}, {"RANK": "x"}, {"LOCAL_RANK": "2"}, {"LOCAL_WORLD_SIZE": "8"}):
        with pytest.raises(UsageError, match="the environment says RANK="):
            from_environment(given | wrong)


def test_each_process_takes_a_device_of_its_own() -> None:
    second = Processes(3, 4, 1, 2)
    assert [own_device(wanted, second, 2) for wanted in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    assert own_device("auto", second, 0) == "cpu"
    assert own_device("cuda:1", ALONE, 2) == "cuda:1"
    with pytest.raises(UsageError, match="2 processes on this machine, and 1 GPU"):
        own_device("auto", second, 1)
    with pytest.raises(UsageError, match="--device cuda:1 for 4 processes"):
        own_device("cuda:1", second, 2)


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "invsolve", "--version"], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("invsolve ")
