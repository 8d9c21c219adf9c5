"""``invsolve train``: a prior from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from invsolve.cli.console import Verbosity, progress_bar, say
from invsolve.cli.files import check_writable, make_folder
from invsolve.errors import ExitCode, UsageError


def parse_duration(text: str) -> float:
    """``90``, ``90s``, ``45m`` or ``2h`` in seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        raise UsageError(f"--time-limit {text!r}", hint="wanted a number with s, m or h, such as 45m") from None
    if seconds <= 0:
        raise UsageError(f"--time-limit {text!r}", hint="wanted a positive duration")
    return seconds


def train(
    data: Annotated[str, typer.Argument(help="Folder of images, .npz file, or torchvision data set such as CIFAR10.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for checkpoint, weights, card and pictures.")],
    preset: Annotated[
        str, typer.Option(help="Architecture and schedule: photos, ct, cifar10, flowers64, ...")
    ] = "photos",
    validation: Annotated[str | None, typer.Option("--val", help="Validation data; default: 3 % held out.")] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Stop after this long, e.g. 45m or 2h.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps in all; default from the preset.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops per step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of crops, noise and initial weights.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew over the folder's checkpoint; default is to resume it.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name on the card; default the folder's.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "as the training data",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="More detail; -vv shows tracebacks.")] = 0,
) -> None:
    """Train a noise-conditional prior by denoising score matching.

    Interrupt with Ctrl-C at any time: the same command resumes. The folder ends up holding model.safetensors and
    card.json (give it to --model), a picture of what the prior denoises, and the checkpoint.

    Example: invsolve train photos/ --preset photos --time-limit 2h -o my-prior
    """
    Verbosity.level = -1 if quiet else verbose
    from invsolve.data import load_pictures
    from invsolve.pretrained.loading import CARD, WEIGHTS, resolve_device
    from invsolve.training import CHECKPOINT, PRESETS, hold_out, with_overrides
    from invsolve.training import train as run_training

    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}", hint=f"known presets: {', '.join(PRESETS)}")
    config = with_overrides(PRESETS[preset], steps=steps, batch=batch, seed=seed)
    where = resolve_device(device)
    resuming = not fresh and (output / CHECKPOINT).is_file()
    make_folder(output)
    # A finished prior is only replaced by resuming its own run.
    check_writable([output / part for part in (WEIGHTS, CARD, "denoised.png")], force=resuming or fresh)
    limit = parse_duration(time_limit) if time_limit else None
    pictures = load_pictures(data, config.network.channels)
    if validation is None:
        pictures, held_out = hold_out(pictures)
    else:
        held_out = load_pictures(validation, config.network.channels)
    say(f"{len(pictures)} pictures, {len(held_out)} for validation, on {where}" + (", resuming" if resuming else ""))

    with progress_bar(
        "step {task.fields[step]}", "loss {task.fields[loss]:.4f}", "{task.fields[rate]:.0f} images/s"
    ) as bar:
        task = bar.add_task("training", total=1.0, step=0, loss=float("nan"), rate=0.0)

        def show(info: Any) -> None:
            share = info.seconds / max(info.seconds + info.remaining, 1e-9)
            bar.update(task, completed=share, step=info.step, loss=info.loss, rate=info.images_per_second)
            if info.step % 500 == 0:
                say(f"step {info.step}: loss {info.loss:.4f}, {info.images_per_second:.0f} images/s", level=1)

        try:
            state = run_training(
                pictures, config, output, device=where, time_limit=limit, resume=not fresh, on_step=show
            )
        except KeyboardInterrupt:
            bar.stop()
            say(f"interrupted; the same command resumes from {output / CHECKPOINT}")
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from None

    say("validating ...")
    card = export(output, config, state, held_out, data=data, name=name or output.name, licence=licence)
    errors = ", ".join(f"{s:.3g}: {e**0.5:.4f}" for s, e in card.validation_mse)
    say(f"{state.step} steps, {state.seconds / 60:.1f} min; rms denoising error by sigma: {errors}")
    say(f"wrote {output / 'model.safetensors'}, card.json and denoised.png")


def export(output: Path, config: Any, state: Any, held_out: Any, *, data: str, name: str, licence: str) -> Any:
    """Validate the averaged weights and write prior, card and picture."""
    from invsolve.pretrained.card import Card
    from invsolve.pretrained.loading import save_prior
    from invsolve.training import denoising_picture, validate, validation_pictures, validation_sigmas

    examples = validation_pictures(held_out, 256)
    errors = validate(state.ema, examples, validation_sigmas(config.density))
    card = Card(
        name=name,
        network={},
        units=config.units,
        sigma_min=config.density.low,
        sigma_max=config.density.high,
        validation_mse=list(errors.items()),
        sha256="",
        data=Path(data).name,
        licence=licence,
        training={
            "steps": state.step,
            "seconds": round(state.seconds),
            "batch": config.batch,
            "crop": config.crop,
            "weighting": config.weighting,
            "density": config.density.__dict__,
            "augmentation": config.augmentation.__dict__,
            "seed": config.seed,
        },
        size=None if config.network.local else config.crop,
    )
    denoising_picture(state.ema, examples[:6]).save(output / "denoised.png")
    return save_prior(output, state.ema, card)
