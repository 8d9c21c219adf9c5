"""Noise-conditional classifiers: training, cards, the gradient rule against Bayes' rule, torchvision's."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from invsolve import condition, solve
from invsolve.cli.main import app
from invsolve.errors import InputError, ModelError, UsageError
from invsolve.forward_models import CleanClassifier, NoiseConditionalClassifier, torchvision_classifier
from invsolve.models.gaussian import GaussianMixturePrior, GaussianPrior
from invsolve.models.noisy_classifier import NoisyClassifier
from invsolve.pretrained import Card, load_classifier, load_prior
from invsolve.rules import ClassifierGradient
from invsolve.samplers.sigmas import karras
from invsolve.training.classifier import CLASSIFYING, PRESETS, validate_classifier
from invsolve.training.loop import fit
from invsolve.training.sources import load_labelled

CPU = torch.device("cpu")


def stripes(count: int = 40) -> tuple[list[np.ndarray], list[int]]:
    """Horizontal (0) and vertical (1) stripes, 32 x 32."""
    rng, pictures, labels = np.random.default_rng(0), [], []
    for i in range(count):
        wave = 127 + 120 * np.sin(np.arange(32)[:, None] * rng.uniform(0.8, 1.2) + rng.uniform(0, 6))
        picture = np.broadcast_to(wave if i % 2 == 0 else wave.T, (32, 32))
        pictures.append(np.repeat(picture[..., None], 3, axis=2).astype(np.uint8))
        labels.append(i % 2)
    return pictures, labels


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stripes") / "stripes.npz"
    pictures, labels = stripes()
    np.savez(path, images=np.stack(pictures), labels=np.array(labels, np.uint8), classes=np.array(["flat", "up"]))
    return path


def test_training_learns_the_classes_and_resumes(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    pictures, labels = stripes()
    config = replace(PRESETS["tiny"], steps=60, classes=("flat", "up"))
    whole = fit(CLASSIFYING, pictures, config, tmp_path / "whole", labels=labels, device=CPU)
    x0 = torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2)).float() / 255
    scores = validate_classifier(whole.ema, x0, labels, [0.05, 0.3, 50.0])
    assert scores[0.05][0] > 0.95
    assert scores[0.3][0] > 0.9
    assert scores[50.0][1] < 1.0  # where nothing can be known, about log 2 and not sure of itself

    class Stop(Exception):
        pass

    def stop(info: object) -> None:
        if info.step == 20:  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        fit(CLASSIFYING, pictures, config, tmp_path / "broken", labels=labels, device=CPU, on_step=stop)
    resumed = fit(CLASSIFYING, pictures, config, tmp_path / "broken", labels=labels, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(whole.ema.parameters(), resumed.ema.parameters(), strict=True))
    with pytest.raises(InputError, match="another run.*classes"):
        other = replace(config, classes=("flat", "up", "none"))
        fit(CLASSIFYING, pictures, other, tmp_path / "whole", labels=labels, device=CPU)


def test_train_command_writes_a_classifier(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    arguments = ["train", str(archive), "--classifier", "--preset", "tiny", "--steps", "3", "-o", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    card = Card.read(out / "card.json")
    assert (card.kind, card.classes) == ("classifier", ["flat", "up"])
    assert len(card.validation_accuracy) == 13
    assert all(0 <= accuracy <= 1 for _, accuracy, _ in card.validation_accuracy)
    trained = load_classifier(out, "cpu")
    x = torch.rand(2, 3, 32, 32)
    assert trained.logits(x, 0.1).shape == (2, 2)
    assert trained.forward_model.label("up") == 1
    with pytest.raises(ModelError, match="not a prior"):
        load_prior(out, "cpu")


def test_labels_are_read_from_archives_and_folders(archive: Path, tmp_path: Path) -> None:
    from PIL import Image

    pictures, labels = stripes(6)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        folder = tmp_path / "data" / ("flat", "up")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")
    found = load_labelled(tmp_path / "data")
    assert found.classes == ("flat", "up")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(found.pictures[3], pictures[1])
    assert load_labelled(archive).labels.tolist() == stripes()[1]
    np.savez(tmp_path / "bare.npz", images=np.stack(pictures))
    with pytest.raises(InputError, match="labels"):
        load_labelled(tmp_path / "bare.npz")
    np.savez(tmp_path / "off.npz", images=np.stack(pictures), labels=np.full(6, 2), classes=np.array(["a", "b"]))
    with pytest.raises(InputError, match="2 classes"):
        load_labelled(tmp_path / "off.npz")


def mixture() -> GaussianMixturePrior:
    """Two classes in two dimensions, (2, 1, 1), of unequal weight and shape."""
    eye = torch.eye(2, dtype=torch.float64)
    tilted = torch.tensor([[0.2, 0.1], [0.1, 0.3]], dtype=torch.float64)
    means = torch.tensor([[-0.7, 0.2], [0.8, -0.1]], dtype=torch.float64).reshape(2, 2, 1, 1)
    components = [GaussianPrior(means[0], 0.15 * eye), GaussianPrior(means[1], tilted)]
    return GaussianMixturePrior(torch.tensor([0.7, 0.3], dtype=torch.float64), components)


def exact_classifier(prior: GaussianMixturePrior) -> NoiseConditionalClassifier:
    def logits(x: Tensor, sigma: Tensor) -> Tensor:
        return prior._joint(x, float(sigma.flatten()[0])).T

    return NoiseConditionalClassifier(
        lambda x: logits(x, torch.zeros(1)), classes=("left", "right"), noisy_logits=logits
    )


@pytest.mark.parametrize("label", [0, 1])
def test_the_exact_classifier_at_scale_one_is_bayes_rule(label: int) -> None:
    prior = mixture()
    model = condition(prior, exact_classifier(prior), torch.tensor([label]), "classifier_gradient")
    x = torch.randn(50, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sigma in (0.05, 0.4, 3.0):
        torch.testing.assert_close(model.denoise(x, sigma), prior.components[label].denoise(x, sigma))
    double = condition(prior, exact_classifier(prior), torch.tensor([label]), partial(ClassifierGradient, scale=2.0))
    expected = 2 * prior.components[label].denoise(x, 0.4) - prior.denoise(x, 0.4)
    torch.testing.assert_close(double.denoise(x, 0.4), expected)


def test_the_denoised_estimate_serves_clean_classifiers() -> None:
    """Against numerical differences of log p(y | D(x)), with one call of the prior per step."""
    prior, calls = mixture(), 0
    clean = CleanClassifier(lambda x: prior._joint(x, 0.0).T, classes=("left", "right"))
    y, sigma = torch.tensor([1]), 0.5
    model = condition(prior, clean, y, "classifier_gradient")
    original = prior.denoise

    def counted(x: Tensor, s: object) -> Tensor:
        nonlocal calls
        calls += 1
        return original(x, s)  # type: ignore[arg-type]

    prior.denoise = counted  # type: ignore[method-assign]
    x = torch.tensor([[0.1, -0.3]], dtype=torch.float64).reshape(1, 2, 1, 1)
    found = model.denoise(x, sigma)
    assert calls == 1
    step = 1e-5
    slopes = []
    for k in range(2):
        shift = torch.zeros_like(x)
        shift[0, k] = step
        up, down = (float(clean.log_likelihood(original(x + s * shift, sigma), y)) for s in (1, -1))
        slopes.append((up - down) / (2 * step))
    expected = original(x, sigma) + sigma**2 * torch.tensor(slopes, dtype=torch.float64).reshape(1, 2, 1, 1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_samples_land_in_the_class() -> None:
    prior = mixture()
    start = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    result = solve(
        prior, exact_classifier(prior), torch.tensor([1]), rule="classifier_gradient", sampler="ancestral",
        sigmas=karras(100, 0.005, 20.0), samples=1500, batch=1500, start=start,
    )  # fmt: skip
    truth = prior.components[1]
    torch.testing.assert_close(result.mean[0], truth.mean, atol=0.06, rtol=0)
    covariance = torch.cov(result.samples.reshape(-1, 2).T)
    torch.testing.assert_close(covariance, truth.covariance, atol=0.04, rtol=0)


def test_simulated_labels_follow_the_probabilities(generator: torch.Generator) -> None:
    prior = mixture()
    clean = CleanClassifier(lambda x: prior._joint(x, 0.0).T, classes=("left", "right"))
    x = torch.zeros(4000, 2, 1, 1, dtype=torch.float64)
    share = float(clean.simulate(x, generator).double().mean())
    assert share == pytest.approx(float(clean.log_likelihood(x[:1], torch.tensor([1])).exp()), abs=0.03)


def test_torchvision_modules_take_pictures_in_0_1() -> None:
    seen = []

    class Probe(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.mean(dim=(2, 3))

    model = torchvision_classifier(Probe(), ["r", "g", "b"], size=16)
    x = torch.full((2, 3, 8, 8), 0.485)
    assert model.log_likelihood(x, torch.tensor([0, 2])).shape == (2,)
    assert seen[0].shape == (2, 3, 16, 16)
    assert float(seen[0][:, 0].abs().max()) < 1e-6
    assert model.log_likelihood_gradient(x, torch.tensor([0])).shape == x.shape


def test_wrong_use_is_named() -> None:
    prior = mixture()
    classifier = exact_classifier(prior)
    with pytest.raises(InputError, match="unknown class 'cat'"):
        classifier.label("cat")
    with pytest.raises(InputError, match="classifier_gradient"):
        classifier.misfit_gradient(torch.zeros(1, 2, 1, 1), torch.tensor([0]))
    with pytest.raises(UsageError, match="guidance"):
        ClassifierGradient(prior, classifier, torch.tensor([0]), scale=-1.0)


def test_classifiers_are_small() -> None:
    for name, config in PRESETS.items():
        assert 2 * NoisyClassifier(config.network, 10).parameters_count < 2.2e6, name
