"""Where things are kept that can be made or fetched again, and where the models that somebody imported."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """``$INVSOLVE_CACHE``, else ``cache`` in ``$INVSOLVE_HOME``, else ``invsolve`` in the place this system has for a user's caches;
    it need not exist."""
    return _given("CACHE", "cache") or Path(platformdirs.user_cache_dir("invsolve", appauthor=False))


def models_folder() -> Path:
    """Where imported models are: ``$INVSOLVE_MODELS``, else ``models`` in ``$INVSOLVE_HOME``, else ``invsolve/models`` in the place
    this system has for a user's data; it need not exist."""
    return _given("MODELS", "models") or Path(platformdirs.user_data_dir("invsolve", appauthor=False)) / "models"


def _given(variable: str, name: str) -> Path | None:
    """What the environment says; a variable that is empty counts as not set."""
    if own := os.environ.get(f"INVSOLVE_{variable}"):
        return Path(own)
    home = os.environ.get("INVSOLVE_HOME")
    return Path(home) / name if home else None
