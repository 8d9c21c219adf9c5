"""Likelihoods against known densities: a Gaussian and a mixture, exact trace and estimated, bits per dimension."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from invsolve.cli.main import app
from invsolve.errors import InputError
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior, smooth_gaussian_prior
from invsolve.models.network import EDMDenoiser, NetworkConfig
from invsolve.models.score_model import ScoreModel
from invsolve.ode.density import LEVELS, likelihood, log_density, rank, unusual, validated_bits
from invsolve.pretrained import Card, save_prior

BIT = math.log(2)


def ranged(prior: GaussianPrior | GaussianMixturePrior, low: float = 0.005, high: float = 50.0) -> ScoreModel:
    """``prior`` with the noise range of a trained one."""
    prior.facts = replace(prior.facts, sigma_min=low, sigma_max=high)
    return prior


def smooth() -> GaussianPrior:
    return smooth_gaussian_prior((3, 6, 6), std=0.25, length=1.0)


def two_kinds() -> GaussianMixturePrior:
    """Smooth pictures around a dark and a bright mean, of unequal weight."""
    covariance = smooth_gaussian_prior((1, 5, 5), std=0.15, length=0.8).covariance
    components = [GaussianPrior(torch.full((1, 5, 5), m, dtype=torch.float64), covariance) for m in (0.3, 0.7)]
    return GaussianMixturePrior(torch.tensor([0.8, 0.2], dtype=torch.float64), components)


@pytest.mark.parametrize("make", [smooth, two_kinds], ids=["gaussian", "mixture"])
def test_exact_trace_gives_the_known_density(make, generator: torch.Generator) -> None:  # type: ignore[no-untyped-def]
    prior = make()
    x = prior.sample(3, generator)
    truth = prior.log_density(x, 0.005)
    model, d = ranged(prior), x[0].numel()
    found = likelihood(model, x, exact_trace=True, dequantize=False)
    bits = -truth / (d * BIT)
    assert float((found.bits_per_dimension - bits).abs().max()) < 0.003
    assert float(found.standard_error.max()) == 0


@pytest.mark.parametrize("make", [smooth, two_kinds], ids=["gaussian", "mixture"])
def test_estimated_trace_is_within_a_hundredth_of_a_bit(make, generator: torch.Generator) -> None:  # type: ignore[no-untyped-def]
    prior = make()
    x = prior.sample(2, generator)
    d = x[0].numel()
    truth = -prior.log_density(x, 0.005) / (d * BIT)
    # Small pictures need many probes: the error falls as 1 / sqrt(d * probes).
    found = likelihood(ranged(prior), x, probes=4000, dequantize=False)
    assert float((found.bits_per_dimension - truth).abs().max()) < 0.01
    assert float(found.standard_error.max()) < 0.005


def test_many_probes_are_the_same_as_few(small_prior: Path) -> None:
    from invsolve.ode.density import quadratic_forms
    from invsolve.pretrained import load_prior

    prior = load_prior(small_prior, "cpu")
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    directions = torch.randn(20, 1, 3, 8, 8)
    output = prior.network(x, torch.tensor([0.3]))
    together = quadratic_forms(output, x, directions)
    apart = torch.cat([quadratic_forms(output, x, v[None]) for v in directions])
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-3)


def test_the_standard_error_is_the_spread_of_repeated_estimates(generator: torch.Generator) -> None:
    prior = ranged(smooth())
    x = prior.sample(1, generator)  # type: ignore[attr-defined]
    found = [likelihood(prior, x, probes=16, seed=s, dequantize=False, rtol=1e-3, atol=1e-3) for s in range(16)]
    bits = torch.stack([f.bits_per_dimension[0] for f in found])
    claimed = torch.stack([f.standard_error[0] for f in found]).square().mean().sqrt()
    assert float(claimed / bits.std()) == pytest.approx(1, abs=0.45)


def test_dequantized_bits_are_those_of_the_levels(generator: torch.Generator) -> None:
    """A Gaussian much wider than a level: the probability of a level is density times width."""
    eye = torch.eye(12, dtype=torch.float64)
    prior = GaussianPrior(torch.full((3, 2, 2), 0.5, dtype=torch.float64), 0.2**2 * eye)
    x = (prior.sample(4, generator) * LEVELS).round() / LEVELS
    d, width = 12, 1 / LEVELS
    z = (x - 0.5) / math.sqrt(2 * (0.2**2 + 0.005**2))
    half = 0.5 * width / math.sqrt(2 * (0.2**2 + 0.005**2))
    truth = -(0.5 * (torch.erf(z + half) - torch.erf(z - half))).log2().flatten(1).sum(dim=1) / d
    found = likelihood(ranged(prior), x, draws=3, exact_trace=True)
    torch.testing.assert_close(found.bits_per_dimension, truth, atol=0.01, rtol=0)


def test_several_draws_measure_the_error_of_dequantization(generator: torch.Generator) -> None:
    prior = ranged(smooth())
    x = prior.sample(1, generator)  # type: ignore[attr-defined]
    found = likelihood(prior, x, draws=3, exact_trace=True, rtol=1e-3, atol=1e-3)
    assert float(found.standard_error[0]) > 0
    assert math.isnan(float(likelihood(prior, x, draws=1, probes=1, rtol=1e-2, atol=1e-2).standard_error[0]))


def test_a_wrong_density_would_show(generator: torch.Generator) -> None:
    """The test's own power: a prior 20 % too wide is more than .01 bits off."""
    prior = smooth()
    x = prior.sample(8, generator)
    wide = GaussianPrior(prior.mean, 1.44 * prior.covariance)
    truth = float(-prior.log_density(x, 0.005).mean()) / (108 * BIT)
    found = -float(sum(log_density(ranged(wide), one[None], exact_trace=True).values[0] for one in x)) / 8 / (108 * BIT)
    assert abs(found - truth) > 0.01


def test_flags_and_ranks() -> None:
    validated = {"mean": 4.0, "std": 0.5}
    assert unusual(4.2, validated) is None
    assert "4.0 standard deviations less likely" in str(unusual(6.0, validated))
    assert "more likely" in str(unusual(1.0, validated))
    assert unusual(9.0, {}) is None
    order = rank({"a": 4.0, "b": 3.5, "c": 3.51}, {"a": 0.01, "b": 0.01, "c": 0.01})
    assert [name for name, _, _ in order] == ["b", "c", "a"]
    assert [close for _, _, close in order] == [True, True, False]
    with pytest.raises(InputError, match="no prior"):
        rank({}, {})


@pytest.fixture(scope="module")
def picture_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("priors") / "eight"
    config = NetworkConfig(widths=(8, 32), encoder_blocks=(1, 1), decoder_blocks=(1,), attention_from=1)
    card = Card(
        name="eight", network={}, units="RGB in [0, 1]", sigma_min=0.005, sigma_max=20.0, sha256="", size=8,
        validation_mse=[(0.005, 2e-5), (20.0, 0.07)], bits_per_dimension={"mean": 1.0, "std": 0.01, "pictures": 9},
    )  # fmt: skip
    save_prior(folder, EDMDenoiser(config), card)
    return folder


def test_likelihood_command(picture_prior: Path, small_prior: Path, photo, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = ["likelihood", str(tmp_path / "photo.png"), "--model", str(picture_prior), "--device", "cpu"]
    assert isinstance(CliRunner().invoke(app, arguments).exception, InputError)
    done = CliRunner().invoke(app, [*arguments, "--model", str(small_prior), "--fit", "--probes", "2", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    found = report["priors"][str(picture_prior)]
    # A network whose last layer is zero denoises as if the data were N(.5, .27^2) noise.
    x = torch.tensor(list(Image.open(tmp_path / "photo.png").crop((0, 4, 40, 44)).resize((8, 8), 4).tobytes())) / 255
    variance = 0.27**2 + 0.005**2
    nats = 0.5 * (((x - 0.5) ** 2 + 1 / (12 * 255**2)) / variance + math.log(2 * math.pi * variance)).mean()
    assert found["bits_per_dimension"] == pytest.approx(float(nats) / BIT + math.log2(LEVELS), abs=0.02)
    assert "less likely" in found["out_of_distribution"]
    assert found["bits_per_picture"] == pytest.approx(3 * 8 * 8 * found["bits_per_dimension"])
    file = io.BytesIO()
    Image.open(tmp_path / "photo.png").crop((0, 4, 40, 44)).resize((8, 8), 4).save(file, "PNG", optimize=True)
    assert found["png_bits"] == 8 * file.tell()
    assert 0 < found["webp_bits"] < found["png_bits"]
    assert f"(PNG {found['png_bits']}, WebP {found['webp_bits']})" in done.stderr
    assert set(report["ranking"]) == {str(picture_prior), str(small_prior)}


def test_likelihood_command_defaults_to_a_prior_of_whole_objects(photo, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = ["likelihood", str(tmp_path / "photo.png"), "--fit", "--probes", "1", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["priors"]
    assert list(found) == ["cifar10"]
    assert 0 < found["cifar10"]["bits_per_dimension"] < 8  # 8 bits would store any picture


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_commands_take_pictures_of_any_8_bit_mode(mode: str, picture_prior: Path, photo, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    Image.fromarray(photo).convert(mode).save(file)
    common = ["--fit", "--model", str(picture_prior), "--device", "cpu"]
    done = CliRunner().invoke(app, ["likelihood", str(file), "--probes", "1", *common])
    assert done.exit_code == 0, done.output
    assert "nan" not in done.output
    assert "+-" not in done.output
    done = CliRunner().invoke(app, ["interpolate", str(file), str(file), "-n", "2", "--tolerance", "0.1", *common])
    assert done.exit_code == 0, done.output


def test_a_grey_prior_takes_grey_pictures(ct_prior: Path, photo, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    Image.fromarray(photo[:8, :8]).save(tmp_path / "small.png")
    arguments = [
        "likelihood",
        str(tmp_path / "small.png"),
        "--model",
        str(ct_prior),
        "--probes",
        "2",
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert " +- " in done.output
    assert "bits a picture (PNG " in done.output


def test_validated_bits_summarise(generator: torch.Generator) -> None:
    prior = ranged(smooth())
    found = likelihood(prior, prior.sample(3, generator), probes=1, rtol=1e-2, atol=1e-2)  # type: ignore[attr-defined]
    facts = validated_bits([found])
    assert facts["mean"] == pytest.approx(float(found.bits_per_dimension.mean()))
    assert facts["pictures"] == 3
