"""What the benchmarks share: the pictures, the masks, tables."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from invsolve.cli.demo import scratches
from invsolve.posterior import Posterior
from invsolve.training.sources import load_pictures

SIZE = 256


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Options every picture benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, help="validation pictures: folder or .npz")
    parser.add_argument("--model", default="photos")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sampler", default="renoising")
    parser.add_argument("--rule", default="proximal")
    parser.add_argument("--show", type=Path, help="write a picture of the first results here")
    return parser


def centre_crops(path: str, count: int, size: int = SIZE) -> list[npt.NDArray[np.uint8]]:
    """The centre ``size`` x ``size`` of the first ``count`` pictures."""
    crops = []
    for picture in load_pictures(path)[:count]:
        top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
        crops.append(picture[top : top + size, left : left + size].astype(np.uint8))
    return crops


def random_pixels(index: int, size: int = SIZE) -> npt.NDArray[np.bool_]:
    """Mask (a): half of all pixels, at random."""
    return np.random.default_rng([1, index]).random((size, size)) < 0.5


def random_lines(index: int) -> npt.NDArray[np.bool_]:
    """Mask (b): lines 5 pixels wide over 10 % of the picture."""
    return scratches(SIZE, SIZE, np.random.default_rng([2, index]), share=0.1, thickness=5)


def print_table(rows: dict[str, list[dict[str, float]]]) -> None:
    """Means over pictures, a line per method, then the same as JSON."""
    means = {}
    for method, figures in rows.items():
        means[method] = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
        print(f"{method:>22}: " + "  ".join(f"{name} {value:.3f}" for name, value in means[method].items()), flush=True)
    print(json.dumps(means))


def seconds_per_call(run: Callable[[], Posterior]) -> float:
    """Seconds for each picture and network call of a short ``run``, the second time it runs."""
    run()
    started = time.perf_counter()
    calls = run().network_calls
    return (time.perf_counter() - started) / calls


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
