"""Every sampler against a closed-form posterior: by its exact law where it is affine, by draws elsewhere."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from invsolve import solve
from invsolve.errors import UsageError
from invsolve.forward_models import (
    DenseMatrix,
    ForwardModel,
    GaussianNoise,
    Grayscale,
    Identity,
    LinearOperator,
    Mask,
)
from invsolve.models.gaussian import GaussianPrior, dense_matrix
from invsolve.models.score_model import FunctionPrior, Noise, ScoreModel
from invsolve.rules import MomentMatching, Proximal, condition
from invsolve.samplers import (
    SAMPLERS,
    StepInfo,
    ancestral,
    ancestral_corrected,
    daps,
    find_sampler,
    multistep,
    renoising,
    sampler_name,
)
from invsolve.samplers.noise import SeededNoise
from invsolve.samplers.sigmas import geometric, karras
from invsolve.samplers.split_gibbs import exact_likelihood_step, likelihood_step
from invsolve.samplers.twisted import effective_sample_size, resample
from invsolve.verification.exactness import bias, is_affine, push, sampler_law, start_law
from invsolve.verification.judge import verify
from invsolve.verification.problems import gaussian_problem, mixture_problem

SHAPE, D = (3, 4, 4), 48
BLUR = DenseMatrix(
    torch.randn(D, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64) / math.sqrt(D), SHAPE
)
OPERATORS: dict[str, LinearOperator] = {
    "mask": Mask((torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(5)) > 0.5).double(), channels=3),
    "grayscale": Grayscale(SHAPE),
    "matrix": BLUR,
}


def measure(prior: GaussianPrior, operator: LinearOperator, images: int = 1) -> tuple[ForwardModel, Tensor]:
    generator = torch.Generator().manual_seed(1)
    forward_model = ForwardModel(operator, GaussianNoise(0.05))
    return forward_model, forward_model.simulate(prior.sample(images, generator), generator)


@pytest.mark.parametrize("operator", list(OPERATORS))
def test_multistep_is_calibrated_in_twelve_calls(operator: str, gaussian: GaussianPrior) -> None:
    forward_model, y = measure(gaussian, OPERATORS[operator])
    model = condition(gaussian, forward_model, y, "exact")
    law = sampler_law(multistep, model, start_law(gaussian.mean, 5.0), geometric(12, 0.01, 5.0))
    assert law is not None
    found = bias(law, gaussian.posterior(forward_model, y))
    assert found.mean < 0.05
    assert 0.97 < found.std_ratio < 1.03


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_multistep_is_of_second_order(tau: float, gaussian: GaussianPrior) -> None:
    """Half the step, a quarter of the error (first order: half of it), where the ladder is geometric."""
    forward_model, y = measure(gaussian, OPERATORS["grayscale"])
    model = condition(gaussian, forward_model, y, "exact")

    def variance(steps: int) -> Tensor:
        sigmas = torch.logspace(0, -1.5, steps + 1, dtype=torch.float64)
        law = sampler_law(partial(multistep, tau=tau), model, start_law(gaussian.mean, 1.0), sigmas, rows=10**4)
        assert law is not None
        return law.covariance.diagonal()

    reference = variance(120)
    gaps = [float((variance(steps) - reference).norm()) for steps in (15, 30)]
    assert gaps[0] / gaps[1] > 3


def test_multistep_without_memory_is_ancestral(gaussian: GaussianPrior) -> None:
    forward_model, y = measure(gaussian, OPERATORS["mask"])
    model, sigmas = condition(gaussian, forward_model, y, "proximal"), karras(2, 0.1, 1.0)[:2]

    def draws() -> Noise:
        generator = torch.Generator().manual_seed(0)
        return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)

    exact = condition(gaussian, forward_model, y, "exact")
    x = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(multistep(exact, x, sigmas, draws(), tau=1.0), ancestral(exact, x, sigmas, draws()))
    assert not torch.allclose(multistep(model, x, sigmas, draws(), tau=1.0), ancestral(model, x, sigmas, draws()))


@pytest.mark.parametrize("operator", list(OPERATORS))
def test_corrections_follow_their_recursion(operator: str, gaussian: GaussianPrior) -> None:
    """Ancestral steps, then M <- M x + noise of the corrections, as matrices."""
    forward_model, y = measure(gaussian, OPERATORS[operator])
    model, posterior = condition(gaussian, forward_model, y, "exact"), gaussian.posterior(forward_model, y)
    sigmas, eye = karras(6, 0.02, 2.0), torch.eye(D, dtype=torch.float64)
    start = start_law(torch.full(SHAPE, 0.4, dtype=torch.float64), 2.0)
    law = sampler_law(partial(ancestral_corrected, corrections=2, step=0.4), model, start, sigmas)
    assert law is not None
    mean, covariance = start.mean.flatten(), start.covariance
    for sigma, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        gain = posterior.covariance @ torch.linalg.inv(posterior.covariance + sigma**2 * eye)
        kept = (following / sigma) ** 2
        step = kept * eye + (1 - kept) * gain
        mean = step @ mean + (1 - kept) * (posterior.mean.flatten() - gain @ posterior.mean.flatten())
        covariance = step @ covariance @ step.T + following**2 * (1 - kept) * eye
        if following == 0:
            break
        gain = posterior.covariance @ torch.linalg.inv(posterior.covariance + following**2 * eye)
        for _ in range(2):
            step = 0.6 * eye + 0.4 * gain
            mean = step @ mean + 0.4 * (posterior.mean.flatten() - gain @ posterior.mean.flatten())
            covariance = step @ covariance @ step.T + (1 - 0.6**2) * following**2 * eye
    torch.testing.assert_close(law.mean.flatten(), mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(law.covariance, covariance, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("operator", list(OPERATORS))
def test_likelihood_steps_draw_from_their_gaussians(operator: str, gaussian: GaussianPrior) -> None:
    """Both against the information form, exactly: they are affine in z and their noise."""
    forward_model, y = measure(gaussian, OPERATORS[operator])
    parts = Proximal(gaussian, forward_model, y)
    a, eye = dense_matrix(forward_model.linear), torch.eye(D, dtype=torch.float64)
    rho = 0.6 * 0.05 / forward_model.linear.norm
    z = gaussian.mean + 0.1
    point = start_law(z, 0.0)
    noise_eye = torch.eye(len(a), dtype=torch.float64)
    for step, noise in (
        (likelihood_step, 0.05**2 * noise_eye),
        (exact_likelihood_step, 0.05**2 * noise_eye - rho**2 * a @ a.T),
    ):
        law = push(lambda x, draw, s=step: s(parts, x, rho, draw), point)  # type: ignore[misc]
        inverse = torch.linalg.inv(noise)
        covariance = torch.linalg.inv(a.T @ inverse @ a + eye / rho**2)
        mean = covariance @ (a.T @ inverse @ y.flatten() + z.flatten() / rho**2)
        torch.testing.assert_close(law.mean.flatten(), mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(law.covariance, covariance, rtol=0, atol=1e-8)


def test_split_gibbs_has_no_bias_but_its_prior_steps() -> None:
    """Fine prior steps and many sweeps: the posterior itself, at a coupling far from 0."""
    problem = gaussian_problem(OPERATORS["grayscale"], seed=2, sigma_y=0.2)
    figures = verify(problem, sampler="split_gibbs", steps=15, prior_steps=25, sweeps=60, samples=1500)
    assert figures.bias < 0.05 + 2 * figures.bias_error
    assert figures.std_ratio == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("momentum", [0.0, 0.25, 0.5, 0.7])
def test_momentum_gives_renoising_the_spread_that_theory_says(momentum: float) -> None:
    """A Langevin chain with half of the noise it should have; momentum 1/2 is in balance."""
    problem = gaussian_problem(OPERATORS["grayscale"], seed=2, sigma_y=0.05)
    figures = verify(problem, rule="proximal", sampler=partial(renoising, momentum=momentum), steps=150, samples=600)
    assert figures.bias < 0.05 + 2 * figures.bias_error
    assert figures.std_ratio == pytest.approx(1 / math.sqrt(2 * (1 - momentum)), rel=0.05)


def test_averaging_brings_a_single_sample_nearer_to_the_posterior_mean() -> None:
    """It keeps a part of what the first levels knew, and loses more than half of its spread, at the same calls."""
    problem = gaussian_problem(OPERATORS["grayscale"], seed=2, sigma_y=0.05)
    figures = verify(problem, rule="proximal", sampler=partial(renoising, averaging=0.5), steps=150, samples=600)
    assert math.hypot(figures.bias, figures.std_ratio) < 0.5 * math.sqrt(0.5)


def test_spread_is_proportional_to_the_temperature() -> None:
    """The prior is Gaussian and so linear: only the noise that is put in spreads."""
    problem = gaussian_problem(OPERATORS["grayscale"], seed=2, sigma_y=0.05)
    figures = verify(problem, rule="proximal", sampler=partial(renoising, temperature=0.6), steps=150, samples=600)
    assert figures.bias < 0.05 + 2 * figures.bias_error
    assert figures.std_ratio == pytest.approx(0.6 / math.sqrt(2), rel=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"eta": value} for value in (-0.1, 1.5, math.nan)),
        *({"momentum": value} for value in (-0.1, 1.0)),
        *({"averaging": value} for value in (-0.1, math.nan)),
        *({"temperature": value} for value in (0.0, math.nan)),
    ],
)
def test_arguments_of_renoising_that_make_no_sense_are_refused(
    wrong: dict[str, float], gaussian: GaussianPrior
) -> None:
    x = torch.zeros((1, *SHAPE), dtype=torch.float64)
    with pytest.raises(UsageError, match="wanted (0 (to 1|or more)|a number above 0)"):
        renoising(gaussian, x, karras(3), torch.randn_like, **wrong)


def test_daps_is_exact_for_white_priors() -> None:
    """With a white prior and A = 1 its Gaussian approximation is the truth, and every level draws the posterior."""
    eye = torch.eye(12, dtype=torch.float64)
    prior = GaussianPrior(torch.full((3, 2, 2), 0.5, dtype=torch.float64), 0.25**2 * eye)
    forward_model, y = measure(prior, Mask(torch.ones(1, 2, 2, dtype=torch.float64), 3))
    posterior, sigmas = prior.posterior(forward_model, y), torch.tensor([5.0, 0.001], dtype=torch.float64)
    model = condition(prior, forward_model, y, "proximal")
    law = sampler_law(partial(daps, ode_steps=40), model, start_law(prior.mean, 5.0), sigmas)
    assert law is not None
    # One level at sigma = 5: the ODE ends on a draw of the prior, taken as the mean of N(., mse): twice its variance.
    r2, s2 = prior.mse(5.0), 0.05**2
    weight = s2 / (s2 + r2)
    expected = weight**2 * 0.25**2 + r2 * s2 / (r2 + s2)
    torch.testing.assert_close(law.covariance, expected * eye, rtol=0.01, atol=1e-6)
    assert bias(law, posterior).mean < 0.2


def test_daps_tells_the_network_all_the_noise_there_is() -> None:
    """Where nothing is measured, x is a clean picture under noise of the level that the next call is told."""
    prior = FunctionPrior(lambda x, sigma: 0.0 * x, channels=1)  # knows the picture: black
    forward_model, y = ForwardModel(Identity((1, 64, 64)), GaussianNoise(1e6)), torch.zeros(1, 1, 64, 64)
    model = condition(prior, forward_model, y, "proximal")
    seen: list[StepInfo] = []
    x = 0.5 * torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    daps(model, x, karras(8, 0.01, 0.5), SeededNoise(range(4)), callback=seen.append)
    for before, after in itertools.pairwise(seen):
        assert float(before.x.std()) == pytest.approx(after.sigma, rel=0.02)
        assert after.sigma >= prior.mse(before.sigma) ** 0.5


def test_daps_takes_nonlinear_maps(gaussian: GaussianPrior) -> None:
    forward_model = ForwardModel(lambda x: x.square(), GaussianNoise(0.05))
    y = torch.full((1, *SHAPE), 0.36, dtype=torch.float64)
    start = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    result = solve(
        gaussian, forward_model, y, rule="annealed", sampler="daps", start=start, sigmas=karras(12, 0.01, 0.3), samples=4
    )  # fmt: skip
    assert float((result.mean - 0.6).abs().max()) < 0.1


def test_twisted_finds_the_modes_that_the_data_leave() -> None:
    """Sliced Wasserstein on the mixture: near the floor, and far below the same rule without particles."""
    problem = mixture_problem(0, d=8, dy=4)
    particles = verify(problem, rule="moment_matching", sampler="twisted", steps=40, samples=400)
    alone = verify(problem, rule="moment_matching", sampler="multistep", steps=40, samples=400)
    assert particles.sliced_wasserstein < 0.6 * alone.sliced_wasserstein
    assert particles.calls == pytest.approx(40 * 5)
    single = verify(problem, rule="pigdm", sampler="multistep", steps=20, samples=100)
    assert single.sliced_wasserstein > particles.sliced_wasserstein


def test_twisted_returns_one_particle_per_image(gaussian: GaussianPrior) -> None:
    forward_model, y = measure(gaussian, OPERATORS["grayscale"], images=2)
    options = {"rule": "moment_matching", "sampler": "twisted", "sigmas": geometric(8, 0.02, 2.0), "particles": 5}
    whole = solve(gaussian, forward_model, y, samples=2, batch=4, **options)  # type: ignore[arg-type]
    small = solve(gaussian, forward_model, y, samples=2, batch=1, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(whole.samples, small.samples, rtol=0, atol=1e-8)
    assert whole.samples.shape == (2, 2, *SHAPE)


def test_resampling_is_systematic() -> None:
    weights = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0]]).log()
    uniform = torch.full((2, 1), 0.5)
    assert resample(weights, uniform, count=4).tolist() == [[0, 0, 1, 2], [3, 3, 3, 3]]
    torch.testing.assert_close(effective_sample_size(weights), torch.tensor([1 / 0.375, 1.0]))
    torch.testing.assert_close(effective_sample_size(torch.full((4,), -900.0)), torch.tensor(4.0))


@pytest.mark.parametrize("sampler", ["ancestral_corrected", "multistep", "split_gibbs", "daps"])
def test_new_samplers_do_not_depend_on_the_batch(sampler: str, gaussian: GaussianPrior) -> None:
    forward_model, y = measure(gaussian, OPERATORS["mask"], images=2)
    sigmas = karras(5, 0.02, 1.0)
    whole = solve(gaussian, forward_model, y, sampler=sampler, sigmas=sigmas, samples=2, seed=5)
    small = solve(gaussian, forward_model, y, sampler=sampler, sigmas=sigmas, samples=2, seed=5, batch=1)
    torch.testing.assert_close(whole.samples, small.samples, atol=1e-9, rtol=0)


@pytest.mark.parametrize("sampler", ["split_gibbs", "daps", "twisted"])
def test_samplers_that_take_the_posterior_apart_say_so(sampler: str, gaussian: GaussianPrior) -> None:
    x, sigmas = torch.zeros((1, *SHAPE), dtype=torch.float64), karras(3)
    with pytest.raises(UsageError, match="GaussianPrior"):
        SAMPLERS[sampler](gaussian, x, sigmas, torch.randn_like)


def test_affinity_is_found_out(gaussian: GaussianPrior) -> None:
    forward_model, y = measure(gaussian, OPERATORS["mask"])
    start, sigmas = start_law(gaussian.mean, 1.0), karras(4, 0.05, 1.0)

    def run(rule: str) -> bool:
        model: ScoreModel = condition(gaussian, forward_model, y, rule)
        return is_affine(lambda x, noise: renoising(model, x, sigmas, noise), start)

    assert run("pigdm")
    truncated = MomentMatching(gaussian, forward_model, y, steps=1)
    assert not is_affine(lambda x, noise: renoising(truncated, x, sigmas, noise), start)
    assert sampler_law(renoising, truncated, start, sigmas) is None


def test_a_sampler_takes_arguments_in_its_name() -> None:
    found = find_sampler("ancestral_corrected(step=.5, corrections=2)")
    assert isinstance(found, partial)
    assert (found.func, found.keywords) == (ancestral_corrected, {"step": 0.5, "corrections": 2})
    assert sampler_name(found) == sampler_name("ancestral_corrected(corrections=2, step=0.5)")
    assert sampler_name(ancestral) == "ancestral"
    for text in ("ancestral_corrected(speed=1)", "nobody(steps=3)", "multistep(0.3)", "renoising(eta=open('x'))"):
        with pytest.raises(UsageError, match="sampler"):
            find_sampler(text)
