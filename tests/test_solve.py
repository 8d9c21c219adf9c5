"""solve(), Posterior, the first guess, orientations."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from invsolve import Posterior, condition, solve
from invsolve.errors import InputError, SolveError, UsageError
from invsolve.forward_models import ForwardModel, GaussianNoise, Grayscale, Identity, Mask
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.orientation import OrientedModel, turn, turn_back
from invsolve.models.precision import native_bfloat16
from invsolve.models.score_model import CountedModel, FunctionPrior, ScoreModel
from invsolve.pretrained import load_prior
from invsolve.rules import AnnealedLikelihood
from invsolve.samplers import StepInfo
from invsolve.samplers.sigmas import geometric, karras
from invsolve.tasks.push_pull import push_pull


def grey_problem(prior: GaussianPrior, images: int = 2) -> tuple[ForwardModel, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    forward_model = ForwardModel(Grayscale((3, 4, 4)), GaussianNoise(0.05))
    return forward_model, forward_model.simulate(prior.sample(images, generator), generator)


@pytest.mark.parametrize("sampler", ["renoising", "ancestral", "langevin"])
@pytest.mark.parametrize("rule", ["proximal", "annealed", "replacement", "exact"])
def test_image_k_does_not_depend_on_the_batch(rule: str, sampler: str, gaussian: GaussianPrior) -> None:
    forward_model, y = grey_problem(gaussian)
    sigmas = karras(8, 0.02, 1.0)
    whole = solve(gaussian, forward_model, y, rule=rule, sampler=sampler, sigmas=sigmas, samples=3, seed=5)
    small = solve(gaussian, forward_model, y, rule=rule, sampler=sampler, sigmas=sigmas, samples=3, seed=5, batch=1)
    later = solve(gaussian, forward_model, y, rule=rule, sampler=sampler, sigmas=sigmas, samples=1, seed=7)
    torch.testing.assert_close(whole.samples, small.samples, atol=1e-9, rtol=0)
    torch.testing.assert_close(whole.samples[2:], later.samples, atol=1e-9, rtol=0)
    assert not torch.allclose(whole.samples[0], whole.samples[1])


def test_network_prior_is_batch_independent_to_1e_4(small_prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invsolve.models.precision.native_bfloat16", lambda device: False)
    prior = load_prior(small_prior, "cpu")
    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    known = (torch.rand(1, 24, 24, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    forward_model = ForwardModel(Mask(known, 3))
    for turned in (False, True):
        many, one = (
            solve(prior, forward_model, known * picture, sigmas=karras(6), samples=3, seed=2, batch=b, turn=turned)
            for b in (3, 1)
        )
        torch.testing.assert_close(many.samples, one.samples, atol=1e-4, rtol=0)


@pytest.mark.skipif(not native_bfloat16(torch.device("cpu")), reason="this processor computes in float32")
def test_batches_agree_in_bfloat16_too(small_prior: Path) -> None:
    """Coarser arithmetic, so a coarser promise: half a grey level in 8 bits."""
    prior = load_prior(small_prior, "cpu")
    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    known = (torch.rand(1, 24, 24, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    many, one = (
        solve(prior, ForwardModel(Mask(known, 3)), known * picture, sigmas=karras(6), samples=3, batch=b)
        for b in (3, 1)
    )
    torch.testing.assert_close(many.samples, one.samples, atol=2e-3, rtol=0)


def test_posterior_statistics(gaussian: GaussianPrior) -> None:
    """Samples of solve() have the law that the exact recursion promises: here against the true posterior."""
    forward_model, y = grey_problem(gaussian, 1)
    result = solve(
        gaussian,
        forward_model,
        y,
        rule="exact",
        sampler="ancestral",
        sigmas=karras(60, 0.005, 5.0),
        samples=2000,
        batch=500,
    )
    posterior = gaussian.posterior(forward_model, y)
    std = posterior.covariance.diagonal().sqrt().reshape(3, 4, 4)
    assert float(((result.mean[0] - posterior.mean) / std).square().mean().sqrt()) < 0.1
    assert float(result.std[0].square().mean().sqrt() / std.square().mean().sqrt()) == pytest.approx(0.95, abs=0.06)
    assert float(result.chi2.mean()) == pytest.approx(1, abs=0.35)
    assert solve(gaussian, forward_model, y, samples=3).network_calls == 3 * 50


def test_antithetic_pairs_have_the_posterior_mean_and_spread(gaussian: GaussianPrior) -> None:
    forward_model, y = grey_problem(gaussian, images=1)
    options: dict[str, object] = {"rule": "exact", "sampler": "heun_sde", "sigmas": geometric(40, 0.005, 5.0)}
    posterior = gaussian.posterior(forward_model, y)
    std = posterior.covariance.diagonal().sqrt().reshape(3, 4, 4)
    paired = solve(gaussian, forward_model, y, samples=400, antithetic=True, **options)
    error = float((((paired.mean[0] - posterior.mean) / std).square().mean()).sqrt())
    assert error < 0.01  # an affine sampler's errors cancel; 400 independent draws leave .05
    assert float(paired.std[0].square().mean().sqrt() / std.square().mean().sqrt()) == pytest.approx(1, abs=0.08)
    # Each is the sample it was: the even ones as from their seed alone, the odd ones the same about the mean.
    alone = solve(gaussian, forward_model, y, samples=1, seed=6, **options)
    torch.testing.assert_close(paired.samples[6], alone.samples[0])
    torch.testing.assert_close(paired.samples[7], 2 * paired.mean - paired.samples[6], atol=1e-3, rtol=0)
    assert paired.seeds[4:8] == (4, 4, 6, 6)
    assert paired.antithetic
    # In batches that split a pair, and for several images, the same.
    two = solve(gaussian, forward_model, y.repeat(2, 1, 1, 1), samples=3, batch=1, antithetic=True, **options)
    torch.testing.assert_close(two.samples[:, 0], paired.samples[:3, 0])


def test_posterior_saves_and_loads_itself(tmp_path: Path) -> None:
    samples = torch.rand(5, 2, 3, 4, 4)
    before = Posterior(samples, (1, 2, 3, 4, 5), torch.rand(5, 2), {"rule": "proximal"}, 250)
    before.save(tmp_path / "result.npz")
    after = Posterior.load(tmp_path / "result.npz")
    assert torch.equal(after.samples, samples)
    assert torch.equal(after.chi2, before.chi2)
    assert (after.seeds, after.settings, after.network_calls) == (before.seeds, before.settings, 250)
    torch.testing.assert_close(after.std, samples.std(0))
    low, middle, high = after.quantiles([0.0, 0.5, 1.0])
    assert torch.equal(low, samples.amin(0))
    assert torch.equal(high, samples.amax(0))
    assert torch.equal(middle, samples.median(0).values)
    assert torch.equal(after.mean, samples.mean(0))
    Posterior(samples, estimate=samples[1]).save(tmp_path / "result.npz")
    assert torch.equal(Posterior.load(tmp_path / "result.npz").mean, samples[1])
    (tmp_path / "broken.npz").write_bytes((tmp_path / "result.npz").read_bytes()[:200])
    with pytest.raises(InputError, match="saved posterior"):
        Posterior.load(tmp_path / "broken.npz")


def test_callback_counts_the_whole_run(gaussian: GaussianPrior) -> None:
    forward_model, y = grey_problem(gaussian)
    seen: list[StepInfo] = []
    solve(gaussian, forward_model, y, sigmas=karras(4), samples=3, batch=2, callback=seen.append)
    assert [info.step for info in seen] == list(range(1, 13))
    assert {info.steps for info in seen} == {12}
    assert seen[0].sigma == pytest.approx(1.0)


def test_divergence_names_the_level(gaussian: GaussianPrior) -> None:
    prior = FunctionPrior(lambda x, sigma: torch.where(sigma[0] < 0.1, torch.nan, 1.0) * x, channels=3)
    forward_model, y = grey_problem(gaussian)
    with pytest.raises(SolveError, match="noise level 0.0"):
        solve(prior, forward_model, y.float(), sigmas=karras(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rule": "magic"}, "unknown rule"), ({"sampler": "magic"}, "unknown sampler"), ({"samples": 0}, "samples = 0")],
)
def test_wrong_arguments_are_named(options: dict[str, object], message: str, gaussian: GaussianPrior) -> None:
    forward_model, y = grey_problem(gaussian)
    with pytest.raises(UsageError, match=message):
        solve(gaussian, forward_model, y, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples = 0 .*at least 1"),
        ({"samples": 1.5}, "samples = 1.5"),
        ({"batch": 0}, "batch = 0 .*at least 1"),
        ({"seed": -1}, "seed = -1 .*at least 0"),
        ({"seed": 2**63}, "below 2.63"),
        ({"steps": 0}, "0 steps"),
        ({"sigmas": karras(5), "steps": 5}, "sigmas beside steps"),
        ({"sigmas": karras(5), "sigma_start": 1.0}, "sigmas beside steps"),
        ({"sigma_start": 0.001}, "sigma_max 0.001"),
        ({"levels": 30}, "neither solve nor the sampler 'renoising' knows 'levels' .*the sampler takes eta"),
        ({"noise": 0.1}, "knows 'noise'"),
        ({"sampler": "ancestral", "eta": 0.5}, "'ancestral' knows 'eta' .*takes nothing more"),
        ({"lam": 0.5}, "arguments of a rule go with its name"),
    ],
)
def test_impossible_arguments_are_named_with_the_way_out(
    options: dict[str, object], message: str, gaussian: GaussianPrior
) -> None:
    forward_model, y = grey_problem(gaussian)
    with pytest.raises(UsageError, match=message):
        solve(gaussian, forward_model, y, **options)  # type: ignore[arg-type]


def test_what_is_no_prior_model_or_measurement_is_named(gaussian: GaussianPrior) -> None:
    forward_model, y = grey_problem(gaussian)
    wrong: list[tuple[tuple[object, object, object], type[Exception], str]] = [
        (("photos", forward_model, y), UsageError, r"load_prior\('photos'\)"),
        ((lambda x, sigma: x, forward_model, y), UsageError, "prior is function, wanted a ScoreModel .*FunctionPrior"),
        ((gaussian, Grayscale((3, 4, 4)), y), UsageError, "forward model is Grayscale"),
        ((gaussian, forward_model, y.numpy()), InputError, "y is ndarray, wanted a tensor"),
        ((gaussian, forward_model, y[:0]), InputError, r"shape \(0, 1, 4, 4\)"),
        ((gaussian, forward_model, torch.where(y > 0.6, torch.nan, y)), InputError, "values of y are NaN"),
        ((gaussian, forward_model, y[:, :, :3]), InputError, "wanted"),
    ]
    for arguments, error, message in wrong:
        with pytest.raises(error, match=message):
            solve(*arguments)  # type: ignore[arg-type]


def test_steps_and_sigma_start_shape_the_default_ladder(gaussian: GaussianPrior) -> None:
    forward_model, y = grey_problem(gaussian)
    default, same = solve(gaussian, forward_model, y), solve(gaussian, forward_model, y, steps=50, sigma_start=1.0)
    assert torch.equal(default.samples, same.samples)
    short = solve(gaussian, forward_model, y, steps=7, sigma_start=0.3)
    ladder = solve(gaussian, forward_model, y, sigmas=karras(7, 0.005, 0.3))
    assert torch.equal(short.samples, ladder.samples)
    assert (short.settings["steps"], short.settings["sigma_start"]) == (7, pytest.approx(0.3))


def test_numbers_of_numpy_are_numbers(gaussian: GaussianPrior) -> None:
    forward_model, y = grey_problem(gaussian)
    one, two = (solve(gaussian, forward_model, y, steps=2, samples=n, seed=n) for n in (2, np.int64(2)))
    assert torch.equal(one.samples, two.samples)


def test_a_users_own_map_and_rule_plug_in(gaussian: GaussianPrior) -> None:
    forward_model = ForwardModel(lambda x: x.square(), GaussianNoise(0.1))
    y = torch.full((1, 3, 4, 4), 0.25, dtype=torch.float64)
    start = torch.full((1, 3, 4, 4), 0.4, dtype=torch.float64)
    # |J| = 2 |x| goes beyond 1 here, so the step is damped by gamma.
    rule = partial(AnnealedLikelihood, gamma=3.0)
    result = solve(gaussian, forward_model, y, rule=rule, start=start, sigmas=karras(40, 0.005, 0.2))
    assert float(result.mean.mean()) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(InputError, match="linear operator"):
        condition(gaussian, forward_model, y, "proximal")
    with pytest.raises(UsageError, match="start"):
        solve(gaussian, forward_model, y, rule="annealed")

    def own(prior: ScoreModel, forward_model: ForwardModel, y: torch.Tensor) -> ScoreModel:
        return prior

    assert solve(gaussian, forward_model, y, rule=own, start=start).settings["rule"] == "own"


def test_noiseless_proximal_rule_returns_the_measurement(gaussian: GaussianPrior) -> None:
    y = gaussian.sample(1, torch.Generator().manual_seed(2))
    result = solve(gaussian, ForwardModel(Identity((3, 4, 4))), y)
    assert float((result.samples[0] - y).abs().max()) < 0.01
    assert result.chi2.numel() == 0


def test_push_pull_keeps_known_pixels_and_interpolates() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 37), torch.linspace(0, 1, 29), indexing="ij")
    picture = torch.stack([x, y, 0.5 * (x + y)])[None]
    known = (torch.rand(1, 1, 37, 29, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    filled = push_pull(torch.where(known > 0, picture, torch.nan_to_num(picture * 0 + 99)), known)
    assert torch.equal(filled * known, picture * known)
    assert float((filled - picture).abs().max()) < 0.2
    assert float((filled - picture).square().mean().sqrt()) < 0.04


def test_orientations_are_the_eight_of_the_square() -> None:
    x = torch.arange(24.0).reshape(1, 1, 4, 6)
    images = [turn(x, k) for k in range(8)]
    assert all(torch.equal(turn_back(image, k), x) for k, image in enumerate(images))
    square = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert len({tuple(turn(square, k).flatten().tolist()) for k in range(8)}) == 8


def test_turning_an_equivariant_denoiser_changes_nothing() -> None:
    prior = FunctionPrior(lambda x, sigma: x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2), channels=3)
    x = torch.rand(3, 3, 5, 7)
    oriented = OrientedModel(prior, [0, 1, 2])
    for _ in range(8):
        torch.testing.assert_close(
            oriented.denoise(x, torch.tensor([0.1, 0.5, 2.0])), prior.denoise(x, torch.tensor([0.1, 0.5, 2.0]))
        )


@pytest.mark.parametrize(
    ("orientations", "upright", "seen"), [("mirror", True, 2), ("flips", False, 4), ("square", False, 8)]
)
def test_a_prior_is_shown_only_the_orientations_it_knows(orientations: str, upright: bool, seen: int) -> None:
    shown: list[torch.Tensor] = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        shown.append(x)
        return x

    prior = FunctionPrior(denoise, channels=1)
    prior.facts = replace(prior.facts, orientations=orientations)
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    oriented = OrientedModel(CountedModel(prior), [3])
    for _ in range(8):
        assert torch.equal(oriented.denoise(x, 1.0), x)
    assert len({tuple(image.flatten().tolist()) for image in shown}) == seen
    tops = [set(image[0, 0, 0].tolist()) for image in shown]
    assert all(top == {0.0, 1.0, 2.0} for top in tops) == upright


def test_numpy_pictures_survive_the_metrics() -> None:
    from invsolve.evaluation.metrics import ciede2000, mean_chroma, psnr, ssim

    truth = np.random.default_rng(0).random((32, 32, 3))
    assert psnr(truth, truth + 0.1 * np.sign(0.5 - truth), data_range=1.0) == pytest.approx(20.0, abs=0.01)
    assert ssim(truth, truth, data_range=1.0) == pytest.approx(1.0)
    assert np.isnan(ssim(truth[:5], truth[:5], data_range=1.0))
    assert ciede2000(truth, truth) == 0
    assert mean_chroma(np.repeat(truth[..., :1], 3, axis=2)) < 0.01
