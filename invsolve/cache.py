"""Where things are kept that can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """``$INVSOLVE_CACHE``, else ``invsolve`` in the place this system has for a user's caches; it need not exist."""
    given = os.environ.get("INVSOLVE_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("invsolve", appauthor=False))
