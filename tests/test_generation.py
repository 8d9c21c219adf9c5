"""New pictures: sample, generate, their commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from invsolve import generate, load_classifier, sample
from invsolve.cli.main import app
from invsolve.cli.sample import parse_size
from invsolve.errors import InputError, ModelError, OutputError, UsageError
from invsolve.models.gaussian import GaussianPrior
from invsolve.models.network import NetworkConfig
from invsolve.models.noisy_classifier import NoisyClassifier
from invsolve.pretrained import Card, save_prior
from invsolve.samplers.sigmas import karras
from invsolve.tasks.generation import grid


@pytest.fixture(scope="module")
def small_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("classifiers") / "small-classifier"
    network = NoisyClassifier(NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(0,)), 3)
    card = Card(
        name="guide", network={}, units="RGB in [0, 1]", sigma_min=0.005, sigma_max=20.0, validation_mse=[],
        sha256="", kind="classifier", classes=["cat", "dog", "sea bird"], validation_accuracy=[(0.1, 0.3, 1.0)],
    )  # fmt: skip
    save_prior(folder, network, card)
    return folder


@pytest.mark.parametrize("sampler", ["heun_sde", "pc", "reverse_sde", "ancestral"])
def test_samples_have_the_priors_law(sampler: str, gaussian: GaussianPrior) -> None:
    prior = GaussianPrior(gaussian.mean.float(), gaussian.covariance.float())
    result = sample(prior, (4, 4), samples=1500, batch=1500, sampler=sampler, seed=3, sigmas=karras(60, 0.005, 20.0))
    assert float((result.mean[0] - prior.mean).abs().max()) < 0.05
    assert float(result.std[0].mean()) == pytest.approx(0.25, rel=0.06)
    assert result.settings["rule"] == "unconditional"
    assert result.chi2.numel() == 0


def test_a_sample_does_not_depend_on_how_many_are_drawn(gaussian: GaussianPrior) -> None:
    prior = GaussianPrior(gaussian.mean.float(), gaussian.covariance.float())
    many = sample(prior, (4, 4), samples=5, batch=3, seed=2, sigmas=karras(8, 0.01, 20.0)).samples
    one = sample(prior, (4, 4), samples=1, seed=4, sigmas=karras(8, 0.01, 20.0)).samples
    torch.testing.assert_close(many[2:3], one, atol=1e-4, rtol=0)


def test_generate_records_its_guidance(small_prior: Path, small_classifier: Path) -> None:
    from invsolve import load_prior

    prior, guide = load_prior(small_prior, "cpu"), load_classifier(small_classifier, "cpu")
    result = generate(prior, guide.forward_model, "dog", (16, 16), guidance=2.0, samples=3, steps=3)
    assert result.samples.shape == (3, 1, 3, 16, 16)
    assert (result.settings["guidance"], result.settings["label"]) == (2.0, "dog")
    plain = generate(prior, guide.forward_model, "dog", (16, 16), guidance=0.0, samples=3, steps=3)
    unled = sample(prior, (16, 16), samples=3, steps=3)
    torch.testing.assert_close(plain.samples, unled.samples, atol=1e-4, rtol=0)
    assert not torch.allclose(result.samples, unled.samples, atol=1e-3)
    with pytest.raises(InputError, match="known classes: cat, dog"):
        generate(prior, guide.forward_model, "mouse", (16, 16))
    with pytest.raises(UsageError, match="any size"):
        sample(prior)


@pytest.mark.parametrize(("asked", "steps"), [([], 100), (["--steps", "3"], 3)])
def test_new_pictures_get_the_levels_that_the_sampler_wants(
    asked: list[str], steps: int, tmp_path: Path, small_prior: Path, small_classifier: Path
) -> None:
    Image.new("RGB", (8, 8), "grey").save(tmp_path / "a.png")
    common = ["--model", str(small_prior), "-n", "1", "--device", "cpu", "--json", "--sampler", "reverse_sde", *asked]
    guided = ["--class", "dog", "--classifier", str(small_classifier), "--size", "8x8"]
    for number, words in enumerate(
        (["sample", "--size", "8x8"], ["generate", *guided], ["stroke", str(tmp_path / "a.png")])
    ):
        done = CliRunner().invoke(app, [*words, *common, "-o", str(tmp_path / f"{number}.png")])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["steps"] == steps


def test_commands_write_grid_and_pictures(small_prior: Path, small_classifier: Path, tmp_path: Path) -> None:
    common = ["--model", str(small_prior), "--size", "20x16", "-n", "3", "--steps", "2", "--device", "cpu"]
    done = CliRunner().invoke(app, ["sample", *common, "-o", str(tmp_path / "new.png"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["network_calls"] == 9
    assert Image.open(tmp_path / "new.png").size == (2 * 22 + 2, 2 * 18 + 2)
    single = Image.open(tmp_path / "new.sample-2.png")
    assert single.size == (20, 16)
    assert json.loads(single.text["invsolve"])["seed"] == 2  # type: ignore[attr-defined]
    assert isinstance(
        CliRunner().invoke(app, ["sample", *common, "-o", str(tmp_path / "new.png")]).exception, OutputError
    )
    arguments = ["generate", "--class", "sea bird", *common, "-o", str(tmp_path)]
    done = CliRunner().invoke(app, [*arguments, "--classifier", str(small_classifier), "--sampler", "pc"])
    assert done.exit_code == 0, done.output
    facts = json.loads(Image.open(tmp_path / "generate.sea-bird.png").text["invsolve"])  # type: ignore[attr-defined]
    assert (facts["label"], facts["guidance"], facts["classifier"]) == ("sea bird", 3.0, "guide")
    missing = CliRunner().invoke(app, [*arguments, "--force"]).exception
    assert isinstance(missing, ModelError)
    assert "small-classifier" in str(missing)


def test_commands_draw_with_their_default_models(tmp_path: Path) -> None:
    common = ["-n", "2", "--steps", "2", "--device", "cpu", "-o", str(tmp_path), "--json"]
    for arguments, models in (
        (["sample"], {"model": "cifar10"}),
        (["generate", "--class", "bird"], {"model": "cifar10", "classifier": "cifar10-classifier"}),
    ):
        done = CliRunner().invoke(app, [*arguments, *common])
        assert done.exit_code == 0, done.output
        facts = json.loads(done.stdout)
        assert {name: facts[name] for name in models} == models
        assert [Image.open(path).size for path in facts["outputs"][1:]] == [(32, 32)] * 2


@pytest.mark.parametrize("command", ["sample", "generate"])
def test_help_says_what_the_seeds_are(command: str) -> None:
    text = CliRunner().invoke(app, [command, "--help"]).output
    assert "picture j uses seed + j" in text
    assert "opposite noise" not in text


def test_grid_is_about_square() -> None:
    sheet = grid(torch.zeros(5, 3, 4, 6), gap=1)
    assert sheet.shape == (3, 2 * 5 + 1, 3 * 7 + 1)
    assert int((sheet[0] == 0).sum()) == 5 * 24
    assert np.isclose(float(sheet[0, 0].min()), 1)


def test_sizes_are_parsed() -> None:
    assert parse_size("96x64") == (64, 96)
    assert parse_size(None) is None
    assert parse_size("0096x064") == (64, 96)
    for wrong in ("96", "x", "0x4", "axb", "²x5", "9" * 5000 + "x4", "-5x5", "1x1\n"):
        with pytest.raises(UsageError, match="size"):
            parse_size(wrong)
