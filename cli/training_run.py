"""A run of ``invsolve train``: read the pictures, train under a progress bar, validate, write the weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from invsolve.cli.console import Verbosity, progress_bar, say
from invsolve.errors import SolveError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from invsolve.models.network import EDMDenoiser
    from invsolve.training.checkpoint import TrainingState
    from invsolve.training.export import About
    from invsolve.training.loop import Execution, TrainingInfo
    from invsolve.training.loss import M, Task
    from invsolve.training.presets import TrainingConfig
    from invsolve.training.sources import Picture


class Run(NamedTuple):
    """Where and how long to train, and what to say of it."""

    output: Path
    device: torch.device
    time_limit: float | None  # seconds
    fresh: bool
    resuming: bool
    about: About
    execution: Execution


def train_prior(
    data: list[str],
    validation: str | None,
    config: TrainingConfig,
    run: Run,
    initial: Mapping[str, Tensor] | None,
    ema: float | None,
) -> None:
    """Read the pictures, train, validate and write a prior, of the weights' average over the share ``ema`` of the run."""
    from invsolve.training.distributed import together
    from invsolve.training.export import export_prior
    from invsolve.training.loss import DENOISING
    from invsolve.training.sources import Split, load_split
    from invsolve.training.validation import prior_examples

    def load() -> tuple[Split, Tensor]:
        split = load_split(data, validation, config.network.channels)
        return split, prior_examples(config, split.held_out)

    split, examples = together(load, run.execution.processes)
    announce(split.different, len(split.held_out), run)
    state = fitted(DENOISING, split.training, config, run, initial=initial)
    if run.execution.processes.rank:
        return
    if config.snapshots:
        config, state = averaged_after(config, state, run, examples, ema)
    say("validating ...")
    card = export_prior(run.output, config, state, examples, run.about)
    figures = ", ".join(f"{s:.3g}: {e**0.5:.4f}" for s, e in card.validation_mse)
    say(f"{state.step} steps, {state.seconds / 60:.1f} min; rms denoising error by sigma: {figures}")


def averaged_after(
    config: TrainingConfig, state: TrainingState[EDMDenoiser], run: Run, examples: Tensor, length: float | None
) -> tuple[TrainingConfig, TrainingState[EDMDenoiser]]:
    """The run with the average of its weights made from the snapshots: of ``length``, or the best on the ``examples``."""
    from invsolve.training.post_hoc_ema import averaged, best_of, lengths_tried
    from invsolve.training.validation import validation_sigmas

    if length is None:
        say("choosing the length of the average ...")
        tried = lengths_tried(run.output, state.ema, examples, validation_sigmas(config.density))
        length = best_of(tried)
        figures = ", ".join(f"{one:g}: {figure:.3f}" for one, figure in tried.items())
        say(f"average over {length:g} of the run; dB, mean over noise levels, by length: {figures}")
    ema = averaged(run.output, length, state.ema)
    return replace(config, ema_relative_width=length, snapshots=0), state._replace(ema=ema)


def train_classifier(data: str, validation: str | None, config: TrainingConfig, run: Run) -> None:
    """Read the pictures and their labels, train, validate and write a classifier."""
    from invsolve.training.classifier import CLASSIFYING
    from invsolve.training.distributed import together
    from invsolve.training.export import export_classifier
    from invsolve.training.loop import with_overrides
    from invsolve.training.sources import Labelled, load_labelled_split
    from invsolve.training.validation import classifier_examples

    def load() -> tuple[Labelled, Labelled, Tensor, list[int]]:
        kept, held_out = load_labelled_split(data, validation, config.network.channels)
        return kept, held_out, *classifier_examples(config, held_out)

    kept, held_out, examples, truth = together(load, run.execution.processes)
    config = with_overrides(config, classes=kept.classes)
    announce(len(kept.pictures), len(held_out.pictures), run)
    state = fitted(CLASSIFYING, kept.pictures, config, run, labels=kept.labels.tolist())
    if run.execution.processes.rank:
        return
    say("validating ...")
    card = export_classifier(run.output, config, state, examples, truth, run.about)
    figures = ", ".join(f"{s:.3g}: {a:.1%}" for s, a, _ in card.validation_accuracy)
    say(f"{state.step} steps, {state.seconds / 60:.1f} min; right answers by sigma: {figures}")


def announce(count: int, held_out: int, run: Run) -> None:
    """One line before the first step."""
    processes = run.execution.processes.size
    several = f" in {processes} processes" if processes > 1 else ""
    resuming = ", resuming" if run.resuming else ""
    say(
        f"{count} pictures, {held_out} for validation, on {run.device.type if several else run.device}{several}{resuming}"
    )


def fitted(
    task: Task[M],
    pictures: Sequence[Picture],
    config: TrainingConfig,
    run: Run,
    *,
    labels: Sequence[int] | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> TrainingState[M]:
    """Train under a progress bar."""
    from invsolve.training.distributed import leave
    from invsolve.training.loop import fit

    with progress_bar(
        "step {task.fields[step]}", "loss {task.fields[loss]:.4f}", "{task.fields[rate]:.0f} images/s"
    ) as bar:
        row = bar.add_task("training", total=1.0, step=0, loss=float("nan"), rate=0.0)

        def show(info: TrainingInfo) -> None:
            share = info.seconds / max(info.seconds + info.remaining, 1e-9)
            bar.update(row, completed=share, step=info.step, loss=info.loss, rate=info.images_per_second)
            if info.step % 500 == 0:
                say(f"step {info.step}: loss {info.loss:.4f}, {info.images_per_second:.0f} images/s", level=1)

        try:
            state = fit(
                task, pictures, config, run.output, labels=labels, device=run.device, time_limit=run.time_limit,
                initial=initial, resume=not run.fresh, execution=run.execution, on_step=show, on_interrupt=acknowledge,
                on_note=say,
            )  # fmt: skip
            leave()
            return state
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "out of memory" in str(error) or "allocate memory" in str(error):
                at_once = config.batch // run.execution.accumulate
                hint = f"use a smaller --batch than {at_once}, and --accumulate to make up for it"
                raise SolveError("out of memory", hint=hint) from error
            raise


def acknowledge() -> None:
    """Say that Ctrl-C was heard; inside a signal handler nothing but a bare write is safe."""
    if Verbosity.level >= 0:
        os.write(2, b"\nfinishing the step, then saving; Ctrl-C again stops at once\n")
