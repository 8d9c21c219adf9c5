"""``torch.compile`` for training: kernels made for the network, where it can be had."""

from __future__ import annotations

import torch
from torch import nn

from invsolve.errors import first_line
from invsolve.models.dropout import ChannelDropout
from invsolve.models.precision import autocast
from invsolve.training.loss import Batch, M, Task
from invsolve.training.presets import TrainingConfig


def compiled(task: Task[M], model: M, batch: Batch, config: TrainingConfig, backend: str = "inductor") -> str:
    """Compile ``model`` in place by a ``backend`` of torch.compile, and try it forwards and backwards on ``batch``.

    Its parameters keep their names, so checkpoints are those of the plain network. The dropout of channels stays as it is:
    its draws must be the plain network's.

    Returns
    -------
    Why it stays as it was, in one line; empty where it was compiled.
    """
    if config.network.energy or config.objective != "dsm":
        return "energies and sliced objectives differentiate twice, which torch.compile does not"
    for module in model.modules():
        if isinstance(module, ChannelDropout):
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]
    # Crops come in few sizes, and a kernel of its own for each is quicker than one for all.
    model.compile(dynamic=False, backend=backend)
    try:
        with autocast(batch.x0.device):
            loss = task.loss(model, batch, config)
        loss.backward()
    except Exception as error:  # noqa: BLE001 - whatever the compilers of this machine raise
        _undo(model)
        return first_line(error)[:200]
    finally:
        model.zero_grad(set_to_none=True)
    return ""


def _undo(model: nn.Module) -> None:
    model._compiled_call_impl = None
    for module in model.modules():
        if isinstance(module, ChannelDropout):
            del module.forward
