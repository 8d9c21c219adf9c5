"""Training a noise-conditional network: priors by denoising score matching at all noise levels, and, with another
:class:`Task`, classifiers (``invsolve.training.classifier``).

Crops, noise levels and noise are drawn from (seed, step), so a resumed run repeats an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from invsolve.colours import from_rgb
from invsolve.errors import SolveError
from invsolve.models.network import EDMDenoiser
from invsolve.models.precision import autocast
from invsolve.training.checkpoint import CHECKPOINT, TrainingState, load_checkpoint, save_checkpoint, start
from invsolve.training.crops import check_shrinkable, halve, numbered_crops, unit_scale
from invsolve.training.loss import DENOISING, Batch, M, Task, stratified_sigma
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


def ema_decay(step: int, relative_width: float) -> float:
    """Power-function EMA of Karras et al. 2024 (eq. 3 and 128): its width stays a fixed share of the run so far."""
    # Solve relative_width = sqrt((g + 1) / ((g + 2)^2 (g + 3))) for the exponent g.
    t = relative_width**-2
    gamma = max(float(r.real) for r in np.roots([1, 7, 16 - t, 12 - t]) if abs(r.imag) < 1e-9)
    return float((1 - 1 / (step + 1)) ** (gamma + 1))


def learning_rate_factor(progress: float, step: int, decay_share: float, warmup: int) -> float:
    """Linear warm-up over ``warmup`` steps, constant, then linear to zero over the last ``decay_share``."""
    decay = min(1.0, max(0.0, (1 - progress) / decay_share)) if decay_share else 1.0
    return min(1.0, (step + 1) / warmup) * decay


def batch_at(
    step: int,
    crop: int,
    config: TrainingConfig,
    pyramid: Sequence[Sequence[Picture]],
    labels: Sequence[int] | None = None,
) -> Batch:
    """Crops in stored values, noise levels and noise of one step, all from (seed, step)."""
    rng = np.random.default_rng([config.seed, step])
    count = max(1, config.batch * config.crop**2 // crop**2)
    crops, numbers = numbered_crops(pyramid, config.scale_odds, crop, count, rng, config.augmentation)
    generator = torch.Generator().manual_seed(config.seed * 2**32 + step)
    sigma = stratified_sigma(count, config.density, generator)
    z = torch.randn(crops.shape, generator=generator)
    return Batch(crops, sigma, z, torch.tensor([0 if labels is None else int(labels[n]) for n in numbers]))


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
    on_step: Callable[[TrainingInfo], None] | None = None,
) -> TrainingState[M]:
    """Train until ``config.steps`` or ``time_limit`` seconds, whichever comes first; resumes from ``folder``.

    The learning rate falls to zero towards whichever end comes first; the time of earlier, resumed parts counts. A run
    limited by steps repeats itself bit for bit on the CPU with fixed threads, broken off or not; one limited by time
    cannot. Interrupting (Ctrl-C) saves a checkpoint. ``labels`` (N,) are the pictures' class numbers, for tasks that
    have any; ``initial`` the weights (a state dict) that a new run starts from instead of random ones.

    Raises
    ------
    SolveError : the loss became NaN or infinite; the last checkpoint is kept.
    """
    scale = unit_scale(pictures)
    if config.augmentation.framing[1]:
        for picture in pictures:
            check_shrinkable(picture, config.crop)  # now rather than in an hour
    pyramid = [pictures]
    while len(pyramid) < len(config.scale_odds):
        pyramid.append([halve(p) for p in pyramid[-1]])
    resumable = resume and (folder / CHECKPOINT).is_file()
    state = load_checkpoint(folder, config, device, task) if resumable else start(task, config, device, initial)
    model, ema, optimizer, first, seconds_before = state
    model.train()

    began = saved = time.monotonic()
    late = config.steps * 2 // 3
    warmup = min(200, max(1, config.steps // 20))
    step, average, images, consistent = first, float("nan"), 0, True

    def current() -> TrainingState[M]:
        return TrainingState(model, ema, optimizer, step, seconds_before + time.monotonic() - began)

    def progress() -> float:
        by_time = (seconds_before + time.monotonic() - began) / time_limit if time_limit else 0.0
        return max(step / config.steps, by_time)

    def prepare(index: int) -> Batch:
        # By steps only, never by the clock: a resumed run must see the same crops.
        return batch_at(index, config.crop if index < late else config.crop_late, config, pyramid, labels)

    at_start = progress()
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(prepare, step)
        try:
            while step < config.steps and progress() < 1:
                batch = upcoming.result().to(device)
                batch = batch._replace(x0=from_rgb(batch.x0.float() / scale, config.colours))
                upcoming = pool.submit(prepare, step + 1)
                optimizer.scale_rates(learning_rate_factor(progress(), step, config.decay_share, warmup))
                torch.manual_seed(config.seed * 2**32 + step)  # dropout's, so that a resumed run repeats it too
                with autocast(device):
                    loss = task.loss(model, batch, config)
                optimizer.zero_grad()
                loss.backward()
                value = float(loss.detach())
                steepness = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
                if not (math.isfinite(value) and math.isfinite(steepness)):
                    raise SolveError(
                        f"the loss became {value}, its gradient {steepness}, at step {step}",
                        hint="the last checkpoint is sound; look for broken pictures, or start with --fresh and another seed",
                    )
                consistent = False  # an interruption from here on must not be saved
                optimizer.step()
                with torch.no_grad():
                    decay = ema_decay(step, config.ema_relative_width)
                    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
                step += 1
                consistent = True
                images += len(batch.x0)
                average = value if math.isnan(average) else 0.98 * average + 0.02 * value
                elapsed = time.monotonic() - began
                if on_step is not None:
                    done = max(progress() - at_start, 1e-9)
                    left = elapsed * max(0.0, 1 - progress()) / done
                    on_step(TrainingInfo(step, config.steps, average, images / elapsed, elapsed, left))
                if time.monotonic() - saved > checkpoint_every:
                    save_checkpoint(folder, config, current())
                    saved = time.monotonic()
        finally:
            upcoming.cancel()
            if step > first and consistent:
                save_checkpoint(folder, config, current())
    return current()


def with_overrides(config: TrainingConfig, **changes: Any) -> TrainingConfig:
    """A copy of ``config`` with the given fields that are not None."""
    return replace(config, **{name: value for name, value in changes.items() if value is not None})
