"""What the operators of colour filters, Hadamard patterns, frequencies and k-space measure, against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from invsolve.errors import InputError
from invsolve.forward_models import (
    Bayer,
    Fourier,
    Hadamard,
    Mri,
    Phase,
    calibration_centre,
    equispaced_mask,
    low_frequencies,
    poisson_disc_mask,
    random_hadamard,
    random_mask,
    sensitivities_from_centre,
    smooth_phase,
)
from invsolve.forward_models.fourier import fft2, opposite
from invsolve.forward_models.mri import as_complex, as_pairs


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(1, *shape, generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize("phase", ["RGGB", "GRBG", "GBRG", "BGGR"])
def test_the_filter_before_each_pixel(phase: str) -> None:
    x = picture(3, 5, 4)
    y = Bayer((3, 5, 4), phase)(x)
    for i in range(5):
        for j in range(4):
            assert y[0, 0, i, j] == x[0, "RGB".index(phase[2 * (i % 2) + j % 2]), i, j]


def test_hadamard_is_sylvesters() -> None:
    """Padded, under signs and subsampled: rows of scipy's matrix."""
    operator = random_hadamard((2, 3, 5), 20, seeded())
    assert operator.signs is not None
    x = picture(2, 3, 5)
    signed = torch.nn.functional.pad((operator.signs * x).flatten(1), (0, 2))[0].numpy()
    expected = (scipy.linalg.hadamard(32) @ signed / math.sqrt(32))[operator.rows.numpy()]
    np.testing.assert_allclose(operator(x)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 5), (4, 8), (7, 7)])
def test_frequencies_by_the_sum(shape: tuple[int, int]) -> None:
    height, width = shape
    x = picture(1, height, width)
    rows, columns = ((torch.arange(n) - n // 2).double() for n in shape)
    turns = [torch.exp(-2j * torch.pi * index[:, None] * index / len(index)) for index in (rows, columns)]
    expected = turns[0] @ x[0, 0].to(torch.complex128) @ turns[1] / math.sqrt(height * width)
    y = Fourier(torch.ones(shape), 1)(x)
    torch.testing.assert_close(as_complex(y)[0], expected)
    torch.testing.assert_close(opposite(expected), expected.conj())
    torch.testing.assert_close(as_complex(Mri(torch.ones(shape))(torch.cat([x, 0 * x], dim=1)))[0], expected)


def test_half_of_the_frequencies_are_all_of_a_real_picture() -> None:
    shape = (5, 7)
    half = torch.arange(35).reshape(shape) >= 17
    x = picture(1, *shape)
    operator = Fourier(half)
    assert operator.measured_values == 35
    torch.testing.assert_close(operator.pinv(operator(x)), x)
    low = low_frequencies((64, 64), 0.25)
    assert float(low.double().mean()) == pytest.approx(math.pi / 16, rel=0.02)
    assert bool(low[32, 32])
    assert torch.equal(opposite(low)[1:, 1:], low[1:, 1:])


def test_coils_see_the_picture_through_their_sensitivities() -> None:
    sensitivities = torch.complex(picture(3, 4, 6)[0], picture(3, 4, 6)[0].flip(0))
    measured = torch.rand(4, 6, generator=seeded(1)) > 0.4
    x = picture(2, 4, 6)
    y = Mri(measured, sensitivities)(x)
    for j in range(3):
        torch.testing.assert_close(y[:, j], as_pairs(measured * fft2(sensitivities[j] * as_complex(x))))
    everything = Mri(torch.ones(4, 6), sensitivities)
    torch.testing.assert_close(everything.pinv(everything(x)), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("acceleration", [2.0, 4.0, 8.0])
def test_masks_measure_what_they_say(acceleration: float) -> None:
    shape, centre = (96, 128), 8
    for mask, tolerance in (
        (equispaced_mask(shape, acceleration, centre), 0.15),
        (random_mask(shape, acceleration, centre, seeded()), 0.001),
        (poisson_disc_mask(shape, acceleration, centre, seeded()), 0.05),
    ):
        assert mask.shape == shape
        assert mask.dtype == torch.bool
        assert bool(mask[48 - 4 : 48 + 4, 64 - 4 : 64 + 4].all())
        assert 1 / float(mask.double().mean()) == pytest.approx(acceleration, rel=tolerance)
        assert min(calibration_centre(mask)) >= centre - 1
    assert torch.equal(random_mask(shape, 4, centre, seeded(3)), random_mask(shape, 4, centre, seeded(3)))
    assert not torch.equal(random_mask(shape, 4, centre, seeded(3)), random_mask(shape, 4, centre, seeded(4)))


@pytest.mark.parametrize("centre", [-3, 65, 10**20])
def test_masks_refuse_a_centre_of_no_such_size(centre: int) -> None:
    for make in (equispaced_mask, random_mask, poisson_disc_mask):
        with pytest.raises(InputError, match="positions in the centre"):
            make((64, 64), 2, centre, *(() if make is equispaced_mask else (seeded(),)))


def test_equispaced_columns_are_even() -> None:
    mask = equispaced_mask((2, 128), 4, 8)
    gaps = mask[0, :56].nonzero()[:, 0].diff()
    assert int(gaps.max()) - int(gaps.min()) <= 1


def test_poisson_disc_keeps_its_distance() -> None:
    """No two outside the centre are neighbours at acceleration 8, and every position has one near."""
    mask = poisson_disc_mask((64, 64), 8, 4, seeded())
    mask[28:36, 28:36] = False
    at = mask.nonzero().double()
    distances = torch.cdist(at, at) + 100 * torch.eye(len(at))
    assert float(distances.min()) > 1.5
    everywhere = torch.ones(64, 64).nonzero().double()
    outside = ((everywhere - 32).abs() > 8).any(dim=1)
    assert float(torch.cdist(everywhere[outside], at).min(dim=1).values.max()) < 3 * float(
        distances.min(dim=1).values.max()
    )


def test_sensitivities_and_phase_come_from_the_centre() -> None:
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, 48, dtype=torch.float64),) * 2, indexing="ij")
    true = torch.stack([torch.exp(-((rows - a) ** 2) - (columns - b) ** 2) for a, b in ((-1, 0), (1, 0), (0, 1))])
    true = true * torch.exp(1j * torch.stack([rows, columns, rows * columns]))
    true = true / true.abs().square().sum(dim=0).sqrt()
    disc = torch.sigmoid(20 * (0.7 - (rows**2 + columns**2).sqrt()))
    phase = 0.8 * torch.sin(2 * rows + columns)
    magnitudes = torch.stack([disc])[None]
    measured = equispaced_mask((48, 48), 3, 12)
    inside = disc > 0.9

    y = (Mri(measured, true) @ Phase(phase))(magnitudes)
    found = sensitivities_from_centre(as_complex(y)[0], measured)
    expected = true * torch.exp(1j * phase)
    assert float((found - expected)[:, inside].abs().max()) < 0.12
    assert float((found - expected)[:, inside].abs().square().mean().sqrt()) < 0.03
    error = (smooth_phase(as_complex(y)[0], measured, true) - phase)[inside]
    assert float(error.square().mean().sqrt()) < 0.03

    one = (Mri(measured) @ Phase(phase))(magnitudes)
    error = (smooth_phase(as_complex(one), measured) - phase)[inside]
    assert float(error.square().mean().sqrt()) < 0.03


def test_bad_input_is_told() -> None:
    for wrong, message in (
        (lambda: Bayer((3, 4, 4), "RGBG"), "phase 'RGBG'"),
        (lambda: Bayer((1, 4, 4)), "input shape"),
        (lambda: Hadamard((1, 2, 2), torch.tensor([0, 4])), "rows 0 to 4"),
        (lambda: Hadamard((1, 2, 2), torch.tensor([0, 0])), "rows"),
        (lambda: Hadamard((1, 2, 2), torch.tensor([0]), torch.zeros(1, 2, 2)), "signs"),
        (lambda: random_hadamard((1, 2, 2), 5, seeded()), "5 values"),
        (lambda: Fourier(torch.ones(1, 4, 4)), "frequency mask"),
        (lambda: Phase(torch.ones(1, 4, 4)), "phase has shape"),
        (lambda: Mri(torch.ones(4)), "k-space mask"),
        (lambda: Mri(torch.ones(4, 4), torch.ones(2, 4, 4)), "sensitivities"),
        (lambda: random_mask((8, 8), 4, 5, seeded()), "acceleration 4 with 5 of 8"),
        (lambda: equispaced_mask((8, 8), 0.5, 1), "acceleration"),
        (lambda: smooth_phase(torch.zeros(1, 8, 8, dtype=torch.complex64), torch.zeros(8, 8)), "centre of k-space is 0 x 0"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            wrong()
