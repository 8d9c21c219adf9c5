"""Colorization: luma kept, gamut, large pictures, the colour table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invsolve import colorize, inpaint, load_prior, sample
from invsolve.colours import LUMA_GAIN, luma, luma_first, rgb
from invsolve.errors import InputError, ModelError
from invsolve.forward_models import Grayscale
from invsolve.models.score_model import FunctionPrior
from invsolve.ode.density import likelihood
from invsolve.ode.latent import encode
from invsolve.pictures import to_pixels
from invsolve.tasks.baselines import ColourTable
from invsolve.tasks.colorization import enlarge_chroma, enlarged_rows, guided, into_gamut, working_size


def pil_grey(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


@pytest.mark.parametrize("size", [(48, 40), (5, 7), (1, 1)])
def test_converting_back_returns_the_grey(size: tuple[int, int], small_prior: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    result = colorize(grey.astype(np.float32) / 255, load_prior(small_prior, "cpu"), steps=3, samples=2)
    for coloured in result.samples[:, 0]:
        assert 0 <= float(coloured.min()) <= float(coloured.max()) <= 1
        back = pil_grey(to_pixels(coloured.permute(1, 2, 0).numpy()))
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
    assert working_size(4000, 3000) == (88, 64)
    assert working_size(4000, 3000, shorter=32) == (40, 32)
    assert working_size(100, 4000, shorter=40) == (40, 1600)
    assert working_size(30, 4000, shorter=40) == (30, 4000)
    sizes: set[tuple[int, ...]] = set()

    def red(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sizes.add(tuple(sorted(x.shape[-2:])))
        return torch.tensor([0.8, 0.4, 0.3]).reshape(1, 3, 1, 1).expand_as(x)

    grey = np.random.default_rng(0).random((700, 640)).astype(np.float32)
    colorize(grey, FunctionPrior(red, channels=3, frame=32), steps=2)
    assert sizes == {(40, 40)}
    sizes.clear()
    result = colorize(grey, FunctionPrior(red, channels=3), steps=2)
    assert sizes == {(64, 72)}
    picture = result.samples[0, 0].permute(1, 2, 0).numpy()
    assert np.abs(luma(picture) - grey).max() < 1e-4
    assert float((picture[..., 0] - picture[..., 2]).mean()) > 0.1


def test_luma_first_is_jpegs_colour_space() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    x = torch.from_numpy(picture).permute(2, 0, 1).double() / 255
    there = luma_first(x)
    torch.testing.assert_close(rgb(there), x)
    ycbcr = np.asarray(Image.fromarray(picture).convert("YCbCr"), float) / 255
    scaled = there.permute(1, 2, 0).numpy() / (LUMA_GAIN, 1, 1) + (0, 128 / 255, 128 / 255)
    assert np.abs(scaled - ycbcr).max() < 1.01 / 255
    # What the grey picture measures is the first coordinate.
    first = Grayscale((3, 5, 7), weights=(1 / LUMA_GAIN, 0, 0))(there[None].float())
    torch.testing.assert_close(first, Grayscale((3, 5, 7))(x[None].float()))


def test_a_prior_with_luma_first_colours_in_its_coordinates() -> None:
    seen: list[torch.Tensor] = []

    def bluish(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(x[:, 0].mean() / LUMA_GAIN)
        return torch.tensor([0.5 * LUMA_GAIN, 0.1, -0.05]).reshape(1, 3, 1, 1).expand_as(x)

    grey = np.random.default_rng(0).uniform(0.3, 0.6, (40, 48)).astype(np.float32)
    result = colorize(grey, FunctionPrior(bluish, channels=3, colours="luma first"), steps=3, samples=2)
    assert float(seen[-1]) == pytest.approx(float(grey.mean()), abs=0.01)
    there = luma_first(result.samples[0, 0])
    torch.testing.assert_close(there[0] / LUMA_GAIN, torch.from_numpy(grey), atol=1e-5, rtol=0)
    torch.testing.assert_close(there[1], torch.full((40, 48), 0.1), atol=1e-3, rtol=0)
    torch.testing.assert_close(there[2], torch.full((40, 48), -0.05), atol=1e-3, rtol=0)


def test_the_colours_of_a_gaussian_prior_with_luma_first_have_its_posterior() -> None:
    # Chroma correlated with luma pixel by pixel: E[Cb | Y] = slope (Y - .5), standard deviation .1 around it, wide
    # against the ladder's last level, whose noise is denoised rather than sampled.
    slope, spread, luma_std = 0.3, 0.1, 0.2
    gain = torch.tensor([LUMA_GAIN, slope, -slope])
    covariance = luma_std**2 * gain[:, None] * gain + torch.diag(torch.tensor([0.0, spread**2, spread**2]))
    centre = torch.tensor([0.5 * LUMA_GAIN, 0.0, 0.0]).reshape(1, 3, 1, 1)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        shrink = covariance @ torch.linalg.inv(covariance + float(sigma[0]) ** 2 * torch.eye(3))
        return centre + torch.einsum("ij,bjhw->bihw", shrink, x - centre)

    grey = np.linspace(0.4, 0.6, 900, dtype=np.float32).reshape(30, 30)
    prior = FunctionPrior(denoise, channels=3, colours="luma first", sigma_data=2.0)
    samples = luma_first(colorize(grey, prior, samples=40, steps=100, sampler="ancestral").samples[:, 0])
    expected = slope * (torch.from_numpy(grey) - 0.5)
    assert float((samples.mean(dim=0)[1] - expected).abs().mean()) < 0.3 * spread
    assert float(samples[:, 1].std(dim=0).mean()) == pytest.approx(spread, rel=0.1)


def test_only_colorize_takes_a_prior_with_luma_first() -> None:
    prior = FunctionPrior(lambda x, sigma: x, channels=3, colours="luma first", frame=32)
    square = torch.full((1, 3, 16, 16), 0.5)
    for use in (
        lambda: inpaint(np.zeros((16, 16, 3), np.float32), np.eye(16, dtype=bool), prior),
        lambda: sample(prior),
        lambda: encode(prior, square),
        lambda: likelihood(prior, square),
    ):
        with pytest.raises(ModelError, match="it is for colorize"):
            use()


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
    guide = guided(colours, small)
    large = enlarge_chroma(guide, grey)
    in_parts = [enlarge_chroma(guide, grey, slice(first, first + 24)) for first in (0, 24, 48)]
    torch.testing.assert_close(torch.cat(in_parts, dim=-2), large, atol=1e-6, rtol=0)
    assert float(Grayscale((3, 64, 64))(large).abs().max()) < 1e-6
    inside = large[0, 0]
    assert float(inside[:, :31].abs().max()) < 0.02
    assert float(inside[:, 33:].min()) > 0.1


def test_rows_of_an_enlargement_are_those_of_the_whole() -> None:
    t = torch.rand(2, 3, 5, 7)
    whole = torch.nn.functional.interpolate(t, size=(33, 20), mode="bilinear", align_corners=False)
    rows = enlarged_rows(t, 33, slice(11, 29), 20)
    torch.testing.assert_close(rows, whole[..., 11:29, :], atol=1e-6, rtol=0)


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


def test_mean_is_what_the_chains_expect_on_their_way() -> None:
    """Two casts, each as likely: halfway down a chain expects some of both, and the luma stays the grey's."""

    def either(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        red = torch.tensor([0.46 * LUMA_GAIN, 0.0, 0.2]).reshape(1, 3, 1, 1)
        # Posterior odds of +red and -red given x, and the luma as it is.
        evidence = (2 * red[:, 2] * x[:, 2]).sum(dim=(-2, -1)) / sigma.reshape(-1) ** 2
        return torch.cat(
            [
                x[:, :1],
                torch.zeros_like(x[:, :1]),
                (0.2 * torch.tanh(evidence / 2))[:, None, None, None].expand_as(x[:, :1]),
            ],
            dim=1,
        )

    prior = FunctionPrior(either, channels=3, frame=32, colours="luma first")
    grey = np.full((32, 32), 0.46, np.float32)
    several = colorize(grey, prior, steps=20, samples=6, antithetic=False, seed=3)
    assert several.estimate is not None
    assert np.abs(luma(several.mean[0].permute(1, 2, 0).numpy()) - grey).max() < 1e-4
    split = colorize(grey, prior, steps=20, samples=6, antithetic=False, seed=3, batch=4)
    torch.testing.assert_close(split.mean, several.mean, atol=1e-5, rtol=0)
    assert colorize(grey, prior, steps=20, samples=1).estimate is None
