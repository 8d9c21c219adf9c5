"""The benchmark that kills runs: it completes, and it would say so if anything were lost."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "kills.py"

pytestmark = pytest.mark.skipif(not (SCRIPT.is_file() and hasattr(os, "fork")), reason="not here, or it cannot fork")


def run(*given: object) -> list[list[str]]:
    """The words of its lines; in a process of its own, because this one has threads, and cannot be forked."""
    command = [sys.executable, str(SCRIPT), *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def kills() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kills", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_folder_survives_kills(small_prior: Path) -> None:
    said = run("--kills", 3, "--pictures", 2, "--side", 16, "--model", small_prior)
    assert said[0][:4] == ["2", "pictures,", "8", "files:"]
    assert ["kills", "3"] in said and ["lost", "or", "damaged", "0"] in said


def test_the_writing_of_results_and_manifest_survives_kills() -> None:
    said = run("--kills", 40, "--copy", "--seed", 3)
    assert ["kills", "40"] in said and ["lost", "or", "damaged", "0"] in said


@pytest.mark.parametrize("wrong", ["a result of another content", "a result that the manifest has, and is gone"])
def test_what_is_lost_is_found(wrong: str, tmp_path: Path) -> None:
    wanted = {"a.denoise.png": b"whole"}
    record = {"name": "a.png", "input": "a.png", "sha256": "", "settings": "", "status": "done"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps({**record, "outputs": list(wanted)}) + "\n")
    result = tmp_path / "a.denoise.png"
    result.write_bytes(b"whole")
    check = kills().check
    assert check(tmp_path, wanted)["kills between a result and its record"] == 0
    result.write_bytes(b"half") if "content" in wrong else result.unlink()
    with pytest.raises(RuntimeError, match="not what it should be|lost"):
        check(tmp_path, wanted)
