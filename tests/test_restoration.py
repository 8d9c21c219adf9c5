"""Super-resolution, deblurring, denoising: closed forms, grey and colour, edges, noise levels, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from invsolve import deblur, denoise, load_prior, superres
from invsolve.errors import InputError, ModelError, UsageError
from invsolve.forward_models import Blur, Downsample, ForwardModel, GaussianNoise, Grayscale, Identity, motion_psf
from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.models.score_model import FunctionPrior
from invsolve.options import DENOISING, INPAINTING
from invsolve.rules import condition
from invsolve.samplers import posterior_mean
from invsolve.samplers.noise import SeededNoise
from invsolve.samplers.sigmas import karras
from invsolve.tasks.deblurring import deblurring_task
from invsolve.tasks.denoising import denoising_task
from invsolve.tasks.noise_level import estimate_noise
from invsolve.tasks.restoration import ROUNDING, in_three_channels, planes
from invsolve.tasks.restoration_baselines import enlarged, lucy_richardson, wiener_filter
from invsolve.tasks.superresolution import superresolution_task

PSF = motion_psf(5, 20).numpy()
ROOT = Path(__file__).resolve().parents[1]


def unit(photo: np.ndarray) -> np.ndarray:
    return (photo / 255).astype(np.float32)


def array(x: Tensor) -> np.ndarray:
    """(1, C, H, W) -> (H, W[, C])"""
    return np.asarray(x[0].permute(1, 2, 0)).squeeze()


def pixelwise(mean: float = 0.5, std: float = 0.25, **facts: Any) -> FunctionPrior:
    """Independent Gaussian pixels, for pictures of any size."""

    def expected(x: Tensor, sigma: Tensor) -> Tensor:
        s2 = sigma.reshape(-1, 1, 1, 1) ** 2
        return mean + (x - mean) * std**2 / (std**2 + s2)

    return FunctionPrior(expected, channels=3, sigma_data=std, **facts)


# -- the rule merged and the posterior mean -----------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [1.0, -0.5])
@pytest.mark.parametrize("sigma", [0.02, 0.3, 4.0])
def test_merged_is_the_exact_rule(gaussian: GaussianPrior, scale: float, sigma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    forward_model = ForwardModel(scale * Identity(gaussian.shape), GaussianNoise(0.1))
    truth = gaussian.sample(3, generator)
    y = forward_model.simulate(truth, generator)
    x = truth + sigma * torch.randn(truth.shape, generator=generator, dtype=truth.dtype)
    merged, exact = (condition(gaussian, forward_model, y, rule) for rule in ("merged", "exact"))
    torch.testing.assert_close(merged.denoise(x, sigma), exact.denoise(x, sigma))
    torch.testing.assert_close(merged.score(x, sigma), exact.score(x, sigma))
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    found, expected = (model.error_covariance(x, sigma).times(v) for model in (merged, exact))
    torch.testing.assert_close(found, expected)
    zeros = lambda like: torch.zeros_like(like)
    torch.testing.assert_close(merged.draw(x, sigma, zeros), merged.predict(x, sigma))


def test_merged_is_only_for_pictures_measured_themselves(gaussian: GaussianPrior) -> None:
    for operator in (Grayscale(gaussian.shape), Blur(torch.from_numpy(PSF), gaussian.shape)):
        with pytest.raises(UsageError, match=r"rule 'merged'.*wiener"):
            condition(gaussian, ForwardModel(operator), torch.zeros(1, *operator.output_shape), "merged")


def test_posterior_mean_averages_the_first_level(gaussian: GaussianPrior) -> None:
    x = torch.randn(2, *gaussian.shape, dtype=torch.float64)
    seen: list[float] = []
    found = posterior_mean(gaussian, x, karras(5, 0.01, 0.7), torch.randn_like, callback=lambda i: seen.append(i.sigma))
    torch.testing.assert_close(found, gaussian.denoise(x, 0.7))
    assert seen == pytest.approx([0.7] * 5)


# -- each task against its closed form, with a prior that is known ------------------------------------------------------
def test_one_denoised_picture_is_the_posterior_mean() -> None:
    picture = np.random.default_rng(0).normal(0.5, 0.3, (12, 9, 3)).astype(np.float32)
    found = denoise(picture, pixelwise(), noise=0.2)
    assert found.settings["sampler"] == "posterior_mean" and found.network_calls == DENOISING.steps
    expected = 0.5 + (picture - 0.5) * 0.25**2 / (0.25**2 + 0.2**2)
    assert np.abs(array(found.samples[0]) - expected).max() < 0.06  # the start has a hundredth of the weight


def test_denoised_samples_are_the_posterior() -> None:
    picture = np.full((24, 24, 3), 0.9, np.float32)
    found = denoise(picture, pixelwise(), noise=0.2, samples=12)
    assert found.settings["sampler"] == "redrawing"
    variance = 1 / (1 / 0.25**2 + 1 / 0.2**2)
    assert float(found.mean.mean()) == pytest.approx(variance * (0.5 / 0.25**2 + 0.9 / 0.2**2), abs=0.01)
    # The last of a ladder's draws is the mean at its last level, 0.005: what is missing is below 0.005^2.
    assert float(found.samples.var(dim=0).mean()) == pytest.approx(variance, rel=0.1)


def of_photographs(prior: GaussianPrior) -> FunctionPrior:
    """A Gaussian in double precision as a prior of square photographs."""
    size = prior.shape[-1]
    known = FunctionPrior(lambda x, s: prior.denoise(x.double(), s.double()).to(x), channels=3, size=size)
    known.error_covariance = lambda x0, s: prior.error_covariance(x0.double(), s)  # type: ignore[method-assign]
    return known


@pytest.mark.parametrize("kernel", ["bicubic", "box", "gaussian"])
@pytest.mark.parametrize("grey", [False, True])
def test_an_enlarged_picture_made_smaller_is_the_picture(grey: bool, kernel: Any, photo: np.ndarray) -> None:
    picture = unit(photo)[:12, :10].mean(axis=2) if grey else unit(photo)[:12, :10]
    found = superres(picture, 3, pixelwise(), kernel=kernel, samples=2, steps=6, rule="wiener(tolerance=0.001)")
    assert found.samples.shape == (2, 1, 1 if grey else 3, 36, 30)
    again = Downsample(found.samples.shape[2:], 3, kernel)(found.samples[:, 0])
    assert float((again - planes(picture)).abs().max()) < 6 * ROUNDING


def test_the_mean_of_enlarged_samples_is_nearer_to_the_closed_form_than_their_average() -> None:
    """And is none of a single sample's business; a grey picture's is grey."""
    prior = smooth_gaussian_prior((3, 8, 8))
    generator = torch.Generator().manual_seed(1)
    model = ForwardModel(Downsample(prior.shape, 2), GaussianNoise(0.01))
    y = model.simulate(prior.sample(1, generator), generator)
    known = of_photographs(prior)
    picture = array(y.clamp(0, 1))
    options = {"noise": 0.01, "rule": "wiener(tolerance=0.001)", "sampler": "renoising(momentum=0.5)"}
    found = superres(picture, 2, known, samples=6, steps=30, antithetic=False, **options)
    exact = prior.posterior(model, planes(picture)).mean
    assert found.estimate is not None
    errors = [float((mean - exact).square().mean()) for mean in (found.estimate, found.samples.mean(dim=0))]
    assert errors[0] < 0.6 * errors[1]
    assert superres(picture, 2, known, steps=3, **options).estimate is None
    grey = superres(picture.mean(axis=2), 2, known, samples=2, steps=3, **options)
    assert grey.mean.shape == (1, 1, 8, 8)


@pytest.mark.parametrize("grey", [False, True])
def test_a_deblurred_picture_blurred_again_is_the_picture(grey: bool, photo: np.ndarray) -> None:
    picture = unit(photo).mean(axis=2) if grey else unit(photo)
    found = deblur(picture, 7 * PSF, pixelwise(), noise=0.002, steps=6)  # a PSF of any sum
    assert found.samples.shape == (1, 1, 1 if grey else 3, 48, 40)
    again = Blur(torch.from_numpy(PSF), found.samples.shape[2:], "reflect")(found.samples[0])
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert float((again - planes(picture))[inside].square().mean()) < 0.004**2


@pytest.mark.parametrize("size", [(3, 4), (5, 2), (1, 1)])
def test_deblurring_keeps_the_picture_in_its_place(size: tuple[int, int], photo: np.ndarray) -> None:
    """A PSF of one point moves the picture, whatever the PSF's sides."""
    picture, generator = unit(photo), np.random.default_rng(0)
    row, column = generator.integers(size[0]), generator.integers(size[1])
    psf = np.zeros(size)
    psf[row, column] = 1
    found = array(deblur(picture, psf, pixelwise(), noise=0.0, steps=4).samples[0])
    moved = np.roll(picture, (size[0] // 2 - row, size[1] // 2 - column), (0, 1))
    assert np.abs(found - moved)[6:-6, 6:-6].max() < 0.01


def test_the_samples_of_a_blurred_picture_are_the_closed_form() -> None:
    """A Gaussian prior of one size, which has no room beyond the photograph's edges."""
    prior, psf = smooth_gaussian_prior((3, 6, 6)), motion_psf(2, 30)
    generator = torch.Generator().manual_seed(1)
    model = ForwardModel(Blur(psf, prior.shape, "reflect"), GaussianNoise(0.05))
    y = model.simulate(prior.sample(1, generator), generator)
    known = of_photographs(prior)
    options = replace(INPAINTING, samples=400, batch=400, steps=8, rule="wiener(tolerance=0.001)", sigma_start=5.0)
    found = deblur(array(y), psf.numpy(), known, options, noise=0.05)
    exact = prior.posterior(model, y)
    std = exact.covariance.diagonal().sqrt().reshape(prior.shape)
    assert float(((found.mean[0] - exact.mean) / std).square().mean().sqrt()) < 0.1
    assert float((found.std[0] / std).mean()) == pytest.approx(1, abs=0.05)


# -- noise levels -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.2])
def test_noise_is_estimated(sigma: float, photo: np.ndarray) -> None:
    noise = np.random.default_rng(0).standard_normal((96, 80, 3))
    picture = np.kron(unit(photo), np.ones((2, 2, 1))) + sigma * noise
    assert estimate_noise(picture) == pytest.approx(sigma, rel=0.15)
    assert estimate_noise(picture[..., 0]) == pytest.approx(sigma, rel=0.2)
    assert denoising_task(picture).problem["noise"] == estimate_noise(picture.astype(np.float32))


def test_planes_have_no_noise() -> None:
    rows, columns = np.mgrid[:20, :30] / 40
    assert estimate_noise(rows + columns) < 1e-6
    assert estimate_noise(np.ones((3, 3))) == 0
    with pytest.raises(InputError, match="no noise found .*--sigma"):
        denoising_task(np.full((20, 30), 0.4))


def test_the_least_noise_is_that_of_rounding(photo: np.ndarray) -> None:
    assert superresolution_task(unit(photo), 2).problem["noise"] == ROUNDING
    assert deblurring_task(unit(photo), PSF, noise=0.0).problem["noise"] == ROUNDING


# -- baselines ----------------------------------------------------------------------------------------------------------
def test_classical_methods_sharpen(photo: np.ndarray) -> None:
    y, x = np.mgrid[:60, :50]
    sharp = ((x // 8 + y // 8) % 2 * 0.6 + 0.2).astype(np.float32)
    soft = array(Blur(torch.from_numpy(PSF), (1, 60, 50), "reflect")(planes(sharp)))
    noisy = soft + 0.01 * np.random.default_rng(0).standard_normal(soft.shape)
    before = float(np.mean((noisy - sharp) ** 2))
    for method in (wiener_filter, lucy_richardson):
        assert float(np.mean((method(noisy, PSF, 0.01) - sharp) ** 2)) < 0.8 * before
    assert enlarged(unit(photo), 3).shape == (144, 120, 3)
    assert set(deblurring_task(noisy, PSF).baselines()) == {"Wiener", "Richardson-Lucy"}


# -- facts of the tasks, and what is refused ----------------------------------------------------------------------------
@pytest.mark.parametrize("grey", [False, True])
def test_the_shipped_kind_of_prior_runs(grey: bool, photo: np.ndarray, small_prior: Path) -> None:
    prior, picture = load_prior(small_prior, "cpu"), unit(photo)[..., 0] if grey else unit(photo)
    seen: list[float] = []
    options = replace(INPAINTING, samples=3, steps=2, batch=2)
    for solve in (
        lambda: superres(picture, 2, prior, options, progress=seen.append),
        lambda: deblur(picture, PSF, prior, options, progress=seen.append),
        lambda: denoise(picture, prior, options, noise=0.1, rule="merged", progress=seen.append),
    ):
        found = solve()
        assert found.samples.shape[:3] == (3, 1, 1 if grey else 3)
        assert bool(torch.isfinite(found.samples).all()) and found.network_calls == 6
        assert seen[-1] == 1 and seen == sorted(seen)
        seen.clear()


def test_noise_of_a_grey_picture_becomes_independent_noise_of_three_channels() -> None:
    noise = 0.2 * torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(1))
    channels = in_three_channels(0.5 + noise, 0.2, SeededNoise([(0, 1)]))
    torch.testing.assert_close(channels.mean(dim=1, keepdim=True), 0.5 + noise)
    covariance = torch.cov((channels - 0.5).reshape(3, -1))
    torch.testing.assert_close(covariance, 3 * 0.2**2 * torch.eye(3), atol=0.003, rtol=0)
    assert not torch.equal(channels, in_three_channels(0.5 + noise, 0.2, SeededNoise([(1, 1)])))


@pytest.mark.parametrize(("noise", "least"), [(0.1, 1.0), (0.2, 1.0), (0.3, 0.5)])
def test_grey_pictures_are_denoised_by_the_shipped_prior(noise: float, least: float) -> None:
    """Nearer than non-local means by so many dB at every level, at 0.2 too, where noise alike in all channels is not known."""
    cat = np.asarray(Image.open(ROOT / "examples" / "cat-grey.png").convert("L"), np.float32)[40:136, 60:156] / 255
    noisy = cat + noise * np.random.default_rng(0).standard_normal(cat.shape).astype(np.float32)
    found = denoise(noisy, load_prior("photos", "cpu"), noise=noise)
    classical = denoising_task(noisy, noise=noise).baselines()["non-local means"]
    error, known = (float(np.mean((np.clip(one, 0, 1) - cat) ** 2)) for one in (array(found.samples[0]), classical))
    assert 10 * np.log10(known / error) > least


def test_what_the_data_determine() -> None:
    picture = np.random.default_rng(0).random((20, 16, 3)).astype(np.float32)
    assert superresolution_task(picture, 2).determined() == 0.25
    sharp, soft, softer = (deblurring_task(picture, psf, noise=0.02) for psf in (np.ones((1, 1)), PSF, np.ones((7, 7))))
    assert sharp.determined() == 1 > soft.determined() > softer.determined() > 0.01
    assert denoising_task(picture, noise=0.1).determined() == 1


RGB = np.full((6, 8, 3), 0.5, np.float32)


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        (lambda prior: superres(RGB, 1, prior), "2 to 8"),
        (lambda prior: superres(RGB, 2.5, prior), "factor 2.5"),  # type: ignore[arg-type]
        (lambda prior: superres(RGB, 2, prior, kernel="lanczos"), "bicubic, box, gaussian"),  # type: ignore[arg-type]
        (lambda prior: superres(255 * RGB, 2, prior), "picture / 255"),
        (lambda prior: superres(RGB, 2, prior, noise=-1), "noise"),
        (lambda prior: denoise(RGB, prior, noise=float("nan")), "noise"),
        (lambda prior: denoise(RGB, prior, noise="much"), "standard deviation"),  # type: ignore[arg-type]
        (lambda prior: denoise(RGB[0, 0], prior), "shape"),
        (lambda prior: deblur(RGB, PSF.tolist(), prior), "the PSF is a list"),
        (lambda prior: deblur(RGB, -PSF, prior), "negative"),
        (lambda prior: deblur(RGB, 0 * PSF, prior), "nothing but zeros"),
        (lambda prior: deblur(RGB, PSF[0], prior), "the PSF has shape"),
        (lambda prior: deblur(RGB, np.ones((7, 7)), prior), "7 x 7 pixels, the picture 8 x 6"),
    ],
)
def test_bad_input_is_refused(solve: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        solve(pixelwise())


def test_priors_of_other_pictures_are_refused() -> None:
    for solve in (
        lambda prior: superres(RGB, 2, prior),
        lambda prior: deblur(RGB, np.ones((2, 2)), prior),
        lambda prior: denoise(RGB, prior, noise=0.1),
    ):
        with pytest.raises(ModelError, match="RGB"):
            solve(FunctionPrior(lambda x, sigma: x, channels=1))
        with pytest.raises(ModelError, match="colorize"):
            solve(pixelwise(colours="luma first"))
        with pytest.raises(InputError, match="the prior knows 64 x 64 only"):
            solve(pixelwise(size=64))
        with pytest.raises(InputError, match="load_prior"):
            solve("photos")  # type: ignore[arg-type]
