"""A prior of one size on pictures of another: the squares around the holes, at that size or brought to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from invsolve import inpaint, load_prior
from invsolve.cli.main import app
from invsolve.errors import InputError, InvsolveError, UsageError
from invsolve.models.score_model import ScoreModel, Sigma
from invsolve.tasks.squares import squares


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    planes = [0.5 + 0.3 * np.sin(x / (17 + c)) * np.cos(y / 23 - c) for c in range(3)]
    return np.stack(planes, axis=2).astype(np.float32)


def scratched(height: int, width: int, count: int = 12) -> np.ndarray:
    """Short strokes of one to three pixels' width."""
    rng, missing = np.random.default_rng(0), np.zeros((height, width), bool)
    for _ in range(count):
        top, left, wide = rng.integers(height - 12), rng.integers(width - 12), rng.integers(1, 4)
        for k in range(12):
            missing[top + k, left + k : left + k + wide] = True
    return missing


class OneSize(ScoreModel):
    """Says half of what it sees, and remembers the sizes."""

    def __init__(self, size: int) -> None:
        super().__init__(channels=3, size=size, sigma_max=50.0)
        self.seen: set[tuple[int, ...]] = set()

    def denoise(self, x: torch.Tensor, sigma: Sigma) -> torch.Tensor:
        self.check_size(x)
        self.seen.add(tuple(x.shape[-2:]))
        return 0.25 + x / 2


@pytest.mark.parametrize(("shape", "side"), [((96, 130), 32), ((40, 40), 40), ((33, 200), 33)])
def test_squares_hold_every_missing_pixel_once(shape: tuple[int, int], side: int) -> None:
    for missing in (scratched(*shape), np.random.default_rng(1).random(shape) < 0.3):
        if missing.mean() > 0.2:  # single pixels, none touching another
            missing[1::2] = missing[:, 1::2] = False
        times = np.zeros(shape, int)
        for region, own in squares(missing, side):
            assert (region.bottom - region.top, region.right - region.left) == own.shape == (side, side)
            assert min(region) >= 0 and region.bottom <= shape[0] and region.right <= shape[1]
            times[region.slices] += own
        assert np.array_equal(times, missing.astype(int))


def test_a_hole_is_in_the_middle_of_its_square_unless_the_picture_ends() -> None:
    missing = np.zeros((100, 140), bool)
    missing[40:50, 60:80] = True
    (square,) = squares(missing, 32)
    assert square.region == (29, 54, 61, 86)
    missing[:] = False
    missing[0:4, 136:140] = True
    assert squares(missing, 32)[0].region == (0, 108, 32, 140)


@pytest.mark.parametrize(("rows", "columns"), [(slice(10, 60), slice(10, 14)), (slice(10, 42), slice(10, 42))])
def test_what_does_not_fit_a_square_is_refused(rows: slice, columns: slice) -> None:
    missing = np.zeros((100, 140), bool)
    missing[rows, columns] = True
    with pytest.raises(InputError, match="does not fit a square of 32 x 32"):
        squares(missing, 32)
    with pytest.raises(InputError, match="smaller than squares of 128 x 128"):
        squares(missing, 128)


@pytest.mark.parametrize("fit", ["crop", "resize"])
@pytest.mark.parametrize("shape", [(96, 130), (24, 40)])
def test_a_prior_of_one_size_sees_nothing_else(shape: tuple[int, int], fit: str) -> None:
    picture, missing = smooth(*shape), scratched(*shape, count=4)
    prior = OneSize(32)
    if fit == "crop" and min(shape) < 32:
        with pytest.raises(InputError, match="fit it by resize"):
            inpaint(picture, missing, prior, fit="crop", steps=2)
        return
    posterior = inpaint(picture, missing, prior, fit=fit, steps=3, samples=2)
    assert prior.seen == {(32, 32)}
    found = posterior.samples[:, 0].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found[:, ~missing], np.stack([picture[~missing]] * 2))
    assert np.isfinite(found).all() and (found[:, missing] != 0).all()  # nothing is left out


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_smooth_pictures_are_filled_smoothly(fit: str) -> None:
    picture, missing = smooth(100, 150), scratched(100, 150)
    posterior = inpaint(picture, missing, load_prior("cifar10", "cpu"), fit=fit, steps=8)
    found = posterior.mean[0].permute(1, 2, 0).numpy()
    assert np.abs(found - picture)[missing].mean() < (0.01 if fit == "crop" else 0.03)


def test_wide_holes_are_seen_from_far() -> None:
    """Shrunk squares see all of a hole too wide for the prior's own size, and the known pixels stay."""
    picture, missing = smooth(96, 120), np.zeros((96, 120), bool)
    missing[20:70, 40:90] = True
    prior = load_prior("cifar10", "cpu")
    with pytest.raises(InputError, match="50 x 50 pixels does not fit"):
        inpaint(picture, missing, prior, fit="crop", steps=2)
    posterior = inpaint(picture, missing, prior, fit="resize", steps=12)
    found = posterior.mean[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found[~missing], picture[~missing])
    assert np.abs(found - picture)[missing].mean() < 0.25


def test_noise_and_other_fits_are_refused() -> None:
    picture, missing = smooth(40, 40), scratched(40, 40, 1)
    with pytest.raises(UsageError, match="with noise"):
        inpaint(picture, missing, OneSize(32), fit="crop", noise=0.1)
    with pytest.raises(UsageError, match="fit 'stretch'"):
        inpaint(picture, missing, OneSize(32), fit="stretch")  # type: ignore[arg-type]


def test_from_the_command_line(tmp_path: Path) -> None:
    picture, missing = smooth(48, 60), scratched(48, 60, 2)
    Image.fromarray((picture * 255).astype(np.uint8)).save(tmp_path / "photo.png")
    Image.fromarray((missing * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    photo, mask, model = str(tmp_path / "photo.png"), str(tmp_path / "mask.png"), ["--model", "cifar10", "-q"]
    given = [photo, "--mask", mask, "--steps", "2", *model]
    written = {}
    for fit in ("tile", "crop", "resize"):
        done = CliRunner().invoke(app, ["inpaint", *given, "--fit", fit, "-o", str(tmp_path / f"{fit}.png")])
        assert done.exit_code == 0, (fit, done.exception)
        written[fit] = np.asarray(Image.open(tmp_path / f"{fit}.png"))
        known = np.asarray(Image.open(photo))
        assert np.array_equal(written[fit][~missing], known[~missing])
    patched = CliRunner().invoke(app, ["inpaint", *given, "--patches", "-o", str(tmp_path / "patches.png")])
    assert patched.exit_code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "patches.png")), written["tile"])
    assert not np.array_equal(written["tile"], written["crop"])
    for arguments, message in (
        (["inpaint", *given], "the prior knows 32 x 32 only"),
        (["inpaint", *given, "--patches", "--fit", "crop"], "--patches with --fit crop"),
        (["colorize", photo, *model, "--fit", "resize"], "--fit resize with colorize"),
        (["denoise", photo, *model, "--fit", "crop"], "--fit crop with denoise"),
    ):
        failed = CliRunner().invoke(app, arguments).exception
        assert isinstance(failed, InvsolveError) and message in failed.message
