"""Inpainting: known pixels, regions, resolutions, colour and grey, noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from invsolve import inpaint, load_prior
from invsolve.errors import InputError
from invsolve.forward_models import ForwardModel, GaussianNoise, Mask
from invsolve.models.gaussian import smooth_gaussian_prior
from invsolve.models.score_model import FunctionPrior
from invsolve.options import INPAINTING
from invsolve.posterior import Posterior
from invsolve.tasks.baselines import biharmonic
from invsolve.tasks.filling import KNOWN_NOISE, LAYOUT_NOISE, SIGMA_START, Filling, missing_blocks
from invsolve.tasks.inpainting import inpainting_task, missing_pixels_task
from invsolve.tasks.regions import CONTEXT, Region, hole_boxes, resolutions


def unit(photo: np.ndarray) -> np.ndarray:
    return (photo / 255).astype(np.float32)


@pytest.fixture
def missing(photo: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).random(photo.shape[:2]) < 0.4


@pytest.mark.parametrize("grey", [False, True])
def test_known_pixels_come_back_exactly(grey: bool, photo: np.ndarray, missing: np.ndarray, small_prior: Path) -> None:
    picture = unit(photo)[..., 0] if grey else unit(photo)
    result = inpaint(picture, missing, load_prior(small_prior, "cpu"), steps=3, samples=2)
    assert result.samples.shape == (2, 1, 1 if grey else 3, *missing.shape)
    for sample in result.samples[:, 0]:
        restored = sample.permute(1, 2, 0).numpy().reshape(picture.shape)
        assert np.abs(restored[~missing] - picture[~missing]).max() < 1e-6
        assert not np.allclose(restored[missing], picture[missing])


def test_what_missing_pixels_hold_does_not_matter(photo: np.ndarray, missing: np.ndarray, small_prior: Path) -> None:
    prior = load_prior(small_prior, "cpu")
    spoiled = np.where(missing[..., None], np.float32(0.9), unit(photo))
    a, b = (inpaint(picture, missing, prior, steps=3) for picture in (unit(photo), spoiled))
    assert torch.equal(a.samples, b.samples)


def test_progress_ends_at_one_and_only_rises(photo: np.ndarray, missing: np.ndarray, small_prior: Path) -> None:
    seen: list[float] = []
    inpaint(unit(photo), missing, load_prior(small_prior, "cpu"), steps=4, samples=3, batch=2, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


def test_boxes_cover_every_hole_once() -> None:
    missing = np.zeros((600, 500), bool)
    missing[10:14, 20:90] = True
    missing[16:20, 95:99] = True
    missing[400:410, 300:320] = True
    missing[599, 499] = True
    boxes = hole_boxes(missing)
    assert len(boxes) == 3
    filled = np.zeros(missing.shape, int)
    for box in boxes:
        filled[box.core.slices] += missing[box.core.slices]
    assert (filled == missing).all()
    assert sum(box.region.pixels for box in boxes) < missing.size / 3
    lone = next(box.region for box in boxes if box.core.top == 400)
    assert lone == Region(400 - CONTEXT, 300 - CONTEXT, 410 + CONTEXT, 320 + CONTEXT)


def test_a_long_scratch_is_a_row_of_boxes_and_a_wide_hole_one_box() -> None:
    y, x = np.mgrid[:1500, :1500]
    scratch = abs(x - y) < 3
    boxes = hole_boxes(scratch)
    assert len(boxes) > 5
    assert sum(box.region.pixels for box in boxes) < scratch.size / 3
    hole = np.zeros((1500, 1500), bool)
    hole[200:1400, 200:1400] = True
    (box,) = hole_boxes(hole, largest=2**18)
    assert box.core == Region(200, 200, 1400, 1400)


def test_work_is_confined_to_the_holes() -> None:
    pixels = 0

    def count(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        nonlocal pixels
        pixels += x[:, 0].numel()
        return x

    missing = np.zeros((800, 900), bool)
    missing[300:310, 400:410] = True
    inpaint(np.zeros((800, 900, 3), np.float32), missing, FunctionPrior(count, channels=3), steps=2)
    assert pixels == 2 * (10 + 2 * CONTEXT) ** 2


def test_wide_holes_are_filled_coarse_to_fine() -> None:
    thin, wide, wider = (np.zeros((200, 200), bool) for _ in range(3))
    thin[50:60] = True
    wide[50:80] = True
    wider[50:150, 50:150] = True
    assert [resolutions(m) for m in (thin, wide, wider)] == [1, 2, 4]
    sizes: list[tuple[int, ...]] = []

    def record(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(x.shape[-2:]))
        return x

    picture, prior = np.full((200, 200, 3), 0.3, np.float32), FunctionPrior(record, channels=3)
    result = inpaint(picture, wider, prior, steps=1, sampler="redrawing")
    assert [max(size) for size in sizes] == [25, 49, 49, 98, 98, 196, 196]  # twice the levels where a layout is known
    assert result.settings["resolutions"] == 4
    assert result.network_calls == 7
    sizes.clear()
    inpaint(picture, wider, prior, steps=1)
    assert [max(size) for size in sizes] == [25, 49, 98, 196]


def test_blocks_that_are_missing_as_a_whole() -> None:
    known = torch.zeros(3, 5, dtype=torch.bool)
    known[0, 0] = known[2, 4] = True
    numbers, missing = missing_blocks(known)
    assert missing.tolist() == [[False, True, True], [True, True, False]]
    assert numbers.tolist() == [[-1, -1, 0, 0, 1], [-1, -1, 0, 0, 1], [2, 2, 3, 3, -1]]


@pytest.mark.parametrize("samples", [1, 3])
def test_a_finer_picture_has_the_means_of_its_layout(samples: int) -> None:
    """Whatever it starts from: every sample those of its own layout, and what is known stays."""
    known = torch.ones(1, 1, 24, 24)
    known[..., 4:20, 4:20] = 0
    layouts = torch.arange(samples).reshape(-1, 1, 1, 1).expand(-1, 3, 12, 12) * 0.2 + 0.3
    options = replace(INPAINTING, samples=samples, sampler="redrawing")
    filling = Filling(FunctionPrior(lambda x, sigma: x, channels=3), options, 0.0, 0, lambda pixels, info: None)
    posterior = posterior_of(layouts)
    drawn = filling.refine(
        known.expand(-1, 3, -1, -1) * 0.6, known, 0, torch.full((samples, 3, 24, 24), 0.9), posterior
    ).samples[:, 0]
    means = torch.nn.functional.avg_pool2d(drawn, 2)
    assert (means - layouts)[..., 2:10, 2:10].square().mean().sqrt() < 2 * LAYOUT_NOISE
    assert (drawn - 0.6)[..., :4, :].abs().mean() < 2 * KNOWN_NOISE


def posterior_of(samples: torch.Tensor) -> Posterior:
    """Of samples (n, C, H, W), and nothing else."""
    return Posterior(samples[:, None], tuple(range(len(samples))), torch.empty(0), {}, 0)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_single_filling_is_the_best_estimate_and_several_are_draws(noise: float) -> None:
    missing = np.zeros((96, 96), bool)
    missing[8:72, 8:72] = True
    picture, prior = np.full((96, 96, 3), 0.3, np.float32), FunctionPrior(lambda x, sigma: x, channels=3)
    drawn = "redrawing" if noise else "ancestral"  # as the finest resolution of a wide hole is
    for task in (
        inpainting_task(picture, missing, noise=noise),
        *([] if noise else [missing_pixels_task(picture, missing)]),
    ):
        single = f"renoising(averaging=0.5{'' if noise else ', temperature=0.8'})"
        assert task.solve(prior, steps=2).settings["sampler"] == single
        assert task.solve(prior, steps=2, samples=2).settings["sampler"] == drawn


@pytest.mark.parametrize("wide", [False, True])
def test_a_prior_of_one_size_sees_the_whole_picture_upright(wide: bool) -> None:
    """No boxes, no coarser resolutions, never upside down; a hole as large as an object starts from noise alone."""
    seen: list[torch.Tensor] = []
    levels: list[float] = []

    def record(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.extend(x)
        levels.append(float(sigma[0]))
        return x

    picture = np.zeros((64, 64, 3), np.float32)
    picture[:8] = 1.0
    missing = np.zeros((64, 64), bool)
    missing[(slice(16, 48),) * 2 if wide else (slice(61, 63),) * 2] = True
    prior = FunctionPrior(record, channels=3, size=64, sigma_max=50.0)
    prior.facts = replace(prior.facts, orientations="mirror")
    result = inpaint(picture, missing, prior, steps=3, samples=4)
    assert {tuple(x.shape) for x in seen} == {(3, 64, 64)}
    assert levels[0] == pytest.approx(50.0 if wide else SIGMA_START)
    last = seen[-4:]  # at the lowest level: no noise to speak of
    assert all(float(x[:, :8].mean() - x[:, -8:].mean()) > 0.8 for x in last)
    assert (result.settings["regions"], result.settings["resolutions"]) == (1, 1)
    assert inpaint(picture, missing, prior, steps=3, sigma_start=2.0).settings["sigma_start"] == pytest.approx(2.0)
    with pytest.raises(InputError, match="64 x 64 only"):
        inpaint(picture[:40], np.eye(40, 64, dtype=bool), prior)


@pytest.mark.parametrize(("rule", "sampler"), [("proximal", "ancestral"), ("replacement", "pc")])
def test_a_hole_is_filled_with_what_the_prior_says(rule: str, sampler: str) -> None:
    """Against a Gaussian's exact mean (with 100 levels both rules keep a bias); the second pair is the score SDE paper's (Song et al. 2021)."""
    gaussian = smooth_gaussian_prior((3, 8, 8))
    truth = gaussian.sample(1, torch.Generator().manual_seed(2))
    missing = np.zeros((8, 8), bool)
    missing[2:6, 2:6] = True
    forward_model = ForwardModel(Mask(torch.from_numpy(~missing)[None].double(), 3), GaussianNoise(1e-3))
    exact = gaussian.posterior(forward_model, forward_model.operator(truth)).mean
    prior = FunctionPrior(lambda x, sigma: gaussian.denoise(x.double(), sigma).float(), channels=3, size=8)
    picture = truth[0].permute(1, 2, 0).numpy()
    result = inpaint(
        picture, missing, prior, samples=50, batch=50, steps=100, rule=rule, sampler=sampler, sigma_start=10.0
    )
    hole = torch.from_numpy(missing)
    error = (result.mean[0] - exact)[:, hole].square().mean().sqrt()
    assert float(error) < 0.5 * float((exact - gaussian.mean)[:, hole].square().mean().sqrt())


def test_noisy_known_pixels_are_denoised(photo: np.ndarray, missing: np.ndarray) -> None:
    flat = np.full((*missing.shape, 3), 0.5, np.float32)
    noisy = flat + np.random.default_rng(1).normal(0, 0.1, flat.shape).astype(np.float32)
    prior = FunctionPrior(lambda x, sigma: x.mean(dim=(2, 3), keepdim=True).expand_as(x), channels=3)
    result = inpaint(noisy, missing, prior, noise=0.1, steps=10, rule="wiener")  # this prior smooths all there is
    restored = result.mean[0].permute(1, 2, 0).numpy()
    assert np.abs(restored - flat)[~missing].mean() < 0.6 * np.abs(noisy - flat)[~missing].mean()
    # chi2 counts known pixels only: flattening leaves just the noise, so it is 1 at a half-known picture too.
    assert result.chi2.shape == (1, 1)
    assert float(result.chi2) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize(
    ("picture", "missing", "message"),
    [
        (np.zeros((8, 8, 4)), np.eye(8, dtype=bool), "wanted"),
        (np.zeros((8, 8, 3)), np.eye(9, dtype=bool), "9 x 9 pixels, the picture 8 x 8"),
        (np.zeros((8, 8)), np.zeros((8, 8), bool), "no pixel"),
        (np.zeros((8, 8)), np.ones((8, 8), bool), "every pixel"),
    ],
)
def test_unfit_input_is_refused(picture: np.ndarray, missing: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        inpaint(picture, missing, FunctionPrior(lambda x, sigma: x, channels=3))


def test_biharmonic_baseline_interpolates_a_ramp() -> None:
    ramp = np.repeat(np.linspace(0, 1, 32)[None, :, None], 32, axis=0).repeat(3, axis=2)
    missing = np.random.default_rng(0).random((32, 32)) < 0.3
    missing[:, [0, -1]] = missing[[0, -1]] = False
    assert np.abs(biharmonic(np.where(missing[..., None], 0.7, ramp), missing) - ramp).max() < 0.02
