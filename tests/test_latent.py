"""Latent space: there and back, closed forms on a Gaussian, interpolation, temperature, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from invsolve.cli.main import app
from invsolve.errors import InputError, UsageError
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior, smooth_gaussian_prior
from invsolve.models.score_model import ScoreModel
from invsolve.ode.latent import TOLERANCE, decode, encode, interpolate, slerp
from invsolve.pretrained import load_prior

ROOT = Path(__file__).resolve().parents[1]
LEVEL = 1 / 255


@pytest.fixture(scope="module")
def prior() -> GaussianPrior:
    made = smooth_gaussian_prior((3, 6, 6), length=1.0)
    made.facts = replace(made.facts, sigma_min=0.005, sigma_max=50.0)
    return made


def test_round_trip_on_a_gaussian(prior: GaussianPrior, generator: torch.Generator) -> None:
    x = prior.sample(5, generator)
    assert float((decode(prior, encode(prior, x)) - x).abs().max()) < 0.1 * LEVEL


def off(model: ScoreModel, x: torch.Tensor, tolerance: float = TOLERANCE) -> float:
    """Largest error of a round trip, in grey levels."""
    z = encode(model, x, rtol=tolerance, atol=tolerance)
    return float((decode(model, z, rtol=tolerance, atol=tolerance) - x).abs().max()) / LEVEL


def test_round_trip_where_encoding_brings_pictures_together() -> None:
    """Between two kinds of picture all codes are nearly one: what the steps lose there decoding cannot bring back."""
    covariance = 0.12**2 * torch.eye(12, dtype=torch.float64)
    kinds = [GaussianPrior(torch.full((3, 2, 2), mean, dtype=torch.float64), covariance) for mean in (0.3, 0.7)]
    mixture = GaussianMixturePrior(torch.tensor([0.5, 0.5], dtype=torch.float64), kinds)
    mixture.facts = replace(mixture.facts, sigma_min=0.005, sigma_max=50.0)
    between = torch.full((1, 3, 2, 2), 0.54, dtype=torch.float64)
    assert off(mixture, between) < 0.1
    assert off(mixture, between, 10 * TOLERANCE) > 5


def test_round_trip_of_a_grey_picture_through_a_prior_of_coloured_ones() -> None:
    grey = Image.open(ROOT / "examples" / "cat-grey.png").convert("RGB").resize((32, 32), Image.Resampling.BOX)
    x = torch.from_numpy(np.asarray(grey, np.float32) / 255).permute(2, 0, 1)[None]
    # Where errors are torn apart, rounding decides by how much: 0.3 to 1.5 from 1e-7 to 4e-7, otherwise on another processor.
    prior = load_prior("cifar10", "cpu")
    assert off(prior, x) < 3
    assert off(prior, x, 5e-8) < 1


def test_round_trip_through_a_network(small_prior: Path) -> None:
    network = load_prior(small_prior, "cpu")
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float((decode(network, encode(network, x)) - x).abs().max()) < LEVEL
    coarse = decode(network, encode(network, x, rtol=0.3, atol=0.3), rtol=0.3, atol=0.3)
    assert float((coarse - x).abs().max()) > LEVEL  # the tolerance is what makes it


def test_codes_of_a_gaussian_are_known(prior: GaussianPrior, generator: torch.Generator) -> None:
    """Along an eigenvector of variance l the ODE scales x - mean by sqrt((l + sigma_max^2) / (l + sigma_min^2))."""
    x = prior.sample(4, generator)
    variances = prior.eigenvalues
    growth = ((variances + 50.0**2) / (variances + 0.005**2)).sqrt()
    coefficients = (x - prior.mean).flatten(1) @ prior.eigenvectors
    expected = (coefficients * growth) @ prior.eigenvectors.T / (50.0**2 + prior.sigma_data**2) ** 0.5
    torch.testing.assert_close(encode(prior, x).flatten(1), expected, rtol=1e-3, atol=1e-3)


def test_codes_are_standard_normal(prior: GaussianPrior, generator: torch.Generator) -> None:
    noisy = prior.sample(200, generator)
    noisy = noisy + 0.005 * torch.randn(noisy.shape, generator=generator, dtype=noisy.dtype)
    codes = encode(prior, noisy, rtol=1e-3, atol=1e-3)
    assert float(codes.std()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(torch.cov(codes.flatten(1).T), torch.eye(108, dtype=codes.dtype), atol=0.4, rtol=0)


def test_slerp_is_shoemakes() -> None:
    a, b = torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 5.0]]])
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, b, 0.5), torch.tensor([[[3.0, 5.0]]]) / 2**0.5)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)
    torch.testing.assert_close(slerp(a, -a, 1.0), -a)  # every great circle leads there; none is better than the line
    torch.testing.assert_close(slerp(a, 0 * a, 0.5), 0.5 * a)


def test_slerp_turns_evenly_at_one_length() -> None:
    a, b = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[1.0, 3**0.5]]])  # 60 degrees apart
    for share in (0.25, 0.5, 0.9):
        angle = torch.tensor(share * torch.pi / 3)
        torch.testing.assert_close(slerp(a, b, share), 2 * torch.stack([angle.cos(), angle.sin()])[None, None])


def test_the_weaker_picture_is_not_amplified(prior: GaussianPrior, generator: torch.Generator) -> None:
    """The ODE of a Gaussian is linear: nowhere on the way has a picture more of the weak end than that has itself."""
    strong, weak = prior.sample(2, generator) - prior.mean
    weak = 0.3 * (weak - (weak * strong).sum() / strong.square().sum() * strong)
    way = interpolate(prior, prior.mean + strong, prior.mean + weak, 5) - prior.mean
    share_of_weak = (way * weak).sum(dim=(1, 2, 3)) / weak.square().sum()
    contrast = way.square().mean(dim=(1, 2, 3)).sqrt()
    assert float(share_of_weak.max()) < 1.05
    assert bool((contrast.diff() < 0).all())


def test_interpolation_ends_on_its_ends(prior: GaussianPrior, generator: torch.Generator) -> None:
    a, b = prior.sample(2, generator)
    way = interpolate(prior, a, b, 5)
    assert way.shape == (5, 3, 6, 6)
    assert float((way[0] - a).abs().max()) < LEVEL
    assert float((way[-1] - b).abs().max()) < LEVEL
    with pytest.raises(UsageError, match="at least 2"):
        interpolate(prior, a, b, 1)


def test_temperature_scales_a_gaussian(prior: GaussianPrior, generator: torch.Generator) -> None:
    """The ODE of a Gaussian is linear, so the temperature scales the picture's distance from the mean."""
    z = torch.randn(4, 3, 6, 6, generator=generator, dtype=torch.float64)
    full, half = decode(prior, z) - 0.5, decode(prior, z, temperature=0.5) - 0.5
    torch.testing.assert_close(half, 0.5 * full, rtol=1e-3, atol=1e-3)
    with pytest.raises(UsageError, match="temperature"):
        decode(prior, z, temperature=-1.0)


def test_interpolate_command(small_prior: Path, photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo[:24, :24]).save(tmp_path / "a.png")
    Image.fromarray(photo[20:44, 10:34]).save(tmp_path / "b.png")
    Image.fromarray(photo).save(tmp_path / "c.png")
    common = ["--model", str(small_prior), "--device", "cpu", "-n", "3"]
    done = CliRunner().invoke(app, ["interpolate", str(tmp_path / "a.png"), str(tmp_path / "b.png"), *common])
    assert done.exit_code == 0, done.output
    strip = np.asarray(Image.open(tmp_path / "a.interpolate.png"))
    assert strip.shape == (28, 3 * 26 + 2, 3)
    assert np.abs(strip[2:26, 2:26].astype(int) - photo[:24, :24]).max() <= 1
    wrong = ["interpolate", str(tmp_path / "a.png"), str(tmp_path / "c.png"), *common, "-f"]
    assert isinstance(CliRunner().invoke(app, wrong).exception, InputError)


def test_interpolate_command_defaults_to_a_prior_of_whole_objects(photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(photo[::-1]).save(tmp_path / "b.png")
    pictures = [str(tmp_path / name) for name in ("a.png", "b.png")]
    done = CliRunner().invoke(
        app, ["interpolate", *pictures, "--fit", "-n", "2", "--tolerance", "1e-2", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    strip = Image.open(tmp_path / "a.interpolate.png")
    assert strip.size == (2 * 34 + 2, 36)
    assert json.loads(strip.text["invsolve"])["model"] == "cifar10"  # type: ignore[attr-defined]
