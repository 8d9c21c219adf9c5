"""Training in one process and in several, started by torchrun: pictures per second, and what they gain over one process.

Every run takes the same batches of the preset, made from noise. On a CPU each of N processes gets 1 / N of the cores, so that
what is compared is the machine shared out in two ways; on GPUs each gets one. The first steps are not counted.

python benchmarks/throughput.py --processes 1 2 --preset cifar10 --steps 20
python benchmarks/throughput.py --processes 1 2 4 8 --preset large --steps 200 --device cuda --compile
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import machine

from invsolve.models.precision import native_bfloat16
from invsolve.training.distributed import Processes, from_environment, joined, own_device
from invsolve.training.loop import Execution, TrainingInfo, fit, with_overrides
from invsolve.training.loss import DENOISING
from invsolve.training.presets import PRESETS, TrainingConfig


def throughput(config: TrainingConfig, device: torch.device, execution: Execution, uncounted: int) -> dict[str, float]:
    """Pictures per second over all steps but the first ``uncounted``, and the loss at the end; in every process."""
    rng = np.random.default_rng(0)
    side = config.crop + config.crop // 2
    pictures = [rng.integers(0, 256, (side, side, config.network.channels), np.uint8) for _ in range(64)]
    seen: list[TrainingInfo] = []
    with tempfile.TemporaryDirectory() as folder, joined(execution.processes, device):
        fit(
            DENOISING,
            pictures,
            config,
            Path(folder),
            device=device,
            execution=execution,
            on_step=seen.append,
            on_note=print,
        )
    start, end = seen[uncounted - 1], seen[-1]
    total = end.images_per_second * end.seconds - start.images_per_second * start.seconds
    return {"images_per_second": total / (end.seconds - start.seconds), "loss": end.loss}


def launched(processes: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """This script by torchrun in ``processes`` processes; what the first of them found."""
    threads = max(
        1, (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) // processes
    )
    given = [f"--{name}={getattr(chosen, name)}" for name in ("preset", "steps", "uncounted", "device", "accumulate")]
    given += ["--compile"] * chosen.compile + ([f"--batch={chosen.batch}"] if chosen.batch else [])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*torchrun, __file__, "--worker", *given],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def work(chosen: argparse.Namespace, processes: Processes) -> None:
    device = torch.device(own_device(chosen.device, processes, torch.cuda.device_count()))
    config = with_overrides(PRESETS[chosen.preset], steps=chosen.steps, batch=chosen.batch)
    config = with_overrides(config, batch=config.batch * chosen.accumulate, crop_late=config.crop)
    found = throughput(config, device, Execution(processes, chosen.accumulate, chosen.compile), chosen.uncounted)
    if processes.rank == 0:
        print(json.dumps(found | {"batch": config.batch, "bfloat16": native_bfloat16(device)}))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cifar10")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--uncounted", type=int, default=3, help="steps at the start")
    parser.add_argument("--batch", type=int, default=None, help="default: the preset's")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if not 0 < chosen.uncounted < chosen.steps:
        parser.error("--uncounted must be positive and less than --steps")
    if chosen.worker:
        work(chosen, from_environment())
        return
    print(machine(), {name: value for name, value in vars(chosen).items() if name != "worker"})
    alone: float | None = None
    for processes in chosen.processes:
        found = launched(processes, chosen)
        rate = found["images_per_second"]
        alone = alone or rate
        print(
            f"{processes} processes: {rate:.2f} pictures/s, {rate / alone:.2f} times the first; loss {found['loss']:.5f}, "
            f"batch {found['batch']}, {'bfloat16' if found['bfloat16'] else 'float32'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
