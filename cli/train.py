"""``invsolve train``: a prior, or a classifier, from pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invsolve.atomic import make_folder
from invsolve.cli.console import Verbosity, say
from invsolve.cli.files import check_writable
from invsolve.cli.training_run import Run, train_classifier, train_prior
from invsolve.errors import ExitCode, InvsolveError, UsageError

if TYPE_CHECKING:
    import torch

    from invsolve.training.distributed import Processes

LONGEST_AVERAGE = 0.28
"""As a share of a run: all steps alike would be 0.289."""

LONGEST = 200
"""Characters of a name or a licence on a card."""


def parse_duration(text: str) -> float:
    """``90``, ``90s``, ``45m`` or ``2h`` in seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        raise UsageError(f"--time-limit {text!r}", hint="wanted a number with s, m or h, such as 45m") from None
    if not 0 < seconds < math.inf:
        raise UsageError(f"--time-limit {text!r}", hint="wanted a positive, finite duration")
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
        str, typer.Option(help="Architecture and schedule: photos, thumbnails, ct, cifar10, flowers64, large, ...")
    ] = "photos",
    validation: Annotated[str | None, typer.Option("--val", help="Validation data; default: 3 % held out.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="dsm: denoising score matching; ssm, ssm-vr: sliced score matching of the noisy pictures, which costs about "
            "twice the time and learns less per step; vr has less variance. Default dsm."
        ),
    ] = None,
    weighting: Annotated[
        str | None,
        typer.Option(
            help="How much each noise level counts: edm (Karras 2022), ncsn (lambda = sigma^2), likelihood (lambda = g^2). "
            "Default from the preset, edm in most."
        ),
    ] = None,
    energy: Annotated[
        bool,
        typer.Option(
            "--energy", help="Make the score the gradient of a scalar, the energy; each network call costs about two."
        ),
    ] = False,
    time_limit: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Stop after this long, e.g. 45m or 2h.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps in all; default from the preset.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Crops per step, of all processes together; default from the preset.")
    ] = None,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Add up the gradients of N batches per step: the run of a batch N times as large."
        ),
    ] = 1,
    compiling: Annotated[
        bool,
        typer.Option("--compile", help="Make kernels for the network by torch.compile, where it can; best on a GPU."),
    ] = False,
    snapshots: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Store two averages of the weights N times in all, 32 say, and at the end choose how long an average "
            "denoises the validation pictures best.",
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            metavar="LENGTH",
            help="With --snapshots: take the average of this length, a share of the run such as 0.1, instead of the best.",
        ),
    ] = None,
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
    """Train a noise-conditional prior by score matching, or a noise-conditional classifier.

    Interrupt with Ctrl-C at any time: the same command resumes. The folder ends up holding model.safetensors and
    card.json (give it to --model or --classifier), the checkpoint and, for a prior, a picture of what it denoises.

    Examples:

      invsolve train photos/ --preset photos --time-limit 2h -o my-prior

      invsolve train birds/ --init photos --time-limit 1h -o my-birds

      invsolve train birds/ boats.npz --preset thumbnails --init thumbnails -o my-colours

      invsolve train photos/ --preset tiny --objective ssm-vr --weighting ncsn --energy -o my-energy

      invsolve train cifar10-train.npz --preset cifar10 --snapshots 32 -o my-pictures

      invsolve train cifar10-train.npz --val cifar10-val.npz --classifier --preset cifar10 -o my-classifier

      torchrun --nproc_per_node 8 -m invsolve train photos.npz --preset large --compile -o my-large
    """  # fmt: skip
    Verbosity.level = -1 if quiet else verbose
    limit = parse_duration(time_limit) if time_limit is not None else None
    from invsolve.pretrained.loading import CARD, WEIGHTS
    from invsolve.training import classifier as classifiers
    from invsolve.training.checkpoint import CHECKPOINT, has_checkpoint
    from invsolve.training.distributed import from_environment, together
    from invsolve.training.export import PICTURE, About, initial_weights
    from invsolve.training.loop import Execution, with_overrides
    from invsolve.training.presets import PRESETS

    presets = classifiers.PRESETS if classifier else PRESETS
    if preset not in presets:
        raise UsageError(f"unknown preset {preset!r}", hint=f"known presets: {', '.join(presets)}")
    if classifier and initial is not None:
        raise UsageError("--init with --classifier", hint="only priors start from other priors")
    for_priors = {
        "--objective": objective,
        "--weighting": weighting,
        "--energy": energy or None,
        "--snapshots": snapshots,
    }
    for option, given in for_priors.items():
        if classifier and given is not None:
            raise UsageError(f"{option} with --classifier", hint="it is for priors; classifiers learn by cross-entropy")
    if ema is not None and (snapshots is None or not 0 < ema <= LONGEST_AVERAGE):
        raise UsageError(
            f"--ema {ema:g}" + (" without --snapshots" if snapshots is None else ""),
            hint=f"wanted --snapshots N, and a share of the run up to {LONGEST_AVERAGE}",
        )
    if classifier and len(data) > 1:
        raise UsageError(f"{len(data)} sources with --classifier", hint="give one, with labels")
    config = with_overrides(
        presets[preset], steps=steps, batch=batch, seed=seed, objective=objective, weighting=weighting,
        snapshots=snapshots,
    )  # fmt: skip
    config = with_overrides(config, batch=config.batch * accumulate)
    if energy:
        config = with_overrides(config, network=replace(config.network, energy=True))
    about = About(
        name=one_line("--name", output.resolve().name if name is None else name),
        data=", ".join(Path(source).name for source in data),
        licence=one_line("--licence", licence),
    )
    # A finished prior is only replaced by resuming its own run.
    written = [output / WEIGHTS, output / CARD] + ([] if classifier else [output / PICTURE])

    def prepared(where: torch.device) -> Run:
        make_folder(output)
        resuming = not fresh and has_checkpoint(output)
        check_writable(written, force=resuming or fresh)
        return Run(output, where, limit, fresh, resuming, about, Execution(processes, accumulate, compiling))

    processes, there = from_environment(), os.path.lexists(output)
    with one_of(processes, device, config.batch) as where:
        run = together(lambda: prepared(where), processes)
        try:
            if classifier:
                train_classifier(data[0], validation, config, run)
            else:
                given = None if run.resuming else initial
                weights = together(lambda: initial_weights(given, config) if given is not None else None, processes)
                train_prior(data, validation, config, run, weights, ema)
        except InvsolveError:
            if not there:
                with suppress(OSError):  # there is something in it
                    output.rmdir()
            raise
        except KeyboardInterrupt:
            checkpoint, same = output / CHECKPOINT, "the same command without --fresh" if fresh else "the same command"
            saved = f"; {same} resumes from {checkpoint}" if checkpoint.is_file() else " before the first step was done"
            say(f"interrupted{saved}")
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
        say(f"wrote {written[0]}, {', '.join(path.name for path in written[1:])}")


@contextmanager
def one_of(processes: Processes, device: str, batch: int) -> Iterator[torch.device]:
    """Inside, this is one of several processes that train together, on the device given. The first speaks for all."""
    import torch

    from invsolve.pretrained.loading import resolve_device
    from invsolve.training.distributed import joined, own_device, speaks

    if processes.rank:
        Verbosity.level = -1
    try:
        where = resolve_device(own_device(device, processes, torch.cuda.device_count()))
        if batch < processes.size:
            raise UsageError(f"a batch of {batch} for {processes.size} processes", hint="wanted at least one crop each")
        with joined(processes, where):
            yield where
    except InvsolveError as error:
        if speaks(error, processes):
            raise
        raise typer.Exit(int(error.exit_code)) from None


def one_line(option: str, text: str) -> str:
    """``text``, after checking that a card can show it."""
    if not text.isprintable() or not 0 < len(text) <= LONGEST:
        raise UsageError(f"{option} {text[:LONGEST]!r}", hint=f"wanted one line of 1 to {LONGEST} characters")
    return text
