"""Past one machine: volumes of slices and folders of files through a Dask cluster.

Needs ``pip install 'invsolve[distributed]'``. Names are imported on first use, so that a missing package is one line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invsolve.distributed.cluster import connect, local_workers
    from invsolve.distributed.files import Mapped, map_files
    from invsolve.distributed.sinograms import Sinograms, open_sinograms
    from invsolve.distributed.slices import Volume, map_slices

_HOMES = {
    "connect": "cluster",
    "local_workers": "cluster",
    "Mapped": "files",
    "map_files": "files",
    "Sinograms": "sinograms",
    "open_sinograms": "sinograms",
    "Volume": "slices",
    "map_slices": "slices",
}

__all__ = [
    "Mapped",
    "Sinograms",
    "Volume",
    "connect",
    "local_workers",
    "map_files",
    "map_slices",
    "open_sinograms",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"invsolve.distributed.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'invsolve.distributed' has no attribute {name!r}")
