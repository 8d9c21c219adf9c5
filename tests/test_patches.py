"""A prior of one size on larger pictures: overlapping patches, each with its picture's noise level, blended without seams."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from invsolve import inpaint, load_prior
from invsolve.cli.main import app
from invsolve.errors import InputError
from invsolve.models.tiling import blended, patch_starts


@pytest.mark.parametrize(
    ("length", "size", "stride"), [(32, 32, 16), (33, 32, 16), (100, 32, 16), (47, 16, 5), (64, 32, 16)]
)
def test_patches_cover_an_axis(length: int, size: int, stride: int) -> None:
    starts = patch_starts(length, size, stride)
    assert starts[0] == 0 and starts[-1] == length - size
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(starts))


def test_what_agrees_is_kept_and_each_patch_knows_its_picture() -> None:
    x = torch.rand(3, 2, 21, 34, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factor = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def scaled(patches: Tensor, owners: Tensor) -> Tensor:
        assert patches.shape[1:] == (2, 16, 16)
        return factor[owners][:, None, None, None] * patches

    torch.testing.assert_close(blended(scaled, x, size=16, stride=8), factor[:, None, None, None] * x)


def test_where_patches_disagree_nothing_jumps() -> None:
    """Every patch says a number of its own; neighbouring pixels of the blend differ by little of what those differ."""

    def numbered(patches: Tensor, owners: Tensor) -> Tensor:
        return torch.arange(len(patches), dtype=patches.dtype)[:, None, None, None] % 2 * torch.ones_like(patches)

    found = blended(numbered, torch.zeros(1, 1, 16, 64), size=16, stride=8)
    assert found.min() == 0 and found.max() > 0.9
    assert float(found.diff(dim=-1).abs().max()) < 0.2  # a hard cut jumps by 1


def test_a_patched_prior_is_the_prior_at_its_size_and_seamless_beyond() -> None:
    whole, patched = load_prior("cifar10", "cpu"), load_prior("cifar10", "cpu", patches=True)
    assert (patched.size, patched.patch, whole.patch) == (None, 32, None)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(patched.denoise(x, 0.3), whole.denoise(x, 0.3))
    with pytest.raises(InputError, match="patches are 32 x 32"):
        patched.denoise(x[..., :31], 0.3)
    y, columns = np.mgrid[:48, :80]
    clean = torch.from_numpy(0.5 + 0.4 * np.sin(y / 9) * np.cos(columns / 7)).float().expand(4, 3, -1, -1)
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    error = patched.denoise(noisy, 0.3) - clean
    assert float(error.square().mean().sqrt()) < 1.3 * patched.mse(0.3) ** 0.5
    jumps = error.diff(dim=-1).abs().mean(dim=(0, 1, 2))
    borders = [edge - 1 for start in patch_starts(80, 32, 16) for edge in (start, start + 32) if 0 < edge < 80]
    assert float(jumps[borders].mean()) < 1.2 * float(jumps.mean())


def test_inpainting_in_patches(tmp_path: Path, photo: np.ndarray) -> None:
    missing = np.zeros(photo.shape[:2], bool)
    missing[10:14, 5:30] = True
    picture = photo / np.float32(255)
    with pytest.raises(InputError, match="--fit tile"):
        inpaint(picture, missing, load_prior("cifar10", "cpu"), steps=2)
    posterior = inpaint(picture, missing, load_prior("cifar10", "cpu", patches=True), steps=2)
    found = posterior.mean[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found[~missing], picture[~missing])
    assert np.abs(found - picture)[missing].mean() < 0.1
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(255 * missing.astype(np.uint8)).save(tmp_path / "mask.png")
    arguments = ["inpaint", tmp_path / "photo.png", "--mask", tmp_path / "mask.png", "--steps", "2", "-q"]
    app([*map(str, arguments), "--model", "cifar10", "--patches"], standalone_mode=False)
    assert (tmp_path / "photo.inpaint.png").exists()
