"""Training in several processes: each takes its share of every batch, and their gradients are added up.

``torchrun`` starts the processes and tells each its number. What a step computes does not depend on how many there are:
crops, noise levels and noise are drawn from (seed, step) for the whole batch, and each process works on its rows. All hold
the same weights, momenta and averages and take the same steps, so nothing but gradients and a few numbers is exchanged.

Gradients are added in one piece after the backward pass, without PyTorch's DistributedDataParallel: its hooks know nothing
of accumulation over parts nor of the second backward pass of energies and sliced objectives. The few numbers go through the
CPU (gloo) also where the gradients are on GPUs (nccl), so that a process which ended is noticed and not waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from invsolve.errors import InputError, InvsolveError, SolveError, UsageError, first_line

T = TypeVar("T")


class Processes(NamedTuple):
    """This process among those of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those of the same machine
    local_size: int = 1


ALONE = Processes()

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Where ``torchrun`` puts the numbers of :class:`Processes`."""


class Elsewhere(SolveError):
    """Another process of the run failed or ended, and says itself why."""


def from_environment(environment: Mapping[str, str] = os.environ) -> Processes:
    """What ``torchrun`` says of this process; ALONE where it was not started by it.

    Raises
    ------
    UsageError : the variables are not such numbers.
    """
    given = [environment.get(name) for name in VARIABLES]
    if None in given or "MASTER_ADDR" not in environment:
        return ALONE
    try:
        found = Processes(*(int(value or "") for value in given))
    except ValueError:
        found = Processes(-1)
    if not (0 <= found.rank < found.size and 0 <= found.local_rank < found.local_size <= found.size):
        said = ", ".join(f"{name}={value}" for name, value in zip(VARIABLES, given, strict=True))
        raise UsageError(f"the environment says {said}", hint="start several processes with torchrun, or unset these")
    return found


def own_device(wanted: str, processes: Processes, gpus: int) -> str:
    """The device of this process, by name: each takes a GPU of its own, of the ``gpus`` that its machine has.

    Raises
    ------
    UsageError : several processes are to share one GPU.
    """
    if processes.size == 1 or wanted == "cpu" or (wanted == "auto" and not gpus):
        return "cpu" if wanted == "auto" and processes.size > 1 else wanted
    if wanted not in ("auto", "cuda"):
        raise UsageError(
            f"--device {wanted} for {processes.size} processes", hint="with --device cuda each takes a GPU of its own"
        )
    if gpus < processes.local_size:
        raise UsageError(
            f"{processes.local_size} processes on this machine, and {gpus} GPU{'s' * (gpus != 1)}",
            hint=f"torchrun --nproc_per_node {max(1, gpus)}, or --device cpu",
        )
    return f"cuda:{processes.local_rank}"


@contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """Inside, the processes can exchange numbers and add up gradients on ``device``.

    Raises
    ------
    SolveError : they do not find each other.
    """
    if processes.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise SolveError(
            f"the {processes.size} processes do not find each other: {first_line(error)[:200]}",
            hint="check the address and port given to torchrun, and the network between the machines",
        ) from error
    sound = False
    try:
        yield
        sound = True
    finally:
        if sound or device.type == "cpu":  # nccl could wait for ever for processes that have ended
            leave()


def leave() -> None:
    """Part from the other processes, where there are any; all do so at the same time, before one of them goes on alone."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def shares(count: int, parts: int) -> list[slice]:
    """``count`` rows divided into ``parts`` slices, as equal as can be; some empty where there are too few."""
    return [slice(count * k // parts, count * (k + 1) // parts) for k in range(parts)]


def gathered(values: Sequence[float], processes: Processes) -> list[list[float]]:
    """The ``values`` of every process, by rank.

    Raises
    ------
    Elsewhere : a process has ended.
    """
    if processes.size == 1:
        return [list(values)]
    mine = torch.tensor(values, dtype=torch.float64)
    rows = [torch.empty_like(mine) for _ in range(processes.size)]
    try:
        dist.all_gather(rows, mine)
    except RuntimeError as error:
        raise Elsewhere(
            "another process of this run ended", hint="see what it says; the same command resumes"
        ) from error
    return [row.tolist() for row in rows]


def together(work: Callable[[], T], processes: Processes) -> T:
    """The result of ``work``; where it fails in one process, it fails in all.

    Raises
    ------
    Elsewhere : it failed in another one. Where it failed in several, all but the first raise this, so that one of them tells.
    """
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - raised again below, once the others know
        failure = error
    failed = [rank for rank, (flag,) in enumerate(gathered([failure is not None], processes)) if flag]
    if failure is not None and processes.rank == failed[0]:
        raise failure
    if failed:
        raise Elsewhere(f"process {failed[0]} of this run failed", hint="see what it says; the same command resumes")
    return result


def add_up(tensors: Sequence[Tensor], processes: Processes) -> None:
    """Replace each of the ``tensors`` by its sum over all processes, in one exchange."""
    if processes.size == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


def add_up_gradients(loss: Tensor, parameters: Iterable[nn.Parameter], processes: Processes) -> None:
    """Add up the ``loss`` and the gradients of the processes' shares; one without a share counts as zero."""
    if processes.size == 1:
        return
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    add_up([loss, *gradients], processes)


def agreed(asked: bool, seconds: float, processes: Processes) -> tuple[bool, float]:
    """Whether any process was asked to stop, and the clock of the first: schedules by time must be the same in all."""
    news = gathered([asked, seconds], processes)
    return any(bool(row[0]) for row in news), news[0][1]


def check_alike(step: int, pictures: int, model: nn.Module, processes: Processes) -> None:
    """Raise InputError unless all processes are at the same step, with the same weights and as many pictures."""
    weight = sum(float(p.detach().double().square().sum()) for p in model.parameters()) if processes.size > 1 else 0.0
    rows = gathered([step, pictures, weight], processes)
    if any(row[:2] != rows[0][:2] or abs(row[2] - rows[0][2]) > 1e-6 * rows[0][2] for row in rows):
        others = ", ".join(f"step {row[0]:.0f} and {row[1]:.0f} pictures" for row in rows)
        raise InputError(
            f"the processes do not start alike: {others}",
            hint="all machines must see the same data and the same output folder, as on a shared disk",
        )


def speaks(error: InvsolveError, processes: Processes) -> bool:
    """Whether this process tells of ``error``: the first tells of all, the others of what they alone may know."""
    return processes.rank == 0 or not isinstance(error, Elsewhere | UsageError)
