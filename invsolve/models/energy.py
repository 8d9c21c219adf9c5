"""A prior whose score is the gradient of a scalar: an energy E(x, sigma), minus the log density up to a constant.

A plain network's score need not be the gradient of anything. Here the same U-Net F, fed u = (x - c) / sqrt(sigma^2 +
sigma_data^2), makes the scalar

    phi(u, sigma) = <u, F(u, sigma)> - 1/2 |F(u, sigma)|^2 = 1/2 |u|^2 - 1/2 |u - F(u, sigma)|^2

(Salimans & Ho 2021, "Should EBMs model the energy or the score?", section 3: an energy that is the squared distance of
the input to a network's output), and its gradient takes the place of F in EDM's preconditioning (Karras et al. 2022,
Table 1). Then D(x, sigma) = x - sigma^2 grad_x E(x, sigma) with

    E(x, sigma) = |x - c|^2 / (2 (sigma^2 + sigma_data^2)) - sigma_data / sigma * phi(u, sigma):

a Gaussian's energy, and what the pictures' differs from it. The Jacobian of D is symmetric, as an exact denoiser's is. A
call costs a forward and a backward pass; a gradient through D, as in training, differentiates twice.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from invsolve.models.network import EDMDenoiser, NetworkConfig


class EnergyDenoiser(EDMDenoiser):
    """D(x, sigma) = x - sigma^2 grad_x E(x, sigma); ``x`` and ``sigma`` as :class:`EDMDenoiser` takes them.

    Works inside ``torch.no_grad`` and ``torch.inference_mode`` too.

    Raises
    ------
    ValueError : ``sigma_data`` differs between the channels: then no scalar has the preconditioned gradient.
    """

    def __init__(self, config: NetworkConfig) -> None:
        alike = not isinstance(config.sigma_data, tuple)
        if not alike:
            raise ValueError("an energy wants one sigma_data for all channels")
        super().__init__(config)

    def energy(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E(x, sigma), (B,), in nats: ``-log p_sigma(x)`` up to a number that depends on sigma only."""
        s = sigma[:, None, None, None]
        total = (s**2 + self.sigma_data**2).sqrt()
        gaussian = 0.5 * ((x - self.center) / total).square().flatten(1).sum(dim=1)
        phi = self.potential((x - self.center) / total, sigma.log() / 4)
        return gaussian - self.sigma_data.flatten() / sigma * phi

    def potential(self, u: Tensor, c_noise: Tensor) -> Tensor:
        """phi, (B,)."""
        f = super().raw(u, c_noise)
        return (u * f - 0.5 * f.square()).flatten(1).sum(dim=1)

    def raw(self, u: Tensor, c_noise: Tensor) -> Tensor:
        """grad_u phi, shaped as ``u``; in a graph where someone may want to differentiate it."""
        followed = torch.is_grad_enabled() and (u.requires_grad or any(p.requires_grad for p in self.parameters()))
        # The other kernels of attention cannot be differentiated twice.
        with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            if not (followed and u.requires_grad):
                # Cloned, since what was made in inference mode is never differentiated.
                u, c_noise = u.detach().clone().requires_grad_(), c_noise.clone()
            phi = self.potential(u, c_noise)
            return torch.autograd.grad(phi.sum(), u, create_graph=followed)[0]


def make_denoiser(config: NetworkConfig) -> EDMDenoiser:
    """The network of a configuration, its weights drawn by torch's generator."""
    return EnergyDenoiser(config) if config.energy else EDMDenoiser(config)
