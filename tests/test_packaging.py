"""The package list, the shipped priors, the documents."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from invsolve.cli.main import app
from invsolve.cli.models import described
from invsolve.colours import luma_first, rgb
from invsolve.options import (
    COLORIZATION,
    DEBLURRING,
    DEJPEG,
    DENOISING,
    INPAINTING,
    MRI,
    RECONSTRUCTION,
    SUPERRESOLUTION,
    WIDE_SUPERRESOLUTION,
)
from invsolve.pretrained import Card, find_prior, load_classifier, load_prior, shipped_classifiers, shipped_priors
from invsolve.pretrained.calibrations import SHIPPED_CALIBRATION, find_scaling
from invsolve.pretrained.card import file_sha256
from invsolve.pretrained.loading import CARD, SHIPPED, WEIGHTS
from invsolve.uncertainty.conformal import Calibration

ROOT = Path(__file__).resolve().parents[1]


def test_every_package_is_listed() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set()
    for package, folder in setup["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join((package, *init.parent.relative_to(ROOT / folder).parts)))
    assert found == set(setup["packages"])


def test_photos_prior_is_shipped() -> None:
    assert "photos" in shipped_priors()


@pytest.mark.parametrize("name", shipped_priors())
def test_shipped_priors_are_complete(name: str) -> None:
    folder = find_prior(name)
    card = Card.read(folder / CARD)
    assert card.sha256 == file_sha256(folder / WEIGHTS)
    assert (folder / WEIGHTS).stat().st_size <= (12_000_000 if name == "photos" else 8_000_000)
    assert card.data
    assert card.licence
    assert card.knows
    assert card.does_not_know
    assert len(card.validation_mse) >= 8
    prior = load_prior(name, "cpu")
    errors = [prior.mse(sigma) for sigma in (0.005, 0.02, 0.1, 0.5, 2.0)]
    assert errors == sorted(errors)
    assert all(e < s**2 for e, s in zip(errors, (0.005, 0.02, 0.1, 0.5, 2.0), strict=True))


TASKS = {
    "inpaint": INPAINTING, "superres": WIDE_SUPERRESOLUTION, "deblur": DEBLURRING, "denoise": DENOISING, "dejpeg": DEJPEG,
    "ct": RECONSTRUCTION, "mri": MRI, "colorize": COLORIZATION,
}  # fmt: skip


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*/calibrations/*.json")), ids=lambda file: file.stem)
def test_shipped_calibrations_fit_what_the_commands_do(file: Path) -> None:
    """One for the weights beside it, for the command's own settings with 19 samples, no larger than a card, and documented."""
    found = Calibration.load(file)
    assert found.prior_sha256 == Card.read(file.parents[1] / CARD).sha256
    usual = replace(SUPERRESOLUTION if found.problem.get("factor") == 2 else TASKS[found.task], samples=19).settled
    assert (found.samples, found.steps) == (19, usual.steps)
    assert (found.rule, found.sampler) == (usual.rule, usual.sampler) or file.stem.endswith("-samples")
    assert (found.level, found.after) == (0.9, pytest.approx(0.9, abs=0.01))
    assert file.stat().st_size < 8_000
    assert f"{found.factor:.3f}" in (ROOT / "docs" / "uncertainty.md").read_text()
    run = replace(usual, rule=found.rule, sampler=found.sampler)
    chosen = find_scaling(Path(SHIPPED_CALIBRATION), found.task, found.problem, found.prior_sha256, run)
    assert (chosen.applied, chosen.warning) == (found, None)


def test_every_command_that_says_how_sure_it_is_has_a_shipped_calibration() -> None:
    assert {Calibration.load(file).task for file in SHIPPED.glob("*/calibrations/*.json")} == set(TASKS)


@pytest.mark.parametrize("name", ["cifar10-classifier", "cifar10-judge"])
def test_shipped_classifiers_are_complete(name: str) -> None:
    folder = SHIPPED / name
    card = Card.read(folder / CARD)
    assert (card.kind, card.size) == ("classifier", 32)
    assert card.sha256 == file_sha256(folder / WEIGHTS)
    assert card.data
    assert card.licence
    sigma, share, _ = min(card.validation_accuracy)
    assert sigma < 0.01
    assert share > 5 / len(card.classes)  # five times as often right as by chance
    assert load_classifier(name, "cpu").forward_model.label("bird") == card.classes.index("bird")


@pytest.mark.parametrize(("name", "size"), [("cifar10", 32), ("flowers64", 64)])
def test_priors_of_one_size_are_shipped(name: str, size: int) -> None:
    card = Card.read(find_prior(name) / CARD)
    assert card.size == size
    assert card.orientations == "mirror"  # objects have an up and a down


def test_the_prior_of_colours_knows_whole_pictures_luma_first() -> None:
    card = Card.read(find_prior("thumbnails") / CARD)
    assert (card.frame, card.size, card.colours, card.orientations) == (32, None, "luma first", "mirror")
    assert described(card).startswith("whole pictures, shorter side 32; (256 Y, Cb, Cr)")
    prior = load_prior("thumbnails", "cpu")
    # Of a grey ramp under noise that drowns any colour the luma comes back, and colours as tame as an average's.
    ramp = torch.linspace(0.2, 0.8, 32).reshape(1, 1, 32, 1).expand(1, 3, 32, 40)
    x = luma_first(ramp) + 10 * torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    denoised = prior.denoise(x, 10.0)
    assert float((rgb(denoised).mean(dim=1) - ramp[:, 0]).abs().mean()) < 0.05
    assert float(denoised[:, 1:].abs().max()) < 0.2


def test_weights_stay_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob(f"*/{WEIGHTS}")) < 50_000_000


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_models_lists_everything_that_is_shipped() -> None:
    shown = CliRunner().invoke(app, ["models"])
    names = [line.split()[0] for line in shown.output.splitlines()]
    assert names == [*shipped_priors(), *shipped_classifiers()]
    assert "any size; RGB in [0, 1]" in shown.output


def test_a_classifier_is_described_by_its_accuracy() -> None:
    card = Card(
        name="guide", network={}, units="", sigma_min=0.01, sigma_max=50.0, validation_mse=[], sha256="", size=32,
        kind="classifier", classes=["cat", "dog"], validation_accuracy=[(5.0, 0.5, 0.7), (0.01, 0.81, 0.4)],
    )  # fmt: skip
    assert described(card) == (
        "32 x 32; classifier of cat, dog; right answers 81% at noise 0.01, trained up to noise 50"
    )
