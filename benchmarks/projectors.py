"""CT projectors in one run: the stored matrix, ASTRA's CPU calls, deepinv's Tomography, scikit-image's radon.

    python benchmarks/projectors.py

Milliseconds per slice (best of several), adjoint error, build and load time, memory of the matrix. Every program runs
with the threads it takes by itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ct import scan
from harness import machine

from invsolve.forward_models import AstraProjector, Geometry, LinearOperator
from invsolve.forward_models.projector import SparseProjector, system_matrix


def best(run: Callable[[], Any], seconds: float = 1.0) -> float:
    """Least wall time of a call in milliseconds, repeated for about ``seconds``."""
    run()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 2:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
        if times[0] > seconds:
            break
    return 1000 * min(times)


def adjoint_error(forward: Callable[[Any], Any], adjoint: Callable[[Any], Any], x: Any, y: Any) -> float:
    """|<A x, y> - <x, A' y>| / (|A x| |y|) of one positive random pair."""
    ax = forward(x)
    return float(abs((ax * y).sum() - (x * adjoint(y)).sum()) / (ax.norm() * y.norm()))


def pair(operator: LinearOperator, batch: int) -> tuple[float, float]:
    """Milliseconds per slice of A and A'."""
    x = torch.rand(batch, *operator.input_shape)
    y = torch.rand(batch, *operator.output_shape)
    return best(lambda: operator(x)) / batch, best(lambda: operator.T(y)) / batch


def deepinv_pair(geometry: Geometry, x: torch.Tensor) -> tuple[float, float]:
    """Milliseconds of deepinv's Tomography and its exact adjoint."""
    from deepinv.physics import Tomography

    physics = Tomography(angles=torch.tensor(geometry.angles), img_width=geometry.shape[1], normalize=False)
    sinogram = physics(x)
    return best(lambda: physics(x)), best(lambda: physics.A_adjoint(sinogram))


def radon_time(geometry: Geometry, x: torch.Tensor) -> float:
    """Milliseconds of scikit-image's radon."""
    from skimage.transform import radon

    picture, angles = x[0, 0].numpy(), np.asarray(geometry.angles)
    return best(lambda: radon(picture, angles, circle=False))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="256x23,512x60,512x360", help="side x views, by comma")
    options = parser.parse_args(argv)
    table: dict[str, dict[str, Any]] = {}
    print(machine())
    with tempfile.TemporaryDirectory() as cache:
        os.environ["INVSOLVE_CACHE"] = cache
        for text in options.sizes.split(","):
            size, views = (int(n) for n in text.split("x"))
            geometry = scan(views, size)
            row: dict[str, Any] = {}
            started = time.perf_counter()
            matrix = system_matrix(geometry)
            row["build s"] = time.perf_counter() - started
            started = time.perf_counter()
            stored = SparseProjector(geometry, system_matrix(geometry))
            row["load s"] = time.perf_counter() - started
            row["values"], row["MB"] = matrix.nnz, 2 * (matrix.data.nbytes + matrix.indices.nbytes) / 1e6
            for batch in (1, 8):
                row[f"matrix batch {batch}"] = pair(stored, batch)
            x, y = torch.rand(1, 1, size, size), torch.rand(1, *geometry.sinogram_shape)
            row["matrix adjoint error"] = adjoint_error(stored, stored.T, x, y)
            astra = AstraProjector(geometry)
            row["ASTRA CPU"] = pair(astra, 1)
            row["ASTRA adjoint error"] = adjoint_error(astra, astra.T, x, y)
            row["against ASTRA, batch 8"] = [
                a / b for a, b in zip(row["ASTRA CPU"], row["matrix batch 8"], strict=True)
            ]
            if importlib.util.find_spec("deepinv") and size * views < 512 * 100:
                row["deepinv"] = deepinv_pair(geometry, x)
            row["scikit-image radon"] = radon_time(geometry, x)
            table[text] = row
            for name, value in row.items():
                shown = [f"{v:.4g}" for v in np.atleast_1d(value)]
                print(f"{text:>8}  {name:<24} {' / '.join(shown)}", flush=True)
    print(json.dumps(table))


if __name__ == "__main__":
    main()
