"""VE, VP and sub-VP: one family of laws, held against closed forms in their own coordinates."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from invsolve import condition
from invsolve.cli.main import app
from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel, GaussianNoise, Mask
from invsolve.models.foreign import Predicts, chain_label, foreign_prior
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.models.sde import SDE, SDES, VE, VP, find_sde, subvp, ve, vp
from invsolve.ode.density import log_density
from invsolve.samplers import ancestral, find_sampler, ode, ode_adaptive, reverse_sde
from invsolve.samplers.sigmas import geometric
from invsolve.verification.exactness import Law, push, sampler_law, start_law

NAMES = list(SDES)
SHAPE, D = (1, 1, 2), 2
EYE = torch.eye(D, dtype=torch.float64)


def mixture(center: float = 0.0) -> GaussianMixturePrior:
    """Two values, the second one bright in 70 % and dark in 30 % of all pictures."""
    covariance = 0.3**2 * torch.tensor([[1.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    means = [torch.tensor([[[0.0, level]]], dtype=torch.float64) + center for level in (1.0, -1.0)]
    components = [GaussianPrior(mean, covariance) for mean in means]
    return GaussianMixturePrior(torch.tensor([0.7, 0.3], dtype=torch.float64), components)


def law_of_state(prior: GaussianMixturePrior, sde: SDE, t: Tensor) -> GaussianMixturePrior:
    """The law of u(t) = alpha (x0 - center) / unit + std z as a mixture of its own, with nothing but alpha and std."""
    alpha, std = float(sde.alpha(t)), float(sde.std(t))
    parts = [
        GaussianPrior(
            alpha * (part.mean - sde.center) / sde.unit, (alpha / sde.unit) ** 2 * part.covariance + std**2 * EYE
        )
        for part in prior.components
    ]
    return GaussianMixturePrior(prior.log_weights.exp(), parts)


def score_of_state(prior: GaussianMixturePrior, sde: SDE, u: Tensor, t: Tensor) -> Tensor:
    """grad log p_t(u), differentiated."""
    leaf = u.detach().clone().requires_grad_()
    with torch.enable_grad():
        total = law_of_state(prior, sde, t).log_density(leaf, 0.0).sum()
    return torch.autograd.grad(total, leaf)[0]


def states(count: int = 5) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def draws(seed: int = 0) -> Noise:
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


@pytest.mark.parametrize("name", NAMES)
def test_drift_and_diffusion_follow_from_the_marginals(name: str) -> None:
    """f = alpha' / alpha and g^2 = alpha^2 d(std^2 / alpha^2) / dt, by automatic differentiation."""
    sde = find_sde(name)
    t = torch.tensor([0.01, 0.1, 0.4, 0.8, 1.0], dtype=torch.float64, requires_grad=True)
    alpha, variance = sde.alpha(t), (sde.std(t) / sde.alpha(t)) ** 2
    (slope,) = torch.autograd.grad((alpha + 0 * t).sum(), t, retain_graph=True)
    (growth,) = torch.autograd.grad(variance.sum(), t)
    torch.testing.assert_close(sde.drift(t), slope / alpha, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(sde.diffusion(t) ** 2, alpha**2 * growth, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(sde.time_of(sde.sigma(t)), t, rtol=1e-9, atol=1e-12)


def test_marginals_are_the_papers() -> None:
    """Song et al. 2021, eq. 29, with beta from 0.1 to 20 and sigma from 0.01 to 50."""
    t = torch.tensor([0.001, 0.3, 1.0], dtype=torch.float64)
    mean = torch.exp(-0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1)
    for name, std in (("vp", (1 - mean**2).sqrt()), ("subvp", 1 - mean**2)):
        torch.testing.assert_close(SDES[name].alpha(t), mean)
        torch.testing.assert_close(SDES[name].std(t), std)
        torch.testing.assert_close(SDES[name].sigma(t), 0.5 * std / mean)  # pictures in [0, 1], not [-1, 1]
    torch.testing.assert_close(VE.sigma(t), 0.01 * (50 / 0.01) ** t)


def test_ladders_are_even_in_time() -> None:
    for sde in SDES.values():
        levels = sde.levels(8, 0.01, 20.0)
        assert levels[-1] == 0 and len(levels) == 9
        assert (float(levels[0]), float(levels[7])) == pytest.approx((20.0, 0.01))
        steps = sde.time_of(levels[:-1]).diff()
        torch.testing.assert_close(steps, steps[:1].expand(7))
    torch.testing.assert_close(VE.levels(8, 0.01, 20.0), geometric(8, 0.01, 20.0))
    assert float(VP.levels(3)[0]) == pytest.approx(0.5 * math.sqrt(math.expm1(10.05)))
    with pytest.raises(UsageError, match="levels from"):
        VP.levels(3, 2.0, 1.0)
    with pytest.raises(UsageError, match="unknown SDE 'vpp'"):
        find_sde("vpp")


@pytest.mark.parametrize("name", NAMES)
def test_scores_change_variables_exactly(name: str) -> None:
    prior, sde, t = mixture(), find_sde(name), torch.tensor(0.6, dtype=torch.float64)
    u = states()
    x = sde.picture(u, t)
    torch.testing.assert_close(sde.state(x, t), u)
    found = sde.score(prior.score(x, float(sde.sigma(t))), t)
    torch.testing.assert_close(found, score_of_state(prior, sde, u, t), rtol=1e-9, atol=1e-9)
    each = torch.linspace(0.2, 0.9, 5, dtype=torch.float64)
    drift = sde.reverse_drift(prior, u, each)
    for k in range(5):
        score = score_of_state(prior, sde, u[k : k + 1], each[k])
        expected = sde.drift(each[k]) * u[k] - sde.diffusion(each[k]) ** 2 * score[0]
        torch.testing.assert_close(drift[k], expected, rtol=1e-9, atol=1e-9)


def network(prior: GaussianMixturePrior, sde: SDE, predicts: str, time: Callable[[float], Tensor]) -> Any:
    """The perfect network of an SDE, from the law of u alone; ``time`` is that of a label."""

    def say(u: Tensor, label: Tensor) -> Tensor:
        said = []
        for one, told in zip(u.double(), label, strict=True):
            t = time(float(told))
            alpha, std = float(sde.alpha(t)), float(sde.std(t))
            score = score_of_state(prior, sde, one[None], t)[0]
            noise = -std * score
            data = (one + std**2 * score) / alpha
            said.append({"score": score, "noise": noise, "data": data, "v": alpha * noise - std * data}[predicts])
        return torch.stack(said).to(u)

    return say


@pytest.mark.parametrize("predicts", ["score", "noise", "data", "v"])
@pytest.mark.parametrize("sde", [ve(), vp(), subvp(), vp(0.3, 12.0, center=0.0, unit=1.0)])
def test_a_foreign_network_gives_the_same_denoiser(sde: SDE, predicts: Predicts) -> None:
    prior = mixture(0.5)
    says = network(prior, sde, predicts, lambda told: torch.tensor(told / 999, dtype=torch.float64))
    wrapped = foreign_prior(says, sde, predicts, label=lambda t: 999 * t, channels=1)
    x, sigmas = states() + 0.5, torch.tensor([0.02, 0.1, 0.5, 2.0, 10.0], dtype=torch.float64)
    x = x + per(sigmas) * states()
    torch.testing.assert_close(wrapped.denoise(x, sigmas), prior.denoise(x, sigmas), rtol=1e-9, atol=1e-9)
    single = wrapped.denoise(x.float(), sigmas.float())
    torch.testing.assert_close(single.double(), prior.denoise(x, sigmas), rtol=0, atol=2e-4)
    assert (wrapped.sigma_min, wrapped.sigma_max) == pytest.approx(
        (float(sde.sigma(sde.end)), float(sde.sigma(sde.start)))
    )


def ladder(name: str, steps: int, low: float, high: float) -> Tensor:
    """The SDE's own; with sigma as time even steps would be far too long at the end."""
    return geometric(steps, low, high) if name == "edm" else find_sde(name).levels(steps, low, high)


def per(sigmas: Tensor) -> Tensor:
    return sigmas.reshape(-1, 1, 1, 1)


def test_a_discrete_chain_gives_the_same_denoiser() -> None:
    """DDPM's thousand steps (Ho et al. 2020), of which no beta(t) is known."""
    prior, sde = mixture(), vp(center=0.0, unit=1.0)
    alphas_bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    levels = ((1 - alphas_bar) / alphas_bar).sqrt()
    steps = torch.tensor([0, 7, 300, 998, 999])
    label = chain_label(alphas_bar, sde)
    torch.testing.assert_close(label(sde.time_of(levels[steps])), steps.double(), atol=1e-6, rtol=0)
    between = (levels[300] * levels[301]).sqrt()
    torch.testing.assert_close(label(sde.time_of(between[None])), torch.tensor([300.5], dtype=torch.float64))

    says = network(prior, sde, "noise", lambda told: sde.time_of(float(levels[round(told)])))
    wrapped = foreign_prior(says, sde, "noise", label=label, channels=1, sigma_max=float(levels[-1]))
    x = states() + per(levels[steps]) * states()
    torch.testing.assert_close(wrapped.denoise(x, levels[steps]), prior.denoise(x, levels[steps]), rtol=1e-8, atol=1e-8)
    assert wrapped.sigma_max == float(levels[-1])
    with pytest.raises(UsageError, match="falling"):
        chain_label(levels, sde)
    with pytest.raises(UsageError, match="predicts"):
        foreign_prior(says, "vp", "flow", channels=1)  # type: ignore[arg-type]


class White:
    """A white Gaussian prior N(mean, spread^2), and one value's mean and variance of u along the steps of the papers."""

    mean, spread = 0.7, 0.4

    def __init__(self, sde: SDE) -> None:
        self.sde = sde
        self.prior = GaussianPrior(torch.full(SHAPE, self.mean, dtype=torch.float64), self.spread**2 * EYE)

    def score(self, t: Tensor) -> tuple[float, float]:
        """Slope and offset of grad log p_t(u)."""
        alpha, std = float(self.sde.alpha(t)), float(self.sde.std(t))
        variance = (alpha * self.spread / self.sde.unit) ** 2 + std**2
        return -1 / variance, alpha * (self.mean - self.sde.center) / self.sde.unit / variance

    def euler_maruyama(self, law: tuple[float, float], t: Tensor, t_next: Tensor) -> tuple[float, float]:
        h, f, g = float(t - t_next), float(self.sde.drift(t)), float(self.sde.diffusion(t))
        slope, offset = self.score(t)
        kept = 1 - h * (f - g**2 * slope)
        return kept * law[0] + h * g**2 * offset, kept**2 * law[1] + g**2 * h

    def heun(self, law: tuple[float, float], t: Tensor, t_next: Tensor) -> tuple[float, float]:
        h = float(t_next - t)

        def velocity(t: Tensor) -> tuple[float, float]:
            f, g = float(self.sde.drift(t)), float(self.sde.diffusion(t))
            slope, offset = self.score(t)
            return f - 0.5 * g**2 * slope, -0.5 * g**2 * offset

        (a, b), (c, d) = velocity(t), velocity(t_next)
        kept, moved = 1 + 0.5 * h * (a + c * (1 + h * a)), 0.5 * h * (b + d + c * h * b)
        return kept * law[0] + moved, kept**2 * law[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampler", ["reverse_sde", "ode"])
def test_steps_are_the_papers_in_u(sampler: str, name: str) -> None:
    case, sigmas = White(find_sde(name)), geometric(6, 0.05, 3.0)[:-1]
    sde, move = case.sde, {"reverse_sde": case.euler_maruyama, "ode": case.heun}[sampler]
    start = start_law(torch.full(SHAPE, 0.2, dtype=torch.float64), 3.0)
    run = partial({"reverse_sde": reverse_sde, "ode": ode}[sampler], sde=name)
    found = sampler_law(run, case.prior, start, sigmas)
    assert found is not None
    times = sde.time_of(sigmas)
    stretch = float(sde.alpha(times[0])) / sde.unit
    law = (stretch * (0.2 - sde.center), (stretch * 3.0) ** 2)
    for t, t_next in itertools.pairwise(times):
        law = move(law, t, t_next)
    stretch = float(sde.alpha(times[-1])) / sde.unit
    assert float(found.mean[0, 0, 0]) == pytest.approx(sde.center + law[0] / stretch, rel=1e-9)
    assert float(found.covariance[0, 0]) == pytest.approx(law[1] / stretch**2, rel=1e-9)
    assert name == "edm" or not torch.allclose(found.covariance, edm_law(sampler, case.prior, start, sigmas).covariance)


def edm_law(sampler: str, prior: ScoreModel, start: Law, sigmas: Tensor) -> Law:
    found = sampler_law({"reverse_sde": reverse_sde, "ode": ode}[sampler], prior, start, sigmas)
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_all_sdes_come_to_the_posterior_each_at_its_order(name: str, gaussian: GaussianPrior) -> None:
    forward_model = ForwardModel(Mask((torch.arange(16).reshape(1, 4, 4) % 3 > 0).double(), 3), GaussianNoise(0.05))
    y = forward_model.simulate(gaussian.sample(1, torch.Generator().manual_seed(1)), torch.Generator().manual_seed(2))
    model, posterior = condition(gaussian, forward_model, y, "exact"), gaussian.posterior(forward_model, y)
    eye = torch.eye(posterior.covariance.shape[0], dtype=torch.float64)
    start = Law(posterior.mean, posterior.covariance + 4.0 * eye)  # exact, so that only the steps err
    truth = posterior.covariance + 0.05**2 * eye

    def gap(sampler: Any, steps: int) -> float:
        law = sampler_law(partial(sampler, sde=name), model, start, ladder(name, steps, 0.05, 2.0)[:-1])
        assert law is not None
        torch.testing.assert_close(law.mean, posterior.mean, rtol=0, atol=0.02)  # u = 0 is not the posterior's mean
        return float((law.covariance - truth).norm() / truth.norm())

    for sampler, order in ((reverse_sde, 1), (ode, 2)):
        coarse, fine = gap(sampler, 81), gap(sampler, 161)
        assert coarse / fine == pytest.approx(2**order, rel=0.25)
        assert fine < {1: 0.06, 2: 0.003}[order]
    run = partial(ode_adaptive, sde=name, rtol=1e-7, atol=1e-7)
    ends = torch.tensor([2.0, 0.05], dtype=torch.float64)
    law = push(lambda x, noise: run(model, x, ends, noise), start)
    torch.testing.assert_close(law.covariance, truth, rtol=0, atol=1e-5 * float(truth.norm()))


@pytest.mark.parametrize("name", NAMES)
def test_all_sdes_find_the_modes(name: str) -> None:
    prior, noise, count = mixture(), draws(), 4000
    sigmas = ladder(name, 100, 0.02, 20.0)
    x = 20.0 * noise(torch.zeros(count, *SHAPE, dtype=torch.float64))
    for sampler in (reverse_sde, ode):
        second = sampler(prior, x, sigmas, noise, sde=name)[..., 1].flatten()  # type: ignore[operator]
        bright = second[second > 0]
        assert len(bright) / count == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / count) + 0.005)
        assert float(bright.mean()) == pytest.approx(1.0, abs=0.03)
        assert float(bright.std()) == pytest.approx(0.3, abs=0.03)


def test_ancestral_is_ddpms_step() -> None:
    """Ho et al. 2020, eq. 6, 7 and 11 with the posterior's variance, in u, on a ladder of sigma."""
    prior, sde, sigmas = mixture(), vp(), VP.levels(6, 0.05, 5.0)
    x = states() * 5.0
    found = ancestral(prior, x, sigmas[:-1], draws())
    noise = draws()
    times = sde.time_of(sigmas[:-1])
    u = sde.state(x, times[0])
    for t, t_next in itertools.pairwise(times):
        bar, bar_next = float(sde.alpha(t)) ** 2, float(sde.alpha(t_next)) ** 2
        beta = 1 - bar / bar_next
        epsilon = -float(sde.std(t)) * score_of_state(prior, sde, u, t)
        mean = (u - beta / math.sqrt(1 - bar) * epsilon) / math.sqrt(1 - beta)
        u = mean + math.sqrt((1 - bar_next) / (1 - bar) * beta) * noise(u)
    torch.testing.assert_close(found, sde.picture(u, times[-1]), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_are_the_same_in_every_state(name: str) -> None:
    prior = mixture(0.5)
    prior.facts = replace(prior.facts, sigma_min=0.01, sigma_max=40.0)
    x = prior.sample(3, torch.Generator().manual_seed(0))
    truth, mean = prior.log_density(x, 0.01), torch.tensor([[[0.5, 0.5 + 0.4]]], dtype=torch.float64)
    for one, expected in zip(x, truth, strict=True):
        found = log_density(prior, one[None], exact_trace=True, center=mean, sde=name, rtol=1e-6, atol=1e-6)  # type: ignore[arg-type]
        assert float(found.values) == pytest.approx(float(expected), abs=0.002)


def test_names_and_what_is_none() -> None:
    found = find_sampler('reverse_sde(sde="vp")')
    assert isinstance(found, partial) and found.keywords == {"sde": "vp"}
    with pytest.raises(UsageError, match="sde is 'vpp', wanted 'edm' or 've' or 'vp' or 'subvp'"):
        find_sampler('reverse_sde(sde="vpp")')


def test_the_command_samples_in_vp(small_prior: Path, tmp_path: Path) -> None:
    pictures = []
    for sampler in ("reverse_sde", 'reverse_sde(sde="vp")'):
        out = tmp_path / f"{len(pictures)}.png"
        arguments = ["sample", "--model", str(small_prior), "-n", "1", "--size", "8x8", "--steps", "3", "--json"]
        done = CliRunner().invoke(app, [*arguments, "--sampler", sampler, "-o", str(out), "--device", "cpu"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["sampler"] == sampler.replace('"', "'")
        pictures.append(out.read_bytes())
    assert pictures[0] != pictures[1]
