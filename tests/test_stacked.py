"""Several measurements as one: weights, noise of different kinds, compositions, names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invsolve import solve
from invsolve.errors import InputError, UsageError
from invsolve.forward_models import (
    OPERATORS,
    Diagonal,
    ForwardModel,
    GaussianNoise,
    Grayscale,
    Identity,
    LaplaceNoise,
    LinearOperator,
    Mask,
    PoissonNoise,
    Saturation,
    StackedNoise,
    compose,
    find_operator,
    make_noise,
    output_shape,
    quadratic,
    stack_measurements,
)
from invsolve.models.gaussian import GaussianPrior
from invsolve.solver import chi_squared

SHAPE = (3, 4, 4)


def scribbled(gaussian: GaussianPrior) -> list[tuple[ForwardModel, Tensor]]:
    """A grey picture under little noise, and a few pixels in colour under more."""
    generator = torch.Generator().manual_seed(5)
    known = (torch.rand(1, 4, 4, generator=generator) > 0.7).double()
    models = [
        ForwardModel(Grayscale(SHAPE), GaussianNoise(0.01)),
        ForwardModel(2 * Mask(known, 3), GaussianNoise(0.3)),
    ]
    x = gaussian.sample(1, generator)
    return [(model, model.simulate(x, generator)) for model in models]


def test_a_stack_has_the_posterior_of_its_measurements_one_after_the_other(gaussian: GaussianPrior) -> None:
    (first, y), (second, z) = scribbled(gaussian)
    expected = gaussian.posterior(first, y).posterior(second, z)
    found = gaussian.posterior(*stack_measurements([(first, y), (second, z)]))
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.covariance, expected.covariance, rtol=0, atol=1e-10)


def test_rules_take_a_stack(gaussian: GaussianPrior) -> None:
    model, y = stack_measurements(scribbled(gaussian))
    assert model.gaussian.sigma == 0.01
    exact = gaussian.posterior(model, y)
    found = solve(gaussian, model, y, rule="wiener(tolerance=1e-3)", sampler="redrawing", steps=12, samples=200)
    std = exact.covariance.diagonal().sqrt().reshape(SHAPE)
    assert float(((found.mean[0] - exact.mean) / std).abs().max()) < 0.35  # 200 samples: 0.07 each
    assert float((found.samples[:, 0].std(dim=0) / std - 1).abs().mean()) < 0.1


def test_exact_measurements_get_a_floor(gaussian: GaussianPrior) -> None:
    (first, y), second = scribbled(gaussian)
    exact = (ForwardModel(first.operator), y)
    with pytest.raises(InputError, match="exact measurement"):
        stack_measurements([exact, second])
    model, _ = stack_measurements([exact, second], floor=1e-3)
    assert model.gaussian.sigma == pytest.approx(1e-3 * 2**0.5 * first.linear.norm)
    assert stack_measurements([exact])[0] is exact[0]


def test_noise_of_different_kinds_stays_what_it_is() -> None:
    generator = torch.Generator().manual_seed(1)
    models = [
        ForwardModel(Grayscale(SHAPE), PoissonNoise(50.0)),
        ForwardModel(Identity(SHAPE), LaplaceNoise(0.1)),
        ForwardModel(Identity(SHAPE), GaussianNoise(0.2)),
    ]
    x = 0.2 + 0.6 * torch.rand(2, *SHAPE, generator=generator, dtype=torch.float64)
    parts = [(model, model.simulate(x, generator)) for model in models]
    stacked, y = stack_measurements(parts)
    torch.testing.assert_close(
        stacked.log_likelihood(x, y), torch.stack([m.log_likelihood(x, part) for m, part in parts]).sum(dim=0)
    )
    torch.testing.assert_close(
        stacked.log_likelihood_gradient(x, y),
        torch.stack([m.log_likelihood_gradient(x, part) for m, part in parts]).sum(dim=0),
    )
    noise = stacked.noise
    assert isinstance(noise, StackedNoise)
    clean = stacked.linear(x)
    spread = torch.tensor([[0.1], [0.4]], dtype=torch.float64)  # one for each image, as rules give it
    wide = noise.split(noise.log_likelihood_gradient(clean, y, spread=spread))
    for (model, part), found in zip(parts, wide, strict=True):
        each = spread.reshape(2, 1, 1, 1)
        torch.testing.assert_close(found, model.noise.log_likelihood_gradient(model.linear(x), part, spread=each))
    again = [model.noise.simulate(model.linear(x), torch.Generator().manual_seed(3)) for model in models[:1]]
    simulated = noise.split(noise.simulate(clean, torch.Generator().manual_seed(3)))
    torch.testing.assert_close(simulated[0], again[0])


def test_gaussian_stand_ins_make_any_stack_whole(gaussian: GaussianPrior) -> None:
    counts = ForwardModel(Identity(SHAPE), PoissonNoise(200.0))
    x = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    parts = [(counts, counts.simulate(x, torch.Generator().manual_seed(0))), *scribbled(gaussian)]
    model, y = stack_measurements([quadratic(*part) for part in parts])
    assert isinstance(model.noise, GaussianNoise)
    assert y.shape == (1, 48 + 16 + 48)
    with pytest.raises(UsageError, match="LaplaceNoise has no Gaussian"):
        quadratic(ForwardModel(Identity(SHAPE), LaplaceNoise(0.1)), x)
    with pytest.raises(UsageError, match="linear operators only"):
        quadratic(ForwardModel(Saturation(1.0), PoissonNoise(2.0)), x)


def test_maps_that_are_not_linear_stack_too() -> None:
    x = torch.rand(2, *SHAPE)
    clipped = ForwardModel(Saturation(0.5), GaussianNoise(0.1))
    grey = ForwardModel(Grayscale(SHAPE), GaussianNoise(0.2))
    model, y = stack_measurements([(clipped, clipped.operator(x)), (grey, grey.operator(x))])
    assert not isinstance(model.operator, LinearOperator)
    assert model.gaussian.sigma == 0.1
    torch.testing.assert_close(model.operator(x), y)
    torch.testing.assert_close(y[:, 48:], 0.5 * Grayscale(SHAPE)(x).flatten(1))


def test_linear_steps_of_a_composition_are_joined() -> None:
    steps = [find_operator("scale", {"factor": 2.0})(SHAPE), Grayscale(SHAPE), Saturation(0.4)]
    x = torch.rand(1, *SHAPE)
    assert isinstance(compose(*steps[:2]), LinearOperator)
    whole = compose(*steps)
    assert not isinstance(whole, LinearOperator)
    torch.testing.assert_close(whole(x), (2 * Grayscale(SHAPE)(x)).clamp(0, 0.4))
    assert output_shape(whole, SHAPE) == (1, 4, 4)
    with pytest.raises(InputError, match="no operators"):
        compose()


ELSEWHERE = ("projector", "nufft")
"""Which test_solve_command.py makes."""

GIVEN = {
    "mask": {"missing": 0.5}, "channels": {"matrix": [[1, 0, 0], [0, 1.0, 0]]}, "blur": {"sigma": 1.0},
    "downsample": {"factor": 2}, "blurred_decimation": {"factor": 2, "motion": [3, 20]}, "hadamard": {"share": 0.5},
    "fourier": {"acceleration": 2.0, "centre": 2}, "mri": {"acceleration": 2.0, "centre": 2},
    "region_means": {"file": torch.arange(64).reshape(8, 8) % 3.0}, "matrix": {"file": torch.eye(192)[:5]},
    "diagonal": {"file": torch.linspace(0, 1, 64).reshape(8, 8)}, "scale": {"factor": 2.0}, "quantization": {"bits": 3},
    "jpeg": {"quality": 40},
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in ELSEWHERE])
def test_every_name_makes_an_operator_of_the_pictures_shape(name: str) -> None:
    shape = {"mri": (2, 8, 8), "phase": (1, 8, 8)}.get(name, (3, 8, 8))
    made = find_operator(name, GIVEN.get(name, {}))(shape)
    x = torch.rand(2, *shape)
    assert made(x).shape == (2, *output_shape(made, shape))
    if isinstance(made, LinearOperator):
        assert made.input_shape == shape


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("blur", {}, "nothing of sigma, motion, file"),
        ("blur", {"sigma": 1.0, "motion": [1, 2]}, "several of"),
        ("blur", {"sigma": -1.0}, "sigma = -1"),
        ("blur", {"file": torch.zeros(3, 3)}, "no PSF"),
        ("mask", {"missing": 1.0}, "missing = 1"),
        ("mask", {"file": torch.zeros(3, 4)}, "4 x 3 pixels, the picture 8 x 8"),
        ("channels", {"matrix": [[1.0, 2.0]]}, "rows of 3 numbers"),
        ("hadamard", {"share": 0.0}, "share = 0"),
        ("fourier", {"file": torch.zeros(3, 4)}, r"shape \(3, 4\)"),
        ("region_means", {"file": torch.full((8, 8), 0.5)}, "fractions"),
        ("diagonal", {"file": torch.zeros(3, 4)}, r"shape \(3, 4\)"),
        ("phase", {}, "phase of 3 channels"),
    ],
)
def test_arguments_that_make_no_operator_are_refused(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_operator(name, arguments)((3, 8, 8))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("blurr", {}, "did you mean 'blur'"),
        ("blur", {"sigm": 1.0}, "did you mean 'sigma'"),
        ("blur", {"sigma": "wide"}, "sigma is 'wide'"),
        ("downsample", {}, "'factor' is missing"),
        ("grayscale", {"x": 1}, "takes no arguments"),
        ("projector", {"device": "cpu"}, "'device' is not known"),
    ],
)
def test_names_and_arguments_that_are_not_known_are_told(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_operator(name, arguments)


def test_noises_have_names() -> None:
    assert make_noise("gaussian", {"sigma": 0.1}) == GaussianNoise(0.1)
    assert make_noise("poisson", {"gain": 3}) == PoissonNoise(3)
    with pytest.raises(UsageError, match="'gain' is missing"):
        make_noise("poisson")
    with pytest.raises(InputError, match="gain = 0"):
        make_noise("poisson", {"gain": 0.0})


def test_a_stack_of_one_picture_measured_twice_is_that_of_the_mean() -> None:
    model = ForwardModel(Diagonal(torch.full(SHAPE, 2.0)), GaussianNoise(0.4))
    y = torch.rand(1, *SHAPE)
    stacked, both = stack_measurements([(model, y), (model, y)])
    torch.testing.assert_close(stacked.linear.pinv(both), y / 2)


def test_noise_of_values_that_say_nothing_is_no_misfit(gaussian: GaussianPrior) -> None:
    model, y = stack_measurements(scribbled(gaussian))
    exact = gaussian.posterior(model, y)
    x = exact.sample(50, torch.Generator().manual_seed(1))[:, None]
    assert float(y[:, 16:].square().sum()) > 0.0
    assert float(chi_squared(model, x, y).mean()) == pytest.approx(1, abs=0.5)
