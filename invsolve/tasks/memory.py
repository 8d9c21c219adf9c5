"""How much memory a task takes, measured on a small picture, and how it is done within what there is.

What grows with a picture are the activations of a network call and the tensors of a sampler's step, both in proportion to
the pixels. How many bytes of them a pixel takes depends on the network, the rule and the sampler, so it is counted as they
run on a picture of 64 x 64: every tensor that torch hands out until it is freed. Workspace that kernels take for themselves
is not seen, and allowed for by :data:`UNSEEN`.

Within a limit the network sees fewer pixels at once, in tiles that overlap by its receptive radius, and fewer samples are
drawn at once. Neither changes the result beyond rounding.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from invsolve.errors import InvsolveError
from invsolve.forward_models import ForwardModel, GaussianNoise, Mask
from invsolve.models.score_model import DerivedModel, ScoreModel, Sigma
from invsolve.options import SolveOptions
from invsolve.solver import solve
from invsolve.tasks.task import Task

SIDE = 64
"""Of the picture on which bytes are counted."""

PROBED = (0.02, 0.1, 1.0)
"""Noise levels at which a call is counted: a prior may use another network at some of them."""

UNSEEN = 1.8
"""What a process takes over what torch hands out: workspace of kernels, and memory that is free but not given back; on one
processor up to 1.7 with two threads."""

SMALLEST_CALL = 2**18
"""Pixels that the network sees at once, at least: smaller tiles would be mostly overlap."""

COPIES = 3
"""Of a result's samples that their mean, standard deviation and interval take besides."""


class Allocations(TorchDispatchMode):
    """Counts the bytes of all tensors made while it is entered; ``peak`` is the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak = 0, 0
        self._living: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled; otherwise torch loads its compiler first, which takes two seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._living:
            return
        self._living.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._living.discard(key)
        self.now -= size


class _StandIn(DerivedModel):
    """All of a prior but its network."""

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        return x * 0.5


@dataclass(frozen=True)
class Bytes:
    """What a pixel takes: of a network call, and of one sample that is drawn."""

    call: float
    step: float


def bytes_per_pixel(prior: ScoreModel, options: SolveOptions) -> Bytes:
    """Count them for a prior and a way of solving; a rule that differentiates the network keeps its activations per sample."""
    side = prior.size or prior.patch or SIDE
    x = torch.full((1, prior.channels, side, side), 0.5, device=prior.device)
    calls = []
    for sigma in PROBED:
        with torch.no_grad(), Allocations() as counted:
            prior.denoise(x, sigma)
        calls.append(counted.peak / side**2)
    call = max(calls)
    step, together = (_run_bytes(model, options, side) for model in (_StandIn(prior), prior))
    kept = together - call if together > 1.5 * (call + step) else 0.0
    return Bytes(UNSEEN * call, UNSEEN * max(step, kept))


def _run_bytes(prior: ScoreModel, options: SolveOptions, side: int) -> float:
    """Bytes per pixel of a short run; 0 where such options do not go with a mask, which says nothing of the task."""
    known = torch.ones(1, side, side, device=prior.device)
    known[:, ::2] = 0
    y = known * torch.full((1, prior.channels, side, side), 0.5, device=prior.device)
    model = ForwardModel(Mask(known, prior.channels), GaussianNoise(0.01))
    wanted = replace(options, samples=1, batch=1, antithetic=False, budget=None, pace=None).keywords
    sigmas = torch.tensor([0.2, 0.1, 0.0])
    with Allocations() as counted:
        try:
            solve(prior, model, y, **wanted, sigmas=sigmas, start=y, turn=True)
        except InvsolveError:
            return 0.0
    return counted.peak / side**2


@dataclass(frozen=True)
class Plan:
    """How a task is done within a limit.

    Parameters
    ----------
    batch : samples drawn at once.
    call : pixels that the network sees at once.
    needed : bytes that it then takes, about.
    least : bytes that would do, with one sample at a time and the smallest tiles.
    """

    batch: int
    call: int
    needed: float
    least: float


def plan_memory(
    task: Task,
    prior: ScoreModel,
    options: SolveOptions,
    *,
    limit: float,
    held: float,
    values: int,
    writing: float,
    most: int,
    tiles: bool,
) -> Plan:
    """The fastest way that stays within ``limit``; where even the least does not, that.

    Parameters
    ----------
    limit, held : bytes that the process may take, and those it has already, with the prior and the task.
    values : numbers of a sample of the whole picture, where the task does not say how many it holds.
    writing : bytes that it takes to write the results, when all samples are there.
    most : pixels that the network sees at once, where memory is no matter.
    tiles : whether it can do with fewer than a sample has.
    """
    found = bytes_per_pixel(prior, options)
    pixels = task.pixels or round(task.work)
    copies = 1 if options.samples == 1 else COPIES
    results = 4.0 * (task.values or values) * (options.samples * copies + 1)
    if prior.device.type != "cpu":  # the work is in the memory of another device
        there = held + results + writing
        return Plan(options.batch, most, there, there)

    def needed(batch: int, call: int) -> float:
        return held + results + max(writing, found.step * pixels * batch + found.call * min(call, pixels * batch))

    smallest = min(SMALLEST_CALL if tiles else max(pixels, 1), most)
    batch, call = 1, smallest
    while call < most and needed(1, min(2 * call, most)) <= limit:
        call = min(2 * call, most)
    while batch < min(options.batch, options.samples) and needed(batch + 1, call) <= limit:
        batch += 1
    return Plan(batch, call, needed(batch, call), needed(1, smallest))
