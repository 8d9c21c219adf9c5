"""The optional packages of ``pip install 'invsolve[distributed]'``."""

from __future__ import annotations

import importlib

from invsolve.errors import ModelError

EXTRA = "pip install 'invsolve[distributed]'"


def require(*packages: str) -> None:
    """Raise a ModelError that says how to get them, unless all ``packages`` can be imported."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ModelError(f"{package} is not installed, or does not work: {error}", hint=EXTRA) from error
