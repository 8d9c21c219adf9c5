"""Intervals, data space and null space, misfit, and the trace of a run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from invsolve import Posterior, solve
from invsolve.errors import SolveError, UsageError
from invsolve.forward_models import (
    ForwardModel,
    GaussianNoise,
    Geometry,
    Grayscale,
    Identity,
    Mask,
    even_angles,
    projector,
)
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.score_model import FunctionPrior
from invsolve.samplers import StepInfo
from invsolve.samplers.sigmas import geometric, karras
from invsolve.uncertainty.conditional_mean import ConditionalMean
from invsolve.uncertainty.intervals import (
    attainable_interval,
    determined,
    interval,
    misfit_warning,
    prior_share,
    split,
    split_std,
    standard_deviation,
)
from invsolve.uncertainty.trace import likely_cause, trace_picture

SHAPE = (3, 4, 4)


def test_intervals_have_their_probability() -> None:
    draws = torch.randn(39, 1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    truth = torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(1))
    for count, level in ((19, 0.9), (39, 0.9), (39, 0.95), (9, 0.8), (39, 0.5)):
        assert Posterior(draws[:count]).coverage(truth, level) == pytest.approx(level, abs=0.006)
    low, high = interval(draws[:19], 0.9)
    assert torch.equal(low, draws[:19].amin(0))
    assert torch.equal(high, draws[:19].amax(0))
    with pytest.raises(UsageError, match="at least 19"):
        interval(draws[:18], 0.9)
    with pytest.raises(UsageError, match="level"):
        interval(draws, 1.5)


@pytest.mark.parametrize(
    ("count", "level"), [(2, 1 / 3), (8, 7 / 9), (18, 17 / 19), (19, 0.9), (39, 0.9), (100, 1 - 10 / 101)]
)
def test_few_samples_say_the_level_they_have(count: int, level: float) -> None:
    draws = torch.randn(count, 40000, generator=torch.Generator().manual_seed(0))
    truth = torch.randn(40000, generator=torch.Generator().manual_seed(1))
    low, center, high, said = attainable_interval(draws)
    assert said == pytest.approx(level)
    inside = (truth >= low) & (truth <= high)
    assert float(inside.double().mean()) == pytest.approx(said, abs=0.008)
    torch.testing.assert_close(center, draws.quantile(0.5, dim=0))
    if count < 39:
        assert torch.equal(low, draws.amin(0))


def test_one_sample_has_no_interval() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        attainable_interval(torch.zeros(1, 3))


def test_coverage_counts_only_what_was_open() -> None:
    truth = torch.zeros(1, 1, 2, 2)
    samples = torch.linspace(-1, 1, 19).reshape(19, 1, 1, 1, 1) + torch.tensor([[[[0.0, 5.0], [0.0, 5.0]]]])
    where = torch.tensor([[[[1, 0], [1, 0]]]])
    assert Posterior(samples).coverage(truth) == 0.5
    assert Posterior(samples).coverage(truth, where=where) == 1.0


def test_data_space_and_null_space() -> None:
    known = (torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    mask = Mask(known, 3)
    samples = torch.randn(6, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    seen, blind = split(mask, samples[0])
    assert torch.equal(seen, known * samples[0])
    torch.testing.assert_close(seen + blind, samples[0])
    assert torch.equal(determined(mask), known.expand(SHAPE))
    data, prior = Posterior(samples).split_std(mask)
    assert float((data * (1 - known)).abs().max()) == 0
    assert float((prior * known).abs().max()) == 0
    # Of grey values the luma's share of each channel is determined: w_c^2 / |w|^2, together one value of three.
    grey = determined(Grayscale(SHAPE), probes=400)
    assert float(grey.sum(dim=0).mean()) == pytest.approx(1, abs=0.1)
    assert float(grey[1].mean()) == pytest.approx(0.587**2 / (0.299**2 + 0.587**2 + 0.114**2), abs=0.05)


def test_variance_of_pairs_is_unbiased_at_any_correlation() -> None:
    generator = torch.Generator().manual_seed(1)
    for correlation in (-1.0, -0.6, 0.0):
        a = torch.randn(4, 60000, generator=generator) * math.sqrt((1 + correlation) / 2)  # means of the pairs
        d = torch.randn(4, 60000, generator=generator) * math.sqrt((1 - correlation) / 2)  # half differences
        samples = torch.stack([a + d, a - d], dim=1).flatten(0, 1)  # eight draws of variance 1, two by two
        found = standard_deviation(samples, antithetic=True)
        assert float(found.square().mean()) == pytest.approx(1, abs=0.015)
        ordinary = float(samples.var(dim=0).mean())
        assert ordinary == pytest.approx(1 - correlation / 7, abs=0.015)  # what dividing by n - 1 would have said
        torch.testing.assert_close(
            standard_deviation(samples[:7], antithetic=True), standard_deviation(samples[:6], antithetic=True)
        )
    assert torch.equal(standard_deviation(samples[:2], antithetic=True), (samples[0] - samples[1]).abs() / 2)
    assert not standard_deviation(samples[:1], antithetic=True).any()


def test_what_the_prior_filled_in_of_the_variance() -> None:
    known = torch.zeros(1, 4, 4)
    known[:, :1] = 1  # a quarter
    samples = torch.randn(2000, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    assert prior_share(*split_std(Mask(known, 3), samples)) == pytest.approx(0.75, abs=0.01)
    assert prior_share(*split_std(Grayscale(SHAPE), samples)) == pytest.approx(2 / 3, abs=0.01)
    assert prior_share(*split_std(Identity(SHAPE), samples)) == pytest.approx(0, abs=1e-9)
    assert math.isnan(prior_share(*split_std(Identity(SHAPE), samples[:1].repeat(3, 1, 1, 1, 1))))


def test_a_scan_does_not_see_its_null_space() -> None:
    scan = projector(Geometry(even_angles(4), 25, (16, 16)), cache=False)
    samples = torch.randn(12, 1, 1, 16, 16, generator=torch.Generator().manual_seed(1))  # more than one batch
    seen, blind = split(scan, samples[:, 0])
    assert float(scan(blind).norm() / scan(samples[:, 0]).norm()) < 1e-2
    assert float((seen * blind).sum() / (seen.norm() * blind.norm())) == pytest.approx(0, abs=1e-2)
    # Of white noise the data's share of the variance is their share of the dimensions, the rank of A.
    a = scan(torch.eye(256).reshape(256, 1, 16, 16)).reshape(256, -1)
    rank = float(torch.linalg.matrix_rank(a.double(), rtol=1e-4)) / 256
    assert prior_share(*split_std(scan, samples)) == pytest.approx(1 - rank, abs=0.04)
    assert float(determined(scan, probes=16).mean()) == pytest.approx(rank, abs=0.04)


def test_misfit_is_judged_by_its_own_spread(gaussian: GaussianPrior) -> None:
    assert misfit_warning(torch.tensor([[1.2]]), 50) is None
    assert "do not fit" in str(misfit_warning(torch.tensor([[1.2]]), 5000))
    assert "too well" in str(misfit_warning(torch.tensor([[0.5]]), 5000))
    assert misfit_warning(torch.empty(0), 5000) is None
    operator, generator = Grayscale(SHAPE), torch.Generator().manual_seed(3)
    truth = gaussian.sample(1, generator)
    y = ForwardModel(operator, GaussianNoise(0.05)).simulate(truth, generator)
    options = {"rule": "moment_matching", "sampler": "multistep", "sigmas": geometric(12, 0.01, 5.0), "samples": 8}
    right = solve(gaussian, ForwardModel(operator, GaussianNoise(0.05)), y, **options)  # type: ignore[arg-type]
    assert right.warning is None
    noisier = ForwardModel(operator, GaussianNoise(0.3)).simulate(truth, generator)
    wrong = solve(gaussian, ForwardModel(operator, GaussianNoise(0.05)), noisier, **options)  # type: ignore[arg-type]
    assert "do not fit" in str(wrong.warning)


def test_the_trace_is_kept_and_drawn(gaussian: GaussianPrior, tmp_path: Path) -> None:
    forward_model = ForwardModel(Grayscale(SHAPE), GaussianNoise(0.05))
    y = forward_model.simulate(gaussian.sample(2, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1))
    result = solve(gaussian, forward_model, y, sigmas=karras(10, 0.01, 2.0), samples=3, batch=2)
    trace = result.diagnostics
    assert trace["sigma"] == sorted(trace["sigma"], reverse=True)
    assert len(trace["sigma"]) == len(trace["misfit"]) == len(trace["step"]) == 10
    assert trace["misfit"][-1] ** 2 == pytest.approx(float(result.chi2.mean()), rel=1e-6)
    assert trace["step"][0] == 0
    assert all(step > 0 for step in trace["step"][1:])
    result.save(tmp_path / "run.npz")
    after = Posterior.load(tmp_path / "run.npz")
    assert after.diagnostics == trace
    assert after.measured_values == 16
    picture = trace_picture(trace)
    assert picture.dtype == np.uint8
    assert picture.shape == (320, 480, 3)
    assert ((picture == (31, 90, 180)).all(axis=2)).sum() > 100
    assert trace_picture({"sigma": [], "misfit": [], "step": []}).min() < 255


def test_divergence_is_stopped_before_it_is_infinite() -> None:
    prior = FunctionPrior(lambda x, sigma: 4 * x, channels=3)
    y = torch.zeros(1, *SHAPE)
    with pytest.raises(SolveError, match="noise level") as caught:
        solve(prior, ForwardModel(Identity(SHAPE), GaussianNoise(1.0)), y, rule="annealed", sigmas=karras(60))
    assert "step 60" not in str(caught.value)
    assert "grew" in str(caught.value)
    assert "grew" in likely_cause(0.1, 0.005, 20, [1.0, 3.0, 9.0, float("nan")])
    assert "up to 20" in likely_cause(30, 0.005, 20, [])
    assert "down to 0.005" in likely_cause(0.0001, 0.005, 20, [])


def test_conditional_mean_is_nearer_than_the_samples_mean() -> None:
    """Both against the posterior's mean in closed form, 0: of unit variance E[x0 | x_sigma] keeps 1 / (1 + sigma^2)."""
    prior, sigmas = GaussianPrior(torch.zeros(1, 1, 400), torch.eye(400)), karras(200, 0.01, 20.0)
    nothing, y = ForwardModel(Identity((1, 1, 400)), GaussianNoise(1e3)), torch.zeros(1, 1, 1, 400)
    expected = ConditionalMean(1.9, 2.1)
    drawn = solve(prior, nothing, y, sampler="ancestral", sigmas=sigmas, samples=8, callback=expected.add)
    assert expected.average is not None
    errors = [float(mean.square().mean()) for mean in (drawn.mean, expected.average)]
    assert errors[0] == pytest.approx(1 / 8, rel=0.2)
    assert errors[1] == pytest.approx(errors[0] / 5, rel=0.2)


def test_conditional_mean_counts_every_chain_once() -> None:
    pictures = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole, parts = ConditionalMean(0.5, 2.0), ConditionalMean(0.5, 2.0)
    assert whole.average is None
    levels = (3.0, 1.1, 0.7, 0.2)
    for one, batches in ((whole, [pictures]), (parts, [pictures[:3], pictures[3:]])):
        for batch in batches:
            for step, sigma in enumerate(levels):
                one.add(StepInfo(step + 1, 4, sigma, batch, sigma * batch))
    assert whole.average is not None
    assert parts.average is not None
    torch.testing.assert_close(whole.average, 0.9 * pictures.mean(dim=0))
    torch.testing.assert_close(parts.average, whole.average)
