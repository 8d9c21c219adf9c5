"""A convolution and what follows it in one pass: oneDNN's post-operations, which spare a walk through memory.

PyTorch has them for its compiler and exports no name for them; where they are missing, as on other processors' builds, the two
steps are done one after the other. The result is the same to the last bit: rounding to bfloat16 keeps the sign.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _pointwise() -> Any:
    """oneDNN's convolution with a post-operation; None where this build of PyTorch has it not."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_convolution_pointwise", None)


POINTWISE = _pointwise()


def rectified(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """``relu(convolution(x))`` for a padding of zeros."""
    if POINTWISE is None or x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return F.relu(convolution(x), inplace=not torch.is_grad_enabled())
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    # Where a processor has no bfloat16 PyTorch's convolutions emulate it; this one refuses.
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return F.relu(convolution(x), inplace=True)
    assert convolution.bias is not None
    weight, bias = convolution.weight.to(dtype), convolution.bias.to(dtype)
    how = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
    return POINTWISE(x.to(dtype), weight, bias, *how, "relu", [], "")
