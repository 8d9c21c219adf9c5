"""Kill a run over a folder at random moments, and see whether anything is lost.

Every run is a process of its own, forked from one that has loaded torch, so that the kills (SIGKILL) fall into the work.
After each kill, whatever has a result's name must be that result, byte for byte, and so must all that the manifest calls
done. The next run goes on; once one ends by itself, the folder must be whole, and the next round begins with an empty one.
With --copy the pictures are copied instead of solved, which takes next to no time: so most kills fall into the writing of
results and manifest, and there can be thousands.

python benchmarks/kills.py --kills 100 --pictures 8
python benchmarks/kills.py --kills 5000 --copy
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from invsolve.atomic import write_files
from invsolve.finding import Picture, find_pictures
from invsolve.folders import run_folder
from invsolve.manifests import Manifest, manifest_paths, newest

EVERY = 50
"""Kills between two lines of progress."""


def make_pictures(folder: Path, count: int, side: int) -> None:
    """Smooth colour pictures, half of them in a sub-folder."""
    y, x = np.mgrid[:side, :side]
    for k in range(count):
        planes = [128 + 100 * np.sin(x / (5 + k) + c) * np.cos(y / 7 - c) for c in range(3)]
        path = folder / ("sub" if k % 2 else ".") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack(planes, axis=2).astype(np.uint8)).save(path)


def solved(source: Path, out: Path, model: str) -> int:
    """The command; its exit code."""
    given = ["denoise", source, "--sigma", 0.1, "--samples", 2, "--steps", 2, "--model", model, "-o", out]
    sys.argv = ["invsolve", *map(str, given)]
    from invsolve.cli.app import run

    return run()


def copied(source: Path, out: Path) -> int:
    """The same without the solver; an exit code."""

    def copy(picture: Picture, folder: Path, force: bool) -> list[Path]:
        content, stem = picture.path.read_bytes(), picture.path.stem
        names = [folder / f"{stem}.denoise{part}.png" for part in ("", ".sample-1", ".mean", ".std")]
        write_files(dict.fromkeys(names, content), last=names[0])
        return names

    pictures = find_pictures([source], {".png"}, without=out)
    return len(run_folder(copy, pictures, out, task="denoise", settings={"seed": 0}).failed)


def start(run: Callable[[], int]) -> int:
    """Begin a run in a process of its own; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        code = run()
    finally:
        os._exit(code)


def ended(child: int, seconds: float) -> int | None:
    """Exit code of a process, or None where it was killed after so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == -signal.SIGKILL else code


def results(folder: Path) -> dict[str, bytes]:
    """What has a result's name, staged files and manifests left out."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found if ".denoise." in p.name}


def check(folder: Path, wanted: dict[str, bytes]) -> Counter[str]:
    """What a kill left; a RuntimeError where anything is lost or damaged."""
    there = results(folder)
    records = newest(map(Manifest.read, manifest_paths(folder)))
    done = [record for record in records.values() if record.status == "done"]
    listed = {output for record in done for output in record.outputs}
    if wrong := [name for name in there if there[name] != wanted.get(name)]:
        raise RuntimeError(f"not what it should be: {wrong}")
    if lost := listed - there.keys():
        raise RuntimeError(f"lost: {sorted(lost)}")
    staged = sum(1 for _ in folder.rglob("*.part"))
    return Counter(
        {
            "kills": 1,
            "kills before the first picture": not records,
            "kills within a picture": any(record.status == "started" for record in records.values()),
            "kills that left a staged file": staged > 0,
            "kills between a result and its record": bool(there.keys() - listed),
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--side", type=int, default=24, help="pixels")
    parser.add_argument("--model", default="photos")
    parser.add_argument("--copy", action="store_true", help="copy the pictures, do not solve")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    settings = parser.parse_args(arguments)

    if not settings.copy:
        import torch

        import invsolve.pretrained.loading
        import invsolve.summary  # noqa: F401 - loaded here, so that it need not be in every run

        torch.set_num_threads(1)  # a process that has threads cannot be forked
    moments, total = random.Random(settings.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as work:
        source, reference, out = (Path(work) / name for name in ("in", "reference", "out"))
        make_pictures(source, settings.pictures, settings.side)

        def run(folder: Path) -> Callable[[], int]:
            return partial(copied if settings.copy else partial(solved, model=settings.model), source, folder)

        began = time.monotonic()
        if code := ended(start(run(reference)), 600):
            raise SystemExit(f"the run that nobody kills ended with {code}")
        seconds, wanted = time.monotonic() - began, results(reference)
        print(f"{settings.pictures} pictures, {len(wanted)} files: {seconds:.2f} s without a kill", flush=True)
        while total["kills"] < settings.kills:
            code = ended(start(run(out)), moments.uniform(0, seconds))
            if code is None:
                total += check(out, wanted)
                if total["kills"] % EVERY == 0:
                    print(", ".join(f"{count} {name}" for name, count in total.items()), flush=True)
            if code is None and total["kills"] < settings.kills:
                continue
            if code is None:  # the last kill: this time nobody does
                code = ended(start(run(out)), 600)
            lines = (out / "manifest.jsonl").read_bytes().count(b"\n")
            left = [path.name for path in out.rglob("*.part")]
            if code or results(out) != wanted or lines != settings.pictures + 1 or left:
                raise RuntimeError(f"the last run ended with {code}, {lines} lines, {left}")
            total["rounds that ended whole"] += 1
            shutil.rmtree(out)
    for name, count in total.items():
        print(f"{name:>40} {count}")
    print(f"{'lost or damaged':>40} 0")


if __name__ == "__main__":
    main()
