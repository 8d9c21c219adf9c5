"""The fuzz benchmark: it runs, and it sees each way in which a file can be answered badly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmarks are not here"),
    pytest.mark.skipif(sys.platform != "linux", reason="memory and limits as Linux has them"),
]

BAD_READERS = """
import os, sys, time
sys.path[:0] = [{folder!r}, {root!r}]
import fuzz
from fuzz_files import Kind
from invsolve.errors import InputError

held = []

def read(path):
    content = path.read_bytes()
    way = path.stem
    if content == b"valid text " * 4 or way == "fine":
        return
    if way == "refused":
        raise InputError("no", hint="give another")
    if way == "exception":
        raise RuntimeError("two\\nlines")
    if way == "nohint":
        raise InputError("no")
    if way == "words":
        os.write(2, b"a library speaks")
    if way == "memory":
        held.append(bytearray(os.urandom(1) * 220_000_000))
        held.clear()
    if way == "crash":
        os.abort()
    if way == "hang":
        time.sleep(60)

def kinds(scratch):
    ways = ("fine", "refused", "exception", "nohint", "words", "memory", "crash", "hang")
    return {{way: Kind({{way + ".txt": b"valid text " * 4}}, read) for way in ways}}

fuzz.kinds = kinds
fuzz.main(["--files", "3", "--megabytes", "200", "--seconds", "4"])
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=300)


def test_every_bad_answer_is_seen() -> None:
    done = run("-c", BAD_READERS.format(folder=str(FOLDER), root=str(FOLDER.parent)))
    assert done.returncode == 1, done.stderr
    lines = {line.split(":")[0]: line for line in done.stdout.splitlines() if not line.startswith(" ")}
    assert "3 read, 0 refused (" in lines["fine"]
    assert "0 read, 3 refused (" in lines["refused"]
    for kind, answer in (
        ("exception", "exception"), ("nohint", "no line with a hint"), ("words", "words of a library"), ("memory", "memory"),
        ("crash", "crash"), ("hang", "hang"),
    ):  # fmt: skip
        assert f"0 read, 0 refused, 3 {answer} (" in lines[kind], lines
    assert lines["all"] == "all: 24 files, 3 read, 3 refused in one line, 18 answered badly"


def test_damaged_files_of_every_kind_are_read_or_refused(tmp_path: Path) -> None:
    done = run(str(FOLDER / "fuzz.py"), "--files", "12", "--seed", "1", "--keep", str(tmp_path / "bad"))
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].endswith(" 0 answered badly")
    assert not (tmp_path / "bad").exists()


def test_some_of_the_hostile_commands() -> None:
    done = run(str(FOLDER / "hostile.py"), "--every", "60")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].endswith(" 0 answered badly")
