"""The commands as they are typed, with each of the seeds' samplers at the command's own number of levels.

    python benchmarks/commands.py --data photos-val.npz --pictures 2 --show commands.png

Annealed Langevin (NCSN), predictor-corrector, the reverse SDE and the ODE, beside the sampler that a command takes by itself:
`invsolve simulate TASK` damages the middle of each picture and `invsolve TASK --sampler SAMPLER` mends it. A cell is network
calls and PSNR of one sample against the truth, the mean over pictures, as the commands' `--json` has it. The sheet has a row per
task, of the first picture: truth, damaged, and the results in the table's order.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cases import centre_crops
from harness import save_sheet
from PIL import Image

SAMPLERS = ("default", "langevin", "pc", "reverse_sde", "ode")


class Task(NamedTuple):
    """A command, how a picture is damaged for it, and what it is told of that."""

    damage: tuple[str, ...]
    damaged: str  # ending of the damaged picture
    told: tuple[str, ...] = ()  # {} stands for the damaged picture without its ending


TASKS = {
    "inpaint": Task(("--pixels", "0.5"), ".damaged.png", ("--mask", "{}.mask.png")),
    "superres": Task(("-x", "4"), ".small.png", ("-x", "4")),
    "deblur": Task(("--sigma", "1.6"), ".blurred.png", ("--sigma", "1.6")),
    "denoise": Task(("--sigma", "0.1"), ".noisy.png", ("--sigma", "0.1")),
    "colorize": Task((), ".grey.png"),
}


def invsolve(*arguments: str | Path) -> str:
    """What the command prints on stdout; its complaint ends the benchmark."""
    done = subprocess.run(
        [sys.executable, "-m", "invsolve", *map(str, arguments)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"invsolve {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def mended(name: str, sampler: str, truth: Path, folder: Path, also: Sequence[str]) -> dict[str, Any]:
    """What `invsolve NAME` with a sampler, and ``also``, says of the damaged picture in ``folder``, its result beside that."""
    task = TASKS[name]
    stem = f"{folder / truth.stem}"
    told = [part.format(stem) for part in task.told]
    chosen = [] if sampler == "default" else ["--sampler", sampler]
    out = folder / f"{truth.stem}.{sampler}.png"
    said = invsolve(
        name,
        stem + task.damaged,
        *told,
        *chosen,
        *also,
        "--truth",
        truth,
        "-o",
        out,
        "--device",
        "cpu",
        "--json",
        "-q",
    )
    found: dict[str, Any] = json.loads(said)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="pictures: folder or .npz")
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--size", type=int, default=64, help="side of the middle that is taken")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--model", help="another prior than each command's own")
    parser.add_argument("--steps", type=int, help="noise levels, instead of what the command and the sampler take")
    parser.add_argument("--show", type=Path, help="PNG of the first picture's results")
    options = parser.parse_args(argv)
    crops = centre_crops(options.data, options.pictures, options.size)
    also = ["--model", options.model] if options.model else []
    also += ["--steps", str(options.steps)] if options.steps else []
    table: dict[str, Any] = {}
    strips = []
    with tempfile.TemporaryDirectory() as made:
        for name in options.tasks:
            folder, rows = Path(made) / name, {}
            folder.mkdir()
            for number, crop in enumerate(crops):
                truth = Path(made) / f"{number}.png"
                Image.fromarray(crop).save(truth)
                invsolve("simulate", name, truth, *TASKS[name].damage, "-o", folder, "-q")
            for sampler in options.samplers:
                found = [mended(name, sampler, Path(made) / f"{k}.png", folder, also) for k in range(len(crops))]
                scores = [row["scores"] for row in found]
                first = next(iter(scores[0]))
                rows.setdefault(first, {"psnr": float(np.mean([s[first]["psnr"] for s in scores]))})
                calls = float(np.mean([row["network_calls"] for row in found]))
                psnr = float(np.mean([score["invsolve sample"]["psnr"] for score in scores]))
                rows[sampler] = {"sampler": found[0]["sampler"], "calls": calls, "psnr": psnr}
                print(
                    f"{name:>9}, {sampler:>12}: {calls:5.0f} calls {psnr:6.2f} dB, {rows[first]['psnr']:.2f} {first}",
                    flush=True,
                )
            table[name] = rows
            ends = [TASKS[name].damaged, *(f".{sampler}.png" for sampler in options.samplers)]
            strips.append([crops[0], *(_picture(folder / f"0{end}", options.size) for end in ends)])
    if options.show:
        save_sheet(options.show, strips, gap=2)
    print(json.dumps(table))


def _picture(path: Path, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """RGB, a smaller one enlarged without smoothing."""
    return np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.NEAREST), np.uint8)


if __name__ == "__main__":
    main()
