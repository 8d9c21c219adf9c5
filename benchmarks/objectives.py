"""Cost of a training step against dimension, by score-matching objective.

    python benchmarks/objectives.py

A two-layer network of width 128 on d numbers, 32 samples: milliseconds of loss and gradient. The exact trace takes d
backward passes; the sliced objectives take one per direction, whatever d.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from invsolve.training.objectives import denoising, draw_directions, implicit, sliced


def milliseconds(loss: Callable[[], Tensor], model: nn.Module, repeats: int) -> float:
    """Fastest of ``repeats`` steps: what the objective costs, not what else the machine does."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        torch.autograd.grad(loss().mean(), list(model.parameters()))
        times.append(1000 * (time.perf_counter() - started))
    return min(times)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    table: dict[str, dict[int, float]] = {}
    for d in options.dimensions:
        generator = torch.Generator().manual_seed(0)
        x, z = (torch.randn(32, d, generator=generator) for _ in range(2))
        model = nn.Sequential(nn.Linear(d, 128), nn.SiLU(), nn.Linear(128, d))

        def directions(count: int, x: Tensor = x, generator: torch.Generator = generator) -> Tensor:
            return draw_directions(x, count, "rademacher", generator)

        objectives: dict[str, Callable[[], Tensor]] = {
            "denoising": lambda model=model, x=x, z=z: denoising(model, x, 0.3, z),  # type: ignore[misc]
            "sliced, 1 direction": lambda model=model, x=x, v=directions: sliced(model, x, v(1)),  # type: ignore[misc]
            "sliced, 4 directions": lambda model=model, x=x, v=directions: sliced(model, x, v(4)),  # type: ignore[misc]
            "implicit, exact trace": lambda model=model, x=x: implicit(model, x),  # type: ignore[misc]
        }
        for name, loss in objectives.items():
            cost = milliseconds(loss, model, options.repeats if d < 1000 else 2)
            table.setdefault(name, {})[d] = round(cost, 3)
    print(f"{'ms per step, d =':>22} " + " ".join(f"{d:>9}" for d in options.dimensions))
    for name, row in table.items():
        print(f"{name:>22} " + " ".join(f"{row[d]:9.2f}" for d in options.dimensions))
    print(json.dumps(table))


if __name__ == "__main__":
    main()
