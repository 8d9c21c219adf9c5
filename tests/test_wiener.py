"""The rule that filters the misfit with the denoiser's error covariance, the sampler that redraws, and what they rest on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from invsolve.errors import ModelError, UsageError
from invsolve.forward_models import Blur, Downsample, ForwardModel, GaussianNoise, LinearOperator, Mask, gaussian_psf
from invsolve.models.dct import dct2, idct2
from invsolve.models.error_spectrum import (
    FREQUENCIES,
    ErrorSpectrum,
    SpectralCovariance,
    activity,
    channel_mix,
    measure_error_spectrum,
)
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.score_model import FunctionPrior, per_image
from invsolve.pretrained import Card, load_prior
from invsolve.pretrained.loading import save_prior
from invsolve.rules import Wiener, condition
from invsolve.samplers import redrawing
from invsolve.samplers.noise import SeededNoise
from invsolve.samplers.sigmas import karras
from invsolve.solver import solve
from invsolve.verification.judge import verify
from invsolve.verification.problems import Problem, blur_problem, colorization_problem, inpainting_problem


def dct_basis(size: int) -> Tensor:
    """(d, d): every row a cosine over size x size."""
    return dct2(torch.eye(size**2, dtype=torch.float64).reshape(-1, size, size)).reshape(size**2, -1).T


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (1, 3)])
def test_cosine_transform_is_orthonormal_and_the_libraries(shape: tuple[int, int]) -> None:
    x = torch.rand(2, *shape, dtype=torch.float64)
    np.testing.assert_allclose(dct2(x).numpy(), scipy.fft.dctn(x.numpy(), axes=(1, 2), norm="ortho"), atol=1e-12)
    torch.testing.assert_close(idct2(dct2(x)), x)
    torch.testing.assert_close(dct2(x).square().sum(), x.square().sum())


def stationary_prior(size: int = 8) -> GaussianPrior:
    """A Gaussian whose covariance the cosine transform makes diagonal, falling with frequency."""
    frequency = torch.arange(size, dtype=torch.float64)
    variance = 0.3 / (1 + (frequency[:, None] ** 2 + frequency[None] ** 2)) ** 1.5
    basis = dct_basis(size)
    covariance = basis.T @ torch.diag(variance.flatten()) @ basis
    return GaussianPrior(torch.full((1, size, size), 0.5, dtype=torch.float64), covariance)


def flat(variances: list[list[list[float]]], sigmas: list[float], frequencies: list[float]) -> ErrorSpectrum:
    """A spectrum of errors that are as large everywhere."""
    return ErrorSpectrum(sigmas, frequencies, variances, [[1.0]] * len(sigmas), [[1.0]] * len(sigmas))


def test_the_measured_spectrum_is_wieners() -> None:
    prior, size, sigma = stationary_prior(), 8, 0.2
    pictures = prior.sample(4000, torch.Generator().manual_seed(0))
    spectrum = measure_error_spectrum(prior.denoise, pictures, [sigma], torch.eye(1), batch=1000)
    frequency = torch.arange(size, dtype=torch.float64)
    exact = 1 / ((1 + frequency[:, None] ** 2 + frequency[None] ** 2) ** 1.5 / 0.3 + 1 / sigma**2)
    measured = spectrum.spectrum(sigma, size, size)[0].double() * prior.mse(sigma)
    # a band is 1.6 times as wide as the next finer: within it the spectrum is not flat
    assert ((measured / exact).log().abs() < 0.45).all()
    assert measured.mean() == pytest.approx(prior.mse(sigma), rel=0.1)
    # a linear denoiser of a stationary Gaussian errs as much wherever it is
    assert max(spectrum.errors[0]) < 1.2 * min(spectrum.errors[0])


def test_a_denoiser_that_errs_at_edges_is_known_to() -> None:
    pictures = torch.zeros(4, 1, 32, 32)
    pictures[..., 16:] = 1.0
    steps = pictures + 0.1 * (torch.arange(32) == 16) * torch.randn(4, 1, 32, 1)
    spectrum = measure_error_spectrum(lambda x, sigma: pictures, steps, [0.1], torch.eye(1))
    covariance = SpectralCovariance(spectrum, torch.eye(1), pictures, 0.1)
    assert covariance.scale[..., 16].mean() > 5 * covariance.scale[..., 4].mean()
    assert activity(pictures)[0, 0, 16, 16] > activity(pictures)[0, 0, 16, 4]


def test_levels_between_the_measured_ones_and_below_them() -> None:
    spectrum = flat([[[1e-2, 1e-3]], [[4e-2, 1e-3]]], [0.1, 0.4], [0.1, 0.5])
    assert float(spectrum.spectrum(0.2, 16, 16)[0, 0, 0]) == pytest.approx(2e-2, rel=1e-5)
    assert torch.equal(spectrum.spectrum(4.0, 16, 16), spectrum.spectrum(0.4, 16, 16))
    assert float(spectrum.scale(0.05, torch.zeros(1))) == pytest.approx(0.5)
    assert float(spectrum.scale(4.0, torch.zeros(1))) == 1.0


def test_the_root_of_the_covariance_squared_is_the_covariance() -> None:
    level = [[0.1**c * f for f in FREQUENCIES] for c in range(3)]
    spectrum = ErrorSpectrum([0.01, 1.0], FREQUENCIES, [level, level], [[1e-3, 1e-1]] * 2, [[1.0, 4.0]] * 2)
    x0, v, w, z = torch.rand(4, 2, 3, 8, 6)
    covariance = SpectralCovariance(spectrum, channel_mix(3, rgb=True), x0, torch.tensor([0.1, 0.5]))
    product = (v * covariance.times(w)).sum()
    torch.testing.assert_close((covariance.times(v) * w).sum(), product)
    basis = torch.eye(3 * 8 * 6).reshape(-1, 3, 8, 6)
    alone = SpectralCovariance(spectrum, channel_mix(3, rgb=True), x0[1:], 0.5)
    root, whole = (part(basis).flatten(1) for part in (alone.root_times, alone.times))
    torch.testing.assert_close(root.T @ root, whole, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(covariance.times(z)[1:], alone.times(z[1:]))


@pytest.mark.parametrize("make", [inpainting_problem, colorization_problem, blur_problem])
def test_six_levels_give_a_gaussian_posterior(make: Callable[[int], Problem]) -> None:
    found = verify(make(0), rule=partial(Wiener, tolerance=1e-3), sampler="redrawing", steps=6, samples=1500)
    assert found.calls == 6
    assert found.bias < 0.06
    assert found.std_ratio == pytest.approx(1, abs=0.03)
    assert found.coverage == pytest.approx(0.9, abs=0.015)


def test_the_rules_mean_is_the_posteriors_given_x() -> None:
    problem = inpainting_problem(0)
    sigma = 0.3
    x = problem.start[None] + sigma * torch.randn(2, *problem.start.shape, dtype=torch.float64)
    rule = Wiener(problem.prior, problem.forward_model, problem.y, steps=200, tolerance=1e-10)
    expected = condition(problem.prior, problem.forward_model, problem.y, "exact").denoise(x, sigma)
    torch.testing.assert_close(rule.denoise(x, sigma), expected, rtol=0, atol=2e-4)


def test_draws_have_the_law_of_x0_given_x_and_y() -> None:
    prior = stationary_prior(4)
    mask = (torch.arange(16).reshape(1, 4, 4) % 3 > 0).double()
    model, sigma, count = ForwardModel(Mask(mask, 1), GaussianNoise(0.05)), 0.4, 20_000
    y = mask * 0.7
    rule = Wiener(prior, model, y[None], steps=100, tolerance=1e-8)
    generator = torch.Generator().manual_seed(0)
    x = torch.full((1, 1, 4, 4), 0.6, dtype=torch.float64).expand(count, -1, -1, -1)
    x0, z = rule.draw(x, sigma, lambda v: torch.randn(v.shape, generator=generator, dtype=v.dtype))
    torch.testing.assert_close(x0 + sigma * z, x)
    precision = (
        torch.linalg.inv(prior.covariance) + torch.eye(16) / sigma**2 + torch.diag(mask.flatten()) / rule.sigma_y**2
    )
    covariance = torch.linalg.inv(precision)
    spread = covariance.diagonal().sqrt()
    drawn = x0.flatten(1)
    assert (drawn.T.cov() - covariance).abs().max() < 0.06 * spread.max() ** 2
    assert ((drawn.mean(0) - rule.denoise(x[:1], sigma).flatten()).abs() < 6 * spread / math.sqrt(count)).all()


def test_an_unconditioned_prior_is_redrawn_too() -> None:
    prior, count = stationary_prior(4), 4000
    generator = torch.Generator().manual_seed(0)

    def noise(v: Tensor) -> Tensor:
        return torch.randn(v.shape, generator=generator, dtype=v.dtype)

    start = prior.mean + 5 * noise(torch.zeros(count, 1, 4, 4, dtype=torch.float64))
    drawn = redrawing(prior, start, karras(6, 0.01, 5.0), noise, eta=0.7)
    ratio = drawn.flatten(1).var(dim=0) / prior.covariance.diagonal()
    assert ratio.mean() == pytest.approx(1, abs=0.06)


def test_an_image_does_not_depend_on_the_batch() -> None:
    prior = stationary_prior(8)
    mask = (torch.arange(64).reshape(1, 8, 8) % 2).double()
    model = ForwardModel(Mask(mask, 1), GaussianNoise(0.05))
    y = mask * torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    both = solve(prior, model, y, rule="wiener", sampler="redrawing", steps=5)
    alone = solve(prior, model, y[:1], rule="wiener", sampler="redrawing", steps=5)
    torch.testing.assert_close(both.samples[:, :1], alone.samples, rtol=0, atol=1e-6)


def test_without_a_measured_spectrum_the_covariance_is_white() -> None:
    prior = FunctionPrior(lambda x, sigma: x / (1 + per_image(sigma, x) ** 2), channels=1, sigma_data=1.0)
    v = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(prior.error_covariance(v, 0.5).times(v), prior.mse(0.5) * v)
    draw = prior.draw(v, 0.5, torch.ones_like)
    torch.testing.assert_close(draw.x0, prior.denoise(v, 0.5) + prior.mse(0.5) ** 0.5)


def test_a_smaller_lam_trusts_the_data_more() -> None:
    problem = inpainting_problem(0)
    x = problem.start[None]
    misfits = [
        problem.forward_model.linear(Wiener(problem.prior, problem.forward_model, problem.y, lam=lam).denoise(x, 0.3))
        - problem.y
        for lam in (10.0, 1.0, 0.1)
    ]
    sizes = [float(misfit.norm()) for misfit in misfits]
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(UsageError, match="lam"):
        Wiener(problem.prior, problem.forward_model, problem.y, lam=0.0)


def test_rules_that_estimate_are_refused_where_a_draw_is_wanted() -> None:
    problem = inpainting_problem(0)
    model = condition(problem.prior, problem.forward_model, problem.y, "proximal")
    noise = SeededNoise([(0, 0, 0)])
    with pytest.raises(UsageError, match="Proximal") as caught:
        redrawing(model, problem.start[None], karras(3), noise)
    assert "wiener" in str(caught.value.hint)
    with pytest.raises(UsageError, match="eta"):
        redrawing(problem.prior, problem.start[None], karras(3), noise, eta=1.5)


def tiny_card(spectrum: dict[str, object]) -> Card:
    return Card("tiny", {}, "grey", 0.005, 20.0, [(0.1, 0.01)], "0" * 64, error_spectrum=spectrum)


def test_the_card_carries_the_spectrum(tmp_path: Path) -> None:
    network = EDMDenoiser(NetworkConfig(channels=1, widths=(4, 4), encoder_blocks=(1, 1), decoder_blocks=(1,))).eval()
    spectrum = measure_error_spectrum(network, torch.rand(2, 1, 32, 32), [0.01, 0.1, 1.0], torch.eye(1))
    save_prior(tmp_path, network, tiny_card(spectrum.to_dict()))
    prior = load_prior(tmp_path, "cpu")
    v = torch.rand(1, 1, 32, 32)
    found = prior.error_covariance(v, 0.1).times(v)
    expected = SpectralCovariance(spectrum, torch.eye(1), v, 0.1).times(v)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-5)
    assert found.std() > 0


SOUND: dict[str, object] = {
    "sigmas": [0.1, 0.2], "frequencies": [0.1, 0.5], "variances": [[[1.0, 1.0]], [[1.0, 1.0]]],
    "activities": [[0.1], [0.1]], "errors": [[1.0], [1.0]],
}  # fmt: skip


@pytest.mark.parametrize(
    "broken",
    [
        {"sigmas": [0.1]},
        {"sigmas": [0.2, 0.1]},
        {"sigmas": "no"},
        {"variances": [[[1.0, 1.0]]]},
        {"variances": [[[1.0, -1.0]], [[1.0, 1.0]]]},
        {"variances": [[[1.0, 1.0], [1.0, 1.0]]] * 2},
        {"activities": [[0.2, 0.1]] * 2, "errors": [[1.0, 1.0]] * 2},
        {"errors": [[1.0, 1.0]] * 2},
        {"errors": []},
    ],
)
def test_cards_with_a_broken_spectrum_are_refused(tmp_path: Path, broken: dict[str, object]) -> None:
    network = EDMDenoiser(NetworkConfig(channels=1, widths=(4, 4), encoder_blocks=(1, 1), decoder_blocks=(1,))).eval()
    card = save_prior(tmp_path, network, tiny_card({}))
    (tmp_path / "card.json").write_text(
        json.dumps(json.loads(replace(card).to_json()) | {"error_spectrum": SOUND | broken})
    )
    with pytest.raises(ModelError, match="error_spectrum"):
        load_prior(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("rule", "most"),
    [("wiener", 15), ("wiener(steps=20)", 20), ("wiener(tolerance=0.0001)", 50), ("wiener(steps=3)", 3)],
)
def test_missing_pixels_are_filled_in_few_steps_unless_asked(rule: str, most: int) -> None:
    """A badly conditioned filter, which wants all the iterations that there are."""
    products: list[int] = []

    class Counted(Mask):
        def _apply(self, x: Tensor) -> Tensor:
            products.append(1)
            return super()._apply(x)

    generator = torch.Generator().manual_seed(0)
    known = (torch.rand(1, 16, 16, generator=generator, dtype=torch.float64) < 0.5).double()
    y = known[None] * torch.rand(1, 1, 16, 16, generator=generator, dtype=torch.float64)
    model = condition(stationary_prior(16), ForwardModel(Counted(known), GaussianNoise(0.001)), y, rule)
    model.denoise(torch.rand(1, 1, 16, 16, generator=generator, dtype=torch.float64), 5.0)
    assert len(products) in (most + 1, most + 2)  # beside the misfit, and the first residual


def steps_of(operator: LinearOperator) -> int:
    """By default."""
    y = torch.zeros(1, *operator.output_shape, dtype=torch.float64)
    channels = operator.input_shape[0]
    prior = GaussianPrior(torch.zeros(operator.input_shape), torch.eye(channels * 32**2, dtype=torch.float64))
    return Wiener(prior, ForwardModel(operator, GaussianNoise(0.01)), y).steps


def test_steps_are_as_many_as_a_measurement_is_worth() -> None:
    """Few where known pixels are nearby, as beside lines of 5 pixels; all in wide holes and for blurs."""
    known = torch.ones(1, 32, 32, dtype=torch.float64)
    lines, hole = known.clone(), known.clone()
    lines[:, 3:8] = lines[:, :, 20:25] = 0
    hole[:, 10:20, 10:20] = 0
    pixels = (torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    assert [steps_of(Mask(one)) for one in (known, lines, pixels, hole)] == [15, 15, 15, 50]
    assert steps_of(Blur(gaussian_psf(1.0).double(), (1, 32, 32))) == 50
    assert steps_of(Downsample((1, 32, 32), 2)) == 25
