"""CT: noise of photons, classical baselines, reading a sinogram, reconstruction on a closed-form prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from invsolve.ct.classical import classical
from invsolve.ct.description import Description
from invsolve.ct.fbp import FILTERS, angular_weights, fbp, rebin_to_parallel
from invsolve.ct.iterative import cgls, sirt
from invsolve.ct.misfit import chi_squared, scan_warning
from invsolve.ct.noise import estimate_noise
from invsolve.ct.reconstruction import DROWNS, START_RANGE, first_level, reconstruct_ct
from invsolve.ct.scan import interpret
from invsolve.ct.simulation import finer, photon_counts, project_slice
from invsolve.ct.sinogram import check_range, find_axes, find_center, from_counts, normalize, slice_size
from invsolve.ct.total_variation import gradient, gradient_adjoint, total_variation
from invsolve.ct.units import attenuation_per_unit, from_hounsfield, to_hounsfield
from invsolve.errors import InputError, ModelError, UsageError
from invsolve.forward_models import (
    Diagonal,
    ForwardModel,
    GaussianNoise,
    Geometry,
    TransmissionNoise,
    even_angles,
    even_subset,
    projector,
)
from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.models.score_model import FunctionPrior
from invsolve.options import SolveOptions


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVSOLVE_CACHE", str(tmp_path / "cache"))


def phantom(size: int = 64) -> np.ndarray:
    """A body of 0.5 with a lung and a bone, air around it; in the units of n."""
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) / (size / 2)
    out = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 0.5, 0.0)
    out = np.where((x + 0.35) ** 2 + (y + 0.1) ** 2 < 0.06, 0.1, out)
    return np.where((x - 0.3) ** 2 + (y - 0.2) ** 2 < 0.02, 0.9, out).astype(np.float32)


def scan(views: int = 60, size: int = 64, **changes: object) -> Geometry:
    return Geometry(even_angles(views), 95 * size // 64, (size, size), **changes)  # type: ignore[arg-type]


# -- photons --------------------------------------------------------------------------------------------------------
def test_counts_are_poisson_around_beer_lamberts_law(generator: torch.Generator) -> None:
    noise = TransmissionNoise(1000.0, 0.05)
    clean = torch.full((1, 200, 200), 20.0)
    counts = noise.simulate(clean, generator)
    expected = 1000 * math.exp(-1.0)
    assert float(counts.mean()) == pytest.approx(expected, abs=5 * math.sqrt(expected / 4e4))
    assert float(counts.var()) == pytest.approx(expected, rel=0.05)
    assert torch.equal(counts, counts.round())
    exact = torch.distributions.Poisson(torch.tensor(expected)).log_prob(counts).sum()
    assert float(noise.log_likelihood(clean, counts)) == pytest.approx(float(exact), rel=1e-4)


def test_weighted_quadratic_matches_the_poisson_likelihood_near_the_data(generator: torch.Generator) -> None:
    operator = projector(scan(6, 16))
    noise = TransmissionNoise(1e6, 0.05)
    x = torch.from_numpy(phantom(16))[None, None].double()
    counts = noise.simulate(operator(x), generator).double()
    model, y = noise.quadratic(operator, counts)
    step = 0.002 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    exact = noise.log_likelihood(operator(x + step), counts) - noise.log_likelihood(operator(x), counts)
    quadratic = model.log_likelihood(x + step, y) - model.log_likelihood(x, y)
    assert float(quadratic) == pytest.approx(float(exact), rel=0.02)


def test_a_ray_without_photons_has_weight_zero() -> None:
    counts = torch.tensor([[[0.0, 100.0], [50.0, 0.0]]])
    sinogram, weight = TransmissionNoise(1000.0, 0.1).line_integrals(counts)
    assert torch.equal(weight == 0, counts == 0)
    assert torch.isfinite(sinogram).all()
    assert float(weight[0, 0, 1]) == pytest.approx(math.sqrt(100) * 0.1)
    model, _ = TransmissionNoise(1000.0, 0.1).quadratic(Diagonal(torch.ones(2, 2)), counts)
    assert model.linear.measured_values == 2
    with pytest.raises(InputError, match="1 counts are negative"):
        TransmissionNoise(1000.0).line_integrals(-torch.eye(1))


# -- classical methods ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", FILTERS)
def test_fbp_gets_the_values_right(window: str) -> None:
    geometry = scan(180, pixel_size=1.5, detector_spacing=1.5)
    operator = projector(geometry)
    truth = phantom()
    image = fbp(operator, geometry, operator(torch.from_numpy(truth)[None, None]), window)[0, 0].numpy()
    inside = np.s_[40:47, 20:34]
    assert truth[inside].std() == 0
    assert float(image[inside].mean()) == pytest.approx(0.5, abs=0.01)


def test_fbp_with_other_bins_and_fan_beam() -> None:
    truth = torch.from_numpy(phantom())[None, None]
    fine = Geometry(even_angles(180), 200, (64, 64), detector_spacing=0.5)
    full = Geometry(even_angles(240, 360), 150, (64, 64), kind="fan", source_distance=150.0, detector_distance=60.0)
    short = replace(full, angles=even_angles(160, 240))
    for geometry in (fine, full, short):
        operator = projector(geometry)
        image = fbp(operator, geometry, operator(truth), "hann")
        assert float((image - truth)[0, 0, 40:47, 20:34].mean().abs()) < 0.02
        assert float((image - truth).square().mean().sqrt()) < 0.07


def _fan_error(angles: Sequence[float]) -> float:
    """rms error of filtered back-projection from a fan-beam scan of 39 degrees' opening at these source angles."""
    truth = torch.from_numpy(phantom())[None, None]
    geometry = Geometry(
        tuple(angles), 150, (64, 64), "fan", source_distance=150.0, detector_distance=60.0, center=76.3,
        axis_pixel=(30.0, 33.0),
    )  # fmt: skip
    operator = projector(geometry, cache=False)
    return float((fbp(operator, geometry, operator(truth), "hann") - truth).square().mean().sqrt())


def test_a_short_fan_scan_is_as_good_as_a_full_one() -> None:
    full = _fan_error(even_angles(120, 360))
    assert full < 0.045
    shuffled = np.random.default_rng(0).permutation(80)
    for first, span in ((0, 240), (-120, 240), (317, 240), (33, 180 + 40)):
        angles = [first + span * i / 80 for i in shuffled]
        assert _fan_error(angles) == pytest.approx(full, rel=0.1), (first, span)
    assert _fan_error([*np.linspace(0, 360, 121)]) == pytest.approx(full, rel=0.1)  # the last view is the first again
    twice = _fan_error([*even_angles(120, 360), *even_angles(40, 120)])
    assert twice == pytest.approx(full, rel=0.1)
    assert full < _fan_error(even_angles(60, 150)) < 3 * full  # what was not seen is left out, not made up


def test_rebinning_says_which_rays_a_fan_has_not_seen() -> None:
    geometry = Geometry(even_angles(90, 90), 101, (32, 32), "fan", source_distance=100.0, detector_distance=50.0)
    parallel, _, seen = rebin_to_parallel(geometry, torch.ones(1, 90, 101))
    theta, offset = np.asarray(parallel.angles), (np.arange(101) - 50) * parallel.detector_spacing
    fan = np.rad2deg(np.arcsin(offset / 100))
    sources = np.stack([theta[:, None] + fan, theta[:, None] + 180 - fan]) % 360
    met = np.abs(150 * np.tan(np.deg2rad(fan))) <= 50
    assert (seen.numpy() != (sources <= 89).any(axis=0))[:, met].mean() < 0.01
    assert seen[:, ~met].all()


def test_fbp_of_a_full_turn_of_parallel_views_counts_every_ray_half() -> None:
    truth = torch.from_numpy(phantom())[None, None]
    for views in (46, 120):
        half, full = (replace(scan(), angles=even_angles(n, span)) for n, span in ((views // 2, 180), (views, 360)))
        assert float(angular_weights(full).sum()) == pytest.approx(math.pi)
        images = [fbp(operator, operator.geometry, operator(truth)) for operator in map(projector, (half, full))]
        torch.testing.assert_close(images[0], images[1], atol=2e-3, rtol=0)


def test_angular_weights_sum_to_a_half_turn_and_leave_gaps_out() -> None:
    assert float(angular_weights(scan(23)).sum()) == pytest.approx(math.pi)
    uneven = replace(scan(4), angles=(0.0, 10.0, 90.0, 135.0))
    assert float(angular_weights(uneven).sum()) == pytest.approx(math.pi, rel=0.35)
    limited = replace(scan(10), angles=even_angles(10, 90.0))
    assert float(angular_weights(limited).sum()) == pytest.approx(math.pi / 2)


def test_iterative_methods_fit_and_improve_on_fbp() -> None:
    geometry = scan(20)
    operator = projector(geometry)
    truth = torch.from_numpy(phantom())[None, None]
    y = operator(truth)

    def error(x: torch.Tensor) -> float:
        return float((x - truth).square().mean())

    filtered = error(fbp(operator, geometry, y))
    assert error(sirt(operator, y, 200)) < 0.5 * filtered
    assert error(cgls(operator, y, 15)) < 0.9 * filtered
    assert error(total_variation(operator, y, 0.05)) < 0.1 * filtered
    small = Diagonal(torch.tensor([[[1.0, 2.0]]]))
    torch.testing.assert_close(cgls(small, torch.tensor([[[[3.0, 4.0]]]]), 2), torch.tensor([[[[3.0, 2.0]]]]))


def test_gradient_and_its_adjoint(generator: torch.Generator) -> None:
    x = torch.randn(2, 1, 7, 5, generator=generator, dtype=torch.float64)
    p = torch.randn(2, 2, 7, 5, generator=generator, dtype=torch.float64)
    assert float((gradient(x) * p).sum()) == pytest.approx(float((x * gradient_adjoint(p)).sum()))


def test_total_variation_reaches_the_minimum() -> None:
    # On the identity, TV denoising of two flat halves moves each by weight * edge / area towards the other.
    picture = torch.zeros(1, 1, 10, 8)
    picture[..., 4:] = 1
    weight = 0.4
    x = total_variation(Diagonal(torch.ones(1, 10, 8)), picture, weight, iterations=2000, tolerance=0, balance=1)
    shift = weight / 4
    torch.testing.assert_close(x[..., :4], torch.full((1, 1, 10, 4), shift), atol=2e-3, rtol=0)
    torch.testing.assert_close(x[..., 4:], torch.full((1, 1, 10, 4), 1 - shift), atol=2e-3, rtol=0)


def test_classical_weights_rays_by_their_noise(generator: torch.Generator) -> None:
    geometry = scan(30)
    operator = projector(geometry)
    truth = torch.from_numpy(phantom())[None, None]
    noise = TransmissionNoise(300.0, 0.06)
    y, weight = noise.line_integrals(noise.simulate(operator(truth), generator))
    weighted = classical("tv", operator, geometry, y, noise=1 / weight.clamp(min=1e-6))
    unweighted = classical("tv", operator, geometry, y, noise=float((1 / weight.clamp(min=1e-6)).mean()))
    truth = truth[:, 0]
    assert float((weighted - truth).square().mean()) < float((unweighted - truth).square().mean())
    with pytest.raises(UsageError, match="unknown method"):
        classical("magic", operator, geometry, y)


# -- reading a sinogram ---------------------------------------------------------------------------------------------
def test_axes_centre_noise_and_size_are_found(generator: torch.Generator) -> None:
    geometry = scan(40, center=49.6)
    blurred = gaussian_filter(phantom(), 1.5)  # as any scanner does
    y = projector(geometry)(torch.from_numpy(blurred)[None, None])[0].numpy()
    assert find_axes(y) == "views,detectors"
    assert find_axes(y.T) == "detectors,views"
    assert find_axes(np.random.default_rng(0).random((5, 7))) == "views,detectors"
    assert find_center(y, geometry.angles) == pytest.approx(49.6, abs=0.05)
    with pytest.raises(InputError, match="do not tell the centre"):
        find_center(y[:2], geometry.angles[:2])
    assert estimate_noise(y) == 0
    noisy = y + 0.5 * torch.randn(y.shape, generator=generator).numpy()
    assert estimate_noise(noisy) == pytest.approx(0.5, rel=0.15)
    assert slice_size(y) == 66
    assert slice_size(y[:, 10:80]) == 70


@pytest.fixture(scope="module")
def textured() -> dict[str, np.ndarray]:
    """Exact sinograms of a body with edges and texture, whose largest value is about 60."""
    size = 128
    rng = np.random.default_rng(0)
    texture = 0.04 * gaussian_filter(rng.standard_normal((size, size)), 0.8)
    body = phantom(size) + np.where(phantom(size) > 0, texture, 0).astype(np.float32)
    full = project_slice(body, scan(180, size), same_grid=True)
    return {
        "23 views": full[even_subset(180, 23)],
        "60 views": full[::3],
        "180 views": full,
        "finer grid": project_slice(body, scan(23, size)),
        "a stack": np.stack([full[::6], full[::6, ::-1]]),
    }


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3, 1.0, 3.0])
def test_noise_is_found_and_edges_are_not_taken_for_it(noise: float, textured: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    for name, clean in textured.items():
        assert 50 < clean.max() < 80
        found = estimate_noise(clean + noise * rng.standard_normal(clean.shape))
        assert found == pytest.approx(noise, rel=0.2, abs=0.02), name


@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0])
def test_noise_is_found_where_there_is_no_air_to_see_it_in(noise: float, textured: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    for name, clean in textured.items():
        noisy = clean + noise * rng.standard_normal(clean.shape)
        masked = np.where(clean == 0, 0, noisy)
        for shown in (masked, noisy[..., 60:-60]):
            assert estimate_noise(shown) == pytest.approx(noise, rel=0.2, abs=0.02), name


def test_what_says_nothing_about_noise_has_none() -> None:
    rng = np.random.default_rng(0)
    for sinogram in (np.zeros((20, 71)), np.ones((1, 64)), rng.random((20, 31)), np.tile(np.arange(64.0) % 2, (9, 1))):
        assert estimate_noise(sinogram) == 0


def test_a_scan_carries_line_integrals_their_noise_and_what_was_assumed() -> None:
    geometry = scan(12, 32, pixel_size=2.0, detector_spacing=2.0)
    scale = attenuation_per_unit(2.0)
    clean = project_slice(phantom(32), geometry)
    counts = photon_counts(clean, 1e4, scale)
    counts[3, 20] = 0
    known = Description(units="counts", i0=1e4, pixel_size=2.0, views=6, center=23.0)
    found = interpret(counts, known)
    assert found.sinogram.shape == (1, 6, geometry.detectors)
    assert not found.stacked
    assert found.geometry.center == 23.0
    assert found.geometry.angles == geometry.angles[::2]
    np.testing.assert_allclose(found.noise[0], 1 / (np.sqrt(np.maximum(counts[::2], 1e-30)) * scale), rtol=1e-5)
    assert np.isinf(interpret(counts, replace(known, views=None)).noise[0, 3, 20])
    beginnings = [
        "assumed: parallel beam, 12 views",
        "centre of rotation",
        "using 6 of 12",
        "units: counts",
        "noise: photon",
    ]
    assert len(found.notes) == len(beginnings)
    assert all(note.startswith(start) for note, start in zip(found.notes, beginnings, strict=True))
    exact = interpret(np.stack([clean, clean]), Description(geometry=geometry, noise=0.5))
    assert exact.stacked
    assert exact.noise == 0.5
    assert exact.geometry == geometry
    assert exact.notes[0].startswith("given: parallel beam")
    with pytest.raises(InputError, match="values up to"):
        interpret(clean * 1e20, Description(geometry=geometry))
    with pytest.raises(InputError, match="holds no values"):
        interpret(clean[:0], Description())


def test_noise_of_each_ray_is_what_the_counts_say(smooth: GaussianPrior) -> None:
    geometry = scan(8, 12, pixel_size=2.0, detector_spacing=2.0)
    counts = photon_counts(
        projector(geometry)(torch.full((1, 1, 12, 12), 0.5))[0].numpy(), 1e3, attenuation_per_unit(2.0)
    )
    counts[2, 5] = 0
    integrals, noise = from_counts(counts, 1e3, attenuation_per_unit(2.0))
    assert np.isinf(noise[2, 5])
    by_counts = reconstruct_ct(counts, geometry, smooth, samples=2, steps=5, i0=1e3)
    by_noise = reconstruct_ct(integrals, geometry, smooth, samples=2, steps=5, noise=noise)
    assert torch.equal(by_counts.samples, by_noise.samples)
    assert by_noise.measured_values == counts.size - 1
    with pytest.raises(InputError, match="the noise has shape"):
        reconstruct_ct(integrals, geometry, smooth, noise=noise[1:])
    with pytest.raises(InputError, match="1 rays have a noise that is not positive"):
        reconstruct_ct(integrals, geometry, smooth, noise=np.where(np.isinf(noise), 0, noise))


def test_a_misfit_is_a_finding_beyond_noise_and_pixels_only(generator: torch.Generator) -> None:
    sinogram = torch.full((1, 40, 50), 30.0)
    noise = torch.randn(sinogram.shape, generator=generator)
    assert scan_warning(0.5 * noise, sinogram, 0.5) is None
    assert scan_warning(0.2 * noise, sinogram, 0.5) is None  # an iteration that fits noise
    assert scan_warning(0.02 * noise, sinogram, 0.001) is None  # pixels
    assert "chi-squared per ray 9" in str(scan_warning(1.5 * noise, sinogram, 0.5))
    assert scan_warning(noise, sinogram, 0.0) is None
    assert "misfit 10.0% of its rms" in str(scan_warning(torch.full_like(sinogram, 3.0), sinogram, 0.0))
    blind = torch.full_like(sinogram, 0.5)
    blind[:, :20] = math.inf
    residual = torch.where(blind.isinf(), 100.0, 0.5 * noise)
    assert scan_warning(residual, sinogram, blind) is None
    assert chi_squared(residual, blind) == pytest.approx(1, abs=0.2)
    assert scan_warning(residual, torch.zeros_like(sinogram), blind) is None


def test_units_become_line_integrals_of_n() -> None:
    scale = attenuation_per_unit(1.5)
    assert scale == pytest.approx(2 * 0.0192 * 1.5)
    y = np.array([[10.0, 20.0]])
    np.testing.assert_allclose(normalize(y * scale, "attenuation", pixel_size=1.5).sinogram, y)
    counts = normalize(y, "counts", pixel_size=1.5, i0=100.0)
    assert counts.i0 == 100
    assert counts.scale == pytest.approx(scale)
    for units, arguments in (("attenuation", {}), ("counts", {"pixel_size": 1.0})):
        with pytest.raises(UsageError, match="needs the"):
            normalize(y, units, **{"pixel_size": None, **arguments})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="negative"):
        normalize(-y, "counts", pixel_size=1.0, i0=10.0)
    with pytest.raises(InputError, match="above I0"):
        normalize(y, "counts", pixel_size=1.0, i0=2.0)


def test_a_wrong_unit_is_named_with_the_option_that_fits() -> None:
    assert check_range(0.8, "pixel", None, 0.0192) is None
    with pytest.raises(InputError, match="n = 0.03") as caught:
        check_range(0.8 * 2 * 0.0192, "pixel", None, 0.0192)
    assert "--units attenuation" in caught.value.hint
    warning = check_range(0.2, "pixel", None, 0.0192)
    assert warning is not None
    assert "-600 HU" in warning


# -- simulation -----------------------------------------------------------------------------------------------------
def test_finer_grid_measures_the_same_slice_but_not_with_the_same_matrix() -> None:
    geometry = scan(12, center=45.0, axis_pixel=(30.0, 33.0))
    doubled = finer(geometry)
    assert doubled.window() == pytest.approx(geometry.window())
    truth = phantom()
    same, fine = project_slice(truth, geometry, same_grid=True), project_slice(truth, geometry)
    difference = np.linalg.norm(fine - same) / np.linalg.norm(same)
    assert 1e-4 < difference < 0.02
    # A wide bin sees the mean of what its halves see: mass is kept exactly.
    np.testing.assert_allclose(fine.sum(axis=1), same.sum(axis=1), rtol=2e-3)


def test_photon_counts_depend_on_the_seed_only() -> None:
    clean = np.full((3, 4), 10.0, np.float32)
    a, b, c = (photon_counts(clean, 1e3, 0.05, seed) for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


# -- reconstruction -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def smooth() -> GaussianPrior:
    return smooth_gaussian_prior((1, 12, 12))


def test_hounsfield_units_are_a_scaling() -> None:
    assert to_hounsfield(np.array([0.0, 0.5])).tolist() == [-1000.0, 0.0]
    assert from_hounsfield(to_hounsfield(torch.tensor(0.3))) == pytest.approx(0.3)


@pytest.mark.parametrize("first", [None, 5.0], ids=["its own first level", "5"])
def test_reconstruction_is_near_the_closed_form_posterior(
    smooth: GaussianPrior, generator: torch.Generator, first: float | None
) -> None:
    geometry = scan(5, 12)
    operator = projector(geometry, tolerance=1e-6)
    draw = torch.randn(144, generator=generator, dtype=torch.float64)
    truth = smooth.mean + (torch.linalg.cholesky(smooth.covariance) @ draw).reshape(1, 1, 12, 12)
    y = operator(truth.float()) + 0.1 * torch.randn(1, *geometry.sinogram_shape, generator=generator)
    exact = smooth.posterior(ForwardModel(operator, GaussianNoise(0.1)), y.double())
    posterior = reconstruct_ct(
        y[0].numpy(),
        geometry,
        smooth,
        samples=24,
        noise=0.1,
        operator=operator,
        rule="exact",
        sampler="ancestral",
        steps=100,
        sigma_start=first,
    )
    error = (posterior.mean[0] - exact.mean).flatten()
    spread = float(exact.covariance.diagonal().mean().sqrt())
    assert float(error.square().mean().sqrt()) < 0.4 * spread
    assert 0.85 < float(posterior.std.square().mean().sqrt()) / spread < 1.15
    assert posterior.samples.shape == (24, 1, 1, 12, 12)
    assert float(posterior.chi2.mean()) == pytest.approx(1, abs=0.5)


def test_samplers_that_never_forget_begin_where_noise_drowns_the_guess(smooth: GaussianPrior) -> None:
    guess, low, high = torch.zeros(1, 1, 12, 12), *START_RANGE

    def first(sampler: str, **changes: float) -> tuple[float, int]:
        return first_level(smooth, guess, SolveOptions(sampler=sampler, **changes))  # type: ignore[arg-type]

    for forgetful in ("renoising", "renoising(eta=0.8)", "redrawing", "daps", "split_gibbs"):
        level, calls = first(forgetful)
        assert low <= level <= high and calls == 1, forgetful
    for sampler in ("ancestral", "heun_sde", "multistep", "ode", "reverse_sde", "langevin", "ancestral_corrected"):
        assert first(sampler) == (DROWNS, 0), sampler
        assert first(sampler, sigma_start=0.3) == (0.3, 0), sampler
    assert first_level(
        FunctionPrior(smooth.denoise, channels=1, sigma_max=0.8), guess, SolveOptions(sampler="ode")
    ) == (0.8, 0)


def test_a_stack_is_its_slices_and_seeds_count(smooth: GaussianPrior) -> None:
    single = FunctionPrior(lambda x, sigma: smooth.denoise(x.double(), sigma.double()).float(), channels=1)
    geometry = scan(5, 12)
    truth = torch.linspace(0.2, 0.8, 144).reshape(1, 1, 12, 12)
    y = torch.cat([projector(geometry)(truth), projector(geometry)(truth.flip(-1))]).numpy()
    both = reconstruct_ct(y, geometry, single, samples=2, steps=5, sampler="renoising")
    assert both.samples.shape == (2, 2, 1, 12, 12)
    first = reconstruct_ct(y[0], geometry, single, samples=3, steps=5, sampler="renoising")
    torch.testing.assert_close(both.samples[:, :1], first.samples[:2])
    later = reconstruct_ct(y[0], geometry, single, samples=1, seed=2, steps=5, sampler="renoising")
    torch.testing.assert_close(later.samples[0], first.samples[2], atol=1e-3, rtol=0)
    assert not torch.equal(first.samples[0], first.samples[1])


def test_counts_are_reconstructed_with_their_weights(smooth: GaussianPrior) -> None:
    geometry = scan(8, 12, pixel_size=2.0, detector_spacing=2.0)
    truth = torch.full((1, 1, 12, 12), 0.5)
    scale = attenuation_per_unit(2.0)
    counts = photon_counts(projector(geometry)(truth)[0].numpy(), 1e5, scale)
    counts[2, 5] = 0  # a dead pixel says nothing
    posterior = reconstruct_ct(counts, geometry, smooth, samples=2, steps=20, i0=1e5)
    assert float((posterior.mean - truth).abs().mean()) < 0.05
    assert posterior.settings["sigma_y"] == 1.0


def test_wrong_shapes_and_priors_are_refused(smooth: GaussianPrior) -> None:
    geometry = scan(5, 12)
    with pytest.raises(InputError, match=r"\(views, detectors\) = \(5, 17\)"):
        reconstruct_ct(np.zeros((17, 5)), geometry, smooth)
    broken = np.zeros((5, 17))
    broken[0, 0] = np.nan
    with pytest.raises(InputError, match="1 values that are NaN"):
        reconstruct_ct(broken, geometry, smooth)
    with pytest.raises(ModelError, match="3 channels"):
        reconstruct_ct(np.zeros((5, 17)), geometry, smooth_gaussian_prior((3, 4, 4)))
