"""Every operator passes the same tests: linear, exact adjoint, norm, proximal map, pseudo-inverse, shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from invsolve.errors import InputError
from invsolve.forward_models import (
    Bayer,
    ChannelMatrix,
    DenseMatrix,
    Diagonal,
    Fourier,
    Grayscale,
    Hadamard,
    Identity,
    LinearOperator,
    Mask,
    Mri,
    Phase,
    RegionMeans,
    Stack,
    random_hadamard,
)
from invsolve.models.gaussian import dense_matrix

SHAPE = (3, 5, 4)
REGIONS = torch.arange(20).reshape(5, 4) % 4 - 1  # a quarter of the pixels is in none


def mask(channels: int = 1) -> Mask:
    generator = torch.Generator().manual_seed(1)
    return Mask((torch.rand(channels, *SHAPE[1:], generator=generator) > 0.4).double(), channels=3)


class Blur(LinearOperator):
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
    "user's blur": Blur,
    "composition": lambda: Mask(mask().known[:1]) @ Grayscale(SHAPE),
    "scaled": lambda: -2.5 * Grayscale(SHAPE),
    "stack": lambda: Stack(mask(), 0.3 * Grayscale(SHAPE), Blur()),
    "matrix": lambda: DenseMatrix(draw((7, 60), 5, torch.float64, 1)[0], SHAPE),
    "adjoint": lambda: Grayscale(SHAPE).T,
    "diagonal": lambda: Diagonal(torch.linspace(-1, 1, 5, dtype=torch.float64).repeat(3, 4, 1).mT),
    "scaled, no closed form": lambda: 0.3 * Blur(),
    "scaled by nothing": lambda: 0 * mask(),
    "negative": lambda: -mask(),
    "sum": lambda: mask() + 0.5 * Blur(),
    "difference": lambda: Identity(SHAPE) - Blur(),
    "normal": lambda: Blur().N,
    "normal of a composition": lambda: (2 * Mask(mask().known[:1]) @ Grayscale(SHAPE)).N,
    "composition on orthogonal rows": lambda: (
        DenseMatrix(draw((7, 20), 6, torch.float64, 1)[0], (1, 5, 4)) @ (3 * Grayscale(SHAPE) @ Identity(SHAPE))
    ),
    "composition on a blur": lambda: mask() @ Blur(),
    "channel matrix": lambda: ChannelMatrix(draw((2, 3), 7, torch.float64, 1)[0], SHAPE),
    "orthogonal channels": lambda: ChannelMatrix(2 * torch.linalg.qr(draw((3, 3), 8, torch.float64, 1)[0])[0], SHAPE),
    "mask on orthogonal channels": lambda: (
        mask(3) @ ChannelMatrix(torch.linalg.qr(draw((3, 3), 8, torch.float64, 1)[0])[0], SHAPE)
    ),
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


def coils() -> torch.Tensor:
    return torch.complex(*draw((3, 4, 4), 11, torch.float64))


@pytest.fixture(params=list(OPERATORS), ids=list(OPERATORS))
def operator(request: pytest.FixtureRequest) -> LinearOperator:
    return OPERATORS[request.param]()


def draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype, batch: int = 2) -> torch.Tensor:
    return torch.randn((batch, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_adjoint(operator: LinearOperator, dtype: torch.dtype, tolerance: float) -> None:
    for seed in range(4):
        x, y = draw(operator.input_shape, seed, dtype, 1), draw(operator.output_shape, seed + 10, dtype, 1)
        ax, aty = operator(x), operator.T(y)
        assert ax.dtype == dtype
        assert aty.dtype == dtype
        scale = float(ax.norm() * y.norm()) + 1e-300
        assert abs(float((ax * y).sum() - (x * aty).sum())) / scale < tolerance
    assert torch.equal(operator.T.T(x), operator(x))


def test_linear(operator: LinearOperator) -> None:
    x, z = draw(operator.input_shape, 0, torch.float64), draw(operator.input_shape, 1, torch.float64)
    torch.testing.assert_close(operator(2 * x - 3 * z), 2 * operator(x) - 3 * operator(z))


def test_norm_is_the_largest_singular_value(operator: LinearOperator) -> None:
    assert operator.norm == pytest.approx(float(torch.linalg.matrix_norm(dense_matrix(operator), ord=2)), rel=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-5)])
def test_prox_minimises_its_objective(operator: LinearOperator, dtype: torch.dtype, tolerance: float) -> None:
    matrix = dense_matrix(operator)
    z, y = draw(operator.input_shape, 2, torch.float64), draw(operator.output_shape, 3, torch.float64)
    for rho in (torch.tensor([0.3, 0.3]), torch.tensor([1e-3, 2.0])):
        found = operator.prox(z.to(dtype), y.to(dtype), rho)
        assert found.dtype == dtype
        x = found.double()
        for image in range(2):
            weight = float(rho[image])
            normal = matrix.T @ matrix + weight * torch.eye(matrix.shape[1], dtype=torch.float64)
            expected = torch.linalg.solve(normal, matrix.T @ y[image].flatten() + weight * z[image].flatten())
            torch.testing.assert_close(x[image].flatten(), expected, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-3), (torch.float64, 1e-4)])
def test_pinv_is_the_pseudo_inverse(operator: LinearOperator, dtype: torch.dtype, tolerance: float) -> None:
    y = draw(operator.output_shape, 4, torch.float64)
    expected = y.flatten(1) @ torch.linalg.pinv(dense_matrix(operator), rcond=1e-9).T
    found = operator.pinv(y.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double().flatten(1), expected, rtol=tolerance, atol=tolerance)


def test_wrong_shape_names_the_operator(operator: LinearOperator) -> None:
    with pytest.raises(InputError, match="wanted"):
        operator(torch.zeros(1, *operator.input_shape, 1))
    with pytest.raises(InputError, match=type(operator).__name__):
        operator(torch.zeros(1, *(n + 1 for n in operator.input_shape)))


def test_values_that_say_nothing_are_not_counted(operator: LinearOperator) -> None:
    """A row of zeros: its value is the same for every x."""
    assert operator.measured_values == int((dense_matrix(operator).abs().sum(dim=1) > 1e-12).sum())


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
    closed += ["hadamard, power of two", "fourier", "fourier, weighted, even", "mri, one coil", "mri, weighted"]
    for name in closed:
        operator = OPERATORS[name]()
        test_prox_minimises_its_objective(operator, torch.float64, 1e-9)
        test_pinv_is_the_pseudo_inverse(operator, torch.float64, 1e-9)
        test_norm_is_the_largest_singular_value(operator)


def test_impossible_sums_name_both() -> None:
    with pytest.raises(InputError, match=r"Mask.*Grayscale"):
        mask() + Grayscale(SHAPE)


def test_impossible_composition_names_both() -> None:
    with pytest.raises(InputError, match=r"Mask.*Grayscale"):
        mask() @ Grayscale(SHAPE)


def test_an_adjoint_off_by_a_sign_is_caught() -> None:
    class Wrong(Blur):
        def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
            return 0.5 * y - 0.25 * y.roll(-1, -1) + 0.125 * y.roll(-2, -2)

    with pytest.raises(AssertionError):
        test_adjoint(Wrong(), torch.float64, 1e-12)
