"""``invsolve inpaint``: fill the missing pixels of a photograph."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, progress_bar, say
from invsolve.cli.files import check_writable, output_path, provenance, read_mask, read_photo, read_picture
from invsolve.cli.results import (
    ResultPaths,
    channels_last,
    print_json,
    say_results,
    say_scores,
    score,
    std_picture,
    write_results,
)
from invsolve.cli.uncertainty import (
    check_diagnostics,
    check_interval,
    diagnostics_file,
    load_calibration,
    say_uncertainty,
    summarize,
    uncertainty_json,
)
from invsolve.errors import InputError
from invsolve.pictures import to_pixels

BIHARMONIC_LIMIT = 200_000
"""Missing pixels up to which the baseline's sparse solve stays in seconds."""


def inpaint(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="PNG or JPEG, grey or RGB, any size.", show_default=False)
    ],
    mask: Annotated[
        Path, typer.Option(metavar="FILE", help="White = missing; same size as the picture.", rich_help_panel="Problem")
    ],
    invert_mask: Annotated[
        bool, typer.Option("--invert-mask", help="Black = missing.", rich_help_panel="Problem")
    ] = False,
    noise: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="STD",
            rich_help_panel="Problem",
            help="Noise of the known pixels, as a share of the full range (0.05 = 13 grey levels); they are denoised too.",
        ),
    ] = 0.0,
    truth: options.Truth = None,
    samples: options.Samples = 1,
    seed: options.Seed = 0,
    steps: options.Steps = 100,
    rule: options.Rule = "proximal",
    sampler: options.Sampler = "renoising",
    model: options.Model = "photos",
    output: options.Output = None,
    interval: options.Interval = False,
    calibration: options.Calibration = None,
    diagnostics: options.Diagnostics = None,
    force: options.Force = False,
    as_json: options.Json = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Fill the missing pixels of a photograph.

    Known pixels come back bit for bit. The result is one sample: one picture that fits, not the only one.

    Examples:

      invsolve inpaint photo.png --mask scratches.png

      invsolve inpaint photo.jpg --mask hole.png --samples 8 -o repaired/
    """  # fmt: skip
    Verbosity.level = -1 if quiet else verbose
    photo = read_photo(picture)
    pixels = photo.pixels
    missing = read_mask(mask, invert=invert_mask)
    reference = read_truth(truth, pixels.shape) if truth else None
    interval = interval or calibration is not None
    check_interval(interval, samples)
    paths = ResultPaths.plan(output_path(output, picture, "inpaint"), samples, interval=interval)
    outputs = [*paths.all, *check_diagnostics(diagnostics, paths.all)]
    check_writable(outputs, force=force)

    with clean_stdout():
        import torch

        from invsolve.forward_models import Mask
        from invsolve.pretrained.loading import load_prior
        from invsolve.tasks.inpainting import check_inpainting, inpaint

        unit = pixels.astype(np.float32) / 255
        check_inpainting(unit, missing)
        prior = load_prior(model, device)
        scaling = load_calibration(
            calibration, {"missing": float(missing.mean()), "noise": noise}, task="inpaint",
            prior_sha256=prior.card.sha256, rule=rule, sampler=sampler, steps=steps, samples=samples,
        )  # fmt: skip
        say(
            f"{picture.name}: {missing.mean():.1%} of {pixels.shape[1]} x {pixels.shape[0]} pixels missing, on {prior.device}"
        )
        started = time.perf_counter()
        with progress_bar() as bar:
            task = bar.add_task("inpainting", total=1.0)
            posterior = inpaint(
                unit, missing, prior, samples=samples, seed=seed, steps=steps, noise=noise, rule=rule,
                sampler=sampler, progress=lambda done: bar.update(task, completed=done), device=prior.device,
            )  # fmt: skip
        seconds = time.perf_counter() - started

        def finish(image: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
            rounded = to_pixels(image).reshape(pixels.shape)
            if noise == 0:
                rounded[~missing] = pixels[~missing]
            return rounded

        known = Mask(torch.from_numpy(~missing)[None].float(), posterior.samples.shape[2])
        summary = summarize(
            posterior, known, float(1 - missing.mean()), scaling=scaling, open_values=torch.from_numpy(missing)
        )
        pictures = [finish(channels_last(x[0])) for x in posterior.samples]
        mean = finish(channels_last(posterior.mean[0]))
        facts = provenance(
            task="inpaint", input=str(picture), mask=str(mask), model=prior.card.name, model_sha256=prior.card.sha256,
            seed=seed, samples=samples, device=str(prior.device), **posterior.settings,
        )  # fmt: skip
        pngs = [photo.with_alpha(p, opaque=missing) for p in [*pictures, mean]]
        spread = std_picture(channels_last(posterior.std[0]))
        bounds = None
        if interval and summary.interval:
            ends = (summary.interval.low, summary.interval.high)
            bounds = [photo.with_alpha(finish(channels_last(end[0])), opaque=missing) for end in ends]
        traced = diagnostics_file(diagnostics, summary.diagnostics, facts)
        write_results(paths, pngs[:-1], posterior.seeds, pngs[-1], spread, facts, photo.icc_profile, bounds, traced)
        say_results(paths, seconds, posterior.network_calls)
        say_uncertainty(summary, unit="of the range", interval=interval)
        if paths.result.suffix.lower() != ".png":
            say("JPEG changes known pixels a little; name a .png file to keep them bit for bit")
        say(", ".join(f"{name} {value}" for name, value in posterior.settings.items()), level=1)
        scores: dict[str, dict[str, float]] = {}
        if reference is not None:
            from invsolve.tasks.baselines import biharmonic

            candidates = {"invsolve sample": pictures[0]}
            if missing.sum() <= BIHARMONIC_LIMIT:
                candidates = {"biharmonic": to_pixels(biharmonic(unit, missing)), **candidates}
            else:
                say(f"biharmonic baseline left out: it would take too long on {missing.sum()} missing pixels")
            if samples > 1:
                candidates[f"mean of {samples}"] = mean
            scores = {name: score(reference, candidate) for name, candidate in candidates.items()}
            say_scores(scores)
    if as_json:
        print_json(facts, outputs, seconds, posterior.network_calls, scores, uncertainty_json(summary))


def read_truth(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The undamaged picture, of the same size and kind."""
    truth = read_picture(path, "undamaged picture")
    if truth.shape != shape:
        raise InputError(
            f"--truth has shape {truth.shape}, the picture {shape}", hint="give the same picture, undamaged"
        )
    return truth
