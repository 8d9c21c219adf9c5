"""Training a noise-conditional network: priors by score matching at all noise levels, and, with another
:class:`Task`, classifiers (``invsolve.training.classifier``).

Crops, noise levels and noise are drawn from (seed, step), so a resumed run repeats an unbroken one, and one in several
processes (``invsolve.training.distributed``) or in parts (:class:`Execution`) one that takes each batch at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from invsolve.colours import from_rgb
from invsolve.errors import SolveError
from invsolve.models.dropout import part_of_batch
from invsolve.models.network import EDMDenoiser
from invsolve.models.precision import autocast
from invsolve.training.batches import Cropping, batch_at, batches, crop_at, step_seed
from invsolve.training.checkpoint import (
    Checkpoints,
    TrainingState,
    averages,
    has_checkpoint,
    load_checkpoint,
    remove_checkpoint,
    start,
)
from invsolve.training.compilation import compiled
from invsolve.training.crops import check_shrinkable, halve, unit_scale
from invsolve.training.distributed import (
    ALONE,
    Processes,
    add_up_gradients,
    agreed,
    check_alike,
    shares,
    together,
)
from invsolve.training.interrupt import deferred_interrupt
from invsolve.training.loss import DENOISING, Batch, M, Task
from invsolve.training.post_hoc_ema import ema_decay, is_due
from invsolve.training.presets import TrainingConfig
from invsolve.training.sources import Picture


class TrainingInfo(NamedTuple):
    """What a progress display needs after each step."""

    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds: float
    remaining: float  # estimated seconds to the end


class Execution(NamedTuple):
    """How a run is carried out. What it computes stays the same, up to rounding."""

    processes: Processes = ALONE
    accumulate: int = 1  # parts, one after the other, of each process's share of a batch: takes less memory
    compile: bool = False  # by torch.compile, where that can be had


AT_ONCE = Execution()


class Seen(NamedTuple):
    """What a run has seen since it was started or resumed."""

    loss: float  # running average; NaN before the first step
    images: int

    def after(self, loss: float, images: int) -> Seen:
        average = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss
        return Seen(average, self.images + images)

    def info(
        self, state: TrainingState[M], config: TrainingConfig, seconds: float, done: float, at_start: float
    ) -> TrainingInfo:
        """For a run that went from the share ``at_start`` to ``done`` in ``seconds``."""
        remaining = seconds * max(0.0, 1 - done) / max(done - at_start, 1e-9)
        return TrainingInfo(state.step, config.steps, self.loss, self.images / seconds, seconds, remaining)


def learning_rate_factor(progress: float, step: int, decay_share: float, warmup: int) -> float:
    """Linear warm-up over ``warmup`` steps, constant, then linear to zero over the last ``decay_share``."""
    decay = min(1.0, max(0.0, (1 - progress) / decay_share)) if decay_share else 1.0
    return min(1.0, (step + 1) / warmup) * decay


def rate_at(step: int, progress: float, config: TrainingConfig) -> float:
    """The :func:`learning_rate_factor` of a run's step."""
    return learning_rate_factor(progress, step, config.decay_share, min(200, max(1, config.steps // 20)))


def share_done(state: TrainingState[M], config: TrainingConfig, time_limit: float | None) -> float:
    """How much of a run is over, by steps or by time, whichever is further."""
    return max(state.step / config.steps, state.seconds / time_limit if time_limit else 0.0)


def in_prior_units(batch: Batch, scale: float, config: TrainingConfig) -> Batch:
    """A batch whose crops are in stored values, ``scale`` meaning 1.0, in the coordinates of the prior."""
    return batch._replace(x0=from_rgb(batch.x0.float() / scale, config.colours))


def local_loss(task: Task[M], model: M, batch: Batch, config: TrainingConfig, step: int, parts: int = 1) -> Tensor:
    """What ``batch`` contributes to the loss of its step, (); leaves what it contributes to the gradient on the model.

    In ``parts``, one after the other. The loss of a step is a mean over rows, so each counts by how many it has.
    """
    model.zero_grad(set_to_none=True)
    total = torch.zeros((), device=batch.x0.device)
    for rows in shares(len(batch.x0), parts):
        if rows.start == rows.stop:
            continue
        part = batch.rows(rows)
        torch.manual_seed(step_seed(config, step))  # dropout's, so that a resumed run repeats it too
        with autocast(batch.x0.device), part_of_batch(part.first, part.whole or len(part.x0)):
            loss = task.loss(model, part, config) * part.share
        loss.backward()
        total += loss.detach()
    return total


def gradient(
    task: Task[M], model: M, batch: Batch, config: TrainingConfig, step: int, execution: Execution = AT_ONCE
) -> float:
    """The loss of a step's batch; leaves its gradient, clipped to norm 1, on the model's parameters.

    Raises
    ------
    SolveError : loss or gradient is NaN or infinite.
    """
    processes = execution.processes
    loss = together(lambda: local_loss(task, model, batch, config, step, execution.accumulate), processes)
    add_up_gradients(loss, model.parameters(), processes)
    value = float(loss)
    steepness = float(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
    if not (math.isfinite(value) and math.isfinite(steepness)):
        raise SolveError(
            f"the loss became {value}, its gradient {steepness}, at step {step}",
            hint="the last checkpoint is sound; look for broken pictures, or start with --fresh and another seed",
        )
    return value


def updated(state: TrainingState[M], rate: float, config: TrainingConfig) -> TrainingState[M]:
    """The state after a step along the model's gradient, with ``rate`` times the learning rate; overwrites ``state``."""
    state.optimizer.scale_rates(rate)
    state.optimizer.step()
    with torch.no_grad():
        for length, average in averages(state, config).items():
            news = 1 - ema_decay(state.step, length)
            torch._foreach_lerp_(list(average.parameters()), list(state.model.parameters()), news)
    return state._replace(step=state.step + 1)


def train(
    pictures: Sequence[Picture],
    config: TrainingConfig,
    folder: Path,
    *,
    device: torch.device,
    time_limit: float | None = None,
    checkpoint_every: float = 120.0,
    resume: bool = True,
    on_step: Callable[[TrainingInfo], None] | None = None,
) -> TrainingState[EDMDenoiser]:
    """Train a prior; see :func:`fit`."""
    return fit(
        DENOISING,
        pictures,
        config,
        folder,
        device=device,
        time_limit=time_limit,
        checkpoint_every=checkpoint_every,
        resume=resume,
        on_step=on_step,
    )


def fit(
    task: Task[M],
    pictures: Sequence[Picture],
    config: TrainingConfig,
    folder: Path,
    *,
    device: torch.device,
    labels: Sequence[int] | None = None,
    initial: Mapping[str, Tensor] | None = None,
    time_limit: float | None = None,
    checkpoint_every: float = 120.0,
    resume: bool = True,
    execution: Execution = AT_ONCE,
    on_step: Callable[[TrainingInfo], None] | None = None,
    on_interrupt: Callable[[], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> TrainingState[M]:
    """Train until ``config.steps`` or ``time_limit`` seconds, whichever comes first; resumes from ``folder``.

    The learning rate falls to zero towards whichever end comes first; the time of earlier, resumed parts counts. A run
    limited by steps repeats itself bit for bit on the CPU with fixed threads, broken off or not; one limited by time
    cannot. ``labels`` (N,) are the pictures' class numbers, for tasks that have any; ``initial`` the weights (a state
    dict) that a new run starts from instead of random ones. Without ``resume`` an old checkpoint is removed.

    With an ``execution`` in several processes each of them calls this, inside ``distributed.joined`` and with the same
    arguments; the first writes the checkpoints, which one process or any number of them can resume.

    The first Ctrl-C calls ``on_interrupt`` (inside a signal handler), lets the step in hand finish, saves a checkpoint and
    raises KeyboardInterrupt, in every process; a second one does not wait for the step. ``on_note`` is told in a line where
    the execution is not the one asked for.

    Raises
    ------
    SolveError : the loss became NaN or infinite, or another process ended; the last checkpoint is kept.
    InputError : the folder's checkpoint is damaged or another run's; a picture does not fit the configuration; the
        processes see different data or checkpoints.
    """
    processes, began = execution.processes, time.monotonic()
    scale, pyramid = unit_scale(pictures), _pyramid(pictures, config)
    state = together(lambda: _begun(task, config, folder, device, initial, resume, processes), processes)
    check_alike(state.step, len(pictures), state.model, processes)
    state.model.train()

    cropping = Cropping(config, pyramid, labels, processes)
    if execution.compile:
        crop = crop_at(state.step, config)
        batch = batch_at(state.step, crop, config, pyramid, labels, processes, device).to(device)
        complaint = compiled(task, state.model, in_prior_units(batch, scale, config), config)
        if complaint and on_note is not None:
            on_note(f"not compiled: {complaint}")
    first, asked = state, False
    done, seen = share_done(state, config, time_limit), Seen(float("nan"), 0)
    at_start = done
    with (
        deferred_interrupt(on_interrupt) as interrupted,
        closing(batches(cropping, state.step, device)) as coming,
        Checkpoints[M](folder, config, state.seconds, checkpoint_every) as checkpoints,
    ):
        while done < 1 and not asked:
            batch = in_prior_units(next(coming), scale, config)
            loss = gradient(task, state.model, batch, config, state.step, execution)
            checkpoints.withhold()
            state = updated(state, rate_at(state.step, done, config), config)
            state = state._replace(seconds=first.seconds + time.monotonic() - began)
            if processes.rank == 0:
                snap = is_due(done, share_done(state, config, time_limit), config.snapshots)
                checkpoints.offer(state, snap=snap)
            asked, seconds = agreed(interrupted(), state.seconds, processes)
            state = state._replace(seconds=seconds)
            done, seen = share_done(state, config, time_limit), seen.after(loss, batch.whole or len(batch.x0))
            if on_step is not None:
                on_step(seen.info(state, config, state.seconds - first.seconds, done, at_start))
    if asked or interrupted():  # the latter while the checkpoint was written
        raise KeyboardInterrupt
    return state


def _pyramid(pictures: Sequence[Picture], config: TrainingConfig) -> list[Sequence[Picture]]:
    """The pictures at 1 / 2**k of their size, as many scales as the configuration draws from."""
    if config.augmentation.framing[1]:
        for picture in pictures:
            check_shrinkable(picture, config.crop)  # now rather than in an hour
    pyramid = [pictures]
    while len(pyramid) < len(config.scale_odds):
        pyramid.append([halve(p) for p in pyramid[-1]])
    return pyramid


def _begun(
    task: Task[M],
    config: TrainingConfig,
    folder: Path,
    device: torch.device,
    initial: Mapping[str, Tensor] | None,
    resume: bool,
    processes: Processes,
) -> TrainingState[M]:
    """Where the folder's checkpoint left off, or the start."""
    if resume and has_checkpoint(folder):
        return load_checkpoint(folder, config, device, task)
    if processes.rank == 0:
        remove_checkpoint(folder)  # so that one that is there is always this run's
    return start(task, config, device, initial)


def with_overrides(config: TrainingConfig, **changes: Any) -> TrainingConfig:
    """A copy of ``config`` with the given fields that are not None."""
    return replace(config, **{name: value for name, value in changes.items() if value is not None})
