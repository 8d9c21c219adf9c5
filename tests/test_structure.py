"""The package's structure: dependencies point one way, old names lead to new ones."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from invsolve._moved import MOVED

ROOT = Path(__file__).resolve().parents[1] / "invsolve"

FLOORS = (
    (
        "_version",
        "_moved",
        "cache",
        "errors",
        "atomic",
        "files",
        "hdf5",
        "named",
        "colours",
        "pictures",
        "options",
        "typed",
        "manifests",
        "finding",
        "folders",
    ),
    ("forward_models",),
    ("models",),
    ("ode",),
    ("rules",),
    ("samplers",),
    ("uncertainty",),
    ("posterior",),
    ("solver", "summary"),
    ("tasks", "ct", "verification", "evaluation"),
    ("pretrained",),
    ("training",),
    ("distributed",),
    ("ui",),
    ("cli",),
    ("__main__",),
)
"""From the ground up: a floor imports from itself and from those below."""


def modules() -> list[Path]:
    return sorted(path for folder in [ROOT, *ROOT.iterdir()] if folder.is_dir() for path in folder.glob("*.py"))


def imports(path: Path) -> set[str]:
    """First part below ``invsolve`` of everything that ``path`` imports when it runs; what only types need is left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "invsolve":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("invsolve."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("invsolve.")}
    return found


def test_imports_point_down() -> None:
    floor = {part: number for number, parts in enumerate(FLOORS) for part in parts}
    wrong = []
    for path in modules():
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own != "__init__":
            wrong += [f"{own}: {path.name} imports {other}" for other in imports(path) if floor[other] > floor[own]]
    assert not wrong


@pytest.mark.parametrize("old", MOVED)
def test_old_names_lead_to_the_new_ones(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=MOVED[old][0]):
        module = importlib.reload(importlib.import_module(f"invsolve.{old}"))
    for home in MOVED[old]:
        new = importlib.import_module(f"invsolve.{home}")
        for name in vars(new):
            if not name.startswith("__"):
                assert getattr(module, name) is not None


def test_solving_does_not_import_training() -> None:
    code = """
import sys
import invsolve
for name in invsolve.__all__:
    getattr(invsolve, name)
print([name for name in sys.modules if name.startswith(("invsolve.training", "invsolve.cli", "astra"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
