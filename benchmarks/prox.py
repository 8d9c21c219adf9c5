"""The proximal map of a scan, which is most of a CT level: where its time goes, and by which vectors it is iterated.

    python benchmarks/prox.py --views 23 60 --batch 2 8

A picture of discs, the map's start a blurred and noisy one, no noise in the data. *as the picture*: conjugate gradients on
``(A'A + rho) d = A'(y - A z)``; *as y*: the same iterates from vectors as long as the sinogram, which is what
:meth:`invsolve.forward_models.LinearOperator.prox` does where that is the shorter. In turn, processor seconds; ratios round by
round, as the machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ct import scan
from harness import machine
from torch import Tensor

from invsolve.atomic import write_files
from invsolve.forward_models.conjugate_gradient import conjugate_gradient
from invsolve.forward_models.projector import SparseProjector, system_matrix

RHO, NOISE = 0.3, 0.003
Map = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From z, y, rho to the picture."""


def discs(size: int) -> Tensor:
    """(1, 1, size, size) in 0 to 0.6."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    picture = 0.5 * (np.hypot(x, 1.3 * y) < 0.4)
    for number in range(1, 8):
        turn = 2.4 * number
        far = np.hypot(x - 0.04 * number * np.cos(turn), y - 0.03 * number * np.sin(turn))
        picture = picture + (-1) ** number * 0.1 * (far < 0.02 + 0.005 * number)
    return torch.from_numpy(picture.astype(np.float32))[None, None]


def by_pictures(operator: SparseProjector) -> Map:
    """Vectors as long as the picture."""

    def prox(z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        gradient = operator.T(y - operator(z))

        def normal(d: Tensor) -> Tensor:
            return operator.T(operator(d)) + rho.reshape(-1, 1, 1, 1) * d

        return z + conjugate_gradient(normal, gradient, torch.zeros_like(z), tolerance=operator.tolerance)

    return prox


def spent(run: Callable[[], Any]) -> float:
    """Processor seconds."""
    started = time.process_time()
    run()
    return time.process_time() - started


def measure(views: int, size: int, batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of both ways, their ratio, what the results differ by, and the parts of an iteration."""
    geometry = scan(views, size)
    operator = SparseProjector(geometry, system_matrix(geometry))
    truth, generator = discs(size).expand(batch, -1, -1, -1), torch.Generator().manual_seed(0)
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    z = blurred + NOISE * torch.randn(truth.shape, generator=generator)
    y, rho = operator(truth), torch.full((batch,), RHO)
    ways: dict[str, Map] = {"as the picture": by_pictures(operator), "as y": operator.prox}
    times: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            found[name] = way(z, y, rho)
            times[name].append(time.process_time() - started)
    pictures, short = (np.array(seconds) for seconds in times.values())
    changed = found["as the picture"] - z
    return {
        "as the picture": float(np.median(pictures)),
        "as y": float(np.median(short)),
        "ratio": float(np.median(short / pictures)),
        "difference": float((found["as y"] - found["as the picture"]).norm() / changed.norm()),
        "A": min(spent(lambda: operator(z)) for _ in range(3)),
        "A'": min(spent(lambda: operator.T(y)) for _ in range(3)),
        "copy to columns and back": 2 * min(spent(lambda: z.reshape(batch, -1).T.contiguous()) for _ in range(3)),
        "a sum of pictures": min(spent(lambda: z + RHO * z) for _ in range(3)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=[23, 60])
    parser.add_argument("--size", type=int, default=256, help="side of the picture")
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(argv)
    print(machine())
    rows = []
    for views in chosen.views:
        for batch in chosen.batch:
            rows.append({"views": views, "batch": batch, **measure(views, chosen.size, batch, chosen.rounds)})
            print("  ".join(f"{what} {value:.3g}" for what, value in rows[-1].items()), flush=True)
    if chosen.json:
        write_files({chosen.json: json.dumps({"machine": machine(), "rows": rows}, indent=1).encode()})


if __name__ == "__main__":
    main()
