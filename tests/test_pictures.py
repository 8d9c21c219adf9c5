"""The border for arrays: what is a picture or a mask, and what is refused with a way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from invsolve import colorize, inpaint
from invsolve.errors import InputError, InvsolveError
from invsolve.models.score_model import FunctionPrior
from invsolve.pictures import check_missing, check_picture

RGB = np.full((6, 8, 3), 0.5)
HOLES = np.zeros((6, 8), bool)
HOLES[2, 3] = True
PRIOR = FunctionPrior(lambda x, sigma: x, channels=3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_the_unit_range_are_pictures(dtype: Any) -> None:
    assert check_picture(RGB.astype(dtype)).dtype == np.float32
    noisy = RGB + np.random.default_rng(0).normal(size=RGB.shape)
    np.testing.assert_array_equal(check_picture(noisy), noisy.astype(np.float32))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ((255 * RGB).astype(np.uint8), r"uint8 values .*picture / 255"),
        (255 * RGB, r"reach from 127.5 to 127.5"),
        (RGB.astype(complex), r"complex128"),
        (RGB.astype(object), r"object"),
        (np.where(HOLES[..., None], np.nan, RGB), r"3 values that are NaN"),
        (np.full_like(RGB, np.inf), r"NaN or infinite"),
        (RGB[..., :2], r"shape \(6, 8, 2\)"),
        (RGB[0, 0], r"shape \(3,\)"),
        (RGB[:0], r"shape \(0, 8, 3\)"),
        (torch.from_numpy(RGB), r"is a Tensor .*numpy array"),
        (Image.fromarray((255 * RGB).astype(np.uint8)), r"is a Image .*np.asarray"),
        ("photo.png", r"is a str"),
        (None, r"is a NoneType"),
    ],
)
def test_anything_else_is_refused(picture: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_picture(picture)
    with pytest.raises(InputError):
        colorize(picture, PRIOR, steps=1)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_ones_mark_missing_pixels_whatever_their_type(dtype: Any) -> None:
    np.testing.assert_array_equal(check_missing(HOLES.astype(dtype), RGB.shape), HOLES)
    filled = inpaint(RGB, HOLES.astype(dtype), FunctionPrior(lambda x, sigma: 0 * x, channels=3), steps=2)
    assert bool((filled.samples[0, 0][:, 2, 3] < 0.5).all()) and bool((filled.samples[0, 0][:, 0, 0] == 0.5).all())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (255 * HOLES.astype(np.uint8), r"uint8 values other than 0 and 1 .*mask > 127"),
        (np.where(HOLES, np.nan, 0.0), r"float64 values other"),
        (HOLES[:3], r"8 x 3 pixels, the picture 8 x 6"),
        (HOLES[..., None], r"pixels, the picture"),
        (np.zeros_like(HOLES), r"no pixel as missing"),
        (np.ones_like(HOLES), r"every pixel as missing"),
        (torch.from_numpy(HOLES), r"is a Tensor"),
        (HOLES.astype(str), r"values other than"),
    ],
)
def test_other_masks_are_refused(mask: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_missing(mask, RGB.shape)


def test_what_a_hole_holds_may_be_anything() -> None:
    spoiled = np.where(HOLES[..., None], np.nan, RGB)
    assert torch.equal(inpaint(spoiled, HOLES, PRIOR, steps=2).samples, inpaint(RGB, HOLES, PRIOR, steps=2).samples)


@pytest.mark.parametrize("prior", ["photos", None, lambda x, sigma: x])
def test_what_is_no_prior_is_refused(prior: Any) -> None:
    with pytest.raises(InputError, match="load_prior"):
        inpaint(RGB, HOLES, prior)


@pytest.mark.parametrize(
    "change", [{"samples": 0}, {"steps": -1}, {"seed": 2**63}, {"batch": 1.5}, {"sigma_start": 0.0}]
)
def test_numbers_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvsolveError, match=next(iter(change))):
        inpaint(RGB, HOLES, PRIOR, **change)


def test_noise_of_half_resolution_goes_with_how_much_of_it_is_known() -> None:
    """One known pixel of four has all of its noise in the coarser picture, not half of it."""
    from invsolve.options import INPAINTING
    from invsolve.tasks.filling import Filling

    filling = Filling(PRIOR, INPAINTING, noise=0.2, stream=0, meter=lambda pixels, info: None)
    known = torch.tensor([[[[1.0, 1, 1, 0], [1, 1, 0, 0]]]])
    noise = 0.2 * torch.randn(4000, 1, 2, 4, generator=torch.Generator().manual_seed(0))
    average, precision = filling.halve(known * noise, known.expand(4000, -1, -1, -1))
    assumed = (0.2 / 2) / precision[0, 0, 0].sqrt()
    torch.testing.assert_close(average.std(dim=0)[0, 0], assumed, rtol=0.05, atol=0)
    assert assumed.tolist() == pytest.approx([0.1, 0.2])
