"""``invsolve ct`` of a volume: slice by slice, out of core, in processes of this machine or on a Dask cluster."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from invsolve.atomic import make_folder
from invsolve.cli.common import Common
from invsolve.cli.console import Verbosity, clean_stdout, progress_bar, say
from invsolve.cli.ct_methods import Classical, Rays, score_task
from invsolve.cli.ct_scan import Opened, interpret
from invsolve.cli.files import provenance
from invsolve.cli.results import json_text
from invsolve.errors import OutputError, UsageError

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client

    from invsolve.ct.scan import Scan
    from invsolve.distributed import Volume
    from invsolve.options import SolveOptions
    from invsolve.uncertainty import Calibration

PROBED = 4
"""Slices, evenly over the volume, from which axes, centre, noise and units are found for all."""

SPOKEN_OF = 3
"""Slices that a warning names."""


def reconstruct_volume(
    path: Path,
    described: dict[str, Any],
    method: str,
    through_plane: str,
    common: Common,
    workers: int | None,
    scheduler: str | None,
) -> None:
    """From a volume of sinograms to a Zarr group; ``described`` are the arguments of :func:`interpret`."""
    _check(common, workers, scheduler)
    output = volume_path(common.output, path)
    with clean_stdout():
        quiet_dask()
        import torch

        from invsolve.distributed import map_slices
        from invsolve.distributed.store import check_free

        check_free(output, force=common.force)
        make_folder(output.absolute().parent)
        volume = Measured.read(path, described)
        rays = Rays.of(volume.scan, torch.device("cpu"))
        classical = Classical(volume.scan, rays)
        classical.check_units(classical("fbp"), described["units"], described["mu_water"])
        options, calibration, sha256 = solving(volume, rays, method, common)
        facts = provenance(
            task="ct", input=str(path), method=method, geometry=volume.scan.geometry.to_toml(), units=described["units"],
            model=common.model, model_sha256=sha256, seed=common.seed, samples=common.samples,
            through_plane=str(through_plane),
        )  # fmt: skip
        started = time.perf_counter()
        with cluster(workers, scheduler, common.device) as client:
            say(f"{len(volume.array)} slices of {' x '.join(map(str, volume.scan.geometry.shape[::-1]))}; dashboard: "
                f"{client.dashboard_link}")  # fmt: skip
            with progress_bar() as bar, stoppable(output):
                running = bar.add_task("slices", total=1.0)
                result = map_slices(
                    client, volume.array, volume.scan.geometry, output, common.model, options, noise=volume.noise,
                    i0=volume.scan.i0, scale=volume.scale, through_plane=str(through_plane), method=method,
                    interval=common.wants_interval, calibration=calibration, device=common.device, force=common.force,
                    facts=facts, note=say, progress=lambda done: bar.update(running, completed=done),
                )  # fmt: skip
        seconds = time.perf_counter() - started
        say_volume(result, seconds)
    if common.as_json:
        typer.echo(json_text(volume_json(result, facts, seconds)))


def _check(common: Common, workers: int | None, scheduler: str | None) -> None:
    """Options that a volume does not take."""
    if workers is not None and scheduler is not None:
        raise UsageError("--workers beside --scheduler", hint="give one: the scheduler has workers of its own")
    for option, given in (("--truth", common.truth), ("--diagnostics", common.diagnostics)):
        if given is not None:
            raise UsageError(f"{option} of a volume", hint="it is of a slice, or of a stack without --workers")
    if common.in_patches("ct"):
        raise UsageError("--fit tile of a volume", hint="use a prior that takes slices of this size")


def volume_path(given: Path | None, source: Path) -> Path:
    """Where the result goes: ``volume.ct.zarr`` beside ``volume.zarr``, or in the folder that was named."""
    name = f"{source.stem}.ct.zarr"
    if given is None:
        return source.with_name(name)
    return given if given.suffix else given / name


@dataclass(frozen=True)
class Measured:
    """A volume of sinograms as line integrals, or counts, of the views that are used; nothing of it is in memory.

    Parameters
    ----------
    array : (slices, views, detectors).
    scan : the slices that were looked at, and what was found for all.
    noise : standard deviation of the line integrals.
    scale : attenuation per unit of the line integrals.
    """

    array: da.Array
    scan: Scan
    noise: float
    scale: float

    @classmethod
    def read(cls, path: Path, described: Mapping[str, Any]) -> Measured:
        """What the file and the options say of it."""
        from invsolve.ct.units import attenuation_per_unit
        from invsolve.distributed import open_sinograms

        found = open_sinograms(path)
        for note in found.notes:
            say(note)
        count = len(found.array)
        chosen = np.unique(np.linspace(0, count - 1, min(PROBED, count)).round().astype(int))
        probe = found.array[chosen].compute(scheduler="synchronous")
        kind = np.float64 if probe.dtype == np.float64 else np.float32
        options = {name: value for name, value in described.items() if name != "units"}
        opened = Opened(probe.astype(kind), described["units"], angles=found.angles)
        scan = interpret(opened, None, **options, bad_bins="none", rings="off")
        scale = attenuation_per_unit(scan.geometry.pixel_size, described["mu_water"])
        array = found.array.astype(kind)
        if scan.order == "detectors,views":
            array = array.swapaxes(1, 2)
        array = array[:, list(scan.chosen)]
        if described["units"] == "attenuation":
            array = array / kind(scale)
        noise = scan.noise if isinstance(scan.noise, float) else 0.0  # of counts: each ray's own, found by the worker
        return cls(array, scan, noise, scale)


def solving(
    volume: Measured, rays: Rays, method: str, common: Common
) -> tuple[SolveOptions, Calibration | None, str | None]:
    """How the slices are solved, what scales their intervals, and the hash of the prior's weights."""
    from invsolve.ct.reconstruction import check_ct_prior
    from invsolve.pretrained.calibrations import find_scaling
    from invsolve.pretrained.loading import load_prior

    task = score_task(volume.scan, rays.operator, noise=volume.noise)
    options = common.with_levels_of(task).solve_options(task)
    if method != "score":
        return options, None, None
    prior = load_prior(common.model, "cpu")
    check_ct_prior(prior)
    scaling = find_scaling(common.calibration, task.name, task.problem, prior.card.sha256, options)
    if scaling.warning:
        say(f"warning: {scaling.warning}")
    return options, scaling.applied, prior.card.sha256


@contextmanager
def cluster(workers: int | None, scheduler: str | None, device: str) -> Iterator[Client]:
    """Processes of this machine, or the workers of a scheduler that runs."""
    from invsolve.distributed import connect, local_workers

    with connect(scheduler) if scheduler is not None else local_workers(workers or 1, device=device) as client:
        yield client


@contextmanager
def stoppable(output: Path) -> Iterator[None]:
    """Say, where the block is stopped, that nothing is lost."""
    from invsolve.distributed.store import partial_path

    try:
        yield
    except BaseException as error:
        if partial_path(output).exists() and not isinstance(error, OutputError):
            say(f"the slices that are done are kept in {partial_path(output)}: the same command goes on with it")
        raise


def quiet_dask() -> None:
    """Dask's own log at -vv only; what matters of it is said in the progress."""
    level = "info" if Verbosity.level >= 2 else "critical"
    os.environ.setdefault(
        "DASK_LOGGING__DISTRIBUTED", level
    )  # of the worker processes, and of ours once it is imported
    logging.getLogger("distributed").setLevel(level.upper())


def say_volume(volume: Volume, seconds: float) -> None:
    """Where the result is, and what it is."""
    names = [name for name in ("mean", "std", "low", "high") if getattr(volume, name) is not None]
    say(f"wrote {volume.path} in HU, {', '.join(names)} of {len(volume.mean)} slices, {volume.computed} of them now "
        f"({seconds:.1f} s, {volume.calls} network calls)")  # fmt: skip
    if volume.warnings:
        numbers = sorted(volume.warnings)
        some = ", ".join(map(str, numbers[:SPOKEN_OF])) + (", ..." if len(numbers) > SPOKEN_OF else "")
        say(f"warning: {len(numbers)} slices ({some}): {volume.warnings[numbers[0]]}")


def volume_json(volume: Volume, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The run as one JSON object."""
    known = volume.chi2[np.isfinite(volume.chi2)]
    return {
        **facts,
        "output": str(volume.path),
        "shape": list(volume.mean.shape),
        "computed": volume.computed,
        "seconds": round(seconds, 3),
        "network_calls": volume.calls,
        "chi2": float(known.mean()) if known.size else None,
        "warnings": {str(number): text for number, text in volume.warnings.items()},
    }
