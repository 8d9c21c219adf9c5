"""How much of a slice its scan determines: some hundred projections, so it is kept beside the scan's matrix."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path

from invsolve.atomic import write_files
from invsolve.errors import OutputError
from invsolve.forward_models import LinearOperator
from invsolve.forward_models.projector import AstraProjector, SparseProjector, matrix_path
from invsolve.uncertainty.intervals import determined


def determined_share(operator: LinearOperator) -> float:
    """The mean of :func:`invsolve.uncertainty.determined`, by one probe; of the order of ``1 / sqrt(pixels)`` off.

    It depends on the geometry alone, so it is read from the cache where an earlier run put it. It is put there only where the
    matrix is as well: who keeps no matrix keeps nothing.
    """
    if not isinstance(operator, SparseProjector | AstraProjector):
        return _computed(operator)
    matrix = matrix_path(operator.geometry)
    kept = matrix.with_name(f"{matrix.stem.replace('projector', 'determined')}.json")
    known = _read(kept)
    if known is None:
        known = _computed(operator)
        if matrix.is_file():
            with suppress(OSError, OutputError):  # a cache that one may only read, or a full disk
                write_files({kept: json.dumps(known).encode()})
    return known


def _computed(operator: LinearOperator) -> float:
    return float(determined(operator, probes=1).mean())


def _read(path: Path) -> float | None:
    """None where there is no such number."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, float) and math.isfinite(value) else None
