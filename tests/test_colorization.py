"""Colorization: luma kept, gamut, large pictures, the colour table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invsolve import colorize, load_prior
from invsolve.baselines import ColourTable
from invsolve.colorization import enlarge_chroma, into_gamut, luma, working_size
from invsolve.errors import InputError
from invsolve.forward_models import Grayscale
from invsolve.rounding import to_pixels
from invsolve.score_model import FunctionPrior


def pil_grey(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


@pytest.mark.parametrize("size", [(48, 40), (5, 7), (1, 1)])
def test_converting_back_returns_the_grey(size: tuple[int, int], small_prior: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    result = colorize(grey.astype(np.float32) / 255, load_prior(small_prior, "cpu"), steps=3, samples=2)
    for sample in result.samples[:, 0]:
        assert 0 <= float(sample.min()) <= float(sample.max()) <= 1
        back = pil_grey(to_pixels(sample.permute(1, 2, 0).numpy()))
        assert np.abs(back.astype(int) - grey).max() <= 1


def test_every_grey_survives_wild_colours() -> None:
    grey = torch.linspace(0, 1, 256).reshape(1, 16, 16)
    wild = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    chroma = (wild[None] - Grayscale((3, 16, 16))(wild[None]))[0]
    rgb = into_gamut(grey, chroma)
    assert 0 <= float(rgb.min()) <= float(rgb.max()) <= 1 + 1e-6
    back = pil_grey(to_pixels(rgb.permute(1, 2, 0).numpy()))
    assert np.abs(back.astype(int) - np.rint(grey[0].numpy() * 255)).max() <= 1
    # Hue is kept: what is left of the chroma points the same way, and small chroma is not touched.
    kept = rgb - grey
    assert float((torch.cross(kept, chroma, dim=0)).abs().max()) < 1e-5
    mild = 1e-3 * chroma[:, 2:14]
    torch.testing.assert_close(into_gamut(grey[:, 2:14], mild) - grey[:, 2:14], mild, atol=1e-6, rtol=0)


def test_large_pictures_work_at_a_smaller_size() -> None:
    assert working_size(60, 64) == (60, 64)
    assert working_size(4000, 3000) == (85, 64)
    sizes: set[tuple[int, ...]] = set()

    def red(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sizes.add(tuple(sorted(x.shape[-2:])))
        return torch.tensor([0.8, 0.4, 0.3]).reshape(1, 3, 1, 1).expand_as(x)

    grey = np.random.default_rng(0).random((700, 640)).astype(np.float32)
    result = colorize(grey, FunctionPrior(red, channels=3), steps=2)
    assert sizes == {(64, 70)}
    picture = result.samples[0, 0].permute(1, 2, 0).numpy()
    assert np.abs(luma(picture) - grey).max() < 1e-4
    assert float((picture[..., 0] - picture[..., 2]).mean()) > 0.1


def test_a_prior_of_one_size_colours_at_that_size() -> None:
    shapes: set[tuple[int, ...]] = set()
    levels: list[float] = []

    def red(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        shapes.add(tuple(x.shape[-2:]))
        levels.append(float(sigma[0]))
        return torch.tensor([0.8, 0.4, 0.3]).reshape(1, 3, 1, 1).expand_as(x)

    prior = FunctionPrior(red, channels=3, size=32)
    grey = np.random.default_rng(0).uniform(0.3, 0.6, (96, 96)).astype(np.float32)
    for picture in (grey, grey[:32, :32]):
        result = colorize(picture, prior, steps=2, sampler="pc", rule="replacement", sigma_start=9.0)
        coloured = result.samples[0, 0].permute(1, 2, 0).numpy()
        assert np.abs(luma(coloured) - picture).max() < 1e-4
        assert float((coloured[..., 0] - coloured[..., 2]).mean()) > 0.1
    assert shapes == {(32, 32)}
    assert max(levels) == pytest.approx(9.0)
    for wrong in (grey[:, :64], grey[:16, :16]):
        with pytest.raises(InputError, match="squares of 32"):
            colorize(wrong, prior)


def test_chroma_follows_the_edges_of_the_luma() -> None:
    grey = torch.full((1, 1, 64, 64), 0.3)
    grey[..., 32:] = 0.7
    colours = torch.zeros(1, 3, 16, 16)
    colours[:, 0, :, 8:] = 0.2
    colours -= Grayscale((3, 16, 16))(colours)
    small = torch.nn.functional.avg_pool2d(grey, 4)
    large = enlarge_chroma(colours, small, grey)
    assert float(Grayscale((3, 64, 64))(large).abs().max()) < 1e-6
    inside = large[0, 0]
    assert float(inside[:, :31].abs().max()) < 0.02
    assert float(inside[:, 33:].min()) > 0.1


def test_only_grey_arrays() -> None:
    with pytest.raises(InputError, match="wanted"):
        colorize(np.zeros((4, 4, 3), np.float32), FunctionPrior(lambda x, sigma: x, channels=3))


def test_colour_table_learns_chroma_by_luma_and_height(tmp_path: Path) -> None:
    sky_and_grass = np.zeros((32, 32, 3), np.uint8)
    sky_and_grass[:16] = (100, 150, 250)
    sky_and_grass[16:] = (60, 160, 50)
    table = ColourTable.fit([sky_and_grass])
    table.save(tmp_path / "table.json")
    loaded = ColourTable.load(tmp_path / "table.json")
    coloured = loaded.colorize(luma(sky_and_grass / 255))
    assert np.abs(coloured - sky_and_grass / 255).max() < 0.01
