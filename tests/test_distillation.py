"""Training with a teacher: what the target is, and that learning from a perfect one needs less than clean pictures do."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.models.gaussian import smooth_gaussian_prior
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.training.distillation import distilling, mixed_target
from invsolve.training.loss import DENOISING, Batch
from invsolve.training.presets import TrainingConfig

CONFIG = TrainingConfig(network=NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,)))
PRIOR = smooth_gaussian_prior((3, 8, 8))


def teacher(x: Tensor, sigma: Tensor) -> Tensor:
    return PRIOR.denoise(x.double(), sigma.double()).float()


def batch(seed: int, count: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x0 = PRIOR.sample(count, generator).float()
    sigma = torch.linspace(0.01, 1.0, count)
    z, none = torch.randn(x0.shape, generator=generator), torch.zeros(0, *x0.shape)
    return Batch(x0, sigma, z, torch.zeros(count, dtype=torch.int64), none)


def test_the_target_is_mixed_only_where_the_teacher_is_asked() -> None:
    b = batch(0)
    noisy = b.x0 + b.sigma[:, None, None, None] * b.z
    target = mixed_target(teacher, b.x0, noisy, b.sigma, (0.1, 0.5), 0.7)
    inside = (b.sigma > 0.1) & (b.sigma < 0.5)
    assert bool(inside.any()) and torch.equal(target[~inside], b.x0[~inside])
    wanted = 0.3 * b.x0 + 0.7 * teacher(noisy, b.sigma)
    torch.testing.assert_close(target[inside], wanted[inside])
    assert mixed_target(teacher, b.x0, noisy, b.sigma, (2.0, 3.0), 0.7) is b.x0


def test_without_a_share_it_is_denoising_score_matching() -> None:
    torch.manual_seed(0)
    model = EDMDenoiser(CONFIG.network)
    alone = distilling(teacher, (0.0, 10.0), 0.0).loss(model, batch(1), CONFIG)
    assert torch.equal(alone, DENOISING.loss(model, batch(1), CONFIG))


def test_a_perfect_teacher_takes_noise_out_of_the_gradient_and_leaves_its_mean() -> None:
    torch.manual_seed(0)
    model = EDMDenoiser(CONFIG.network)
    weight = model.net.conv_out.weight

    def gradients(share: float) -> Tensor:
        task = distilling(teacher, (0.0, 10.0), share)
        found = [torch.autograd.grad(task.loss(model, batch(k), CONFIG), weight)[0] for k in range(200)]
        return torch.stack(found).flatten(1)

    alone, taught = gradients(0.0), gradients(1.0)
    assert float(taught.var(dim=0).sum()) < 0.9 * float(alone.var(dim=0).sum())
    error = (alone.var(dim=0) + taught.var(dim=0)).div(len(alone)).sqrt()
    assert float(((alone.mean(dim=0) - taught.mean(dim=0)) / error).abs().max()) < 5
