"""Where a network may compute in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_full = ContextVar("full_precision", default=False)


def native_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 inside the network where the hardware has it, float32 elsewhere.

    The preconditioning outside stays in float32. What the network gets is rounded all the same, by up to 2^-9 of its value,
    and counts most where the noise is small: the estimates of the shipped priors move by 0.05 to 0.12 sigma at the lowest
    noise levels and by less than 0.01 sigma above 0.3, which is 2 to 17 % of the error they have (``benchmarks/gpu.py``).
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=native_bfloat16(device) and not _full.get())


@contextmanager
def full_precision() -> Iterator[None]:
    """Networks compute in float32 inside: bfloat16's rounding would look like stiffness to an adaptive ODE solver."""
    token = _full.set(True)
    try:
        yield
    finally:
        _full.reset(token)
