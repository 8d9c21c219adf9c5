"""MRI: a phantom comes back from part of k-space, better than zero-filled, and bad input is told."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from skimage.data import shepp_logan_phantom
from skimage.filters import gaussian
from skimage.transform import resize

from invsolve.ct.reconstruction import DROWNS
from invsolve.errors import InputError, ModelError
from invsolve.evaluation.metrics import psnr
from invsolve.forward_models import equispaced_mask, espirit
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.score_model import FunctionPrior
from invsolve.tasks.mri import brightness, mri_task, read_scan, reconstruct_mri
from invsolve.tasks.mri_simulation import coil_ring, random_smooth_phase, simulate_mri

SIZE = 40


def phantom() -> np.ndarray:
    return 100 * resize(shepp_logan_phantom(), (SIZE, SIZE), anti_aliasing=True)  # in some scanner's units


@cache
def prior() -> GaussianPrior:
    """Pictures with a random walk's spectrum, each pixel of standard deviation 0.3."""
    at = torch.stack(torch.meshgrid(*(torch.arange(SIZE, dtype=torch.float64),) * 2, indexing="ij"), -1).reshape(-1, 2)
    covariance = 0.3**2 * torch.exp(-torch.cdist(at, at) / 6)
    return GaussianPrior(torch.full((1, SIZE, SIZE), 0.2), covariance.float())


def db(estimate: np.ndarray) -> float:
    return psnr(phantom(), estimate, data_range=100.0)


@pytest.mark.parametrize("coils", [1, 5])
@pytest.mark.parametrize("given", [True, False])
def test_a_phantom_comes_back(coils: int, given: bool) -> None:
    measured = equispaced_mask((SIZE, SIZE), 2, 14)
    scan = simulate_mri(phantom(), measured, coils=coils, noise=0.5, seed=2)
    known = {"phase": scan.phase, "sensitivities": scan.sensitivities} if given else {}
    task = mri_task(scan.kspace, noise=0.5, **known)  # type: ignore[arg-type]
    baselines = task.baselines()
    found = task.solve(prior(), samples=2, steps=10)
    assert found.samples.shape == (2, 1, 1, SIZE, SIZE)
    assert task.problem["acceleration"] == pytest.approx(2, rel=0.1)
    assert task.problem["coils"] == coils
    mean = db(found.mean[0, 0].numpy())
    assert mean > db(baselines["zero-filled"]) + (3 if given else 1)
    assert db(baselines["TV"]) > db(baselines["zero-filled"])
    again = reconstruct_mri(scan.kspace, prior(), noise=0.5, samples=2, steps=10, measured=measured[0], **known)  # type: ignore[arg-type]
    assert torch.equal(again.samples, found.samples)


def test_samplers_that_keep_their_start_begin_where_noise_drowns_the_guess() -> None:
    scan = simulate_mri(phantom(), equispaced_mask((SIZE, SIZE), 2, 14), noise=0.5)

    def first_level(sampler: str, sigma_start: float | None = None) -> float:
        found = reconstruct_mri(
            scan.kspace, prior(), noise=0.5, sampler=sampler, steps=4, sigma_start=sigma_start, samples=1
        )
        assert found.network_calls == 4 + (sampler == "renoising")  # one looks at the guess
        return found.diagnostics["sigma"][0]

    assert [first_level("ancestral"), first_level("multistep(tau=0.2)")] == pytest.approx([DROWNS, DROWNS])
    assert first_level("renoising") < 0.4
    assert first_level("ancestral", 0.5) == pytest.approx(0.5)


def test_units_are_those_of_kspace() -> None:
    """Ten times the k-space gives ten times the picture."""
    measured = equispaced_mask((SIZE, SIZE), 2, 14)
    scan = simulate_mri(phantom(), measured, seed=2)
    one, ten = (reconstruct_mri(f * scan.kspace, prior(), samples=1, steps=4).samples for f in (1, 10))
    torch.testing.assert_close(10 * one, ten, rtol=1e-3, atol=0.5)


@pytest.mark.parametrize("coils", [1, 5])
def test_what_the_estimates_miss_is_estimated(coils: int) -> None:
    """Within a factor of two, without knowing the truth."""
    picture = resize(shepp_logan_phantom(), (96, 96), anti_aliasing=True)
    simulated = simulate_mri(picture, equispaced_mask((96, 96), 3, 14), coils=coils, seed=1)
    scan = read_scan(simulated.kspace, noise=0)
    missed = scan.operator(torch.from_numpy(picture).float()[None, None] / scan.scale) - scan.y
    true = float((missed.square().sum() / scan.operator.measured_values).sqrt())
    assert 0.5 * true < scan.unexplained < 2 * true
    known = read_scan(simulated.kspace, noise=0, sensitivities=simulated.sensitivities, phase=simulated.phase)
    assert known.unexplained == 0 or coils == 1
    assert known.error < 1e-6


def test_simulations_are_what_they_say() -> None:
    measured = torch.ones(SIZE, SIZE)
    exact = simulate_mri(phantom(), measured, coils=4)
    noisy = simulate_mri(phantom(), measured, coils=4, noise=2.0)
    assert float(np.std((noisy.kspace - exact.kspace).real)) == pytest.approx(2, rel=0.05)
    maps = coil_ring((SIZE, SIZE), 4)
    torch.testing.assert_close(maps.abs().square().sum(dim=0), torch.ones(SIZE, SIZE, dtype=torch.float64))
    assert float(random_smooth_phase((SIZE, SIZE), torch.Generator().manual_seed(0)).std()) == pytest.approx(1)
    assert not bool(simulate_mri(phantom(), equispaced_mask((SIZE, SIZE), 4, 4)).kspace[:, 1].any())
    assert brightness(torch.full((4, 4), 3.0)) == 0
    assert brightness(torch.cat([torch.zeros(50), torch.ones(50)])) == 1


def test_bad_input_is_told() -> None:
    good = np.ones((3, 16, 16), dtype=np.complex64)
    for message, arguments in {
        r"k-space has shape \(16, 16\), float64": (np.ones((16, 16)),),
        "NaN": (good * np.nan,),
        r"the mask has shape \(4,\)": (good, np.ones(4)),
        r"sensitivities \(2, 16, 16\)": (good, None, good[:2]),
        r"the phase has shape \(8, 8\)": (good, None, None, np.zeros((8, 8))),
        "centre of k-space is 0 x 0": (0 * good,),
        "0 everywhere": (0 * good, np.ones(16)),
    }.items():
        with pytest.raises(InputError, match=message):
            read_scan(*arguments)
    with pytest.raises(InputError, match="noise"):
        read_scan(good, noise=-1)
    with pytest.raises(InputError, match="0 coils"):
        simulate_mri(phantom(), torch.ones(SIZE, SIZE), coils=0)
    colour = FunctionPrior(lambda x, sigma: x, channels=3, sigma_min=0.01, sigma_max=1, sigma_data=0.3)
    scan = simulate_mri(phantom(), torch.ones(SIZE, SIZE))
    with pytest.raises(ModelError, match="preset mri"):
        reconstruct_mri(scan.kspace, colour)


def test_espirit_sees_the_coils() -> None:
    """Where there is something to see, its sensitivities are the true ones up to a phase that all coils share."""
    pytest.importorskip("sigpy")
    picture = resize(shepp_logan_phantom(), (64, 64), anti_aliasing=True)
    measured = equispaced_mask((64, 64), 2, 24)
    scan = simulate_mri(picture, measured, coils=5, noise=0.001, seed=3)
    kspace = torch.from_numpy(scan.kspace)
    assert scan.sensitivities is not None
    true = torch.from_numpy(scan.sensitivities).to(kspace)
    tissue = torch.from_numpy(picture > 0.1)

    def agreement(maps: torch.Tensor) -> float:
        return float((maps.conj() * true).sum(dim=0).abs()[tissue].mean())

    found = espirit(kspace, measured)
    assert agreement(found) > 0.99
    assert float(found.abs().square().sum(dim=0).max()) < 1.001
    assert not bool(found[:, :4, :4].any())  # air
    with pytest.raises(InputError, match="ESPIRiT wants 12"):
        espirit(kspace, equispaced_mask((64, 64), 4, 8))
    with pytest.raises(InputError, match="sensitivities 'sense'"):
        read_scan(scan.kspace, sensitivities="sense")


@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_noise_is_estimated_from_above(noise: float) -> None:
    picture = gaussian(resize(shepp_logan_phantom(), (128, 128)), 2.0)
    scan = simulate_mri(picture, equispaced_mask((128, 128), 4, 24), coils=4, noise=noise)
    found = read_scan(scan.kspace)
    assert noise * 0.8 < found.noise * found.scale < noise * 1.3
