"""What a task shows of the picture while it samples: of the size and kind of a result, and nearer to it step by step."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from invsolve.ct.reconstruction import reconstruction_task
from invsolve.forward_models import Geometry, even_angles, projector
from invsolve.pretrained import load_prior
from invsolve.tasks.colorization import colorization_task
from invsolve.tasks.dejpeg import decode, dejpeg_task
from invsolve.tasks.denoising import denoising_task
from invsolve.tasks.inpainting import inpainting_task
from invsolve.tasks.jpeg_file import read_jpeg
from invsolve.tasks.superresolution import superresolution_task
from invsolve.tasks.task import Task


class Looker:
    """Keeps every estimate."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.seen: list[Tensor] = []

    def __call__(self, done: float, /) -> None:
        self.shares.append(done)

    def look(self, estimate: Callable[[], Tensor]) -> None:
        self.seen.append(estimate())


def turned_jpeg(unit: np.ndarray) -> Task:
    """Of a file that says it is to be turned by a quarter."""
    image, buffer = Image.fromarray((255 * unit).astype(np.uint8)), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(buffer, "JPEG", quality=60, exif=exif)
    pixels, orientation = decode(buffer.getvalue())
    return dejpeg_task(read_jpeg(buffer.getvalue()), pixels / np.float32(255), orientation=orientation)


def with_holes(unit: np.ndarray, *, wide: bool = False) -> Task:
    missing = np.zeros(unit.shape[:2], bool)
    missing[4:8, 4:30] = True
    missing[20 : 44 if wide else 24, 8:32] = True
    return inpainting_task(unit, missing)


TASKS: dict[str, Callable[[np.ndarray], Task]] = {
    "inpaint": with_holes,
    "inpaint wide": lambda unit: with_holes(unit, wide=True),
    "inpaint grey": lambda unit: with_holes(unit[..., 0]),
    "colorize": lambda unit: colorization_task(unit[..., 0]),
    "superres": lambda unit: superresolution_task(unit, 2),
    "superres grey": lambda unit: superresolution_task(unit[..., 0], 2),
    "denoise grey": lambda unit: denoising_task(unit[..., 0], noise=0.1),
    "dejpeg": turned_jpeg,
}


@pytest.mark.parametrize("name", TASKS)
def test_an_estimate_is_a_picture_like_the_result(name: str, photo: np.ndarray, small_prior: Path) -> None:
    looker, unit = Looker(), photo / np.float32(255)
    task, prior = TASKS[name](unit), load_prior(small_prior, "cpu")
    posterior = task.solve(prior, steps=3, progress=looker)
    plain = task.solve(prior, steps=3)
    assert torch.equal(posterior.samples, plain.samples)
    assert looker.shares[-1] == pytest.approx(1.0)
    assert len(looker.seen) == len(looker.shares) >= 3
    result = posterior.samples[0, 0]
    for estimate in looker.seen:
        assert estimate.shape == result.shape
        assert torch.isfinite(estimate).all()
    if name.startswith("inpaint"):
        known = ~task.open_values[0].expand_as(result)  # type: ignore[index]
        assert torch.equal(looker.seen[0][known], result[known])
        assert not torch.equal(looker.seen[0], result)
    distances = [float((estimate - result).square().mean()) for estimate in (looker.seen[0], looker.seen[-1])]
    assert distances[1] <= distances[0]


def test_an_estimate_of_a_slice_is_in_the_units_of_the_result(ct_prior: Path) -> None:
    geometry = Geometry(even_angles(12), 35, (24, 24))
    y, x = np.mgrid[-1:1:24j, -1:1:24j]
    body = torch.from_numpy(np.where(x**2 + y**2 < 0.6, 0.5, 0.0).astype(np.float32))
    sinogram = projector(geometry)(body[None, None])[0].numpy()
    looker = Looker()
    posterior = reconstruction_task(sinogram, geometry).solve(
        load_prior(ct_prior, "cpu"), samples=1, steps=3, progress=looker
    )
    assert [estimate.shape for estimate in looker.seen] == [(1, 24, 24)] * 3
    assert float((looker.seen[-1] - posterior.samples[0, 0]).abs().mean()) < 0.1
