"""``invsolve mri``: the magnitude of a slice from part of k-space."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from invsolve.cli import options
from invsolve.cli.budget import keep_to_budget
from invsolve.cli.common import Common, with_common
from invsolve.cli.console import clean_stdout, say
from invsolve.cli.ct_files import labelled_row, npy_bytes
from invsolve.cli.dry_run import files_among, plan_text
from invsolve.cli.files import check_apart, check_writable, encode_picture, output_path
from invsolve.cli.folders import over_pictures
from invsolve.cli.formats import KSPACES
from invsolve.cli.pipeline import Solved, prior_of, solve_task
from invsolve.cli.report import report_path, write_page
from invsolve.cli.report_pages import magnitude_page
from invsolve.cli.results import check_diagnostics, encode_trace, print_json, say_scores
from invsolve.cli.uncertainty import check_interval, say_uncertainty, uncertainty_json
from invsolve.errors import InputError
from invsolve.options import MRI
from invsolve.pictures import to_pixels
from invsolve.tasks.kspace_files import read_kspace, read_numbers

if TYPE_CHECKING:
    from invsolve.tasks.task import Task

Array = npt.NDArray[Any]
_SCAN = "Scan"
STD_WHITE = 0.1
"""What a standard deviation shown white is, as a share of the brightest value shown."""

Truth = Annotated[
    Path | None,
    typer.Option(
        help="The true magnitudes (.npy), in the units of k-space: prints PSNR and SSIM of every method.",
        rich_help_panel=_SCAN,
    ),
]
Output = Annotated[Path | None, options.output("Result (.npy) or folder.")]


@over_pictures(beside=("mask", "sensitivities"), endings=KSPACES)
@with_common(Common.of(MRI, model="mri"), truth=Truth, output=Output, without=("quality", "format", "memory"))
def mri(
    kspace: Annotated[
        Path,
        typer.Argument(
            metavar="KSPACE",
            show_default=False,
            help=".npy, complex, (H, W) or (coils, H, W), frequency 0 in the middle; or .h5 of fastMRI or ISMRMRD.",
        ),
    ],
    mask: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto",
            rich_help_panel=_SCAN,
            help="What was measured: .npy (H, W), or (W,) for columns, not 0 where it was. auto: what the file says, or where "
            "k-space is not 0.",
        ),
    ] = "auto",
    number: Annotated[
        int | None,
        typer.Option(
            "--slice", metavar="N", rich_help_panel=_SCAN, help="Of a file of several, from 0; default the middle."
        ),
    ] = None,
    sensitivities: Annotated[
        str,
        typer.Option(
            metavar="FILE|centre|espirit",
            rich_help_panel=_SCAN,
            help="Of the coils: .npy, complex (coils, H, W); or estimated, from the measured centre's low-resolution pictures or "
            "by ESPIRiT (needs sigpy).",
        ),
    ] = "centre",
    noise: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="STD",
            rich_help_panel=_SCAN,
            help="Of the real and of the imaginary part of k-space, in its units. By default estimated from its corners.",
        ),
    ] = None,
    *,
    common: Common,
) -> list[Path]:
    """Reconstruct the magnitude of an MRI slice from part of k-space.

    The result is the mean of the samples, with its standard deviation; zero-filled and TV stand beside it.

    Examples:

      invsolve mri kspace.npy --noise 0.01

      invsolve mri file_brain.h5 --slice 7 --mask mask.npy --sensitivities espirit
    """
    common.set_verbosity()
    patches = common.in_patches("mri")
    check_interval(common.wants_interval, common.samples)
    scan = read_kspace(kspace, number)
    values = scan.values
    measured = scan.measured if mask == "auto" else read_numbers(Path(mask), "mask")
    maps: Array | str | None = None if sensitivities == "centre" else sensitivities
    if maps not in (None, "espirit"):
        maps = read_numbers(Path(sensitivities), "sensitivities")
    truth = None if common.truth is None else read_numbers(common.truth, "slice")
    if truth is not None and (truth.shape != values.shape[-2:] or truth.dtype.kind not in "fiub"):
        raise InputError(f"--truth has shape {truth.shape}, {truth.dtype}", hint=f"wanted real {values.shape[-2:]}")
    if truth is not None and not (np.isfinite(truth).all() and truth.max() > 0):
        raise InputError(f"--truth {common.truth}: NaN or infinite values, or none above 0", hint="wanted magnitudes")
    paths = plan_paths(common.output, kspace, common.samples, common.wants_interval)
    outputs = [*paths.values(), *check_diagnostics(common.diagnostics, list(paths.values()))]
    page = report_path(common.report, paths["npy"], outputs)
    outputs += page
    reads = files_among([kspace, common.truth, common.calibration, mask, sensitivities])
    check_apart(outputs, reads, common.output)
    check_writable(outputs, force=common.force, make=not common.dry_run)

    with clean_stdout() as restored:
        from invsolve.atomic import write_files
        from invsolve.tasks.mri import check_mri_prior, mri_task

        task = mri_task(values, measured, maps, noise=noise)
        prior = prior_of(common.model, common.device, patches)
        check_mri_prior(prior)
        common, task = keep_to_budget(common, task, prior, least=2)
        which = f", slice {scan.slice} of {scan.slices}" if scan.slices > 1 else ""
        coils = int(task.problem["coils"])
        about = f"{task.problem['acceleration']:.1f} times fewer values, {coils} coil{'s' * (coils > 1)}"
        how = " (estimated)" if noise is None else ""
        if common.dry_run:
            size = f"{values.shape[-1]} x {values.shape[-2]}, "
            plan = plan_text(f"mri {kspace.name}{which}", size + about, reads, outputs, common, task, prior)
            restored()
            sys.stdout.write(plan)
            return []
        say(f"{kspace.name}{which}: {values.shape[-1]} x {values.shape[-2]}, {about}, on {prior.device}")
        say(f"noise {task.problem['noise']:.3g} of the brightest tissue{how}")
        solved = solve_task(task, prior, common, input=str(kspace), mask=mask)
        images = magnitudes(task, solved)
        files = encode(paths, images, solved)
        if common.diagnostics is not None:
            traced = solved.summary.diagnostics
            files[common.diagnostics] = encode_trace(traced, common.diagnostics, solved.facts)
        write_files(files, last=paths["npy"])
        calls = solved.posterior.network_calls
        say(
            f"wrote {paths['npy']}, the mean of {common.samples} samples ({solved.seconds:.1f} s, {calls} network calls)"
        )
        say(f"look at {paths['compare']}")
        say_uncertainty(solved.summary, unit="in the units of k-space", interval=common.wants_interval)
        scores = {} if truth is None else score(truth, images)
        if scores:
            say_scores(scores)
        if page:
            white = white_of(images)
            write_page(page[0], magnitude_page(f"mri: {kspace.name}", images, solved, white, scores))
    if common.as_json:
        print_json(solved.facts, outputs, solved.seconds, calls, scores, uncertainty_json(solved.summary))
    return outputs


def plan_paths(output: Path | None, source: Path, samples: int, interval: bool) -> dict[str, Path]:
    """Names of everything the run writes."""
    base = output_path(output, source, "mri", (".npy",)).with_suffix("")
    endings = {"npy": ".npy", "picture": ".png", "compare": ".compare.png"}
    if samples > 1:
        endings |= {"std": ".std.npy", "samples": ".samples.npy"}
    if interval:
        endings |= {"low": ".low.npy", "high": ".high.npy"}
    return {name: base.with_name(base.name + ending) for name, ending in endings.items()}


def magnitudes(task: Task, solved: Solved) -> dict[str, Array]:
    """Every method's estimate (H, W), ours last."""
    count = len(solved.posterior.samples)
    ours = solved.posterior.mean[0, 0].numpy()
    return {**task.baselines(), f"mean of {count}" if count > 1 else "one sample": ours}


def encode(paths: dict[str, Path], images: dict[str, Array], solved: Solved) -> dict[Path, bytes]:
    """Arrays in the units of k-space, and pictures: white is the 99.9th percentile of ours."""
    posterior, interval = solved.posterior, solved.summary.interval
    ours, white = list(images.values())[-1], white_of(images)
    grey = {name: to_pixels(image / white) for name, image in images.items()}
    facts = {**solved.facts, "white": white}
    picture = list(grey.values())[-1]
    arrays = {"npy": ours, "samples": posterior.samples[:, 0, 0].numpy()}
    if "std" in paths:
        std = arrays["std"] = posterior.std[0, 0].numpy()
        grey[f"deviation, x{1 / STD_WHITE:.0f}"] = to_pixels(std / (STD_WHITE * white))
    if interval is not None:
        arrays |= {"low": interval.low[0, 0].numpy(), "high": interval.high[0, 0].numpy()}
    files = {paths[name]: npy_bytes(array) for name, array in arrays.items() if name in paths}
    files[paths["picture"]] = encode_picture(picture, paths["picture"], facts)
    files[paths["compare"]] = encode_picture(labelled_row(grey), paths["compare"], facts)
    return files


def white_of(images: dict[str, Array]) -> float:
    """What is drawn white: the 99.9th percentile of our estimate, the last one."""
    return max(float(np.quantile(list(images.values())[-1], 0.999)), 1e-30)


def score(truth: Array, images: dict[str, Array]) -> dict[str, dict[str, float]]:
    """PSNR in dB and SSIM of every method, over the truth's largest value."""
    from invsolve.evaluation.metrics import psnr, ssim

    white = float(truth.max())
    scaled = truth.astype(np.float64) / white
    return {
        name: {measure.__name__: float(measure(scaled, image / white, data_range=1.0)) for measure in (psnr, ssim)}
        for name, image in images.items()
    }
