"""``invsolve train`` at the command line: Ctrl-C at any moment, and what it refuses before the first step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from invsolve.cli.main import app
from invsolve.errors import InputError, InvsolveError, OutputError, UsageError
from invsolve.pretrained import load_prior

# One process imports everything; for each case it forks one that runs the command and gets Ctrl-C while it is inside the
# given function, the given time that it is called.
DRIVER = """
import importlib, json, os, signal, sys, time
import torch, torch._dynamo
import invsolve.cli.main as program
import invsolve.training.export, invsolve.training.loop

torch.set_num_threads(1)

def run(arguments, log, module=None, path="", call=1, presses=1):
    ready, mark = os.pipe()
    began, child = time.monotonic(), os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        if module:
            owner, calls = importlib.import_module(module), iter(range(1, 10**6))
            *outer, name = path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            original = getattr(owner, name)

            def entered(*args, **options):
                if next(calls) == call:
                    os.write(mark, b"x")
                    time.sleep(0.2 if presses == 1 else 20)
                return original(*args, **options)

            setattr(owner, name, entered)
        sys.argv = ["invsolve", "train", *arguments]
        try:
            program.main()
        except SystemExit as stop:
            os._exit(stop.code or 0)
        os._exit(99)
    os.close(mark)
    for _ in range(presses):
        if module and (_ or os.read(ready, 1)):
            time.sleep(0.1)
            os.kill(child, signal.SIGINT)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(ready)
    return {"code": code, "said": open(log).read(), "seconds": time.monotonic() - began}

print(json.dumps([run(**case) for case in json.loads(sys.stdin.read())]))
"""


def drive(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        check=False,
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 255, (8, 40, 40, 3), np.uint8))
    return path


def command(data: Path, output: Path) -> list[str]:
    return [str(data), "--preset", "tiny", "--steps", "4", "--batch", "2", "-o", str(output)]


STEP = {"module": "invsolve.training.optimizer", "path": "MuonAdamW.step"}
MOMENTS: dict[str, tuple[dict[str, Any], bool]] = {  # and whether there is something to resume then
    "loading": ({"module": "invsolve.training.sources", "path": "load_split"}, False),
    "first step": (STEP, True),
    "mid-run": ({**STEP, "call": 3}, True),
    "saving": ({"module": "invsolve.training.checkpoint", "path": "save_checkpoint"}, True),
    "validating": ({"module": "invsolve.training.export", "path": "validate"}, True),
    "exporting": ({"module": "invsolve.training.export", "path": "save_prior"}, True),
    # In the middle of a step weights and count of steps do not belong together, and are not saved.
    "twice": ({**STEP, "call": 3, "presses": 2}, False),
}
AGAIN = ("loading", "mid-run", "exporting", "twice")


def test_ctrl_c_at_any_moment_says_what_can_be_resumed(data: Path, tmp_path: Path) -> None:
    def case(name: str, **moment: Any) -> dict[str, Any]:
        return {"arguments": command(data, tmp_path / name), "log": str(tmp_path / f"{name}.log"), **moment}

    outcomes = drive([case(name, **moment) for name, (moment, _) in MOMENTS.items()] + [case(name) for name in AGAIN])
    for (name, (_, saved)), outcome in zip(MOMENTS.items(), outcomes[: len(MOMENTS)], strict=True):
        assert outcome["code"] == 130, (name, outcome)
        checkpoint = tmp_path / name / "checkpoint.pt"
        said = f"; the same command resumes from {checkpoint}" if saved else " before the first step was done"
        assert outcome["said"].splitlines()[-1] == f"interrupted{said}", name
        assert outcome["seconds"] < 10  # the second Ctrl-C does not wait for the step, which is made to take 20
    for name, outcome in zip(AGAIN, outcomes[len(MOMENTS) :], strict=True):
        assert outcome["code"] == 0, (name, outcome)
        assert ("resuming" in outcome["said"]) == MOMENTS[name][1]
        assert load_prior(tmp_path / name, "cpu").card.training["steps"] == 4


def refused(kind: type[InvsolveError], *arguments: object) -> str:
    """The one line that ``invsolve train`` with these arguments gives."""
    done = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert isinstance(done.exception, kind), (done.exception, done.output)
    assert "\n" not in done.exception.message
    assert done.exception.hint
    return done.exception.message


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (UsageError, ["--time-limit", "nan"], "--time-limit"),
        (UsageError, ["--time-limit", "inf"], "--time-limit"),
        (UsageError, ["--time-limit", "1e999"], "--time-limit"),
        (UsageError, ["--time-limit", "infh"], "--time-limit"),
        (UsageError, ["--time-limit", "-3m"], "--time-limit"),
        (UsageError, ["--time-limit", ""], "--time-limit"),
        (UsageError, ["--steps", 10**12], "steps 1000000000000"),
        (UsageError, ["--batch", 10**9], "batch 1000000000"),
        (UsageError, ["--seed", 2**31], "seed 2147483648"),
        (UsageError, ["--seed", 2**64], "seed 18446744073709551616"),
        (UsageError, ["--name", "two\nlines"], "--name"),
        (UsageError, ["--name", ""], "--name"),
        (UsageError, ["--licence", "two\nlines"], "--licence"),
        (UsageError, ["--classifier", "--init", "photos"], "--init"),
        (UsageError, ["--objective", "esm"], "objective 'esm'"),
        (UsageError, ["--weighting", "flat"], "weighting 'flat'"),
        (UsageError, ["--classifier", "--objective", "dsm"], "--objective"),
        (UsageError, ["--classifier", "--weighting", "edm"], "--weighting"),
        (UsageError, ["--classifier", "--energy"], "--energy"),
        (UsageError, ["--preset", "thumbnails", "--energy"], "energy"),
    ],
)
def test_impossible_options_are_refused(
    kind: type[InvsolveError], options: list[object], message: str, data: Path, tmp_path: Path
) -> None:
    assert message in refused(kind, *command(data, tmp_path / "new"), *options)
    assert not (tmp_path / "new").exists()


def test_the_output_folder_is_made_or_refused(data: Path, tmp_path: Path) -> None:
    nested = tmp_path / "a" / "b"
    assert CliRunner().invoke(app, ["train", *command(data, nested)[:-1], f"{nested}/"]).exit_code == 0
    assert load_prior(nested, "cpu").card.name == "b"
    long = tmp_path / ("x" * 255)
    assert CliRunner().invoke(app, ["train", *command(data, long), "--name", "long"]).exit_code == 0
    assert "x" * 256 in refused(OutputError, *command(data, tmp_path / ("x" * 256)), "--name", "long")
    assert "--name" in refused(UsageError, *command(data, long))
    assert "data.npz" in refused(OutputError, *command(data, data))
    assert "data.npz" in refused(OutputError, *command(data, data / "below"))


@pytest.mark.parametrize("shape", [(4, 24, 200, 3), (4, 40, 40), (4, 40, 40, 1)])
def test_unfit_validation_pictures_stop_before_the_first_step(
    shape: tuple[int, ...], data: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "val.npz", images=np.zeros(shape, np.uint8))
    refused(InputError, *command(data, tmp_path / "new"), "--val", tmp_path / "val.npz")
    assert not (tmp_path / "new").exists()


def test_objective_weighting_and_energy_are_on_the_card_and_bind_a_resumed_run(data: Path, tmp_path: Path) -> None:
    chosen = ["--objective", "ssm-vr", "--weighting", "ncsn", "--energy", "-q"]
    assert CliRunner().invoke(app, ["train", *command(data, tmp_path / "a"), *chosen]).exit_code == 0
    card = load_prior(tmp_path / "a", "cpu").card
    assert (card.training["objective"], card.training["weighting"], card.network["energy"]) == ("ssm-vr", "ncsn", True)
    assert all(0 < error < 1 for _, error in card.validation_mse)
    for part, others in (
        ("objective", ["--objective", "ssm", *chosen[2:]]),
        ("weighting", [*chosen[:2], "--weighting", "likelihood", "--energy"]),
        ("network", chosen[:4]),
    ):
        assert part in refused(InputError, *command(data, tmp_path / "a"), *others)
    assert CliRunner().invoke(app, ["train", *command(data, tmp_path / "b"), "-q"]).exit_code == 0
    card = load_prior(tmp_path / "b", "cpu").card
    assert (card.training["objective"], card.training["weighting"], card.network["energy"]) == ("dsm", "edm", False)
    # Weights of a plain network mean something else in an energy.
    assert "energy" in refused(UsageError, *command(data, tmp_path / "c"), "--energy", "--init", tmp_path / "b")
