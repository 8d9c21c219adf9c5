"""``invsolve ct``: a CT slice from few views."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer

from invsolve.atomic import write_files
from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, progress_bar, say
from invsolve.cli.ct_files import (
    labelled_row,
    npy_bytes,
    read_array,
    residual_picture,
    tif_bytes,
    windowed,
)
from invsolve.cli.ct_scan import Scan, interpret, truth_in_hu
from invsolve.cli.files import check_writable, encode_picture, provenance
from invsolve.cli.results import check_diagnostics, report_json, say_scores
from invsolve.cli.uncertainty import check_interval, say_uncertainty, uncertainty_json
from invsolve.errors import UsageError
from invsolve.pictures import to_pixels

if TYPE_CHECKING:
    from invsolve.summary import Summary

Array = npt.NDArray[Any]
METHODS = ("score", "fbp", "sirt", "cgls", "tv")
STD_WHITE_HU = 200.0
HU_PER_UNIT = 2000.0
_SCAN, _OUT = "Scan", "Output"


def ct(
    sinogram: Annotated[
        Path,
        typer.Argument(metavar="SINOGRAM", help=".npy, .npz or .tif, 2D or a stack of slices.", show_default=False),
    ],
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
        typer.Option(metavar="BIN|auto", help="Rotation axis on the detector, from 0.", rich_help_panel=_SCAN),
    ] = None,
    axis: Annotated[
        str,
        typer.Option(
            metavar="ORDER", help="views,detectors or detectors,views; auto looks at the data.", rich_help_panel=_SCAN
        ),
    ] = "auto",
    units: Annotated[
        str,
        typer.Option(
            rich_help_panel=_SCAN,
            help="pixel: line integrals of n in pixel lengths (HU = 2000 n - 1000); attenuation: -ln(I/I0); counts: I.",
        ),
    ] = "pixel",
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
    truth: Annotated[
        Path | None,
        typer.Option(help="The true slice in HU: prints PSNR, SSIM and RMSE of every method.", rich_help_panel=_SCAN),
    ] = None,
    method: Annotated[str, typer.Option(help="score, or a classical one: fbp, sirt, cgls, tv.")] = "score",
    window: Annotated[
        str, typer.Option(metavar="CENTRE,WIDTH", help="Grey range of the pictures in HU.", rich_help_panel=_OUT)
    ] = "40,400",
    samples: options.Samples = 8,
    seed: options.Seed = 0,
    steps: options.Steps = 50,
    rule: options.Rule = "proximal",
    sampler: options.Sampler = "renoising",
    model: options.Model = "ct",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Result (.npy, .tif or .png) or existing folder.", rich_help_panel=_OUT),
    ] = None,
    interval: options.Interval = False,
    calibration: options.Calibration = None,
    diagnostics: options.Diagnostics = None,
    force: options.Force = False,
    as_json: options.Json = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Reconstruct a CT slice from few views, in Hounsfield units.

    The result is the mean of the samples, with its standard deviation; FBP and TV stand beside it.

    Examples:

      invsolve ct sinogram.npy --views 23

      invsolve ct counts.npy --units counts --i0 1e5 --pixel-size 1.4

      invsolve ct scan.tif --geometry geometry.toml --truth slice.npy
    """
    Verbosity.level = -1 if quiet else verbose
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}", hint=f"known methods: {', '.join(METHODS)}")
    grey_range = parse_window(window)
    measured = read_array(sinogram, "sinogram")
    reference = read_array(truth, "slice") if truth else None
    interval = interval or calibration is not None
    check_posterior_options(method, samples, interval, diagnostics)
    paths = plan_paths(output, sinogram, method, samples, interval)
    for path in check_diagnostics(diagnostics, list(paths.values())):
        paths["diagnostics"] = path
    check_writable(list(paths.values()), force=force)

    with clean_stdout():
        from invsolve.ct.units import to_hounsfield
        from invsolve.uncertainty.trace import trace_picture

        scan = interpret(
            measured, reference, views=views, angles=angles, geometry_file=geometry, size=size, pixel_size=pixel_size,
            center=center, axis=axis, units=units, mu_water=mu_water, i0=i0, noise=noise,
        )  # fmt: skip
        expected = (len(scan.sinogram), *scan.geometry.shape)
        if reference is not None:
            reference = truth_in_hu(reference, expected, scan.stacked)
        started = time.perf_counter()
        result = reconstruct(
            scan, method, model=model, device=device, samples=samples, seed=seed, steps=steps, rule=rule,
            sampler=sampler, bright_units=units, mu_water=mu_water, interval=interval, calibration=calibration,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        facts = provenance(task="ct", input=str(sinogram), method=method, **result.facts)
        hu = {name: to_hounsfield(image) for name, image in result.images.items()}
        main = next(reversed(hu))
        files = result_files(paths, scan, hu, main, result, grey_range, facts)
        scores = score_all(reference, hu) if reference is not None else {}
        report = report_json(facts, [str(p) for p in paths.values()], seconds, result.calls, scores)
        report["chi2"] = result.chi2
        if result.summary is not None:
            report |= uncertainty_json(result.summary, factor=HU_PER_UNIT)
            if diagnostics is not None:
                about = {**facts, "content": "misfit and step against the noise level"}
                files[diagnostics] = encode_picture(trace_picture(result.summary.diagnostics), diagnostics, about)
        files[paths["report"]] = (report_text(report) + "\n").encode()
        write_files(files)
        what = f"the mean of {samples} samples" if method == "score" else method.upper()
        say(f"wrote {paths['npy']} in HU, {what} ({seconds:.1f} s, {result.calls} network calls)")
        say(f"look at {paths['compare']}; misfit {paths['residual'].name}, chi-squared per ray {result.chi2_text}")
        if result.std is not None:
            say(f"uncertainty: {paths['std'].name} (HU), {paths['std_picture'].name} (white: {STD_WHITE_HU:g} HU)")
        if "low" in paths:
            say(f"{paths['low'].name} and {paths['high'].name}: bounds of each pixel in HU; "
                f"{paths['prior_std'].name}: the part of the standard deviation the scan is blind to")  # fmt: skip
        if result.summary is not None:
            say_uncertainty(result.summary, unit="HU", factor=HU_PER_UNIT, interval=interval)
        if scores:
            say_scores(scores)
    if as_json:
        typer.echo(report_text(report))


def report_text(report: dict[str, Any]) -> str:
    return json.dumps(report, allow_nan=False)


def parse_window(text: str) -> tuple[float, float]:
    """``40,400`` -> (40.0, 400.0)."""
    try:
        centre, width = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--window {text!r}", hint="wanted CENTRE,WIDTH in HU, such as 40,400") from None
    if not width > 0:
        raise UsageError(f"--window {text!r}", hint="wanted a positive width")
    return centre, width


def check_posterior_options(method: str, samples: int, interval: bool, diagnostics: Path | None) -> None:
    """A classical method has neither samples nor noise levels."""
    if method != "score" and (interval or diagnostics is not None):
        option = "an interval" if interval else "--diagnostics"
        raise UsageError(f"{option} with --method {method}", hint="only --method score draws samples")
    check_interval(interval, samples)


def plan_paths(output: Path | None, source: Path, method: str, samples: int, interval: bool = False) -> dict[str, Path]:
    """Names of everything the run writes."""
    from invsolve.errors import OutputError

    stem = f"{source.stem}.ct"
    if output is None:
        base = source.with_name(stem)
    elif output.is_dir():
        base = output / stem
    elif output.suffix.lower() in (".npy", ".tif", ".tiff", ".png"):
        base = output.with_suffix("")
    else:
        raise OutputError(f"output {output} ends in neither .npy, .tif nor .png", hint="or name an existing folder")

    def beside(ending: str) -> Path:
        return base.with_name(base.name + ending)

    paths = {"npy": beside(".npy"), "tif": beside(".tif"), "picture": beside(".png")}
    paths |= {"compare": beside(".compare.png"), "residual": beside(".residual.png"), "report": beside(".json")}
    if method == "score" and samples > 1:
        paths |= {"std": beside(".std.npy"), "std_picture": beside(".std.png"), "samples": beside(".samples.npy")}
        if interval:
            paths |= {"low": beside(".low.npy"), "high": beside(".high.npy")}
            paths |= {"prior_std": beside(".std-prior.npy"), "prior_std_picture": beside(".std-prior.png")}
    return paths


class Result(NamedTuple):
    """What the methods found; images in the units of n."""

    images: dict[str, Array]  # name -> (slices, H, W), the asked-for one last
    std: Array | None
    samples: Array | None  # (n, slices, H, W)
    residual: Array  # (slices, views, detectors), of the asked-for method
    residual_limit: float
    chi2: float | None
    calls: int
    facts: dict[str, Any]
    summary: Summary | None = None  # of the posterior, where there is one

    @property
    def chi2_text(self) -> str:
        return "unknown (no noise)" if self.chi2 is None else f"{self.chi2:.2f}"


def reconstruct(
    scan: Scan, method: str, *, model: str, device: str, samples: int, seed: int, steps: int, rule: str, sampler: str,
    bright_units: str, mu_water: float, interval: bool, calibration: Path | None,
) -> Result:  # fmt: skip
    """FBP first, to see whether the units fit; then TV and ours, or the one classical method asked for."""
    import torch

    from invsolve.ct.classical import classical
    from invsolve.ct.reconstruction import reconstruct_ct
    from invsolve.ct.sinogram import check_range, peak
    from invsolve.forward_models import TransmissionNoise
    from invsolve.forward_models.projector import projector
    from invsolve.options import SolveOptions
    from invsolve.pretrained.calibrations import find_scaling
    from invsolve.pretrained.loading import load_prior, resolve_device
    from invsolve.summary import NO_SCALING, summarize
    from invsolve.uncertainty.intervals import determined

    where = resolve_device(device)
    prior = load_prior(model, where) if method == "score" else None
    scaling = NO_SCALING
    if prior is not None:
        problem = {"views": float(scan.geometry.views), "noise": scan.noise, "photons": scan.i0 or 0.0}
        chosen = SolveOptions(samples=samples, seed=seed, steps=steps, rule=rule, sampler=sampler)
        scaling = find_scaling(calibration, "ct", problem, prior.card.sha256, chosen)
        if scaling.warning:
            say(f"warning: {scaling.warning}")
    operator = projector(scan.geometry, where)
    y = torch.from_numpy(np.ascontiguousarray(scan.sinogram, dtype=np.float32)).to(where)
    sigma: Any = scan.noise
    if scan.i0 is not None:
        y, weights = TransmissionNoise(scan.i0, scan.scale).line_integrals(y)
        sigma = 1 / weights.clamp(min=1e-6)
    images = {"FBP": classical("fbp", operator, scan.geometry, y)}
    pixel = scan.geometry.pixel_size if bright_units != "pixel" else None
    warning = check_range(peak(images["FBP"].numpy()), bright_units, pixel, mu_water)
    if warning:
        say(f"warning: {warning}")
    facts: dict[str, Any] = {"geometry": scan.geometry.digest, "views": scan.geometry.views, "units": bright_units}
    std = drawn = None
    calls, summary = 0, None
    if method == "score":
        assert prior is not None
        say(
            f"{len(y)} slice{'s' if len(y) > 1 else ''} of {scan.geometry.shape[1]} x {scan.geometry.shape[0]}, on {where}"
        )
        images["TV"] = classical("tv", operator, scan.geometry, y, noise=sigma)
        with progress_bar() as bar:
            task = bar.add_task("reconstructing", total=1.0)
            posterior = reconstruct_ct(
                scan.sinogram, scan.geometry, prior, samples=samples, seed=seed, steps=steps, noise=scan.noise,
                i0=scan.i0, scale=scan.scale, rule=rule, sampler=sampler, operator=operator, device=where,
                progress=lambda done: bar.update(task, completed=done),
            )  # fmt: skip
        images[f"mean of {samples}" if samples > 1 else "one sample"] = posterior.mean[:, 0]
        if samples > 1:
            std, drawn = posterior.std[:, 0].numpy(), posterior.samples[:, :, 0].numpy()
        # The pseudo-inverse takes some hundred projections: all samples only where their map is asked for.
        share = float(determined(operator, probes=1).mean())
        summary = summarize(posterior, operator, share, scaling=scaling, most=None if interval else 2)
        calls = posterior.network_calls
        facts |= {"model": prior.card.name, "model_sha256": prior.card.sha256, "seed": seed, "samples": samples}
        facts |= {"device": str(where), **posterior.settings}
    elif method != "fbp":
        images[method.upper()] = classical(method, operator, scan.geometry, y, noise=sigma)
    final = next(reversed(images.values()))[:, None].to(where)
    residual = (operator(final) - y).cpu().numpy()
    measured_sigma = sigma.cpu().numpy() if isinstance(sigma, torch.Tensor) else sigma
    noisy = scan.i0 is not None or scan.noise > 0
    chi2 = float(np.mean((residual / measured_sigma) ** 2)) if noisy else None
    limit = float(3 * np.median(measured_sigma)) if noisy else float(np.abs(residual).max())
    arrays = {name: image.cpu().numpy() for name, image in images.items()}
    return Result(arrays, std, drawn, residual, limit, chi2, calls, facts, summary)


def result_files(
    paths: dict[str, Path], scan: Scan, hu: dict[str, Array], main: str, result: Result,
    grey_range: tuple[float, float], facts: dict[str, Any],
) -> dict[Path, bytes]:  # fmt: skip
    """Everything to write but the report: stacks as stacks, pictures of the middle slice."""
    from invsolve.ct.units import to_hounsfield

    def shaped(stack: Array) -> Array:
        return stack if scan.stacked else stack[..., 0, :, :]

    middle = len(scan.sinogram) // 2
    files = {paths["npy"]: npy_bytes(shaped(hu[main])), paths["tif"]: tif_bytes(shaped(hu[main]), facts)}
    pictures = {name: windowed(image[middle], grey_range) for name, image in hu.items()}
    files[paths["picture"]] = encode_picture(pictures[main], paths["picture"], {**facts, "window": grey_range})
    if result.std is not None and result.samples is not None:
        spread = to_pixels(HU_PER_UNIT * result.std[middle] / STD_WHITE_HU)
        pictures["standard deviation"] = spread
        files[paths["std"]] = npy_bytes(shaped(HU_PER_UNIT * result.std))
        files[paths["std_picture"]] = encode_picture(spread, paths["std_picture"], {**facts, "white": STD_WHITE_HU})
        files[paths["samples"]] = npy_bytes(shaped(to_hounsfield(result.samples)))
    if "low" in paths and result.summary and result.summary.interval and result.summary.prior_std is not None:
        blind = HU_PER_UNIT * result.summary.prior_std[:, 0].numpy()
        files[paths["low"]] = npy_bytes(shaped(to_hounsfield(result.summary.interval.low[:, 0].numpy())))
        files[paths["high"]] = npy_bytes(shaped(to_hounsfield(result.summary.interval.high[:, 0].numpy())))
        files[paths["prior_std"]] = npy_bytes(shaped(blind))
        picture = to_pixels(blind[middle] / STD_WHITE_HU)
        about = {**facts, "white": STD_WHITE_HU, "content": "standard deviation of what the scan is blind to"}
        files[paths["prior_std_picture"]] = encode_picture(picture, paths["prior_std_picture"], about)
    files[paths["compare"]] = encode_picture(labelled_row(pictures), paths["compare"], {**facts, "window": grey_range})
    misfit = residual_picture(result.residual[middle], result.residual_limit)
    files[paths["residual"]] = encode_picture(misfit, paths["residual"], {**facts, "white": result.residual_limit})
    return files


def score_all(reference: Array, hu: dict[str, Array]) -> dict[str, dict[str, float]]:
    """PSNR and SSIM over -1000 to 1000 HU, RMSE in HU; means over the slices."""
    from invsolve.ct.units import from_hounsfield
    from invsolve.evaluation.metrics import psnr, ssim

    truth = from_hounsfield(reference)
    scores = {}
    for name, stack in hu.items():
        pairs = list(zip(truth, from_hounsfield(stack), strict=True))
        scores[name] = {
            "psnr": float(np.mean([psnr(t, e, data_range=1.0) for t, e in pairs])),
            "ssim": float(np.mean([ssim(t, e, data_range=1.0) for t, e in pairs])),
            "rmse_hu": float(np.sqrt(np.mean((reference - stack) ** 2))),
        }
    return scores
