"""How tests run a command."""

from __future__ import annotations

import sys

import pytest


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of ``invsolve ARGUMENTS`` in this process, which is quicker than one of its own."""
    from invsolve.cli.main import main

    monkeypatch.setattr(sys, "argv", ["invsolve", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)
