"""MRI off the grid: the sum that defines it, the grid as a special case, and a phantom from spokes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

from invsolve.errors import InputError
from invsolve.forward_models import Mri, NonCartesianMri, Phase, radial_trajectory
from invsolve.forward_models.mri import as_complex
from invsolve.tasks.mri_simulation import coil_ring

pytest.importorskip("torchkbnufft")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(16, 16), (9, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_sum_that_defines_it(shape: tuple[int, int], dtype: torch.dtype) -> None:
    height, width = shape
    trajectory, x = drawn(50, 2) - 0.5, drawn(2, 2, *shape, seed=1) - 0.5
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    turns = trajectory[:, 0, None, None] * rows[:, None] + trajectory[:, 1, None, None] * columns
    true = torch.einsum("khw,bhw->bk", torch.exp(-2j * math.pi * turns), as_complex(x)) / math.sqrt(height * width)
    found = NonCartesianMri(trajectory, shape)(x.to(dtype)).double()
    assert float((torch.complex(found[:, 0], found[:, 1]) - true).abs().max()) < 2e-5 * float(true.abs().max())


def test_on_the_grid_it_is_the_cartesian_scan() -> None:
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) - n // 2 for n in (8, 10)), indexing="ij")
    trajectory = torch.stack([rows.flatten() / 8, columns.flatten() / 10], dim=-1)
    x, maps = drawn(2, 2, 8, 10), coil_ring((8, 10), 3)
    grid = Mri(torch.ones(8, 10), maps)(x).flatten(-2)
    assert float((NonCartesianMri(trajectory, (8, 10), maps)(x) - grid).abs().max()) < 1e-4


def test_a_phantom_comes_back_from_spokes() -> None:
    picture = torch.from_numpy(resize(shepp_logan_phantom(), (32, 32), anti_aliasing=True))[None, None]
    maps = coil_ring((32, 32), 4)
    operator = NonCartesianMri(radial_trajectory(24, 64), (32, 32), maps) @ Phase(
        torch.zeros(32, 32, dtype=torch.float64)
    )
    found = operator.pinv(operator(picture))
    assert float((found - picture).square().mean().sqrt()) < 0.01


def test_spokes_go_through_the_centre_and_turn_by_the_golden_angle() -> None:
    spokes = radial_trajectory(7, 8).reshape(7, 8, 2)
    assert not bool(spokes[:, 4].any())
    assert float(spokes.norm(dim=-1).max()) == pytest.approx(0.5)
    first = np.degrees(np.arctan2(spokes[1, -1, 0], spokes[1, -1, 1]))
    assert float(first) == pytest.approx(111.246, abs=1e-2)
    even = radial_trajectory(4, 8, golden=False).reshape(4, 8, 2)
    assert np.degrees(np.arctan2(even[1, -1, 0], even[1, -1, 1])) == pytest.approx(45)


def test_bad_input_is_told() -> None:
    good = radial_trajectory(2, 4)
    for message, make in {
        r"trajectory has shape \(8,\)": lambda: NonCartesianMri(good[:, 0], (4, 4)),
        "goes to 1 cycles": lambda: NonCartesianMri(2 * good, (4, 4)),
        "goes to nan": lambda: NonCartesianMri(math.nan * good, (4, 4)),
        r"sensitivities \(3, 4, 4\), torch.float": lambda: NonCartesianMri(good, (4, 4), torch.ones(3, 4, 4)),
        "0 spokes": lambda: radial_trajectory(0, 4),
    }.items():
        with pytest.raises(InputError, match=message):
            make()
