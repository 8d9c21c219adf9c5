"""A CT volume: do neighbouring slices agree, and does a cluster change anything but the time?

    python benchmarks/volume.py consistency --data ct-val.npz
    python benchmarks/volume.py consistency --data ct-val.npz --photons 1e5 --thin 4 --slices 16
    python benchmarks/volume.py speed --data ct-val.npz
    python benchmarks/volume.py memory --data ct-val.npz --size 48 --steps 2
    python benchmarks/volume.py losses --data ct-val.npz --size 48

``consistency``: standard deviation of the differences of neighbouring slices, the truth's, ours, and of what ours differ
from the truth's; PSNR of axial and coronal planes; with the noise shared by all slices and without. ``--thin`` puts
interpolated slices between those of the data. ``speed``: slices per minute of one worker and of two, one thread each.
``memory``: peaks of the client and of the workers for 50 and 200 slices. ``losses``: a worker killed, the client killed and
the run gone on with, and a scheduler and workers started by hand on a port of their own: each beside an undisturbed run, bit
for bit. The last three need ``pip install 'invsolve[distributed]'``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ct import scan
from harness import Array, machine

from invsolve.atomic import write_files
from invsolve.ct.reconstruction import THROUGH_PLANE, reconstruct_ct
from invsolve.ct.simulation import photon_counts, project_slice
from invsolve.ct.units import attenuation_per_unit
from invsolve.evaluation.metrics import psnr
from invsolve.models.score_model import ScoreModel
from invsolve.options import EXACT_RECONSTRUCTION
from invsolve.pretrained import load_prior

PATIENT = "KiTS-00072"
"""The one of the validation data with neighbouring slices."""

HU = 2000.0


def read_volume(path: Path, size: int) -> tuple[Array, float]:
    """(slices, size, size) of n, the middle of each slice, from the feet up, and the pixel size in mm."""
    with np.load(path, allow_pickle=False) as archive:
        names = [str(name) for name in archive["patient_names"]]
        rows = np.flatnonzero(archive["patient"] == names.index(PATIENT))
        rows = rows[np.argsort(archive["z_mm"][rows])]
        edge = (archive["images"].shape[1] - size) // 2
        images = archive["images"][rows, edge : edge + size, edge : edge + size]
        return images.astype(np.float32) / 2000, float(archive["pixel_mm"][rows[0]])


def thinner(volume: Array, times: int) -> Array:
    """With ``times - 1`` slices between every two, linearly interpolated."""
    at = np.arange((len(volume) - 1) * times + 1) / times
    low = np.minimum(at.astype(int), len(volume) - 2)
    share = (at - low)[:, None, None].astype(np.float32)
    return (1 - share) * volume[low] + share * volume[low + 1]


def there_and_back(slices: int, count: int) -> list[int]:
    """So many numbers: up through the slices, down again, and so on."""
    once = [*range(slices), *range(slices - 2, 0, -1)]
    return [once[k % len(once)] for k in range(count)]


# -- do neighbours agree? -------------------------------------------------------------------------------------------
def figures(truth: Array, found: Array) -> dict[str, float]:
    """Of volumes (slices, rows, columns) in n: differences of neighbours in HU, PSNR in dB, means over the planes."""
    differences, true = np.diff(found, axis=0), np.diff(truth, axis=0)
    planes = {"axial": (truth, found), "coronal": (truth.swapaxes(0, 1), found.swapaxes(0, 1))}
    return {
        "differences": HU * float(differences.std()),
        "their error": HU * float((differences - true).std()),
        **{
            name: float(np.mean([psnr(t, f, data_range=1.0) for t, f in zip(*pair, strict=True)]))
            for name, pair in planes.items()
        },
    }


def consistency(chosen: argparse.Namespace, prior: ScoreModel) -> dict[str, dict[str, float]]:
    """Figures by way and estimate."""
    volume, pixel_mm = read_volume(chosen.data, chosen.size)
    volume = thinner(volume, chosen.thin)[: chosen.slices]
    geometry, scale = scan(chosen.views, chosen.size), attenuation_per_unit(pixel_mm)
    if chosen.photons is None:
        data = [project_slice(one, geometry, same_grid=True) for one in volume]
    else:
        data = [photon_counts(project_slice(n, geometry), chosen.photons, scale, k) for k, n in enumerate(volume)]
    found = {"truth": figures(volume, volume)}
    for way in THROUGH_PLANE:
        started = time.perf_counter()
        posterior = reconstruct_ct(
            np.stack(data), geometry, prior, options(chosen), i0=chosen.photons, scale=scale, through_plane=way
        )  # fmt: skip
        seconds = time.perf_counter() - started
        for name, estimate in {"one sample": posterior.samples[0], "mean": posterior.mean}.items():
            row = figures(volume, estimate[:, 0].numpy()) | {"seconds": seconds}
            found[f"{way}, {name}"] = row
            print(f"{way}, {name}: " + ", ".join(f"{key} {value:.2f}" for key, value in row.items()), flush=True)
    return found


def options(chosen: argparse.Namespace) -> Any:
    return replace(EXACT_RECONSTRUCTION, samples=chosen.samples, steps=chosen.steps)


# -- does a cluster change anything? --------------------------------------------------------------------------------
def write_sinograms(chosen: argparse.Namespace, count: int, folder: Path) -> Path:
    """A Zarr array of so many slices, projected one at a time."""
    import zarr

    volume, _ = read_volume(chosen.data, chosen.size)
    geometry, path = scan(chosen.views, chosen.size), folder / f"{count}.zarr"
    shape = geometry.sinogram_shape
    made = zarr.create_array(path, shape=(count, *shape), chunks=(1, *shape), dtype="float32")
    projected = [project_slice(one, geometry, same_grid=True) for one in volume]
    for k, number in enumerate(there_and_back(len(volume), count)):
        made[k] = projected[number]
    return path


def once(
    chosen: argparse.Namespace, client: Any, source: Path, output: Path, progress: Callable[[float], None] | None = None
) -> Array:
    """Reconstruct the volume on a cluster; (slices, rows, columns) of the mean and the deviation in HU."""
    from invsolve.distributed import map_slices, open_sinograms

    result = map_slices(
        client, open_sinograms(source).array, scan(chosen.views, chosen.size), output, chosen.model, options(chosen),
        device=chosen.device, threads=1, note=print, progress=progress,
    )  # fmt: skip
    return np.stack([part.compute(scheduler="synchronous") for part in (result.mean, result.std) if part is not None])


def speed(chosen: argparse.Namespace, folder: Path) -> None:
    """Slices per minute, from the first that is done to the last, so that nothing that is loaded counts."""
    from invsolve.distributed import local_workers

    source, alone = write_sinograms(chosen, chosen.slices or 12, folder), 0.0
    for workers in chosen.workers:
        stamps: list[float] = []

        def stamp(share: float, stamps: list[float] = stamps) -> None:
            stamps.append(time.perf_counter())

        with local_workers(workers, device=chosen.device) as client:
            once(chosen, client, source, folder / f"{workers}.ct.zarr", stamp)
        steady = stamps[workers - 1 :]  # each worker's first slice bears what it loads
        rate = 60 * (len(steady) - 1) / (steady[-1] - steady[0])
        alone = alone or rate
        print(
            f"{workers} workers of one thread: {rate:.2f} slices a minute, {rate / alone:.2f} times the first",
            flush=True,
        )


def peak_megabytes() -> float:
    """The most memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS


def memory(chosen: argparse.Namespace, folder: Path) -> None:
    """Each number of slices in a process of its own, whose peak nothing else has raised."""
    for count in (50, 200):
        source = write_sinograms(chosen, count, folder)
        done = subprocess.run(
            itself(chosen, "peaks", source, folder / f"{count}.ct.zarr"), stdout=subprocess.PIPE, text=True, check=True
        )
        print(done.stdout.splitlines()[-1], flush=True)


def peaks(chosen: argparse.Namespace, source: Path, output: Path) -> None:
    from invsolve.distributed import local_workers

    with local_workers(chosen.workers[-1], device=chosen.device) as client:
        from invsolve.distributed import map_slices, open_sinograms

        array = open_sinograms(source).array
        map_slices(
            client, array, scan(chosen.views, chosen.size), output, chosen.model, options(chosen), threads=1,
            device=chosen.device,
        )  # fmt: skip
        workers = [f"{peak:.0f}" for peak in client.run(peak_megabytes).values()]
    print(f"{len(array)} slices: client {peak_megabytes():.0f} MB, workers {', '.join(workers)} MB at most")


def losses(chosen: argparse.Namespace, folder: Path) -> None:
    """Every way against an undisturbed run of one worker."""
    from invsolve.distributed import connect, local_workers

    source = write_sinograms(chosen, chosen.slices or 12, folder)
    with local_workers(1, device=chosen.device) as client:
        expected = once(chosen, client, source, folder / "undisturbed.zarr")

    with local_workers(2, device=chosen.device) as client:
        victims = list(client.run(os.getpid).values())

        def kill(share: float) -> None:
            if share > 0.3 and victims:
                os.kill(victims[0], signal.SIGKILL)
                victims.clear()

        told("a worker killed", expected, once(chosen, client, source, folder / "worker.zarr", kill))

    output = folder / "client.zarr"
    run = subprocess.Popen(itself(chosen, "peaks", source, output), stdout=subprocess.DEVNULL)
    finished = output.with_name("client.partial.zarr") / "done" / "c"
    while run.poll() is None and (not finished.is_dir() or len(list(finished.iterdir())) < 3):
        time.sleep(0.05)
    run.kill()
    run.wait()
    kept = len(list(finished.iterdir()))
    with local_workers(2, device=chosen.device) as client:
        told(f"the client killed after {kept} slices", expected, once(chosen, client, source, output))

    with by_hand() as address, connect(address, patience=60) as client:
        told(f"a scheduler at {address}", expected, once(chosen, client, source, folder / "hand.zarr"))


def told(what: str, expected: Array, found: Array) -> None:
    same = np.array_equal(expected, found)
    print(
        f"{what}: " + ("the same bit for bit" if same else f"differs by {np.abs(expected - found).max():.3g} HU"),
        flush=True,
    )


@contextmanager
def by_hand() -> Iterator[str]:
    """A scheduler and two workers, started as on a user's own machines."""
    address = "tcp://127.0.0.1:18786"
    local = ["--host", "127.0.0.1"]
    commands = [["scheduler", *local, "--port", "18786", "--no-dashboard"]]
    commands += [["worker", address, *local, "--nthreads", "1", "--no-dashboard"]] * 2
    quiet: dict[str, Any] = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    running = [subprocess.Popen([sys.executable, "-m", "dask", *command], **quiet) for command in commands]
    try:
        yield address
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait()


def itself(chosen: argparse.Namespace, what: str, source: Path, output: Path) -> list[str]:
    """The command line of this script for one run."""
    given = {name: getattr(chosen, name) for name in ("data", "model", "device", "size", "views", "samples", "steps")}
    named = [f"--{name}={value}" for name, value in given.items()]
    run = json.dumps([str(source), str(output)])
    return [sys.executable, __file__, what, *named, f"--workers={chosen.workers[-1]}", f"--run={run}"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["consistency", "speed", "memory", "losses", "peaks"])
    parser.add_argument("--data", type=Path, required=True, help="an archive like ct-val.npz")
    parser.add_argument("--model", default="ct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=128, help="side of the middle of the slices")
    parser.add_argument("--views", type=int, default=23)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--slices", type=int, help="default: of consistency all there are, else 12")
    parser.add_argument("--photons", type=float, help="per ray; default no noise")
    parser.add_argument("--thin", type=int, default=1, help="of consistency: so many times as many slices")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures of consistency")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.what == "peaks":
        peaks(chosen, *map(Path, json.loads(chosen.run)))
        return
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # it tells of every connection
    torch.set_num_threads(1)
    print(machine())
    if chosen.what == "consistency":
        found = consistency(chosen, load_prior(chosen.model, chosen.device))
        if chosen.json:
            write_files({chosen.json: json.dumps(found).encode()})
        print(f"truth: differences {found['truth']['differences']:.2f}")
        return
    with tempfile.TemporaryDirectory() as folder:
        {"speed": speed, "memory": memory, "losses": losses}[chosen.what](chosen, Path(folder))


if __name__ == "__main__":
    main()
