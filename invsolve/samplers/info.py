"""What a sampler tells its caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class StepInfo(NamedTuple):
    """State after one step."""

    step: int  # 1, 2, ..., steps
    steps: int
    sigma: float  # the level the step started from
    x: Tensor  # (B, C, H, W) after the step
    denoised: Tensor  # (B, C, H, W), the estimate of the clean picture the step used


Callback = Callable[[StepInfo], None]
