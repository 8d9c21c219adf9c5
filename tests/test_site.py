"""The documentation site: what is made of docstrings and links; that every package is on it. ``.ci/run`` builds the whole."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
APART = {"invsolve", "invsolve.cli", "invsolve.ui"}
"""Packages with pages of their own, made otherwise."""

pytest.importorskip("griffe")
pytest.importorskip("mkdocs")
pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="the source distribution has no docs")


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "docs" / "site.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_has_a_page(site: ModuleType) -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {f"invsolve.{name}" for name in site.PACKAGES} == set(packages) - APART
    menu = (ROOT / "mkdocs.yml").read_text()
    pages = site.api_pages()
    assert [page for page in pages if page not in menu] == []
    assert "::: invsolve.tasks.inpainting\n" in pages["api/tasks.md"]
    assert '"members": ["find_rule", "rule_name", "condition"]' in pages["api/rules.md"]


def test_every_command_is_on_the_page_of_commands(site: ModuleType) -> None:
    page = site.command_page()
    for line in ("## inpaint", "## simulate ct", "## models import", "invsolve inpaint photo.png --mask scratches.png"):
        assert f"{line}\n" in page
    assert "| `--mask FILE|DIR|alpha` | White = missing;" in page


DOCSTRING = """What it does, with |<Ax, y>| and ``code``; see :func:`other` and :class:`~invsolve.Posterior`.

>>> 1 + 1
2

Parameters
----------
x : (H, W), in [0, 1];
    goes on.
low, high : bounds.

Raises
------
InputError : no such thing.

Returns
-------
Two values: of that.
"""


def test_docstrings_become_markdown(site: ModuleType) -> None:
    made = site.readable(DOCSTRING, "invsolve.here")
    assert "|&lt;Ax, y>| and `code`" in made
    assert '<autoref identifier="invsolve.here.other" optional>`other`</autoref>' in made
    assert '<autoref identifier="invsolve.Posterior" optional>`Posterior`</autoref>' in made
    assert "```pycon\n>>> 1 + 1\n2\n```" in made
    assert "Args:\n    x: (H, W), in [0, 1];\n        goes on.\n    low: bounds.\n    high: bounds.\n" in made
    assert "Raises:\n    InputError: no such thing.\n" in made
    assert made.endswith("Returns:\n    Two values: of that.")


def test_links_lead_to_pages_of_the_site(site: ModuleType) -> None:
    text = "[a](../README.md) [b](../examples/ct.py) [c](ct.md#values) [d](https://x.org) [e](#here) ![f](images/f.png)"
    assert site.linked(text, "docs/ui.md") == (
        "[a](index.md) b [c](ct.md#values) [d](https://x.org) [e](#here) ![f](images/f.png)"
    )
    assert site.linked("[g](../docs/gallery.md)", "examples/README.md") == "[g](gallery.md)"
    assert site.linked("[h](../../README.md)", "docs/lab/ct.md") == "[h](../index.md)"
