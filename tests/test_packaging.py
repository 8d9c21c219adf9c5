"""The package list, the shipped priors, the documents."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from invsolve.pretrained import Card, find_prior, load_prior, shipped_priors
from invsolve.pretrained.card import file_sha256
from invsolve.pretrained.loading import CARD, WEIGHTS

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
    assert (folder / WEIGHTS).stat().st_size <= 8_000_000
    assert card.data
    assert card.licence
    assert card.knows
    assert card.does_not_know
    assert len(card.validation_mse) >= 8
    prior = load_prior(name, "cpu")
    errors = [prior.mse(sigma) for sigma in (0.005, 0.02, 0.1, 0.5, 2.0)]
    assert errors == sorted(errors)
    assert all(e < s**2 for e, s in zip(errors, (0.005, 0.02, 0.1, 0.5, 2.0), strict=True))


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
