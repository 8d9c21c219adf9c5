"""JPEG files read down to their coefficients, and photographs restored from them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import idctn

from invsolve.errors import InputError
from invsolve.forward_models import ForwardModel, Grayscale, JpegCoefficients, QuantizationNoise
from invsolve.models.gaussian import smooth_gaussian_prior
from invsolve.pictures import to_unit
from invsolve.pretrained import load_prior
from invsolve.rules import condition
from invsolve.tasks.dejpeg import (
    ORIENTATIONS,
    coefficients_of,
    compressed,
    decode,
    dejpeg,
    dejpeg_task,
    recompression_error,
    share_inside,
)
from invsolve.tasks.jpeg_file import ZIGZAG, read_jpeg


def file_of(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def noisy(photo: np.ndarray) -> np.ndarray:
    """Busy enough that long runs, large values and every kind of code turn up."""
    texture = np.random.default_rng(0).normal(0, 30, photo.shape)
    return np.clip(photo + texture, 0, 255).astype(np.uint8)[:45, :37]


# -- reading ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 2}], ids=str)
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_coefficients_are_those_that_libjpeg_decodes(
    kind: dict[str, object], subsampling: int, photo: np.ndarray
) -> None:
    for quality in (5, 60, 98):
        data = file_of(noisy(photo), quality=quality, subsampling=subsampling, **kind)
        file = read_jpeg(data)
        assert (file.width, file.height, len(file.components)) == (37, 45, 3)
        assert file.sampling == ("4:4:4", "4:2:2", "4:2:0")[subsampling]
        with Image.open(io.BytesIO(data)) as image:
            tables = [list(table) for table in image.quantization.values()]
            image.draft("YCbCr", image.size)
            decoded = np.asarray(image, float)
        assert [list(c.steps.flatten()) for c in file.components[:2]] == tables
        for number in range(3 if subsampling == 0 else 1):
            component = file.components[number]
            blocks = idctn(component.coefficients * component.steps, axes=(2, 3), norm="ortho") + 128
            plane = blocks.transpose(0, 2, 1, 3).reshape(8 * blocks.shape[0], -1)[:45, :37]
            assert np.abs(plane.clip(0, 255) - decoded[..., number]).max() < 1.6  # both round


def test_grey_files_and_rgb_files(photo: np.ndarray) -> None:
    assert read_jpeg(file_of(photo[..., 0])).sampling == "grey"
    plain = read_jpeg(file_of(photo, quality=90, keep_rgb=True))
    assert plain.rgb
    operator = coefficients_of(plain)
    whole = torch.from_numpy(photo / 255).permute(2, 0, 1)[None]
    misfit = operator(whole) - operator.arrange([torch.from_numpy(c.coefficients) for c in plain.components])
    assert float((misfit.abs() - operator.level).max()) < 0.5


def test_zigzag_is_the_standards() -> None:
    assert ZIGZAG[:10] == (0, 1, 8, 16, 9, 2, 3, 10, 17, 24)
    assert ZIGZAG[-3:] == (55, 62, 63) and sorted(ZIGZAG) == list(range(64))


def segment(data: bytes, marker: int) -> int:
    """Where a marker's segment begins."""
    return data.index(bytes([0xFF, marker]))


def patched(data: bytes, marker: int, offset: int, value: int) -> bytes:
    at = segment(data, marker) + offset
    return data[:at] + bytes([value]) + data[at + 1 :]


def renamed(data: bytes, marker: int) -> bytes:
    return patched(data, 0xC0, 1, marker)


DAMAGED = {
    "nothing": (lambda data: b"", "not a JPEG"),
    "a PNG": (lambda data: b"\x89PNG\r\n", "not a JPEG"),
    "a start alone": (lambda data: data[:2], "damaged"),
    "cut off in its header": (lambda data: data[:100], "damaged"),
    "cut off in its scan": (lambda data: data[:-60], "damaged"),
    "no tables": (lambda data: patched(data, 0xDB, 1, 0xE5).replace(b"\xff\xdb", b"\xff\xe5"), "damaged"),
    "no codes": (lambda data: data.replace(b"\xff\xc4", b"\xff\xe5"), "damaged"),
    "a step of 0": (lambda data: patched(data, 0xDB, 5, 0), "damaged"),
    "no scan": (lambda data: data[: segment(data, 0xDA)] + b"\xff\xd9", "no whole picture"),
    "a height of 0": (lambda data: patched(patched(data, 0xC0, 5, 0), 0xC0, 6, 0), "damaged"),
    "lossless": (lambda data: renamed(data, 0xC3), "lossless"),
    "arithmetic": (lambda data: renamed(data, 0xC9), "arithmetic"),
    "hierarchical": (lambda data: renamed(data, 0xC5), "hierarchical"),
    "12 bits": (lambda data: patched(data, 0xC0, 4, 12), "12 bits"),
    "odd sampling": (lambda data: patched(patched(data, 0xC0, 11, 0x33), 0xC0, 14, 0x22), "unusual sampling"),
}


@pytest.mark.parametrize("name", list(DAMAGED))
def test_what_is_no_picture_is_refused_in_a_sentence(name: str, photo: np.ndarray) -> None:
    change, message = DAMAGED[name]
    with pytest.raises(InputError, match=message) as caught:
        read_jpeg(change(file_of(photo)))
    assert caught.value.hint


def test_cmyk_is_refused(photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo).convert("CMYK").save(buffer, "JPEG")
    with pytest.raises(InputError, match="^the file has 4 components"):
        read_jpeg(buffer.getvalue())


def test_any_damage_is_a_damaged_file_or_another_picture(photo: np.ndarray) -> None:
    """A byte changed anywhere never leads to anything but the one error, or to coefficients."""
    data = file_of(noisy(photo)[:16, :16])
    rng = np.random.default_rng(0)
    for at in rng.integers(2, len(data), 200):
        changed = data[:at] + struct.pack("B", rng.integers(256)) + data[at + 1 :]
        try:
            file = read_jpeg(changed)
        except InputError:
            continue
        assert all(len(component.steps) == 8 for component in file.components)


# -- the operator -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("quality", [10, 75])
def test_the_picture_lies_in_the_cells_of_its_file(sampling: str, quality: int, photo: np.ndarray) -> None:
    pixels = photo[..., 0] if sampling == "grey" else photo
    file = read_jpeg(compressed(pixels, quality, "4:2:0" if sampling == "grey" else sampling))
    assert share_inside(file, pixels) == 1
    assert share_inside(file, 255 - pixels) < 0.99


def test_projection_is_the_least_change_into_the_cells(photo: np.ndarray) -> None:
    file = read_jpeg(compressed(photo, 30))
    operator = coefficients_of(file)
    y = operator.arrange([torch.from_numpy(c.coefficients) for c in file.components]).double()
    x = torch.rand((2, *operator.input_shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    projected = operator.project(x, y)
    misfit = operator(projected) - y
    assert float(misfit.abs().max()) <= 0.5 + 1e-9
    torch.testing.assert_close(operator.project(projected, y), projected)
    inside = (operator(x) - y).abs() < 0.5
    torch.testing.assert_close(operator(projected)[inside], operator(x)[inside])
    # what the coefficients do not see has not changed
    moved = projected - x
    torch.testing.assert_close(operator.pinv(operator(moved)), moved)


@pytest.mark.parametrize(
    ("shape", "steps", "sampling"),
    [
        ((2, 8, 8), torch.ones(2, 8, 8), None),
        ((3, 8, 8), torch.ones(1, 8, 8), None),
        ((3, 8, 8), torch.zeros(3, 8, 8), None),
        ((3, 8, 12), torch.ones(3, 8, 8), None),
        ((3, 8, 8), torch.ones(3, 8, 8), ((2, 2), (1, 1), (1, 1))),
        ((3, 48, 48), torch.ones(3, 8, 8), ((3, 1), (2, 1), (1, 1))),
        ((3, 8, 8), torch.ones(3, 8, 8), ((1, 1),)),
    ],
)
def test_what_does_not_go_together_is_told(shape: tuple[int, ...], steps: torch.Tensor, sampling: object) -> None:
    with pytest.raises(InputError):
        JpegCoefficients(shape, steps, sampling)  # type: ignore[arg-type]


# -- the rule -----------------------------------------------------------------------------------------------------------
def test_a_rounded_value_has_the_posterior_mean() -> None:
    """One measured value and a Gaussian prior: the matched Gaussian gives the exact mean, wherever the cell lies."""
    prior = smooth_gaussian_prior((3, 1, 1))
    operator = Grayscale((3, 1, 1))
    draws = prior.sample(400_000, torch.Generator().manual_seed(0)).double()
    clean = operator(draws).flatten()
    for step, place in ((0.05, 0.0), (0.3, 1.0), (5.0, 0.2)):
        value = step * round(float(clean.mean() + place * clean.std()) / step)
        noise = QuantizationNoise(step)
        y = torch.full((1, 1, 1, 1), value, dtype=torch.float64)
        inside = (clean - value).abs() <= step / 2
        expected = draws[inside].mean(dim=0)
        model = condition(prior, ForwardModel(operator, noise), y, "wiener")
        # far above the prior's own spread x says nothing, and D is the prior's mean
        found = model.denoise(prior.mean[None].double(), 1e4)[0]
        assert float(((found - expected) / draws.std(dim=0)).abs().max()) < 0.02


def test_a_measurement_that_says_nothing_changes_nothing() -> None:
    noise = QuantizationNoise(1.0)
    clean = torch.tensor([[0.1, 0.1, 0.49, 3.0]])
    value, variance = noise.matched(clean, torch.tensor([[1e-8, 4.0, 1e-4, 0.01]]), torch.zeros(1, 4))
    assert variance[0, 0] == np.inf and float(variance[0, 1]) == pytest.approx(1 / 12, rel=0.02)
    mean = clean + torch.tensor([[1e-8, 4.0, 1e-4, 0.01]]) / (torch.tensor([[1e-8, 4.0, 1e-4, 0.01]]) + variance) * (
        value - clean
    )
    assert mean[0].tolist() == pytest.approx([0.1, 0.002066, 0.487124, 0.496013], abs=1e-5)  # of the truncated normals


# -- the task -----------------------------------------------------------------------------------------------------------
def test_samples_fit_the_file_and_improve_on_it(photo: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :40]
    truth = np.clip(photo[:24] * 0.5 + 100 * ((x + 2 * y) % 17 < 8)[..., None] + rng.normal(0, 2, (24, 40, 3)), 0, 255)
    truth = truth.astype(np.uint8)
    data = compressed(truth, 12)
    file, (decoded, _) = read_jpeg(data), decode(data)
    found = dejpeg(data, load_prior("photos", "cpu"), steps=8, samples=2)
    assert found.samples.shape == (2, 1, 3, 24, 40)
    mean = found.mean[0].permute(1, 2, 0).numpy()
    assert np.square(mean - truth / 255).mean() < 0.9 * np.square(to_unit(decoded) - truth / 255).mean()
    for sample in found.samples:
        pixels = np.rint(sample[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        assert share_inside(file, pixels) > 0.98


def test_turned_files_are_restored_upright(photo: np.ndarray, small_prior: object) -> None:
    picture = Image.fromarray(photo[:40, :24])
    prior = load_prior(str(small_prior), "cpu")
    for number in ORIENTATIONS:
        exif = Image.Exif()
        exif[0x0112] = number
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=100, subsampling=0, exif=exif)
        pixels, orientation = decode(buffer.getvalue())
        file = read_jpeg(buffer.getvalue())
        assert share_inside(file, pixels, orientation=orientation) > 0.99
        found = dejpeg(buffer.getvalue(), prior, steps=1)
        sample = found.samples[0, 0].permute(1, 2, 0).numpy()
        assert sample.shape == pixels.shape
        assert np.abs(sample - pixels / 255).max() < 0.02  # at this quality the cells leave nothing open
        mean = dejpeg(buffer.getvalue(), prior, steps=1, samples=2, sigma_start=0.1).mean[0].permute(1, 2, 0).numpy()
        assert np.abs(mean - pixels / 255).max() < 0.02
        task = dejpeg_task(file, to_unit(pixels), orientation=orientation)
        x = torch.from_numpy(sample).permute(2, 0, 1)[None].double()
        v = torch.rand((1, *task.operator.output_shape), dtype=torch.float64)
        assert float((task.operator(x) * v).sum()) == pytest.approx(float((x * task.operator.T(v)).sum()), rel=1e-9)


def test_what_was_compressed_so_hardly_changes_when_compressed_again(photo: np.ndarray) -> None:
    busy = noisy(photo)
    once, _ = decode(compressed(busy, 20))
    assert recompression_error(once, compressed(once, 20)) < 1
    assert recompression_error(busy, compressed(busy, 20)) > 5
    moved = np.roll(once, (3, 5), axis=(0, 1))
    assert recompression_error(moved, compressed(moved, 20)) > 2
