"""``invsolve train``: a prior, or a classifier, from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from invsolve.cli.console import Verbosity, progress_bar, say
from invsolve.cli.files import check_writable, make_folder
from invsolve.errors import ExitCode, InputError, UsageError

MOST_VALIDATED = {"prior": 500, "classifier": 2000}
"""Validation pictures beyond this many would hardly change the card's figures."""


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
    data: Annotated[
        list[str],
        typer.Argument(
            help="Folder of images, .npz file, or torchvision data set such as CIFAR10; of several, each is drawn as often."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for checkpoint, weights, card and pictures.")],
    preset: Annotated[
        str, typer.Option(help="Architecture and schedule: photos, thumbnails, ct, cifar10, flowers64, ...")
    ] = "photos",
    validation: Annotated[str | None, typer.Option("--val", help="Validation data; default: 3 % held out.")] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Stop after this long, e.g. 45m or 2h.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps in all; default from the preset.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops per step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of crops, noise and initial weights.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    initial: Annotated[
        str | None,
        typer.Option("--init", metavar="MODEL", help="Start from a prior's weights, such as photos: fine-tuning."),
    ] = None,
    classifier: Annotated[
        bool,
        typer.Option(
            "--classifier",
            help="Train p(label | noisy picture) on data with labels; presets cifar10, flowers64, tiny, and "
            "cifar10-clean, flowers64-clean for clean pictures only.",
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew over the folder's checkpoint; default is to resume it.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name on the card; default the folder's.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "as the training data",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="More detail; -vv shows tracebacks.")] = 0,
) -> None:
    """Train a noise-conditional prior by denoising score matching, or a noise-conditional classifier.

    Interrupt with Ctrl-C at any time: the same command resumes. The folder ends up holding model.safetensors and
    card.json (give it to --model or --classifier), the checkpoint and, for a prior, a picture of what it denoises.

    Examples:

      invsolve train photos/ --preset photos --time-limit 2h -o my-prior

      invsolve train birds/ --init photos --time-limit 1h -o my-birds

      invsolve train birds/ boats.npz --preset thumbnails --init thumbnails -o my-colours

      invsolve train cifar10-train.npz --val cifar10-val.npz --classifier --preset cifar10 -o my-classifier
    """  # fmt: skip
    Verbosity.level = -1 if quiet else verbose
    from invsolve.pretrained.loading import CARD, WEIGHTS, resolve_device
    from invsolve.training import classifier as classifiers
    from invsolve.training.checkpoint import CHECKPOINT
    from invsolve.training.loop import fit, with_overrides
    from invsolve.training.loss import DENOISING, Task
    from invsolve.training.presets import PRESETS
    from invsolve.training.sources import Labelled, load_labelled

    presets = classifiers.PRESETS if classifier else PRESETS
    if preset not in presets:
        raise UsageError(f"unknown preset {preset!r}", hint=f"known presets: {', '.join(presets)}")
    config = with_overrides(presets[preset], steps=steps, batch=batch, seed=seed)
    where = resolve_device(device)
    resuming = not fresh and (output / CHECKPOINT).is_file()
    make_folder(output)
    # A finished prior is only replaced by resuming its own run.
    written = [WEIGHTS, CARD] + ([] if classifier else ["denoised.png"])
    check_writable([output / part for part in written], force=resuming or fresh)
    limit = parse_duration(time_limit) if time_limit else None
    weights = initial_weights(initial, config, classifier) if initial is not None and not resuming else None
    channels = config.network.channels
    if classifier:
        if len(data) > 1:
            raise UsageError(f"{len(data)} sources with --classifier", hint="give one, with labels")
        known = load_labelled(data[0], channels)
        kept, held_out = (
            (known, load_labelled(validation, channels)) if validation is not None else hold_out_labelled(known)
        )
        if held_out.classes != kept.classes:
            raise InputError(f"--val has the classes {held_out.classes}", hint=f"wanted {kept.classes}, in this order")
        config, count = with_overrides(config, classes=kept.classes), len(kept.pictures)
    else:
        count, *parts = mixed_and_held_out(data, validation, channels)
        kept, held_out = (Labelled(part, np.zeros(len(part), np.int64), ()) for part in parts)
    say(f"{count} pictures, {len(held_out.pictures)} for validation, on {where}" + (", resuming" if resuming else ""))
    task: Task[Any] = classifiers.CLASSIFYING if classifier else DENOISING

    with progress_bar(
        "step {task.fields[step]}", "loss {task.fields[loss]:.4f}", "{task.fields[rate]:.0f} images/s"
    ) as bar:
        row = bar.add_task("training", total=1.0, step=0, loss=float("nan"), rate=0.0)

        def show(info: Any) -> None:
            share = info.seconds / max(info.seconds + info.remaining, 1e-9)
            bar.update(row, completed=share, step=info.step, loss=info.loss, rate=info.images_per_second)
            if info.step % 500 == 0:
                say(f"step {info.step}: loss {info.loss:.4f}, {info.images_per_second:.0f} images/s", level=1)

        try:
            state = fit(
                task, kept.pictures, config, output, labels=kept.labels.tolist(), device=where, time_limit=limit,
                initial=weights, resume=not fresh, on_step=show,
            )  # fmt: skip
        except KeyboardInterrupt:
            bar.stop()
            say(f"interrupted; the same command resumes from {output / CHECKPOINT}")
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from None

    say("validating ...")
    name, described = name or output.name, ", ".join(Path(source).name for source in data)
    if classifier:
        card = export_classifier(output, config, state, held_out, data=described, name=name, licence=licence)
        figures = ", ".join(f"{s:.3g}: {a:.1%}" for s, a, _ in card.validation_accuracy)
        say(f"{state.step} steps, {state.seconds / 60:.1f} min; right answers by sigma: {figures}")
    else:
        card = export(output, config, state, held_out.pictures, data=described, name=name, licence=licence)
        figures = ", ".join(f"{s:.3g}: {e**0.5:.4f}" for s, e in card.validation_mse)
        say(f"{state.step} steps, {state.seconds / 60:.1f} min; rms denoising error by sigma: {figures}")
    say(f"wrote {', '.join(str(output / part) if part == WEIGHTS else part for part in written)}")


def initial_weights(name: str, config: Any, classifier: bool) -> Any:
    """The weights of a prior that has the network of ``config``."""
    from dataclasses import asdict

    from invsolve.pretrained.loading import load_prior

    if classifier:
        raise UsageError("--init with --classifier", hint="only priors start from other priors")
    network = load_prior(name, "cpu").network
    has, wants = asdict(network.config), asdict(config.network)
    free = ("dropout", "sigma_data", "center")  # not of the weights
    changed = [part for part in wants if part not in free and wants[part] != has[part]]
    if changed:
        raise UsageError(
            f"--init {name}: its network has {', '.join(f'{part} {has[part]}' for part in changed)}, the preset's "
            f"{', '.join(str(wants[part]) for part in changed)}",
            hint="choose the preset that the prior was trained with",
        )
    return network.state_dict()


def mixed_and_held_out(data: list[str], validation: str | None, channels: int) -> tuple[int, list[Any], list[Any]]:
    """The number of training pictures, the pictures of all sources in equal shares, and those for validation."""
    from invsolve.training.sources import load_pictures, mixed
    from invsolve.training.validation import hold_out

    sources = [load_pictures(source, channels) for source in data]
    if len({source[0].dtype for source in sources}) > 1:
        raise InputError("the sources hold 8-bit and 16-bit pictures", hint="train on one kind")
    if validation is not None:
        held = load_pictures(validation, channels)
    else:  # before mixing: what is repeated in training must not come up again in validation
        parts = [hold_out(source) for source in sources]
        sources, held = [kept for kept, _ in parts], [picture for _, some in parts for picture in some]
    return sum(map(len, sources)), mixed(sources), held


def hold_out_labelled(known: Any) -> tuple[Any, Any]:
    """Split off a share of the pictures, with their labels, for validation."""
    from invsolve.training.sources import Labelled
    from invsolve.training.validation import hold_out

    numbers = hold_out([np.full((1, 1, 1), i, np.uint16) for i in range(len(known.pictures))])
    parts = [[int(number[0, 0, 0]) for number in part] for part in numbers]
    kept, held = (Labelled([known.pictures[i] for i in part], known.labels[part], known.classes) for part in parts)
    return kept, held


def training_facts(config: Any, state: Any) -> dict[str, Any]:
    """What the card says about the run."""
    return {
        "steps": state.step,
        "seconds": round(state.seconds),
        "batch": config.batch,
        "crop": config.crop,
        "weighting": config.weighting,
        "density": config.density.__dict__,
        "augmentation": config.augmentation.__dict__,
        "seed": config.seed,
    }


def export(output: Path, config: Any, state: Any, held_out: Any, *, data: str, name: str, licence: str) -> Any:
    """Validate the averaged weights and write prior, card and picture."""
    from invsolve.colours import from_rgb
    from invsolve.pretrained.card import Card
    from invsolve.pretrained.loading import save_prior
    from invsolve.training.validation import denoising_picture, validate, validation_pictures, validation_sigmas

    framing, some = config.augmentation.framing[1], held_out[:: -(-len(held_out) // MOST_VALIDATED["prior"])]
    examples = from_rgb(validation_pictures(some, config.crop if framing else 256, framing), config.colours)
    errors = validate(state.ema, examples, validation_sigmas(config.density), batch=16 if config.crop <= 64 else 4)
    card = Card(
        name=name,
        network={},
        units=config.units,
        sigma_min=config.density.low,
        sigma_max=config.density.high,
        validation_mse=list(errors.items()),
        sha256="",
        data=data,
        licence=licence,
        training=training_facts(config, state),
        size=None if config.network.local else config.crop,
        frame=config.crop if framing and config.network.local else None,
        orientations=config.augmentation.orientations,
        colours=config.colours,
    )
    denoising_picture(state.ema, examples[:6], colours=config.colours).save(output / "denoised.png")
    return save_prior(output, state.ema, card)


def export_classifier(output: Path, config: Any, state: Any, held_out: Any, *, data: str, name: str, licence: str) -> Any:  # fmt: skip
    """Measure the averaged weights' accuracy at every noise level and write classifier and card."""
    from invsolve.pretrained.card import Card
    from invsolve.pretrained.loading import save_prior
    from invsolve.training.classifier import validate_classifier
    from invsolve.training.validation import validation_pictures, validation_sigmas

    # Every k-th picture: files may be sorted by class.
    every = -(-len(held_out.pictures) // MOST_VALIDATED["classifier"])
    pictures, labels = held_out.pictures[::every], held_out.labels[::every]
    examples = validation_pictures(pictures, config.crop)
    if len(examples) != len(labels):
        raise InputError("some validation pictures are too small", hint=f"wanted {config.crop} x {config.crop} or more")
    scores = validate_classifier(state.ema, examples, labels.tolist(), validation_sigmas(config.density))
    card = Card(
        name=name,
        network={},
        units=config.units,
        sigma_min=config.density.low,
        sigma_max=config.density.high,
        validation_mse=[],
        sha256="",
        data=data,
        licence=licence,
        training={**training_facts(config, state), "validated_on": len(examples)},
        size=None if config.network.local else config.crop,
        kind="classifier",
        classes=list(config.classes),
        validation_accuracy=[(sigma, accuracy, surprise) for sigma, (accuracy, surprise) in scores.items()],
    )
    return save_prior(output, state.ema, card)
