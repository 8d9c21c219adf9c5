"""Files are written as a whole set or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from invsolve import atomic
from invsolve.errors import OutputError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_new_files_have_the_permissions_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    atomic.write_files({tmp_path / "a": b"1", tmp_path / "b": lambda file: file.write(b"2") and None})
    assert contents(tmp_path) == {"plain": b"", "a": b"1", "b": b"2"}
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    atomic.write_files({tmp_path / ("x" * 255): b"1"})
    assert contents(tmp_path) == {"x" * 255: b"1"}


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    atomic.write_files({tmp_path / "link": b"new"})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"


@pytest.mark.parametrize("failing", range(4))
def test_an_error_at_any_rename_leaves_what_was(failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"a": b"old a", "mark": b"old mark"}
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    files: dict[Path, atomic.Content] = {tmp_path / name: b"new" for name in ("a", "b", "mark")}
    original, calls = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise OSError(28, "No space left on device")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    if failing < len(files):
        with pytest.raises(OutputError, match="No space left"):
            atomic.write_files(files, last=tmp_path / "mark")
        assert contents(tmp_path) == old
    else:
        atomic.write_files(files, last=tmp_path / "mark")
        assert set(contents(tmp_path).values()) == {b"new"}


def test_an_error_while_staging_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        atomic.write_files({tmp_path / "a": b"1", tmp_path / "b": fail})
    assert contents(tmp_path) == {}


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        atomic.write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


KILLED = """
import os, sys
from pathlib import Path
from invsolve import atomic

kill_at, folder = int(sys.argv[1]), Path(sys.argv[2])
operations = {"link": os.link, "replace": Path.replace, "unlink": Path.unlink}
calls = 0

def deadly(operation):
    def run(*arguments, **keywords):
        global calls
        if calls == kill_at:
            os.kill(os.getpid(), 9)
        calls += 1
        return operation(*arguments, **keywords)
    return run

os.link, Path.replace, Path.unlink = map(deadly, operations.values())
atomic.write_files({folder / name: b"new" for name in ("a", "b", "mark")}, last=folder / "mark")
"""


def test_killed_between_any_two_operations_a_set_with_its_mark_is_whole(tmp_path: Path) -> None:
    whole = set()
    for kill_at in range(30):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        for name in ("a", "b", "mark"):
            (folder / name).write_bytes(b"old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(kill_at), str(folder)], check=False)
        found = contents(folder)
        if "mark" in found:
            whole.add(found["mark"])
            assert {found["a"], found["b"]} == {found["mark"]}
        atomic.write_files({folder / "next": b""})
        assert not list(folder.glob("*.part")), "what a killed run left is swept"
        if done.returncode == 0:
            break
    assert whole == {b"old", b"new"} and done.returncode == 0


def test_an_interruption_waits_for_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert contents(tmp_path) == {"a": b"1", "b": b"2"}


def test_what_a_living_process_stages_stays(tmp_path: Path) -> None:
    own = atomic._staging_name(tmp_path)
    own.write_bytes(b"")
    atomic.sweep(tmp_path)
    assert own.exists()
