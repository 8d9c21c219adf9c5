"""What runs on a GPU agrees with the CPU. Skipped where there is none; ``INVSOLVE_TEST_DEVICE=cpu`` rehearses the tests."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from invsolve import inpaint, load_prior
from invsolve.evaluation.metrics import psnr
from invsolve.forward_models import Geometry, SparseProjector, even_angles
from invsolve.models.network import NetworkConfig
from invsolve.models.precision import full_precision
from invsolve.posterior import Posterior
from invsolve.training.checkpoint import TrainingState
from invsolve.training.loop import Execution, TrainingInfo, fit
from invsolve.training.loss import DENOISING
from invsolve.training.presets import PRESETS

DEVICE = torch.device(os.environ.get("INVSOLVE_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs CUDA"),
]

SMALLEST = replace(
    PRESETS["tiny"],
    network=NetworkConfig(widths=(8,), encoder_blocks=(1,), decoder_blocks=(), dropout=0.3),
    steps=4,
    batch=4,
    crop=8,
    crop_late=8,
)
PICTURES = [np.random.default_rng(k).integers(0, 255, (20, 20, 3), np.uint8) for k in range(3)]


@pytest.mark.parametrize("sigma", [0.005, 0.1, 1.0, 20.0])
def test_denoisers_agree_up_to_bfloat16(small_prior: Path, sigma: float, generator: torch.Generator) -> None:
    """The network's part of the estimate is c_out F(c_in x), c_out = sigma sigma_d / sqrt(sigma^2 + sigma_d^2)."""
    here, there = load_prior(small_prior, "cpu"), load_prior(small_prior, DEVICE)
    clean = torch.rand(3, 3, 40, 48, generator=generator)
    x = clean + sigma * torch.randn(clean.shape, generator=generator)
    with full_precision():
        exact = here.denoise(x, sigma)
        same = there.denoise(x.to(DEVICE), sigma).cpu()
    rounded = there.denoise(x.to(DEVICE), sigma)
    assert rounded.device.type == DEVICE.type and rounded.dtype == torch.float32
    c_out = sigma * 0.27 / math.hypot(sigma, 0.27)
    assert rms(same - exact) < 3e-4 * c_out + 1e-6  # convolutions in TF32, by PyTorch's default
    assert rms(rounded.cpu() - exact) < 2e-3 * c_out + 1e-6  # here .0005, of an F of .09


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def filled(prior: Path, device: torch.device, photo: np.ndarray, missing: np.ndarray) -> Posterior:
    picture = photo.astype(np.float32) / 255
    return inpaint(picture, missing, load_prior(prior, device), samples=4, steps=8)


def test_inpainting_agrees_with_the_cpu_and_repeats(small_prior: Path, photo: np.ndarray) -> None:
    missing = np.random.default_rng(0).random(photo.shape[:2]) < 0.3
    here = filled(small_prior, torch.device("cpu"), photo, missing)
    there, again = (filled(small_prior, DEVICE, photo, missing) for _ in range(2))
    truth = photo.astype(np.float32) / 255
    scores = [psnr(truth, p.mean[0].permute(1, 2, 0).cpu().numpy(), data_range=1.0) for p in (here, there)]
    assert scores[1] == pytest.approx(scores[0], abs=0.1)
    samples = there.samples[:, 0].permute(0, 2, 3, 1).cpu().numpy()
    assert (samples[:, ~missing] == truth[~missing]).all()
    assert rms(there.samples - again.samples) < 1e-4
    assert rms(there.samples[0] - there.samples[1]) > 1e-3  # so that the line above says something


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_projectors_adjoint_is_exact(dtype: torch.dtype, tolerance: float, generator: torch.Generator) -> None:
    """Any sparse matrix will do: ASTRA need not be there."""
    scan = Geometry(even_angles(9), 31, (16, 20))
    rng = np.random.default_rng(0)
    matrix = csr_matrix((rng.random((9 * 31, 16 * 20)) * (rng.random((9 * 31, 16 * 20)) < 0.05)).astype(np.float32))
    here, there = SparseProjector(scan, matrix), SparseProjector(scan, matrix, DEVICE)
    x = torch.randn(3, 1, *scan.shape, generator=generator, dtype=dtype)
    y = torch.randn(3, *scan.sinogram_shape, generator=generator, dtype=dtype)
    on_device = x.to(DEVICE, copy=True).requires_grad_()
    image, aty = there(on_device), there.T(y.to(DEVICE))
    ax = image.detach().cpu()
    assert ax.dtype == aty.dtype == dtype
    assert abs(float((ax * y).sum() - (x * aty.cpu()).sum())) < tolerance * float(ax.norm() * y.norm())
    assert float((ax - here(x)).norm()) < tolerance * float(ax.norm())
    (image * y.to(DEVICE)).sum().backward()
    assert on_device.grad is not None
    assert float((on_device.grad - aty).norm()) < tolerance * float(aty.norm())


@pytest.mark.parametrize("compile", [False, True])
def test_training_goes_on_where_it_stopped(compile: bool, tmp_path: Path) -> None:
    losses: list[float] = []
    notes: list[str] = []

    class Stop(Exception):
        pass

    def recorded(info: TrainingInfo) -> None:
        losses.append(info.loss)
        if len(losses) == 2:
            raise Stop

    def run() -> TrainingState:
        return fit(
            DENOISING,
            PICTURES,
            SMALLEST,
            tmp_path,
            device=DEVICE,
            execution=Execution(compile=compile),
            on_step=recorded,
            on_note=notes.append,
        )

    with pytest.raises(Stop):
        run()
    state = run()
    assert state.step == 4 and len(losses) == 4
    assert all(map(math.isfinite, losses)) and notes == []
    assert all(p.device.type == DEVICE.type for p in state.ema.parameters())
