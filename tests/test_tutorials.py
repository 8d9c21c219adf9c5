"""The tutorials: their commands and Python run one after the other, say what the pages say they say, and write what they name.

Where the page does not say how many noise levels, a command takes two, and total variation few iterations, so that a page is
done in seconds: what is tested is that the commands exist, fit together and say these words, not how good the pictures are.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from calling import call

from invsolve.ct.total_variation import total_variation

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(page for page in (ROOT / "docs" / "tutorials").glob("*.md") if page.stem != "index")
STEPPED = {"inpaint", "colorize", "superres", "deblur", "denoise", "dejpeg", "ct", "mri"}

BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not PAGES, reason="the source distribution has no docs")


@dataclass
class Command:
    """A line after a prompt, with what the page says that it prints."""

    line: str
    said: list[str] = field(default_factory=list)

    @property
    def error(self) -> bool:
        return any(line.startswith("error:") for line in self.said)

    @property
    def arguments(self) -> list[str]:
        """What follows ``invsolve``, with few noise levels."""
        words = shlex.split(self.line)[1:]
        quick = ["--steps", "2"] if words[0] in STEPPED and "--steps" not in words and "--dry-run" not in words else []
        return [*words, *quick]


def blocks(text: str) -> list[str | list[Command]]:
    """Python as text, and the commands of a console, in the page's order."""
    found: list[str | list[Command]] = []
    for language, body in BLOCK.findall(text):
        if language == "python":
            found.append(body)
            continue
        commands: list[Command] = []
        for line in body.splitlines():
            if line.startswith("$ "):
                commands.append(Command(line[2:]))
            else:
                commands[-1].said.append(line)
        found.append(commands)
    return found


def run(command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Run it, and compare: exit code, each line that the page shows, each file that it says was written."""
    capfd.readouterr()
    if command.line.startswith("invsolve "):
        code = call(monkeypatch, *command.arguments)
    else:
        code = subprocess.run(command.line, shell=True, check=False).returncode
    out, err = capfd.readouterr()
    assert (code != 0) == command.error, f"{command.line}: exit code {code}\n{err}"
    for line in command.said:
        assert line in out + err, f"{command.line} does not say {line!r} but\n{out}{err}"
        if line.startswith("wrote "):
            assert Path(line.removeprefix("wrote ").split(",")[0]).exists(), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_can_be_followed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "import h5py" in page.read_text():
        pytest.importorskip("h5py")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(total_variation.__kwdefaults__, "iterations", 10)
    names: dict[str, Any] = {}
    for block in blocks(page.read_text()):
        if isinstance(block, str):
            Path("block.py").write_text(block)
            names = runpy.run_path("block.py", init_globals=names)
        else:
            for command in block:
                run(command, monkeypatch, capfd)


def test_what_a_page_says_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = "```console\n$ invsolve inpaint no.png --mask m.png\nerror: no such file: no.png\n$ true\n```\n"
    [[missing, fine]] = blocks(page)
    assert isinstance(missing, Command) and missing.error and not fine.error
    assert missing.arguments[-2:] == ["--steps", "2"]
    run(missing, monkeypatch, capfd)
    run(fine, monkeypatch, capfd)
    for wrong in (
        Command(missing.line),
        Command(missing.line, ["error: no such picture"]),
        Command("true", ["wrote no.png"]),
        Command("echo wrote no.png", ["wrote no.png"]),
    ):
        with pytest.raises(AssertionError):
            run(wrong, monkeypatch, capfd)
