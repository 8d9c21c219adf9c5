"""Networks that always were told a class are validated on pictures whose classes are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from calling import call
from PIL import Image
from safetensors.torch import save_file
from test_guided_diffusion import FLAGS, SIDE, network

from invsolve.cli.examples import class_numbers
from invsolve.errors import InputError, UsageError
from invsolve.models.precision import full_precision
from invsolve.pretrained import load_prior
from invsolve.pretrained.imported import About
from invsolve.pretrained.importing import read_model, validated

CLASSES, CPU = 4, torch.device("cpu")


@pytest.fixture
def always_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a network with four classes and none that stands for no class; its configuration is beside it."""
    monkeypatch.setenv("INVSOLVE_MODELS", str(tmp_path / "models"))
    save_file(network(FLAGS, classes=CLASSES).state_dict(), tmp_path / "adm.safetensors")
    (tmp_path / "adm.json").write_text(json.dumps(FLAGS))
    return tmp_path / "adm.safetensors"


def sorted_pictures(folder: Path, names: tuple[str, ...], each: int = 2) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for k in range(each):
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / name / f"{k}.png")
    return folder


def import_it(file: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    config = file.with_suffix(".json")
    return call(monkeypatch, "models", "import", file, "--config", config, "--validate", pictures, "--as", "adm", "-f")


def known_error(file: Path, folder: Path, rows: dict[str, int], level: int) -> tuple[float, float]:
    """Noise and error at one of the card's levels, worked out picture by picture, each told the row of its folder."""
    denoiser = read_model(file, About("adm", stated=FLAGS)).denoiser
    clean, labels = [], []
    for name in sorted(rows):
        for path in sorted((folder / name).glob("*.png")):
            clean.append(torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255)
            labels.append(rows[name])
    sigma = load_prior("adm", "cpu").card.validation_mse[level][0]
    generator, squared = torch.Generator().manual_seed(1000 * level), []
    for pair in range(0, len(clean), 4):  # the noise of four pictures is drawn at once
        some = torch.stack(clean[pair : pair + 4])
        noisy = some + sigma * torch.randn(some.shape, generator=generator)
        for picture, x, label in zip(some, noisy, labels[pair : pair + 4], strict=True):
            with torch.no_grad():
                found = denoiser.of_class(label)(x[None], torch.tensor([sigma]))
            squared.append(float((found[0] - picture).square().mean()))
    return sigma, float(np.mean(squared))


def test_each_picture_is_denoised_as_one_of_its_class(
    always_told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sub-folders are named by the network's numbers; the error is that with the right class told, and no other."""
    folder = sorted_pictures(tmp_path / "val", ("0", "2", "3"))
    with full_precision():
        assert import_it(always_told, folder, monkeypatch) == 0
    prior = load_prior("adm", "cpu")
    assert prior.card.knows == "imported; validated on 6 pictures of 3 classes, told each one's"
    assert len(prior.card.validation_mse) == 13 and prior.card.error_spectrum["sigmas"]
    sigma, right = known_error(always_told, folder, {"0": 0, "2": 2, "3": 3}, level=8)
    assert prior.of_class(1).mse(sigma) == pytest.approx(right, rel=1e-4)
    _, wrong = known_error(always_told, folder, {"0": 2, "2": 3, "3": 0}, level=8)
    assert wrong != pytest.approx(right, rel=1e-3), wrong


def test_archives_say_classes_too(always_told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the network's classes, by names: numbered as they come."""
    images = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    names = np.array(["ant", "bee", "cat", "dog"])
    np.savez(tmp_path / "val.npz", images=images, labels=np.array([3, 1, 1, 0]), classes=names)
    assert import_it(always_told, tmp_path / "val.npz", monkeypatch) == 0
    assert "of 3 classes" in load_prior("adm", "cpu").card.knows


def test_pictures_without_classes_are_refused(
    always_told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sorted_pictures(tmp_path / "plain", (".",))
    assert import_it(always_told, folder, monkeypatch) == 3
    said = capsys.readouterr().err
    assert "has to be told a class" in said and "one sub-folder of pictures per class" in said
    assert not (tmp_path / "models" / "adm").exists()
    with pytest.raises(UsageError, match="has to be told a class"):
        validated(read_model(always_told, About("adm", stated=FLAGS)), torch.rand(2, 3, SIDE, SIDE), "", CPU)


def test_names_of_classes() -> None:
    assert class_numbers(("10", "2"), 11, "val") == [10, 2]
    assert class_numbers(("ant", "bee"), 2, "val") == [0, 1]
    for names in (("0", "4"), ("1", "01"), ("ant", "bee"), ("0", "bee", "cat"), ("9" * 5000, "1")):
        with pytest.raises(InputError, match="classes"):
            class_numbers(names, 4, "val")
