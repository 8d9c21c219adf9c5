"""Muon for the convolutions, AdamW for everything else.

Muon (Jordan et al. 2024) orthogonalises the momentum of each weight matrix before the step. After three minutes it denoises
.4 to 1.1 dB better than AdamW alone on this network (docs/lab/training.md). PyTorch's Muon takes matrices only, so each
convolution's weight is handed to it as the matrix (out, height * width * in) on the same memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

FIRST_AND_LAST = ("conv_in", "conv_out")


def as_matrix(weight: Tensor) -> Tensor:
    """A channels_last convolution weight (out, in, h, w) as a matrix (out, h * w * in), without copying."""
    return weight.permute(0, 2, 3, 1).flatten(1)


class MuonAdamW:
    """Two optimizers that act as one. The model must be in channels_last memory format."""

    def __init__(self, model: nn.Module, adamw_rate: float, muon_rate: float, weight_decay: float = 1e-3) -> None:
        self.kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            hidden = parameter.ndim == 4 and not any(part in name for part in FIRST_AND_LAST)
            (self.kernels if hidden else others).append(parameter)
        self.matrices = [nn.Parameter(as_matrix(kernel.data)) for kernel in self.kernels]
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            if matrix.data_ptr() != kernel.data_ptr():
                raise ValueError("the model is not in channels_last memory format")
        self.muon = torch.optim.Muon(
            self.matrices, lr=muon_rate, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(others, lr=adamw_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        self.rates = (muon_rate, adamw_rate)

    def scale_rates(self, factor: float) -> None:
        """Set both learning rates to ``factor`` times their base."""
        for optimizer, rate in zip((self.muon, self.adamw), self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = factor * rate

    def zero_grad(self) -> None:
        for kernel in self.kernels:
            kernel.grad = None
        self.adamw.zero_grad(set_to_none=True)

    def step(self) -> None:
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else as_matrix(kernel.grad).contiguous()
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
