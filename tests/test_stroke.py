"""Pictures from paintings: where the diffusion starts, what a mask holds, the command and what simulate paints for it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from calling import call
from PIL import Image
from scipy.ndimage import median_filter

from invsolve.errors import ExitCode, InputError, ModelError, UsageError
from invsolve.models.gaussian import GaussianPrior, smooth_gaussian_prior
from invsolve.tasks.stroke import distances, painted, strength_sigma, stroke

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


def prior(side: int = 6) -> GaussianPrior:
    return smooth_gaussian_prior((3, side, side))


def painting(side: int = 6) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (side, side, 3)).astype(np.float32)


# -- the task -----------------------------------------------------------------------------------------------------------
def test_strength_is_a_share_of_the_geometric_ladder() -> None:
    model = prior()
    assert strength_sigma(model, 1.0) == pytest.approx(model.sigma_max)
    assert strength_sigma(model, 0.5) == pytest.approx(math.sqrt(model.sigma_min * model.sigma_max))
    for wrong in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match="strength"):
            strength_sigma(model, wrong)


def test_samples_have_the_law_of_the_denoised_painting() -> None:
    """SDEdit of a Gaussian in closed form: the painting under noise, then a draw of x0 given that, as the reverse SDE makes one."""
    model, target = prior(), torch.from_numpy(painting()).permute(2, 0, 1)[None].double()
    for strength in (0.4, 0.6):
        sigma = strength_sigma(model, strength)
        gain = model.covariance @ torch.linalg.inv(model.covariance + sigma**2 * torch.eye(108, dtype=torch.float64))
        mean = model.mean.flatten() + gain @ (target - model.mean).flatten()
        covariance = sigma**2 * gain @ gain.T + model.covariance - gain @ model.covariance
        found = stroke(painting(), model, strength=strength, samples=200, steps=60, sampler="ancestral", batch=200)
        samples = found.samples[:, 0].double().flatten(1)
        std = covariance.diagonal().sqrt()
        assert float(((samples.mean(dim=0) - mean) / std).abs().mean()) < 0.12
        assert float((samples.std(dim=0) / std).mean()) == pytest.approx(1, abs=0.08)
        assert found.settings["strength"] == strength and found.settings["sigma_start"] == pytest.approx(sigma)


def test_more_strength_is_farther_from_the_painting() -> None:
    model = prior()
    x = (painting() * 255).astype(np.uint8)
    far = [
        distances(
            x,
            [
                255 * s.permute(1, 2, 0).numpy()
                for s in stroke(painting(), model, strength=s, samples=8, steps=8).samples[:, 0]
            ],
        ).mean()
        for s in (0.1, 0.4, 0.7)
    ]
    assert far[0] < 0.1 < far[1] < far[2]


def test_what_is_not_edited_is_held() -> None:
    model, edited = prior(), np.zeros((6, 6), bool)
    edited[:3] = True
    found = stroke(painting(), model, strength=0.7, edited=edited, samples=3, steps=20)
    samples = found.samples[:, 0].permute(0, 2, 3, 1).numpy()
    assert found.settings["rule"] == "replacement"
    assert np.abs(samples[:, 3:] - painting()[3:]).max() < 0.1
    assert np.abs(samples[:, :3] - painting()[:3]).max() > 0.3
    with pytest.raises(InputError, match="mask"):
        stroke(painting(), model, edited=np.zeros((5, 6), bool))


def test_grey_paintings_get_colours_and_other_priors_are_refused() -> None:
    assert stroke(painting()[..., 0], prior(), samples=1, steps=2).samples.shape == (1, 1, 3, 6, 6)
    with pytest.raises(ModelError, match="1 channel"):
        stroke(painting(), smooth_gaussian_prior((1, 6, 6)))
    with pytest.raises(InputError):
        stroke(painting() * 255, prior())


def test_paintings_are_flat_and_of_few_colours(photo: np.ndarray) -> None:
    found = painted(photo)
    assert found.shape == photo.shape and len(np.unique(found.reshape(-1, 3), axis=0)) == 6
    side = round(23 / 256 * 40) | 1
    smooth = np.stack([median_filter(photo[..., c], side) for c in range(3)], axis=2)
    assert np.abs(found.astype(int) - smooth).mean() < np.abs(photo[::-1].astype(int) - smooth).mean() / 2
    assert painted(photo[..., 0]).shape == photo.shape[:2]
    edges = [np.abs(np.diff(painted(photo, brush=share).astype(int), axis=0)).mean() for share in (0.05, 0.5)]
    assert edges[1] < edges[0]
    with pytest.raises(UsageError, match="colours"):
        painted(photo, 1)
    with pytest.raises(UsageError, match="brush"):
        painted(photo, brush=0.0)


# -- the command --------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray, monkeypatch: Patch) -> Path:
    Image.fromarray(photo).save(tmp_path / "painting.png")
    Image.fromarray(photo).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(photo).save(tmp_path / "kept.png")
    mask = np.zeros((48, 40), np.uint8)
    mask[10:20, 10:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask[:20]).save(tmp_path / "small-mask.png")
    Image.fromarray(mask * 0).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "kept.stroke.png").write_bytes(b"precious")
    (tmp_path / "kept.painting.png").write_bytes(b"precious")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_grid_and_its_pictures_are_written(
    folder: Path, photo: np.ndarray, small_prior: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    options = ["--model", small_prior, "--steps", 2, "-n", 2, "--strength", 0.3, "--json"]
    assert call(monkeypatch, "stroke", "painting.png", *options, "--mask", "mask.png") == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert report["task"] == "stroke" and report["strength"] == 0.3 and 0 < report["distance"] < 1
    assert report["sigma_start"] == pytest.approx(0.005 * (20 / 0.005) ** 0.3)
    assert "strength 0.3 is noise of 0.06" in err
    names = ["painting.stroke.png", "painting.stroke.sample-0.png", "painting.stroke.sample-1.png"]
    assert report["outputs"] == names
    samples = [np.asarray(Image.open(name)) for name in names[1:]]
    inside = np.asarray(Image.open("mask.png")) > 0
    for sample in samples:  # what is not edited comes back bit for bit
        assert np.array_equal(sample[~inside], photo[~inside])
    assert not np.array_equal(samples[0][inside], samples[1][inside])
    assert np.array_equal(np.asarray(Image.open(names[0]))[2:50, 2:42], samples[0])


def test_grey_paintings_and_inverted_masks(folder: Path, small_prior: Path, monkeypatch: Patch) -> None:
    options = ["--model", small_prior, "--steps", 1, "-n", 1, "--mask", "mask.png", "--invert-mask", "-q", "-o", "out/"]
    (folder / "out").mkdir()
    assert call(monkeypatch, "stroke", "grey.png", *options) == 0
    result = np.asarray(Image.open("out/grey.stroke.sample-0.png"))
    inside = np.asarray(Image.open("mask.png")) > 0
    grey = np.asarray(Image.open("grey.png"))
    assert result.shape == (48, 40, 3)
    assert np.array_equal(result[inside], grey[inside][:, None].repeat(3, axis=1))


def test_simulate_paints(folder: Path, photo: np.ndarray, monkeypatch: Patch, capfd: Capture) -> None:
    assert call(monkeypatch, "simulate", "stroke", "painting.png", "-o", "p.png", "--colours", 4) == 0
    assert np.array_equal(np.asarray(Image.open("p.png")), painted(photo, 4))
    assert "invsolve stroke p.png" in capfd.readouterr().err


BAD = {
    "stroke absent.png": (ExitCode.BAD_INPUT, "no such file"),
    "stroke text.png": (ExitCode.BAD_INPUT, "not a picture"),
    "stroke empty.png": (ExitCode.BAD_INPUT, "0 bytes"),
    "stroke .": (ExitCode.BAD_INPUT, "is a folder"),
    "stroke painting.png --strength 0": (ExitCode.USAGE, "strength 0"),
    "stroke painting.png --strength 1.5": (ExitCode.USAGE, "strength 1.5"),
    "stroke painting.png --strength nan": (ExitCode.USAGE, "finite"),
    "stroke painting.png --mask absent.png": (ExitCode.BAD_INPUT, "no such file"),
    "stroke painting.png --mask small-mask.png": (ExitCode.BAD_INPUT, "40 x 20 pixels, the picture 40 x 48"),
    "stroke painting.png --mask black.png": (ExitCode.BAD_INPUT, "--invert-mask"),
    "stroke painting.png --model cats": (ExitCode.MODEL, "unknown model"),
    "stroke painting.png --model ct": (ExitCode.MODEL, "1 channel"),
    "stroke painting.png --model thumbnails": (ExitCode.MODEL, "colorize"),
    "stroke painting.png --model cifar10": (ExitCode.BAD_INPUT, "32 x 32 only"),
    "stroke painting.png --sampler magic": (ExitCode.USAGE, "known samplers"),
    "stroke painting.png --sampler ode_adaptive --mask mask.png": (ExitCode.USAGE, "ode_adaptive"),
    "stroke painting.png -o x.txt": (ExitCode.OUTPUT, ".png"),
    "stroke painting.png --samples 0": (ExitCode.USAGE, "samples"),
    "stroke kept.png": (ExitCode.OUTPUT, "--force"),
    "simulate stroke absent.png": (ExitCode.BAD_INPUT, "no such file"),
    "simulate stroke painting.png --colours 1": (ExitCode.USAGE, "colours"),
    "simulate stroke painting.png --brush 0": (ExitCode.USAGE, "brush 0"),
    "simulate stroke painting.png --brush nan": (ExitCode.USAGE, "brush"),
    "simulate stroke painting.png -o x.jpg": (ExitCode.OUTPUT, ".png"),
    "simulate stroke kept.png": (ExitCode.OUTPUT, "--force"),
}


@pytest.mark.parametrize("line", list(BAD))
def test_bad_input(line: str, folder: Path, small_prior: Path, monkeypatch: Patch, capfd: Capture) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, message = BAD[line]
    arguments = line.split()
    if "--model" not in arguments and arguments[0] == "stroke":
        arguments += ["--model", str(small_prior)]
    assert call(monkeypatch, *arguments) == code
    out, err = capfd.readouterr()
    assert out == "" and message in err and "Traceback" not in err
    assert sum(text.startswith("error: ") for text in err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_help_needs_no_torch() -> None:
    code = "import sys\nfrom invsolve.cli.main import main\nfor command in ('stroke', 'describe'):\n"
    code += "    sys.argv = ['invsolve', command, '--help']\n    try:\n        main()\n    except SystemExit:\n        pass\n"
    code += "assert not {'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
