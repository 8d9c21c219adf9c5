"""The documents: links lead somewhere, examples run, options exist, numbers are written alike."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from invsolve.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
EXAMPLES = ROOT / "examples"
DOCUMENTS = [README, ROOT / "CHANGELOG.md", EXAMPLES / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LEADING_ZEROS = [
    README,
    EXAMPLES / "README.md",
    *(ROOT / "docs" / page for page in ("benchmarks.md", "faq.md", "index.md", "uncertainty.md")),
    *sorted(page for folder in ("lab", "tutorials") for page in (ROOT / "docs" / folder).glob("*.md")),
]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?: {4}.*\n)+", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
BARE_DECIMAL = re.compile(r"(?<![\w.])\.\d")

pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="the source distribution has no docs")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def python_blocks(path: Path) -> list[str]:
    return [text for language, text in FENCE.findall(path.read_text()) if language == "python"]


def prose(path: Path) -> str:
    """The document without its code, blocks and inline."""
    text = INDENTED.sub("", FENCE.sub("", path.read_text()))
    return re.sub(r"`[^`]*`", "", text)


def anchors(path: Path) -> set[str]:
    """What the headings are called in links: small letters, spaces as hyphens, other signs left out, repeats counted."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found[slug] = found.get(slug, 0) + 1
    return {slug if number == 0 else f"{slug}-{number}" for slug, count in found.items() for number in range(count)}


def broken_links(path: Path) -> list[str]:
    broken = []
    for target in LINK.findall(prose(path)):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = path.parent / file if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    return broken


@cache
def options_of_commands() -> dict[str, set[str]]:
    """The long options of every command; of those that are groups, with their sub-commands' options."""
    root: Any = typer.main.get_command(app)

    def options(command: Any) -> set[str]:
        own = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        return own.union({"--help"}, *(options(child) for child in getattr(command, "commands", {}).values()))

    return {"": options(root), **{command: options(child) for command, child in root.commands.items()}}


@cache
def options_of_scripts() -> set[str]:
    """Every string in the benchmarks' source that looks like an option."""
    strings = (
        node.value
        for path in (ROOT / "benchmarks").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in strings if OPTION.fullmatch(text)}


LAUNCHER = re.compile(
    r"\b(srun|torchrun|sbatch|SBATCH|dask (?:worker|scheduler)|worker_extra_args|job_extra_directives)\b.*?(?=\binvsolve\b|`|$)"
)
"""Programs that start the command in several processes, or workers for it, with options of their own."""


def unknown_options(text: str) -> list[str]:
    """Options that the command named before them on the line does not have, or that nothing has where none is named."""
    anywhere = options_of_commands()[""] | options_of_scripts()
    unknown = []
    for line in text.replace("\\\n", "").splitlines():
        if re.search(r"\b(pip|git|time) ", line):
            continue
        for call in re.split(r"&&|`", LAUNCHER.sub("", line)):
            command = re.search(r"\binvsolve (\w+)", call)
            known = options_of_commands().get(command[1], anywhere) if command else anywhere
            unknown += [option for option in OPTION.findall(call) if option not in known]
    return unknown


def test_readme_is_short_and_narrow() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path) == []


@pytest.mark.parametrize("path", LEADING_ZEROS, ids=name)
def test_numbers_have_a_leading_zero(path: Path) -> None:
    assert [line for line in prose(path).splitlines() if BARE_DECIMAL.search(line)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_options_exist(path: Path) -> None:
    assert unknown_options(path.read_text()) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_python_blocks_compile(path: Path) -> None:
    for block in python_blocks(path):
        compile(block, name(path), "exec")


@pytest.mark.parametrize("block", python_blocks(README))
def test_python_blocks_of_the_readme_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.py").write_text(block)
    runpy.run_path("block.py")


def test_the_checks_find_what_they_look_for(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page's head, twice\n\n# A page's head, twice\n\n[a](page.md#a-pages-head-twice-1) [b](no.md)\n"
    )
    assert broken_links(page) == ["no.md"]
    page.write_text("# Head\n\n[gone](#heads)\n\n```python\n# Heads\n```\n")
    assert broken_links(page) == ["#heads"]
    found = [
        bool(BARE_DECIMAL.search(text)) for text in ("is .5", "(.5", "+-.034", "1/.9", "0.5", "v1.5", "a.npz", "..5")
    ]
    assert found == [True, True, True, True, False, False, False, False]
    assert unknown_options("invsolve inpaint a.png --mask m.png --views 3") == ["--views"]
    assert unknown_options("`--calibration shipped`, --calibrate") == ["--calibrate"]
