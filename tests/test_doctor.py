"""``invsolve doctor``: what it says of this machine is true, what is wrong has a way out and an exit code."""

from __future__ import annotations

import json
import platform
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from invsolve.cli.doctor import advice, described, diagnose
from invsolve.cli.machine import examine, folder
from invsolve.cli.main import app
from invsolve.errors import ExitCode


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return examine("cpu")


def healthy(facts: dict[str, Any]) -> dict[str, Any]:
    """The same machine with nothing in the way."""
    found = deepcopy(facts)
    found["processor"] |= {"threads": 2, "cores": 2, "load": 0.1, "instructions": "AVX512", "OMP_NUM_THREADS": None}
    found["accelerator"] |= {"gpus": [], "driver": False}
    found["network"]["share"], found["memory_free_bytes"] = 0.5, 2**34
    found["packages"] = {"needed": {"astra-toolbox": "2.5.0"}, "quality": {"torchmetrics": "1.9.0"}}
    found["astra"] = {"works": True, "cuda": False}
    for name in ("cache", "models", "here"):
        found[name] |= {"writable": True, "free_bytes": 2**34}
    return found


def test_the_facts_are_this_machine_s(facts: dict[str, Any], tmp_path: Path) -> None:
    assert facts["versions"]["python"] == platform.python_version()
    assert facts["processor"]["threads"] == torch.get_num_threads()
    assert facts["processor"]["avx512_bf16"] == torch.cpu._is_avx512_bf16_supported()
    for name, version in facts["packages"]["needed"].items():
        assert version == metadata.version(name)
    speeds = facts["network"]
    assert speeds["device"] == "cpu"
    assert speeds["network_gflops"] > 0 and speeds["matrix_product_gflops"] > 0
    assert speeds["share"] == pytest.approx(speeds["network_gflops"] / speeds["matrix_product_gflops"], abs=0.01)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(1000))
    assert (folder(tmp_path)["files"], folder(tmp_path)["bytes"]) == (1, 1000)
    assert folder(tmp_path / "no" / "such")["exists"] is False
    json.dumps(facts, allow_nan=False)


def test_a_healthy_machine_has_nothing_to_mend(facts: dict[str, Any]) -> None:
    assert diagnose(healthy(facts)) == []
    assert advice([]) == ["a run would work"]


def test_what_is_wrong_slow_or_missing_has_a_way_out(facts: dict[str, Any]) -> None:
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("wrong", "not installed", {"packages": {"needed": {"tifffile": None}}}),
        ("wrong", "ASTRA", {"astra": {"works": False, "error": "ImportError: libcudart", "cuda": False}}),
        ("wrong", "no model", {"network": {"error": "no model", "hint": "reinstall"}}),
        ("slow", "1 of 2 cores", {"processor": facts["processor"] | {"threads": 1, "cores": 2, "load": 0.0}}),
        ("slow", "load of 9", {"processor": facts["processor"] | {"threads": 2, "cores": 2, "load": 9.0}}),
        ("slow", "sees no GPU", {"accelerator": {"torch_cuda": None, "gpus": [], "driver": True}}),
        ("slow", "5% of the speed", {"network": facts["network"] | {"share": 0.05}}),
        ("slow", "memory", {"memory_free_bytes": 10**9}),
        ("note", "quality: torchmetrics", {"packages": {"needed": {"astra-toolbox": "2"}, "quality": {"torchmetrics": None}}}),
        ("note", "cannot be written", {"cache": facts["cache"] | {"writable": False}}),
    ]  # fmt: skip
    for kind, what, changed in cases:
        (found,) = diagnose(healthy(facts) | changed)
        assert (found.kind, bool(found.way_out)) == (kind, True)
        assert what in found.what
    assert "1 thing to mend" in advice(diagnose(healthy(facts) | cases[0][2]))[-1]


def test_extras_are_one_line_together(facts: dict[str, Any]) -> None:
    missing = {"packages": {"needed": {"numpy": "2"}, "quality": {"torchmetrics": None}, "ui": {"fastapi": None}}}
    lines = advice(diagnose(healthy(facts) | missing))
    assert len(lines) == 2 and "quality, ui" in lines[0] and "pip install 'invsolve[quality]'" in lines[0]
    assert lines[-1] == "a run would work"


def test_lines_name_versions_and_speed(facts: dict[str, Any]) -> None:
    text = "\n".join(described(facts))
    assert platform.python_version() in text and "GFLOP/s" in text and facts["cache"]["path"] in text


def test_a_device_that_is_not_there_is_exit_code_4() -> None:
    done = CliRunner().invoke(app, ["doctor", "--device", "abacus", "--json"])
    assert done.exit_code == ExitCode.MODEL
    (wrong,) = [one for one in json.loads(done.stdout)["findings"] if one["kind"] == "wrong"]
    assert "abacus" in wrong["what"]


def test_exit_code_0_where_a_run_would_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["doctor", "--device", "cpu"])
    assert done.exit_code == 0, done.stdout
    assert str(tmp_path / "cache") in done.stdout
    assert not (tmp_path / "cache").exists()  # it only looks
