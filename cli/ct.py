"""``invsolve ct``: a CT slice from few views."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from invsolve.cli import options
from invsolve.cli.budget import ASKED
from invsolve.cli.common import Common, with_common
from invsolve.cli.console import clean_stdout, say
from invsolve.cli.ct_files import ENDINGS, read_reference
from invsolve.cli.ct_methods import plan_slices, reconstruct
from invsolve.cli.ct_results import (
    HU_PER_UNIT,
    asked_for,
    check_kind,
    encode_slices,
    parse_window,
    plan_paths,
    say_slices,
    score_slices,
)
from invsolve.cli.ct_scan import interpret, parse_metal, read_sinogram, read_traces, truth_in_hu
from invsolve.cli.dry_run import files_among
from invsolve.cli.files import check_apart, check_writable
from invsolve.cli.folders import over_pictures
from invsolve.cli.report import report_path, write_page
from invsolve.cli.report_pages import slice_page
from invsolve.cli.results import check_diagnostics, encode_trace, json_text, report_json, say_scores
from invsolve.cli.uncertainty import check_interval, say_uncertainty, uncertainty_json
from invsolve.errors import UsageError
from invsolve.files import regular_file
from invsolve.options import RECONSTRUCTION

SAMPLING = ("samples", "steps", "seed", "rule", "sampler", "schedule")
"""Options that only ``--method score`` has a use for."""

METHODS = ("score", "fbp", "sirt", "cgls", "tv")
_SCAN, _OUT, _VOLUME = "Scan", "Output", "Volumes"


class Rings(StrEnum):
    """Which bins are corrected for what they measure too much in every view: :data:`invsolve.ct.rings.RINGS`."""

    off = "off"
    auto = "auto"
    median = "median"


class ThroughPlane(StrEnum):
    """Whether slices of a stack or volume share their noise."""

    auto = "auto"
    off = "off"


Truth = Annotated[
    Path | None,
    typer.Option(help="The true slice in HU: prints PSNR, SSIM and RMSE of every method.", rich_help_panel=_SCAN),
]
Output = Annotated[Path | None, options.output("Result (.npy, .tif, .png, .dcm or .nii.gz) or folder.")]


@over_pictures(endings=frozenset(ENDINGS))
@with_common(Common.of(RECONSTRUCTION, model="ct"), truth=Truth, output=Output, without=("quality", "format", "memory"))
def ct(
    sinogram: Annotated[
        Path,
        typer.Argument(
            metavar="SINOGRAM",
            help=".npy, .npz or .tif, 2D or a stack of slices; HDF5 (Data Exchange, NXtomo) or Zarr. With --workers or "
            "--scheduler a volume, .zarr, .h5 or .npy.",
            show_default=False,
        ),
    ],
    number: Annotated[
        int | None,
        typer.Option(
            "--slice",
            metavar="N",
            rich_help_panel=_SCAN,
            help="Of HDF5 and Zarr, from 0; default the middle. Of a stack.",
        ),
    ] = None,
    views: Annotated[
        int | None, typer.Option(min=1, help="Use an even subset of so many views.", rich_help_panel=_SCAN)
    ] = None,
    angles: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST|FILE",
            rich_help_panel=_SCAN,
            help="Angles in degrees: a range without its end, or a .txt or .npy file. Default 0:180.",
        ),
    ] = None,
    geometry: Annotated[
        Path | None, typer.Option(metavar="FILE", help="geometry.toml: the whole scan.", rich_help_panel=_SCAN)
    ] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side of the slice in pixels.", rich_help_panel=_SCAN)] = None,
    pixel_size: Annotated[
        float | None, typer.Option(metavar="MM", help="Side of a pixel and of a detector bin.", rich_help_panel=_SCAN)
    ] = None,
    center: Annotated[
        str | None,
        typer.Option(
            metavar="BIN|auto|correlation|entropy",
            rich_help_panel=_SCAN,
            help="Rotation axis on the detector, from 0; or found by centre of mass (auto), by opposite views or by the "
            "sharpest slice.",
        ),
    ] = None,
    axis: Annotated[
        str,
        typer.Option(
            metavar="ORDER", help="views,detectors or detectors,views; auto looks at the data.", rich_help_panel=_SCAN
        ),
    ] = "auto",
    bad_bins: Annotated[
        str,
        typer.Option(
            metavar="auto|none|LIST", rich_help_panel=_SCAN, help="Detector bins that measure nothing, such as 3,40:44."
        ),
    ] = "auto",
    rings: Annotated[
        Rings,
        typer.Option(
            rich_help_panel=_SCAN,
            help="Correct bins that measure steadily too much or too little: those that do beyond chance (auto), or all "
            "(median).",
        ),
    ] = Rings.off,
    metal: Annotated[
        str,
        typer.Option(
            metavar="auto|HU|off|FILE",
            rich_help_panel=_SCAN,
            help="Rays through metal count as not measured: where FBP is above 3000 HU (auto) or another number, or where a "
            "file of the sinogram's shape is above 0.5.",
        ),
    ] = "auto",
    units: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_SCAN,
            show_default="what the file says, else pixel",
            help="pixel: line integrals of n in pixel lengths (HU = 2000 n - 1000); attenuation: -ln(I/I0); counts: I.",
        ),
    ] = None,
    mu_water: Annotated[
        float, typer.Option(metavar="PER_MM", help="Attenuation of water.", rich_help_panel=_SCAN)
    ] = 0.0192,
    i0: Annotated[
        float | None, typer.Option(metavar="N", help="Photons per ray without an object.", rich_help_panel=_SCAN)
    ] = None,
    noise: Annotated[
        str,
        typer.Option(
            metavar="STD|auto", help="Noise of the line integrals, in the file's units.", rich_help_panel=_SCAN
        ),
    ] = "auto",
    method: Annotated[str, typer.Option(help="score, or a classical one: fbp, sirt, cgls, tv.")] = "score",
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Write FBP and TV as .npy too, in HU.", rich_help_panel=_OUT)
    ] = False,
    window: Annotated[
        str, typer.Option(metavar="CENTRE,WIDTH", help="Grey range of the pictures in HU.", rich_help_panel=_OUT)
    ] = "40,400",
    through_plane: Annotated[
        ThroughPlane,
        typer.Option(
            rich_help_panel=_VOLUME,
            help="Of a stack or volume: auto draws the same noise for all slices, so that neighbours err alike; off draws it "
            "anew for each.",
        ),
    ] = ThroughPlane.auto,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Take a volume out of core in N processes of this machine.",
            rich_help_panel=_VOLUME,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Take it to the workers of a Dask scheduler, such as tcp://host:8786.",
            rich_help_panel=_VOLUME,
        ),
    ] = None,
    *,
    common: Common,
) -> list[Path]:
    """Reconstruct a CT slice from few views, in Hounsfield units.

    The result is the mean of the samples, with its standard deviation; FBP and TV stand beside it.

    Examples:

      invsolve ct sinogram.npy --views 23

      invsolve ct counts.npy --units counts --i0 1e5 --pixel-size 1.4

      invsolve ct scan.tif --geometry geometry.toml --truth slice.npy

      invsolve ct scan.h5 --slice 40 --center correlation -o slice.dcm

      invsolve ct volume.zarr --workers 2
    """
    common.set_verbosity()
    if not sinogram.is_dir():  # as a Zarr array is
        regular_file(sinogram, "sinogram")  # before PyTorch is loaded, which takes seconds
    grey_range, found_by = parse_window(window), parse_metal(metal)
    check_method(method, common, baselines=baselines)
    if workers is not None or scheduler is not None:
        from invsolve.cli.ct_volume import reconstruct_volume

        described = {
            "views": views, "angles": angles, "geometry_file": geometry, "size": size, "pixel_size": pixel_size,
            "center": center, "axis": axis, "units": units or "pixel", "mu_water": mu_water, "i0": i0, "noise": noise,
        }  # fmt: skip
        for option, given in (
            ("--slice", number is not None), ("--bad-bins", bad_bins not in ("auto", "none")), ("--rings", rings != "off"),
            ("--baselines", baselines), (f"--metal {metal}", metal not in ("auto", "off")),
            ("--dry-run", common.dry_run), ("--report", common.report is not None),
            ("--budget", common.budget is not None),
        ):  # fmt: skip
            if given:
                raise UsageError(f"{option} of a volume", hint="leave it out, or take single slices without --workers")
        reconstruct_volume(sinogram, described, method, through_plane, common, workers, scheduler)
        return []
    opened = read_sinogram(sinogram, number, units)
    spoiled = read_traces(found_by, opened.values.shape) if isinstance(found_by, Path) else None
    reference = read_reference(common.truth) if common.truth else None
    paths = plan_paths(common.output, sinogram, method, common.samples, common.wants_interval, baselines=baselines)
    for path in check_diagnostics(common.diagnostics, list(paths.values())):
        paths["diagnostics"] = path
    for path in report_path(common.report, paths["npy"], paths.values()):
        paths["page"] = path
    mask = found_by if isinstance(found_by, Path) else None
    reads = files_among([sinogram, geometry, angles, mask, common.truth, common.calibration])
    check_apart(list(paths.values()), reads, common.output)
    check_writable(list(paths.values()), force=common.force, make=not common.dry_run)
    check_kind(
        asked_for(common.output), pixel_known=any(x is not None for x in (pixel_size, geometry, opened.pixel_size))
    )

    with clean_stdout() as restored:
        from invsolve.atomic import write_files
        from invsolve.pretrained.loading import resolve_device

        scan = interpret(
            opened, reference, views=views, angles=angles, geometry_file=geometry, size=size, pixel_size=pixel_size,
            center=center, axis=axis, mu_water=mu_water, i0=i0, noise=noise, bad_bins=bad_bins, rings=str(rings),
            spoiled=spoiled,
        )  # fmt: skip
        if "dcm" in paths and len(scan.sinogram) > 1:
            raise UsageError(
                f"{len(scan.sinogram)} slices do not go into one DICOM file", hint="give --slice N, or -o result.nii.gz"
            )
        if reference is not None:
            reference = truth_in_hu(reference, (len(scan.sinogram), *scan.geometry.shape), scan.stacked)
        facts: dict[str, object] = {"input": str(sinogram), "method": method, "geometry": scan.geometry.digest}
        facts |= {"views": scan.geometry.views, "units": opened.units}
        if opened.slice is not None:
            facts["slice"] = opened.slice
        if scan.stacked:
            facts["through_plane"] = str(through_plane)
        where = resolve_device(common.device)
        if common.dry_run:
            plan = plan_slices(scan, method, common, where, reads, paths.values())
            restored()
            sys.stdout.write(plan)
            return []
        threshold = found_by if isinstance(found_by, float) else None
        result = reconstruct(
            scan, method, common, where, facts, opened.units, mu_water, through_plane, threshold, baselines=baselines
        )
        hu = result.in_hounsfield
        scores = score_slices(reference, hu, result.metal) if reference is not None else {}
        report = report_json(result.facts, [str(p) for p in paths.values()], result.seconds, result.calls, scores)
        report |= {"chi2": result.chi2, "warning": result.warning}
        files = encode_slices(paths, scan, result, grey_range)
        if result.solved is not None:
            report |= uncertainty_json(result.solved.summary, factor=HU_PER_UNIT)
            report["warning"] = report["warning"] or result.warning
        if "diagnostics" in paths and result.solved is not None:
            traced = result.solved.summary.diagnostics
            files[paths["diagnostics"]] = encode_trace(traced, paths["diagnostics"], result.facts)
        files[paths["report"]] = (json_text(report) + "\n").encode()
        write_files(files, last=paths["report"])
        if "page" in paths:
            write_page(paths["page"], slice_page(f"ct: {sinogram.name}", result, grey_range, scores))
        drawn = common.samples if result.solved is None else len(result.solved.posterior.samples)
        say_slices(paths, result, drawn, asked_for(common.output))
        if result.solved is not None:
            say_uncertainty(result.solved.summary, unit="HU", factor=HU_PER_UNIT, interval=common.wants_interval)
        if scores:
            say_scores(scores)
    if common.as_json:
        typer.echo(json_text(report))
    return list(paths.values())


def check_method(method: str, common: Common, *, baselines: bool) -> None:
    """A classical method has neither samples nor noise levels."""
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}", hint=f"known methods: {', '.join(METHODS)}")
    if method != "score" and (common.wants_interval or common.diagnostics is not None):
        option = "an interval" if common.wants_interval else "--diagnostics"
        raise UsageError(f"{option} with --method {method}", hint="only --method score draws samples")
    if method != "score" and common.budget is not None:
        raise UsageError(
            f"--budget with --method {method}", hint="only --method score has levels and samples to choose"
        )
    idle = [f"--{name}" for name in SAMPLING if name in ASKED.get()]
    if method != "score" and idle:
        say(f"--method {method} draws no samples: {', '.join(idle)} left aside")
    if method != "score" and baselines:
        raise UsageError(f"--baselines with --method {method}", hint="they stand beside the result of --method score")
    common.in_patches("ct")
    check_interval(common.wants_interval, common.samples)
