"""Large photographs: memory and time of `invsolve inpaint` by the area of the holes, each run in a process of its own.

    python benchmarks/large.py --megapixels 12 --shares 0.0025 0.01 0.04 --folder runs/large
    python benchmarks/large.py --megapixels 100 --shares 0.0005 --memory 2GB --folder runs/large

The picture is examples/astronaut.png, enlarged twice and mirrored over and over; the holes are disks 60 pixels across at
random places. A line says how much of the picture is missing, the peak of the process's memory, its seconds, those it
computed (of all threads, which another program on the machine does not change), and how many pixels outside the holes
differ. Last comes what encoding a picture takes, in bytes per pixel: ``WRITING`` in cli/memory.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from invsolve.atomic import write_files

ROOT = Path(__file__).resolve().parents[1]
RADIUS = 30
BEFORE = "import sys; from invsolve.cli.main import main; sys.argv[0] = 'invsolve'; main()"

Image.MAX_IMAGE_PIXELS = None


def picture_of(height: int, width: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3), without seams."""
    with Image.open(ROOT / "examples" / "astronaut.png") as file:
        once = np.asarray(file.convert("RGB").resize((1024, 1024), Image.Resampling.LANCZOS))
    twice = np.concatenate([once, once[:, ::-1]], axis=1)
    tile = np.concatenate([twice, twice[::-1]])
    return np.tile(tile, (-(-height // 2048), -(-width // 2048), 1))[:height, :width]


def disks(height: int, width: int, share: float, seed: int = 0) -> npt.NDArray[np.bool_]:
    """(H, W), True in disks of :data:`RADIUS` that cover about ``share`` of it."""
    random, missing = np.random.default_rng(seed), np.zeros((height, width), dtype=bool)
    axis = np.arange(-RADIUS, RADIUS + 1) ** 2
    disk = np.add.outer(axis, axis) <= RADIUS**2
    while missing.sum() < share * missing.size:
        y, x = random.integers(RADIUS, height - RADIUS), random.integers(RADIUS, width - RADIUS)
        missing[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1] |= disk
    return missing


def run(*arguments: str) -> dict[str, float]:
    """Peak memory in GB and seconds of `invsolve` with these arguments, in a process of its own.

    Raises
    ------
    SystemExit : it failed.
    """
    started = time.perf_counter()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = os.spawnve(
        os.P_NOWAIT, sys.executable, [sys.executable, "-c", BEFORE, *arguments], os.environ | {"PYTHONPATH": path}
    )
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"invsolve {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "peak_gb": usage.ru_maxrss * 1024 / 1e9,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }


def measure(chosen: argparse.Namespace, share: float) -> dict[str, float]:
    """One run of the command."""
    height = round((chosen.megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    picture, missing = picture_of(height, width), disks(height, width, share)
    folder: Path = chosen.folder
    folder.mkdir(parents=True, exist_ok=True)
    source, mask, result = (folder / f"{name}-{chosen.megapixels:g}-{share:g}.png" for name in ("in", "mask", "out"))
    Image.fromarray(picture).save(source, compress_level=1)
    Image.fromarray(missing).save(mask)
    options = ["--steps", str(chosen.steps), "--samples", str(chosen.samples), "--device", chosen.device]
    options += ["--memory", chosen.memory] if chosen.memory else []
    figures = run("inpaint", str(source), "--mask", str(mask), "-o", str(result), "--force", *options)
    with Image.open(result) as file:
        made = np.asarray(file)
    return {"missing": float(missing.mean()), **figures, "changed": float((made != picture)[~missing].sum())}


def writing() -> dict[str, float]:
    """Bytes per pixel that encoding takes beside the picture itself, by depth and kind of file (Linux only)."""
    from invsolve.cli.files import encode_picture

    found, grey_levels = {}, picture_of(2000, 3000)
    noise = np.random.default_rng(0).integers(0, 256, grey_levels.shape, dtype=np.uint16)
    deep = grey_levels.astype(np.uint16) * 256 + noise
    for name, picture in (("8-bit", grey_levels), ("16-bit", deep), ("float", (deep / 65535).astype(np.float32))):
        for ending in (
            (".png", ".jpg", ".tif") if name == "8-bit" else (".png", ".tif") if name == "16-bit" else (".tif",)
        ):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
            before = _status("VmRSS")
            encode_picture(picture, Path(f"x{ending}"), {})
            found[f"{name} {ending}"] = (_status("VmHWM") - before) / (2000 * 3000)
    return found


def _status(name: str) -> float:
    """Bytes, of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for every area and write ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0025, 0.01, 0.04], help="of the picture, missing")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--memory", help="as --memory of the command")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=Path("runs/large"), help="for pictures and results")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure")
    chosen = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for share in chosen.shares:
        rows.append(measure(chosen, share))
        print(", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    encoding = writing() if Path("/proc/self/clear_refs").exists() else {}
    print("bytes per pixel of writing: " + ", ".join(f"{name} {value:.1f}" for name, value in encoding.items()))
    if chosen.json:
        content = json.dumps({"settings": vars(chosen), "rows": rows, "writing": encoding}, indent=1, default=str)
        write_files({chosen.json: content.encode()})


if __name__ == "__main__":
    main()
