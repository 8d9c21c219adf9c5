"""How tests run a command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest


class Completed(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Completed]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of ``invsolve ARGUMENTS`` in this process, which is quicker than one of its own."""
    from invsolve.cli.main import main

    monkeypatch.setattr(sys, "argv", ["invsolve", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)
