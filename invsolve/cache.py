"""Where things are kept that can be made or fetched again, and where the models that somebody imported."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """``$INVSOLVE_CACHE``, else ``invsolve`` in the place this system has for a user's caches; it need not exist."""
    given = os.environ.get("INVSOLVE_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("invsolve", appauthor=False))


def models_folder() -> Path:
    """Where imported models are: ``$INVSOLVE_MODELS``, else ``invsolve/models`` in the place this system has for a user's data;
    it need not exist."""
    given = os.environ.get("INVSOLVE_MODELS")
    return Path(given) if given else Path(platformdirs.user_data_dir("invsolve", appauthor=False)) / "models"
