"""The gallery shows every operator and every noise that has a name, and draws one anew."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from invsolve.forward_models import NOISES, OPERATORS

ROOT = Path(__file__).resolve().parents[1]
PAGE, SHEETS = ROOT / "docs" / "gallery.md", ROOT / "docs" / "images" / "gallery"
documented = pytest.mark.skipif(not PAGE.exists(), reason="the source distribution has no docs")


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(ROOT / "examples")
    return runpy.run_path(str(ROOT / "examples" / "gallery.py"))


def test_every_name_has_a_case(gallery: dict[str, Any]) -> None:
    pairs = [pair for case in gallery["CASES"].values() for pair in case.measurements]
    assert {name for operators, _ in pairs for name, _ in operators} == set(OPERATORS)
    assert {kind for _, (kind, _) in pairs} == set(NOISES)


@documented
def test_the_page_shows_every_sheet(gallery: dict[str, Any]) -> None:
    names = [gallery["file_name"](case) for case in gallery["CASES"]]
    text = PAGE.read_text()
    assert {path.name for path in SHEETS.iterdir()} == set(names)
    assert all(f"(images/gallery/{name})" in text for name in names)
    assert sum(path.stat().st_size for path in SHEETS.iterdir()) < 1_500_000


def test_a_sheet_is_drawn(gallery: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gallery.py", "--only", "channels"])
    gallery["main"]()
    with Image.open(tmp_path / "invsolve-examples" / "gallery" / "channels.jpg") as sheet:
        assert sheet.size == (6 * 128 + 5 * 6, 128 + 18)
