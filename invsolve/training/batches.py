"""The batches of a run: crops, noise levels and noise of a step, all from (seed, step), made ahead of when they are wanted.

A GPU is served by processes of their own: threads that cut crops would hold the interpreter's lock while the GPU waits to be
told what to do next. The noise is drawn where it is used, as a GPU draws a million numbers faster than it is sent them.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsolve.errors import SolveError
from invsolve.training.crops import crop_size, numbered_crops
from invsolve.training.distributed import ALONE, Processes, shares
from invsolve.training.loss import Batch, stratified_sigma
from invsolve.training.objectives import draw_directions
from invsolve.training.presets import TrainingConfig
from invsolve.training.sources import Picture

A = TypeVar("A")
Array = npt.NDArray[Any]

AHEAD = 4
"""Batches that are being made for a GPU while it works; more would hardly be wanted at once."""


class Crops(NamedTuple, Generic[A]):
    """What a step learns from, before noise is put in."""

    x0: A  # (B, C, H, W) in stored values
    labels: A  # (B,) int64, zeros where the pictures have none
    first: int  # number of the first row in the step's data
    whole: int  # rows of the step's data


@dataclass(frozen=True)
class Cropping:
    """The crops of any step; this process's rows of them.

    Parameters
    ----------
    pyramid : the pictures at each scale, as of :func:`invsolve.training.crops.random_crops`.
    labels : (N,) the pictures' class numbers, where they have any.
    """

    config: TrainingConfig
    pyramid: Sequence[Sequence[Picture]]
    labels: Sequence[int] | None = None
    processes: Processes = ALONE

    def __call__(self, step: int, crop: int) -> Crops[Tensor]:
        rng = np.random.default_rng([self.config.seed, step])
        height, width = crop_size(crop, self.config.augmentation, rng, self.pyramid[0])
        count = max(1, self.config.batch * crop**2 // (height * width))
        rows = shares(count, self.processes.size)[self.processes.rank]
        x0, numbers = numbered_crops(
            self.pyramid, self.config.scale_odds, (height, width), count, rng, self.config.augmentation, rows
        )
        known = [0 if self.labels is None else int(self.labels[n]) for n in numbers]
        return Crops(x0, torch.tensor(known, dtype=torch.int64), rows.start, count)


def step_seed(config: TrainingConfig, step: int) -> int:
    """PyTorch's seed for a step of a run."""
    return config.seed * 2**32 + step


def noised(crops: Crops[Tensor], step: int, config: TrainingConfig, device: torch.device | None = None) -> Batch:
    """The batch of a step, its noise drawn on ``device``, by default the processor.

    All rows' noise is drawn and this process's kept: what a row sees does not depend on how many processes there are.
    """
    generator = torch.Generator().manual_seed(step_seed(config, step))
    sigma = stratified_sigma(crops.whole, config.density, generator)
    device = device or torch.device("cpu")
    there = generator if device.type == "cpu" else torch.Generator(device).manual_seed(step_seed(config, step))
    z = torch.randn((crops.whole, *crops.x0.shape[1:]), generator=there, device=device)
    directions = draw_directions(z, 0 if config.objective == "dsm" else 1, "rademacher", generator)
    rows = slice(crops.first, crops.first + len(crops.x0))
    return Batch(crops.x0, sigma[rows], z[rows], crops.labels, directions[:, rows], crops.first, crops.whole)


def batch_at(
    step: int,
    crop: int,
    config: TrainingConfig,
    pyramid: Sequence[Sequence[Picture]],
    labels: Sequence[int] | None = None,
    processes: Processes = ALONE,
    device: torch.device | None = None,
) -> Batch:
    """Crops of side ``crop`` in stored values, noise levels and noise of one step; this process's rows of them."""
    return noised(Cropping(config, pyramid, labels, processes)(step, crop), step, config, device)


def crop_at(step: int, config: TrainingConfig) -> int:
    """The side of a step's crops: by steps only, never by the clock, as a resumed run must see the same ones."""
    return config.crop if step < config.steps * 2 // 3 else config.crop_late


def batches(cropping: Cropping, first: int, device: torch.device, *, forked: bool | None = None) -> Generator[Batch]:
    """The batches of step ``first`` and all later ones on ``device``, whose crops are cut while those before are in use: by processes
    if ``forked``, by default for a GPU where processes can be forked.

    Raises
    ------
    SolveError : a process that cuts crops was ended.
    """
    if forked is None:
        forked = device.type == "cuda" and "fork" in multiprocessing.get_all_start_methods()
    ahead = AHEAD if forked else 1
    with _forks(cropping) if forked else ThreadPoolExecutor(1) as pool:
        cut = _cut_forked if forked else partial(_cut, cropping)
        upcoming = deque(pool.submit(cut, first + k) for k in range(ahead))
        for step in itertools.count(first):
            try:
                crops = upcoming.popleft().result()
                upcoming.append(pool.submit(cut, step + ahead))
            except BrokenProcessPool:
                raise SolveError(
                    "a process that cuts crops was ended", hint="the checkpoint is sound; is there enough memory?"
                ) from None
            yield noised(_tensors(crops, pinned=device.type == "cuda"), step, cropping.config, device).to(device)


def _cut(cropping: Cropping, step: int) -> Crops[Array]:
    """The crops of a step as arrays: between processes they go through a pipe, where tensors would take shared memory."""
    crops = cropping(step, crop_at(step, cropping.config))
    return Crops(crops.x0.numpy(), crops.labels.numpy(), crops.first, crops.whole)


def _tensors(crops: Crops[Array], pinned: bool) -> Crops[Tensor]:
    """Back again; pinned in memory that a GPU reads by itself, while the processor goes on."""
    x0, labels = torch.from_numpy(crops.x0), torch.from_numpy(crops.labels)
    if pinned:
        x0, labels = x0.pin_memory(), labels.pin_memory()
    return Crops(x0, labels, crops.first, crops.whole)


_forked: list[Cropping] = []
"""What a process of :func:`_forks` cuts: one thing, known to it since its start."""


def _cut_forked(step: int) -> Crops[Array]:
    return _cut(_forked[0], step)


def _forks(cropping: Cropping) -> Executor:
    """Processes that cut crops. They are forked, so that they share the pictures and run no script anew."""
    return ProcessPoolExecutor(AHEAD, multiprocessing.get_context("fork"), _begin, (cropping,))


def _begin(cropping: Cropping) -> None:
    """In a new process: leave Ctrl-C to the run, take one core, and end when the run is no more, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _forked[:] = [cropping]

    def follow() -> None:
        run = multiprocessing.parent_process()
        if run is not None:
            run.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
