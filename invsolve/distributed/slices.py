"""A CT volume slice by slice through a cluster: from sinograms on disk to a Zarr group of mean, deviation and bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt
import torch

from invsolve._version import __version__
from invsolve.ct.classical import classical
from invsolve.ct.misfit import chi_squared
from invsolve.ct.reconstruction import check_ct_prior, noise_streams, reconstruct_ct, usual_options
from invsolve.ct.sinogram import from_counts
from invsolve.ct.units import attenuation_per_unit, to_hounsfield
from invsolve.distributed.bounded import Note, bounded
from invsolve.distributed.extra import require
from invsolve.distributed.resident import Prior, PriorFiles, Resident, resident, settled
from invsolve.distributed.store import begin, finish, write_slice
from invsolve.errors import InputError, InvsolveError
from invsolve.forward_models import Geometry
from invsolve.models.score_model import ScoreModel
from invsolve.options import AUTO, Changes, SolveOptions
from invsolve.posterior import Posterior
from invsolve.pretrained.loading import load_prior
from invsolve.rules import rule_name
from invsolve.samplers import sampler_name
from invsolve.tasks.task import Progress
from invsolve.uncertainty.conformal import LEVEL, Calibration
from invsolve.uncertainty.intervals import attainable_interval

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client, Future

Array = npt.NDArray[Any]

HU_PER_UNIT = 2000.0


@dataclass(frozen=True)
class SliceJob:
    """What every slice's task needs to know, beside its sinogram."""

    geometry: Geometry
    options: SolveOptions
    noise: float
    i0: float | None
    scale: float
    through_plane: str
    method: str  # "score", or a classical one
    interval: bool
    calibration: Calibration | None
    store: Path
    stamp: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What is written of a slice."""
        several = self.method == "score" and self.options.samples > 1
        return ("mean", *(["std"] if several else []), *(["low", "high"] if several and self.interval else []))


class Done(NamedTuple):
    """What the client is told of a slice; its images are in the store."""

    calls: int
    warning: str | None


class Volume(NamedTuple):
    """A volume on disk, (slices, height, width) in Hounsfield units; nothing of it is in memory.

    Parameters
    ----------
    path : of the Zarr group.
    mean, std, low, high : as ``dask.array``; None where there are no such, as for one sample.
    chi2 : (slices,), misfit per ray in units of the noise variance, NaN for exact measurements.
    computed : slices of this run; the others an earlier one had done.
    calls : of the network, in this run.
    warnings : by the number of the slice, of this run.
    """

    path: Path
    mean: da.Array
    std: da.Array | None
    low: da.Array | None
    high: da.Array | None
    chi2: Array
    computed: int
    calls: int
    warnings: dict[int, str]


def map_slices(
    client: Client,
    sinograms: da.Array,
    geometry: Geometry,
    output: str | Path,
    prior: Prior = "ct",
    options: SolveOptions | None = None,
    *,
    noise: float = 0.0,
    i0: float | None = None,
    scale: float | None = None,
    through_plane: str = AUTO,
    method: str = "score",
    interval: bool = False,
    calibration: Calibration | None = None,
    device: str = "auto",
    threads: int | None = None,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    note: Note = lambda sentence: None,
    **changes: Unpack[Changes],
) -> Volume:
    """Reconstruct a volume slice by slice on a Dask cluster, out of core.

    A slice is a task: a worker reads its sinogram, solves it and writes the result, so that neither the client nor a worker
    ever holds more than a few slices. The values are those of :func:`invsolve.reconstruct_ct`, whatever worker computed
    them and however often it was tried: a slice's seeds are functions of ``options.seed`` and of its number. Stopped, by
    Ctrl-C or otherwise, the same call goes on where it was.

    Parameters
    ----------
    client : of any cluster. Its workers have this package, and see ``output`` and the files behind ``sinograms`` under the
        same paths.
    sinograms : (slices, views, detectors), of line integrals of n in pixel lengths; with ``i0`` photon counts. See
        :func:`invsolve.distributed.open_sinograms`.
    geometry, options, noise, i0, scale, through_plane, changes : as in :func:`invsolve.reconstruct_ct`; one ``noise`` for
        all rays.
    output : a Zarr group ``name.zarr`` to write; while it grows it is called ``name.partial.zarr``.
    prior : a name, a folder, whose files need not be where the workers are, or a score model, which is pickled.
    method : "score", or a classical one of :func:`invsolve.ct.classical.classical`, which writes its image as ``mean``.
    interval : write ``low`` and ``high`` too, of :func:`invsolve.uncertainty.attainable_interval`, or by ``calibration``.
    device : on the workers: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    threads : of each worker; by default as many as Dask says it has.
    force : replace what is there.
    facts : provenance, kept as the attribute ``invsolve``.
    progress : called with the share of the slices that are done.
    note : called with sentences for a person, such as of a lost worker.

    Raises
    ------
    InputError, ModelError : as from :func:`invsolve.reconstruct_ct`; of a slice, with its number.
    OutputError : the result exists, or was begun with other settings.
    SolveError : a slice failed again and again, or the scheduler is gone.
    """
    require("dask.array", "zarr")
    if sinograms.ndim != 3 or tuple(sinograms.shape[1:]) != geometry.sinogram_shape:
        raise InputError(
            f"the sinograms have shape {sinograms.shape}, the geometry (views, detectors) = {geometry.sinogram_shape}",
            hint="wanted (slices, views, detectors)",
        )
    output = Path(output).absolute()
    usual = usual_options(1.0 if i0 is not None else noise)
    solving = replace(options or usual, **changes).settled
    noise_streams(through_plane, 0, 0)  # before anything is begun, a wrong word is refused
    if method == "score":
        check_ct_prior(load_prior(prior, "cpu") if isinstance(prior, str | Path) else prior)
    job = SliceJob(
        geometry, solving, noise, i0, scale or attenuation_per_unit(geometry.pixel_size), through_plane, method,
        interval or calibration is not None, calibration, output,
    )  # fmt: skip
    count = len(sinograms)
    kept = Resident(prior if method == "score" else None, device, threads)
    settings = _settings(client, job, kept.prior, sinograms)
    begun = begin(output, (count, *geometry.shape), job.names, settings, facts or {}, force=force)
    kept.job = replace(job, store=begun.path, stamp=begun.stamp)
    if len(begun.missing) < count:
        note(f"{count - len(begun.missing)} of {count} slices were done already")
    warnings, calls = {}, 0
    with settled(client, kept):
        tasks = bounded(
            client, _submitter(client, sinograms, kept.name), begun.missing, note=note, describe="slice {}".format
        )
        for done, (number, found) in enumerate(tasks, start=1 + count - len(begun.missing)):
            calls += found.calls
            if found.warning:
                warnings[number] = found.warning
            if progress is not None:
                progress(done / count)
    finish(begun.path, output, {})
    return _opened(output, len(begun.missing), calls, warnings)


def _settings(
    client: Client, job: SliceJob, prior: PriorFiles | ScoreModel | None, sinograms: da.Array
) -> dict[str, Any]:
    """Everything that the values of the result depend on."""
    from distributed import futures_of

    options = asdict(job.options) | {"rule": rule_name(job.options.rule), "sampler": sampler_name(job.options.sampler)}
    del options["batch"]  # bounds the memory
    files = prior.files if isinstance(prior, PriorFiles) else {}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + files[name])
    count = len(sinograms)
    chosen = [sinograms[number] for number in sorted({0, count // 2, count - 1})]
    # What is on disk is read here, where no worker need have joined yet; what the cluster holds, only the cluster has.
    held = bool(futures_of(sinograms))
    looked_at = client.compute(chosen, sync=True) if held else [one.compute(scheduler="sync") for one in chosen]
    for values in looked_at:
        digest.update(np.ascontiguousarray(values).tobytes())
    return {
        "version": __version__,
        "method": job.method,
        "slices": count,
        "geometry": job.geometry.digest,
        "prior": prior.name if isinstance(prior, PriorFiles) else type(prior).__name__,  # of what is pickled, no more
        **options,
        "noise": job.noise,
        "photons": job.i0 or 0.0,
        "scale": job.scale,
        "through_plane": job.through_plane,
        "arrays": list(job.names),
        "calibration": job.calibration.factor if job.calibration else None,
        "data": digest.hexdigest()[:24],  # the prior's files, and the first, middle and last sinogram
    }


def _submitter(client: Client, sinograms: da.Array, name: str) -> Callable[[int], Future[Any]]:
    """What starts the task of a slice: reading it, and all that follows."""
    from dask.delayed import delayed

    solve = delayed(solve_slice, pure=False, traverse=False)

    def submit(number: int) -> Future[Any]:
        future: Future[Any] = client.compute(solve(sinograms[number : number + 1], number, name))
        return future

    return submit


def solve_slice(sinogram: Array, number: int, name: str) -> Done:
    """On a worker: reconstruct a slice (1, views, detectors) and write it, by the job of the run ``name``.

    Errors meant for a person carry the slice's number.
    """
    kept = resident(name)
    job: SliceJob = kept.job
    with kept.at_work():
        try:
            images, chi2, done = (_sampled if job.method == "score" else _classical)(np.asarray(sinogram), number, kept)
            write_slice(job.store, job.stamp, number, images, chi2)
        except InvsolveError as error:
            raise type(error)(f"slice {number}: {error.message}", hint=error.hint) from None
    return done


def _sampled(sinogram: Array, number: int, kept: Resident) -> tuple[dict[str, Array], float | None, Done]:
    """Images in HU of a slice's posterior, its misfit, and what is told of it."""
    job: SliceJob = kept.job
    posterior = reconstruct_ct(
        sinogram, job.geometry, kept.loaded, job.options, noise=job.noise, i0=job.i0, scale=job.scale,
        operator=kept.projector(job.geometry), through_plane=job.through_plane, first=number,
    )  # fmt: skip
    chi2 = float(posterior.chi2.mean()) if posterior.chi2.numel() else None
    return _images(posterior, job), chi2, Done(posterior.network_calls, posterior.warning)


def _images(posterior: Posterior, job: SliceJob) -> dict[str, Array]:
    """(height, width) each, in HU."""
    images = {"mean": to_hounsfield(posterior.mean)}
    if "std" in job.names:
        images["std"] = HU_PER_UNIT * posterior.std
    if "low" in job.names:
        found, samples = job.calibration, posterior.samples
        bounds = found.apply(samples) if found else attainable_interval(samples, LEVEL)
        images |= {"low": to_hounsfield(bounds.low), "high": to_hounsfield(bounds.high)}
    return {name: image[0, 0].numpy() for name, image in images.items()}


def _classical(sinogram: Array, number: int, kept: Resident) -> tuple[dict[str, Array], float | None, Done]:
    """The image in HU by a classical method, and its misfit."""
    job: SliceJob = kept.job
    operator, values = kept.projector(job.geometry), sinogram.astype(np.float32)
    sigma: float | torch.Tensor = job.noise
    if job.i0 is not None:
        values, level = from_counts(values, job.i0, job.scale)
        sigma = torch.from_numpy(level).to(kept.where)
    y = torch.from_numpy(np.ascontiguousarray(values)).to(kept.where)
    image = classical(job.method, operator, job.geometry, y, noise=sigma)
    chi2 = chi_squared(operator(image[:, None].to(y)) - y, sigma)
    return {"mean": to_hounsfield(image)[0].numpy()}, chi2, Done(0, None)


def _opened(path: Path, computed: int, calls: int, warnings: dict[int, str]) -> Volume:
    """The result as it lies on disk."""
    import dask.array as da
    import zarr

    group: Any = zarr.open_group(path, mode="r")
    arrays: dict[str, Any] = {
        name: da.from_zarr(group[name]) if name in group else None for name in ("mean", "std", "low", "high")
    }
    return Volume(path, **arrays, chi2=group["chi2"][:], computed=computed, calls=calls, warnings=warnings)
