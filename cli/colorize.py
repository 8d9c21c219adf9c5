"""``invsolve colorize``: colours for a grey photograph."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, progress_bar, say
from invsolve.cli.files import check_writable, output_path, provenance, read_photo, read_picture
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


def colorize(
    picture: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURE", help="PNG or JPEG; of a colour picture only the grey is used.", show_default=False
        ),
    ],
    truth: options.Truth = None,
    samples: options.Samples = 1,
    seed: options.Seed = 0,
    steps: options.Steps = 100,
    rule: options.Rule = "proximal",
    sampler: options.Sampler = "heun_sde",
    model: options.Model = "thumbnails",
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
    """Give a grey photograph plausible colours.

    The result's Rec. 601 grey is the input's, within one level. Colours are one sample of many that fit.

    Examples:

      invsolve colorize old-photo.jpg

      invsolve colorize grey.png --samples 8 --truth colour.png
    """
    Verbosity.level = -1 if quiet else verbose
    photo = read_photo(picture)
    grey = np.asarray(Image.fromarray(photo.pixels).convert("L"))
    reference = None
    if truth is not None:
        reference = read_picture(truth, "colour picture")
        if reference.shape != (*grey.shape, 3):
            raise InputError(
                f"--truth has shape {reference.shape}, wanted {(*grey.shape, 3)}",
                hint="give the same picture in colour",
            )
    interval = interval or calibration is not None
    check_interval(interval, samples)
    paths = ResultPaths.plan(output_path(output, picture, "colorize"), samples, interval=interval)
    outputs = [*paths.all, *check_diagnostics(diagnostics, paths.all)]
    check_writable(outputs, force=force)

    with clean_stdout():
        from invsolve.forward_models import Grayscale
        from invsolve.pretrained.loading import find_prior, load_prior
        from invsolve.tasks.colorization import colorize

        unit = grey.astype(np.float32) / 255
        prior = load_prior(model, device)
        scaling = load_calibration(
            calibration, {}, task="colorize", prior_sha256=prior.card.sha256, rule=rule, sampler=sampler, steps=steps,
            samples=samples,
        )  # fmt: skip
        say(f"{picture.name}: {grey.shape[1]} x {grey.shape[0]} pixels, on {prior.device}")
        started = time.perf_counter()
        with progress_bar() as bar:
            task = bar.add_task("colorizing", total=1.0)
            posterior = colorize(
                unit, prior, samples=samples, seed=seed, steps=steps, rule=rule, sampler=sampler,
                progress=lambda done: bar.update(task, completed=done), device=prior.device,
            )  # fmt: skip
        seconds = time.perf_counter() - started
        # Of a pixel's three values the grey determines one.
        summary = summarize(posterior, Grayscale((3, *grey.shape)), 1 / 3, scaling=scaling)
        pictures = [to_pixels(channels_last(x[0])) for x in posterior.samples]
        mean = to_pixels(channels_last(posterior.mean[0]))
        facts = provenance(
            task="colorize", input=str(picture), model=prior.card.name, model_sha256=prior.card.sha256,
            seed=seed, samples=samples, device=str(prior.device), **posterior.settings,
        )  # fmt: skip
        pngs = [photo.with_alpha(p) for p in [*pictures, mean]]
        bounds = None
        if interval and summary.interval:
            ends = (summary.interval.low, summary.interval.high)
            bounds = [photo.with_alpha(to_pixels(channels_last(end[0]))) for end in ends]
        spread = std_picture(channels_last(posterior.std[0]))
        traced = diagnostics_file(diagnostics, summary.diagnostics, facts)
        write_results(paths, pngs[:-1], posterior.seeds, pngs[-1], spread, facts, bounds=bounds, more=traced)
        say_results(paths, seconds, posterior.network_calls)
        say_uncertainty(summary, unit="of the range", interval=interval)
        say(", ".join(f"{name} {value}" for name, value in posterior.settings.items()), level=1)
        scores: dict[str, dict[str, float]] = {}
        if reference is not None:
            from invsolve.evaluation.metrics import ciede2000, mean_chroma
            from invsolve.tasks.baselines import ColourTable

            candidates = {"grey": np.repeat(grey[..., None], 3, axis=2)}
            own, general = (find_prior(name) / "colour-table.json" for name in (model, "photos"))
            table = ColourTable.load(own if own.is_file() else general)
            candidates["colour table"] = to_pixels(table.colorize(unit.astype(np.float64)))
            candidates["invsolve sample"] = pictures[0]
            if samples > 1:
                candidates[f"mean of {samples}"] = mean
            for name, candidate in candidates.items():
                colour = {
                    "ciede2000": ciede2000(reference / 255, candidate / 255),
                    "chroma": mean_chroma(candidate / 255),
                }
                scores[name] = {**score(reference, candidate), **colour}
            scores["truth"] = {"chroma": mean_chroma(reference / 255)}
            say_scores(scores)
    if as_json:
        print_json(facts, outputs, seconds, posterior.network_calls, scores, uncertainty_json(summary))
