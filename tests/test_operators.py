"""Every operator passes the same tests: linear, exact adjoint, norm, proximal map, pseudo-inverse, shapes."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from invsolve.errors import InputError
from invsolve.forward_models import (
    Bayer,
    Blur,
    BlurredDecimation,
    ChannelMatrix,
    DenseMatrix,
    Diagonal,
    Downsample,
    Fourier,
    Grayscale,
    Hadamard,
    Identity,
    JpegCoefficients,
    LinearOperator,
    Mask,
    Mri,
    NonCartesianMri,
    Phase,
    RegionMeans,
    Stack,
    gaussian_psf,
    motion_psf,
    power_iteration,
    radial_trajectory,
    random_hadamard,
)
from invsolve.verification import laws
from invsolve.verification.laws import OPERATOR_LAWS, draw

SHAPE = (3, 5, 4)
EVEN = (2, 8, 12)
PSF = torch.tensor([[0.02, 0.0, 0.05, 0.0], [0.0, 0.05, 0.7, 0.1], [0.0, 0.0, 0.03, 0.05]], dtype=torch.float64)
"""Not symmetric, of an even side, and no wave is lost."""
REGIONS = torch.arange(20).reshape(5, 4) % 4 - 1  # a quarter of the pixels is in none


def mask(channels: int = 1) -> Mask:
    generator = torch.Generator().manual_seed(1)
    return Mask((torch.rand(channels, *SHAPE[1:], generator=generator) > 0.4).double(), channels=3)


class UsersBlur(LinearOperator):
    """A user's operator that writes only _apply and _adjoint, to test the defaults."""

    def __init__(self) -> None:
        super().__init__(SHAPE, SHAPE)

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x + 0.25 * x.roll(1, -1) + 0.125 * x.roll(2, -2)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * y + 0.25 * y.roll(-1, -1) + 0.125 * y.roll(-2, -2)


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "mask": mask,
    "mask per channel": lambda: mask(3),
    "weighted mask": lambda: Mask(torch.linspace(0, 2, 20, dtype=torch.float64).reshape(1, 5, 4), channels=3),
    "grayscale": lambda: Grayscale(SHAPE),
    "identity": lambda: Identity(SHAPE),
    "user's blur": UsersBlur,
    "composition": lambda: Mask(mask().known[:1]) @ Grayscale(SHAPE),
    "scaled": lambda: -2.5 * Grayscale(SHAPE),
    "stack": lambda: Stack(mask(), 0.3 * Grayscale(SHAPE), UsersBlur()),
    "matrix": lambda: DenseMatrix(draw((7, 60), 5, torch.float64, 1)[0], SHAPE),
    "adjoint": lambda: Grayscale(SHAPE).T,
    "diagonal": lambda: Diagonal(torch.linspace(-1, 1, 5, dtype=torch.float64).repeat(3, 4, 1).mT),
    "scaled, no closed form": lambda: 0.3 * UsersBlur(),
    "scaled by nothing": lambda: 0 * mask(),
    "negative": lambda: -mask(),
    "sum": lambda: mask() + 0.5 * UsersBlur(),
    "difference": lambda: Identity(SHAPE) - UsersBlur(),
    "normal": lambda: UsersBlur().N,
    "normal of a composition": lambda: (2 * Mask(mask().known[:1]) @ Grayscale(SHAPE)).N,
    "composition on orthogonal rows": lambda: (
        DenseMatrix(draw((7, 20), 6, torch.float64, 1)[0], (1, 5, 4)) @ (3 * Grayscale(SHAPE) @ Identity(SHAPE))
    ),
    "composition on a blur": lambda: mask() @ UsersBlur(),
    "channel matrix": lambda: ChannelMatrix(draw((2, 3), 7, torch.float64, 1)[0], SHAPE),
    "orthogonal channels": lambda: ChannelMatrix(2 * torch.linalg.qr(draw((3, 3), 8, torch.float64, 1)[0])[0], SHAPE),
    "mask on orthogonal channels": lambda: (
        mask(3) @ ChannelMatrix(torch.linalg.qr(draw((3, 3), 8, torch.float64, 1)[0])[0], SHAPE)
    ),
    "circular blur": lambda: Blur(PSF, SHAPE),
    "circular blur, wider than the picture": lambda: Blur(torch.ones(7, 6) / 42, SHAPE),
    "valid blur": lambda: Blur(PSF, SHAPE, "valid"),
    "reflecting blur": lambda: Blur(PSF, SHAPE, "reflect"),
    "reflecting blur, wider than the picture": lambda: Blur(motion_psf(9, 30), (1, 3, 2), "reflect"),
    "bicubic downsampling": lambda: Downsample(EVEN, 2),
    "box downsampling": lambda: Downsample(EVEN, 4, "box"),
    "gaussian downsampling": lambda: Downsample((1, 9, 6), 3, "gaussian"),
    "bicubic downsampling by an odd factor": lambda: Downsample((1, 6, 9), 3),
    "blurred decimation": lambda: BlurredDecimation(PSF, EVEN, 2),
    "masked, downsampled blur": lambda: (
        Mask(torch.arange(24).reshape(1, 4, 6) % 3 > 0, channels=2) @ Downsample(EVEN, 2, "box") @ Blur(PSF, EVEN)
    ),
    "jpeg, 4:2:0": lambda: JpegCoefficients(
        (3, 16, 16), torch.arange(192).reshape(3, 8, 8) % 5 + 200, ((2, 2), (1, 1), (1, 1))
    ),
    "jpeg, 4:2:2": lambda: JpegCoefficients(
        (3, 8, 32), torch.arange(192).reshape(3, 8, 8) % 7 + 100, ((2, 1), (1, 1), (1, 1))
    ),
    "jpeg, RGB": lambda: JpegCoefficients((3, 8, 8), torch.full((3, 8, 8), 99), rgb=True),
    "jpeg, grey": lambda: JpegCoefficients((1, 16, 8), torch.arange(64).reshape(1, 8, 8) + 50),
    "bayer": lambda: Bayer(SHAPE),
    "bayer, other phase": lambda: Mask(mask().known[:1]) @ Bayer(SHAPE, "GBRG"),
    "hadamard, padded": lambda: random_hadamard(SHAPE, 23, torch.Generator().manual_seed(1)),
    "hadamard, padded, all rows": lambda: Hadamard(SHAPE, torch.arange(64)),
    "hadamard, power of two": lambda: random_hadamard((2, 4, 8), 20, torch.Generator().manual_seed(2)),
    "fourier": lambda: Fourier(draw((6, 5), 1, torch.float64, 1)[0] > 0, 2),
    "fourier, weighted, even": lambda: Fourier(draw((4, 6), 2, torch.float64, 1)[0].clamp(min=0)),
    "mri, one coil": lambda: Mri(draw((4, 5), 1, torch.float64, 1)[0] > 0),
    "mri, weighted": lambda: 0.5 * Mri(draw((4, 5), 1, torch.float64, 1)[0].clamp(min=0)),
    "mri, three coils": lambda: Mri(draw((4, 4), 3, torch.float64, 1)[0] > 0, coils()),
    "phase": lambda: Phase(draw((4, 5), 9, torch.float64, 1)[0]),
    "mri of magnitudes": lambda: Mri(draw((4, 4), 3, torch.float64, 1)[0] > 0, coils()) @ Phase(coils()[0].angle()),
    "means of regions": lambda: RegionMeans(REGIONS, 3),
    "weighted means of channels": lambda: (
        Diagonal(torch.linspace(1, 2, 6, dtype=torch.float64).reshape(2, 3))
        @ RegionMeans(REGIONS, 2)
        @ ChannelMatrix(torch.eye(3, dtype=torch.float64)[1:], SHAPE)
    ),
}


if importlib.util.find_spec("torchkbnufft"):
    OPERATORS["mri off the grid"] = lambda: NonCartesianMri(
        draw((30, 2), 12, torch.float64, 1)[0].clamp(-2, 2) / 4, (5, 4)
    )
    OPERATORS["mri off the grid, three coils"] = lambda: NonCartesianMri(radial_trajectory(5, 4), (4, 4), coils())


def coils() -> torch.Tensor:
    return torch.complex(*draw((3, 4, 4), 11, torch.float64))


STRICT = {"prox, float32": 1e-3, "prox, float64": 1e-5, "pinv, float32": 5e-3, "pinv, float64": 1e-4}
"""These operators are small and well conditioned: what iterations end with is nearer than the laws ask for."""


@pytest.fixture(params=list(OPERATORS), ids=list(OPERATORS))
def operator(request: pytest.FixtureRequest) -> LinearOperator:
    return OPERATORS[request.param]()


@pytest.mark.parametrize("law", list(OPERATOR_LAWS))
def test_every_law_holds(operator: LinearOperator, law: str) -> None:
    found = OPERATOR_LAWS[law](operator)
    strict = STRICT.get(law, found.tolerance)
    assert found._replace(tolerance=strict).passed, found


@pytest.mark.parametrize("law", ["adjoint, float64", "norm", "prox, float64", "pinv, float64", "batches"])
def test_laws_of_large_operators_need_no_matrix(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invsolve.verification.laws.dense_matrix", None)
    found = OPERATOR_LAWS[law](Downsample((3, 20, 32), 2))
    assert found.passed, found


def test_wrong_shape_names_the_operator(operator: LinearOperator) -> None:
    with pytest.raises(InputError, match="wanted"):
        operator(torch.zeros(1, *operator.input_shape, 1))
    with pytest.raises(InputError, match=type(operator).__name__):
        operator(torch.zeros(1, *(n + 1 for n in operator.input_shape)))


def test_closed_forms_outlive_scaling_and_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **options: object) -> torch.Tensor:
        raise AssertionError("iterated")

    monkeypatch.setattr("invsolve.forward_models.operator.conjugate_gradient", refused)
    monkeypatch.setattr("invsolve.forward_models.operator.power_iteration", refused)
    closed = [
        "scaled",
        "negative",
        "composition",
        "composition on orthogonal rows",
        "bayer",
        "bayer, other phase",
        "phase",
    ]
    closed += [
        "circular blur",
        "bicubic downsampling",
        "box downsampling",
        "gaussian downsampling",
        "blurred decimation",
    ]
    closed += ["hadamard, power of two", "fourier", "fourier, weighted, even", "mri, one coil", "mri, weighted"]
    for name in closed:
        operator = OPERATORS[name]()
        for found in (laws.prox(operator), laws.pinv(operator), laws.norm(operator, tolerance=1e-9)):
            assert found._replace(tolerance=1e-9).passed, found


def test_impossible_sums_name_both() -> None:
    with pytest.raises(InputError, match=r"Mask.*Grayscale"):
        mask() + Grayscale(SHAPE)


def test_impossible_composition_names_both() -> None:
    with pytest.raises(InputError, match=r"Mask.*Grayscale"):
        mask() @ Grayscale(SHAPE)


class WrongAdjoint(UsersBlur):
    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * y - 0.25 * y.roll(-1, -1) + 0.125 * y.roll(-2, -2)


class Shifted(UsersBlur):
    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return super()._apply(x) + 1e-3


class WrongNorm(UsersBlur):
    def _norm(self) -> float:
        return 0.8


class WrongProx(UsersBlur):
    def _prox(self, z: torch.Tensor, y: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
        return super()._prox(z, y, 1.1 * rho)


class WrongPinv(UsersBlur):
    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        return self._adjoint(y)


class OnlySingle(UsersBlur):
    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return super()._apply(x.float())


class SeesTheBatch(UsersBlur):
    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return super()._apply(x) + 0.01 * x.mean(dim=0)


class InPlace(UsersBlur):
    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        y *= 0.5
        return 2 * super()._adjoint(y)


class WrongShape(UsersBlur):
    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return super()._apply(x)[..., :1]


class CountsAll(Mask):
    @property
    def informative(self) -> torch.Tensor:
        return torch.ones(self.output_shape, dtype=torch.bool)


PLANTED: dict[str, tuple[Callable[[], LinearOperator], list[str]]] = {
    "adjoint, float64": (WrongAdjoint, []),
    "adjoint, float32": (WrongAdjoint, []),
    "linear": (Shifted, []),
    "norm": (WrongNorm, ["norm"]),
    "prox, float64": (WrongProx, []),
    "prox, float32": (WrongProx, []),
    "pinv, float64": (WrongPinv, []),
    "pinv, float32": (WrongPinv, []),
    "dtype": (OnlySingle, []),
    "batches": (SeesTheBatch, []),
    "inputs kept": (InPlace, []),
    "shapes": (WrongShape, []),
    "measured values": (lambda: CountsAll(mask().known, channels=3), ["measured values"]),
}


@pytest.mark.parametrize("law", list(OPERATOR_LAWS))
def test_a_planted_mistake_breaks_its_law(law: str) -> None:
    make, only = PLANTED[law]
    assert not OPERATOR_LAWS[law](make()).passed
    if only:  # a mistake in one place breaks that law alone
        assert [name for name, holds in OPERATOR_LAWS.items() if not holds(make()).passed] == only


SCENE = torch.rand(2, 3, 20, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(("boundary", "mode"), [("reflect", "reflect"), ("circular", "wrap")])
@pytest.mark.parametrize("size", [(3, 4), (5, 5), (1, 6), (23, 19)])
def test_blur_is_the_convolution_of_scipy(boundary: str, mode: str, size: tuple[int, int]) -> None:
    psf = torch.rand(*size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = [[ndimage.convolve(plane, psf.numpy(), mode=mode) for plane in image] for image in SCENE.numpy()]
    torch.testing.assert_close(Blur(psf, SCENE.shape[1:], boundary)(SCENE), torch.from_numpy(np.stack(expected)))


def test_a_valid_blur_is_part_of_any_other() -> None:
    valid, whole = (Blur(PSF, SCENE.shape[1:], boundary)(SCENE) for boundary in ("valid", "circular"))
    torch.testing.assert_close(valid, whole[..., 1:-1, 1:-2])


@pytest.mark.parametrize("boundary", ["valid", "reflect"])
def test_the_norm_of_a_large_blur_is_that_of_a_small_one(boundary: str) -> None:
    operator = Blur(gaussian_psf(1.6), (1, 150, 200), boundary)
    assert operator.norm == pytest.approx(power_iteration(operator), rel=1e-3)


@pytest.mark.parametrize("factor", [2, 4])
def test_downsampling_is_that_of_pytorch_and_pillow(factor: int) -> None:
    y = Downsample(SCENE.shape[1:], factor)(SCENE)
    torch.testing.assert_close(
        y, torch.nn.functional.interpolate(SCENE, scale_factor=1 / factor, mode="bicubic", antialias=True)
    )
    size = (16 // factor, 20 // factor)
    pillow = Image.fromarray(SCENE[0, 0].numpy().astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    np.testing.assert_allclose(y[0, 0].numpy(), np.asarray(pillow), atol=1e-6)
    mean = Downsample(SCENE.shape[1:], factor, "box")(SCENE)
    torch.testing.assert_close(mean, torch.nn.functional.avg_pool2d(SCENE, factor))


@pytest.mark.parametrize("kernel", ["bicubic", "box", "gaussian"])
@pytest.mark.parametrize("factor", range(2, 9))
def test_downsampling_keeps_an_even_picture_and_the_middle_of_a_ramp(kernel: str, factor: int) -> None:
    length = 6 * factor
    ramp = torch.arange(length, dtype=torch.float64).expand(1, 1, factor, length)
    operator = Downsample(ramp.shape[1:], factor, kernel)
    torch.testing.assert_close(operator(torch.full_like(ramp, 0.3)), torch.full((1, 1, 1, 6), 0.3, dtype=torch.float64))
    assert operator(ramp)[0, 0, 0, 2:4].tolist() == pytest.approx([2.5 * factor - 0.5, 3.5 * factor - 0.5])


def test_psfs_have_the_moments_they_are_named_after() -> None:
    for psf in (gaussian_psf(1.6), motion_psf(7.3, 30), motion_psf(0, 0), motion_psf(12, -45)):
        assert float(psf.sum()) == pytest.approx(1)
        torch.testing.assert_close(psf, psf.flip(0, 1))
    rows, columns = (torch.arange(n, dtype=torch.float64) - n // 2 for n in gaussian_psf(1.6).shape)
    assert float((gaussian_psf(1.6) * rows[:, None] ** 2).sum()) == pytest.approx(1.6**2, rel=0.01)
    psf = motion_psf(20, 30)
    rows, columns = (torch.arange(n, dtype=torch.float64) - n // 2 for n in psf.shape)
    along = columns * math.cos(math.radians(30)) - rows[:, None] * math.sin(math.radians(30))
    assert float((psf * along**2).sum()) == pytest.approx(20**2 / 12, rel=0.02)
    assert motion_psf(5, 0).shape == (1, 7) and motion_psf(5, 90).shape == (7, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur(torch.ones(3), SHAPE), "PSF of shape"),
        (lambda: Blur(torch.full((3, 3), torch.nan), SHAPE), "finite"),
        (lambda: Blur(PSF, SHAPE, "mirror"), "circular, valid, reflect"),
        (lambda: Blur(torch.ones(9, 9), SHAPE, "valid"), "9 x 9 pixels for a picture of 4 x 5"),
        (lambda: Blur(PSF, (5, 4)), r"\(channels, height, width\)"),
        (lambda: Downsample(EVEN, 9), "2 to 8"),
        (lambda: Downsample(EVEN, 2.5), "whole number"),
        (lambda: Downsample(SHAPE, 2), "multiples of 2"),
        (lambda: Downsample(EVEN, 2, "lanczos"), "bicubic, box, gaussian"),
        (lambda: BlurredDecimation(PSF, SHAPE, 2), "multiples of 2"),
        (lambda: gaussian_psf(0), "positive"),
        (lambda: motion_psf(-1, 0), "not negative"),
    ],
)
def test_what_is_no_blur_and_no_reduction_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
