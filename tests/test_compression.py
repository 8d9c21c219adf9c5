"""Bits of files: those of the file itself, of noise and of nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from invsolve.errors import InputError
from invsolve.evaluation.compression import stored_bits


def test_bits_are_those_of_the_file(photo: np.ndarray) -> None:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG", optimize=True)
    found = stored_bits(photo)
    assert found.png == 8 * len(file.getvalue())
    assert found.webp is not None and found.webp < found.png


@pytest.mark.parametrize("shape", [(64, 64, 3), (128, 128)])
def test_noise_takes_all_its_bits_and_flat_pictures_none(shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    entropy = 8 * noise.size
    found = stored_bits(noise)
    assert found.webp is not None
    assert entropy <= found.png < 1.03 * entropy
    assert entropy <= found.webp < 1.03 * entropy
    flat = stored_bits(np.full(shape, 130, np.uint8))
    assert flat.webp is not None and max(flat.png, flat.webp) < 2000


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)])
def test_other_arrays_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="wanted|shape"):
        stored_bits(wrong)
