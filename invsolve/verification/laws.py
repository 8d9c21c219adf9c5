"""What every operator must obey, each law with how far off it is; of noises see :mod:`invsolve.verification.noise_laws`.

The tests hold this package's own operators to these laws, and ``invsolve check`` holds anybody's. A law takes the operator and
gives a :class:`Finding`; it raises whatever the operator raises. Reference values are computed from the forward map alone: of
small operators from the dense matrix, of others without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from invsolve.errors import first_line
from invsolve.forward_models import LinearOperator, power_iteration
from invsolve.models.gaussian import dense_matrix

Map = Callable[[Tensor], Tensor]

DENSE = 600
"""Values of x and of y up to which an operator's matrix is decomposed."""

WELL_SEEN = 0.01
"""Singular values above this share of the largest count as determined: beyond, rounding and stopping rules decide."""

NULL = 1e-9
"""Singular values below this share of the largest are zeros."""

ITERATED = {torch.float32: 2e-2, torch.float64: 2e-3}
"""Tolerance of the proximal map and the pseudo-inverse: conjugate gradients on a wide blur end that far off, and do no harm."""


class Finding(NamedTuple):
    """A law, and how far something is from obeying it."""

    law: str
    error: float
    tolerance: float
    meaning: str  # of the error

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; one that is no number is not."""
        return self.error <= self.tolerance


def draw(
    shape: tuple[int, ...], seed: int, dtype: torch.dtype, batch: int = 2, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal values (batch, *shape)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, *shape), generator=generator, dtype=torch.float64).to(device, dtype)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).double().norm()) / max(float(expected.double().norm()), 1e-300)


def held(name: str, law: Callable[..., Finding], *given: object) -> Finding:
    """What a law finds; of something that raises, that it does."""
    try:
        return law(*given)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - somebody's own code may raise anything, and that is a finding
        return Finding(name, math.inf, 0.0, f"it raised {type(error).__name__}: {first_line(error)}")


def check_operator(operator: LinearOperator, device: torch.device | str = "cpu") -> list[Finding]:
    """Every law of linear operators; that of devices where ``device`` is not the CPU."""
    found = [held(name, law, operator) for name, law in OPERATOR_LAWS.items()]
    return found if torch.device(device).type == "cpu" else [*found, held("device", on_device, operator, device)]


def check_map(operator: Map, shape: tuple[int, ...]) -> list[Finding]:
    """Every law of maps that are not linear, on pictures of ``shape`` (C, H, W) in [0, 1]."""
    return [held(name, law, operator, shape) for name, law in MAP_LAWS.items()]


# -- linear operators -----------------------------------------------------------------------------------------------------
def shapes(operator: LinearOperator) -> Finding:
    """y has the shape that the operator says, and A'y that of x; batches of one and of three."""
    wrong = 0
    for batch in (1, 3):
        x, y = _pair(operator, 0, torch.float32, batch)
        wrong += tuple(operator(x).shape) != (batch, *operator.output_shape)
        wrong += tuple(operator.T(y).shape) != (batch, *operator.input_shape)
    return Finding("shapes", float(wrong), 0.0, "results of another shape")


def linearity(operator: LinearOperator, tolerance: float = 1e-10) -> Finding:
    """A(2 x - 3 z) = 2 A x - 3 A z, and the same again when asked again."""
    dtype = _precise(operator)
    x, z = (draw(operator.input_shape, seed, dtype, device=operator.device) for seed in (0, 1))
    ax, az = operator(x), operator(z)
    size = float((2 * ax).norm() + (3 * az).norm()) + 1e-300
    gap = max(float((operator(2 * x - 3 * z) - (2 * ax - 3 * az)).norm()), float((operator(x) - ax).norm()))
    return Finding("linear", gap / size, _loosened(tolerance, dtype), "|A(2x - 3z) - 2Ax + 3Az| over its parts")


def adjoint(operator: LinearOperator, dtype: torch.dtype = torch.float64) -> Finding:
    """<A x, y> = <x, A' y>, the largest of eight gaps over |A x| |y|."""
    worst = 0.0
    for seed in range(8):
        x = draw(operator.input_shape, seed, dtype, 1, operator.device)
        y = draw(operator.output_shape, seed + 10, dtype, 1, operator.device)
        image = operator(x)
        gap = float((image.double() * y.double()).sum() - (x.double() * operator.T(y).double()).sum())
        worst = max(worst, abs(gap) / (float(image.norm() * y.norm()) + 1e-300) if gap else 0.0)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    return Finding(f"adjoint, {_bits(dtype)}", worst, tolerance, "|<Ax, y> - <x, A'y>| over |Ax| |y|")


def same_dtype(operator: LinearOperator) -> Finding:
    """float32 stays float32 and float64 float64."""
    wrong = 0
    for dtype in (torch.float32, torch.float64):
        x, y = _pair(operator, 0, dtype, 1)
        wrong += operator(x).dtype != dtype
        wrong += operator.T(y).dtype != dtype
        wrong += operator.prox(x, y, 0.5).dtype != dtype
        wrong += operator.pinv(y).dtype != dtype
    return Finding("dtype", float(wrong), 0.0, "results of another floating type")


def batches(operator: LinearOperator, tolerance: float = 1e-10) -> Finding:
    """What comes of an image does not depend on the others of its batch."""
    dtype = _precise(operator)
    x, y = _pair(operator, 3, dtype, 3)
    rho = torch.tensor([0.3, 1.0, 2.0], dtype=dtype, device=x.device)
    whole = (operator(x), operator.T(y), operator.prox(x, y, rho))
    worst = 0.0
    for k in range(3):
        one = slice(k, k + 1)
        alone = (operator(x[one]), operator.T(y[one]), operator.prox(x[one], y[one], rho[one]))
        worst = max(worst, *(_relative(a[one], b) for a, b in zip(whole, alone, strict=True)))
    return Finding("batches", worst, _loosened(tolerance, dtype), "an image alone against in a batch, relative")


def untouched(operator: LinearOperator) -> Finding:
    """Nothing is written into what the operator is given."""
    x, y = _pair(operator, 4, torch.float32, 1)
    before = x.clone(), y.clone()
    operator(x), operator.T(y), operator.prox(x, y, 0.5), operator.pinv(y)
    return Finding(
        "inputs kept", float(not (torch.equal(x, before[0]) and torch.equal(y, before[1]))), 0.0, "changed inputs"
    )


def norm(operator: LinearOperator, tolerance: float = 1e-3) -> Finding:
    """``A.norm`` is the largest singular value: steps of rules and samplers are as long as it allows."""
    if _small(operator):
        largest = float(torch.linalg.matrix_norm(_matrix(operator), ord=2))
    else:
        largest = max(power_iteration(operator), _growth(operator))
    error = abs(operator.norm - largest) / largest if largest else abs(operator.norm)
    return Finding("norm", error, tolerance, "A.norm against the largest singular value, relative")


def prox(operator: LinearOperator, dtype: torch.dtype = torch.float64, tolerance: float | None = None) -> Finding:
    """``prox(z, y, rho)`` minimises |A x - y|^2 / 2 + rho |x - z|^2 / 2: the gradient is 0 there.

    Relative to the gradient at z, the largest of several rho, also different ones in a batch.
    """
    z, y = _pair(operator, 2, dtype, 2)
    worst = 0.0
    fine = _precise(operator)
    for rho in ([0.3, 0.3], [1e-3, 2.0]):
        weight = torch.tensor(rho, dtype=dtype, device=z.device)
        x, origin, target = (t.to(fine) for t in (operator.prox(z, y, weight), z, y))
        shaped = weight.to(fine).reshape(-1, *(1,) * len(operator.input_shape))
        gradient = operator.T(operator(x) - target) + shaped * (x - origin)
        scale = operator.T(operator(origin) - target)
        for image in range(2):
            size = max(float(scale[image].norm()), 1e-9 * float(origin[image].norm()))
            worst = max(worst, float(gradient[image].norm()) / size)
    wanted = tolerance or ITERATED[dtype]
    return Finding(f"prox, {_bits(dtype)}", worst, wanted, "gradient at the minimum over that at z")


def pinv(operator: LinearOperator, dtype: torch.dtype = torch.float64, tolerance: float | None = None) -> Finding:
    """``pinv(y)`` is the least-norm least-squares solution, for y = A x and, of small operators, a part that no x explains.

    Of small operators: in the directions with a singular value above 1 % of the largest it is x, in those with none it is 0. (What
    noise makes of the directions in between, rounding and stopping rules decide.) Of others: A pinv(y) = y.
    """
    law, wanted = f"pinv, {_bits(dtype)}", tolerance or ITERATED[dtype]
    x = draw(operator.input_shape, 4, dtype, device=operator.device)
    y = operator(x)
    if not _small(operator):
        return Finding(law, _relative(operator(operator.pinv(y)), y), wanted, "A A+ y against y = A x, relative")
    u, s, vt = torch.linalg.svd(_matrix(operator))
    largest = max(float(s.max()), 1e-300)
    null = torch.ones(len(vt), dtype=torch.bool)
    null[: len(s)] = s <= NULL * largest
    unexplained = torch.ones(len(u), dtype=torch.bool)
    unexplained[: len(s)] = s <= NULL * largest
    rest = draw(operator.output_shape, 5, torch.float64).flatten(1) @ u[:, unexplained] @ u[:, unexplained].T
    found = operator.pinv(y + rest.reshape(y.shape).to(y)).double().cpu().flatten(1)
    seen = vt[: len(s)][s > WELL_SEEN * largest]
    target = x.double().flatten(1) @ seen.T
    error = math.hypot(float((found @ seen.T - target).norm()), float((found @ vt[null].T).norm()))
    return Finding(
        law, error / max(float(target.norm()), 1e-9), wanted, "A+ A x against x where it is seen, against 0 where not"
    )


def informative(operator: LinearOperator) -> Finding:
    """``measured_values`` counts the values of y that depend on x: chi-squared is divided by it."""
    values = torch.stack(
        [operator(draw(operator.input_shape, seed, torch.float32, 1, operator.device))[0] for seed in range(4)]
    )
    largest = values.abs().amax(dim=0)
    counted = int((largest > 1e-12 * max(float(largest.max()), 1e-300)).sum())
    return Finding("measured values", float(abs(operator.measured_values - counted)), 0.0, "values counted wrongly")


def on_device(operator: LinearOperator, device: torch.device | str, tolerance: float = 1e-4) -> Finding:
    """Given values on ``device``, the results are there and those of the CPU; of an operator that lives there, no more than that."""
    x, y = _pair(operator, 5, torch.float32, 1)
    expected = operator(x), operator.T(y)
    found = operator(x.to(device)), operator.T(y.to(device))
    wrong = any(one.device.type != torch.device(device).type for one in found)
    error = max(_relative(a.cpu(), b.cpu()) for a, b in zip(found, expected, strict=True))
    return Finding(f"on {device}", math.inf if wrong else error, tolerance, "against the CPU, relative")


OperatorLaw = Callable[[LinearOperator], Finding]

OPERATOR_LAWS: dict[str, OperatorLaw] = {
    "shapes": shapes,
    "linear": linearity,
    "adjoint, float32": partial(adjoint, dtype=torch.float32),
    "adjoint, float64": adjoint,
    "dtype": same_dtype,
    "batches": batches,
    "inputs kept": untouched,
    "norm": norm,
    "prox, float32": partial(prox, dtype=torch.float32),
    "prox, float64": prox,
    "pinv, float32": partial(pinv, dtype=torch.float32),
    "pinv, float64": pinv,
    "measured values": informative,
}


# -- maps that are not linear ---------------------------------------------------------------------------------------------
def map_batches(operator: Map, shape: tuple[int, ...], tolerance: float = 1e-4) -> Finding:
    """What comes of an image does not depend on the others of its batch."""
    x = _pictures(shape, 3)
    whole = operator(x)
    error = max(_relative(whole[k : k + 1], operator(x[k : k + 1])) for k in range(3))
    return Finding("batches", error, tolerance, "an image alone against in a batch, relative")


def map_dtype(operator: Map, shape: tuple[int, ...]) -> Finding:
    """float32 stays float32."""
    return Finding("dtype", float(operator(_pictures(shape, 1)).dtype != torch.float32), 0.0, "another floating type")


def map_untouched(operator: Map, shape: tuple[int, ...]) -> Finding:
    """Nothing is written into the picture."""
    x = _pictures(shape, 1)
    before = x.clone()
    operator(x)
    return Finding("inputs kept", float(not torch.equal(x, before)), 0.0, "changed inputs")


def differentiable(operator: Map, shape: tuple[int, ...]) -> Finding:
    """autograd goes through, and what it gives is finite: the rules for such maps need J'v."""
    x = _pictures(shape, 2).requires_grad_()
    y = operator(x)
    if not y.requires_grad:
        return Finding("differentiable", math.inf, 0.0, "the result has no gradient")
    (gradient,) = torch.autograd.grad(y.sum(), x, allow_unused=True)
    wrong = x.numel() if gradient is None else int((~torch.isfinite(gradient)).sum())
    return Finding("differentiable", float(wrong), 0.0, "values without a finite derivative")


MapLaw = Callable[[Map, tuple[int, ...]], Finding]

MAP_LAWS: dict[str, MapLaw] = {
    "batches": map_batches, "dtype": map_dtype, "inputs kept": map_untouched, "differentiable": differentiable,
}  # fmt: skip


# -- shared ---------------------------------------------------------------------------------------------------------------
def _pictures(shape: tuple[int, ...], batch: int) -> Tensor:
    return 0.05 + 0.9 * torch.rand((batch, *shape), generator=torch.Generator().manual_seed(0))


def _pair(operator: LinearOperator, seed: int, dtype: torch.dtype, batch: int) -> tuple[Tensor, Tensor]:
    x = draw(operator.input_shape, seed, dtype, batch, operator.device)
    return x, draw(operator.output_shape, seed + 1, dtype, batch, operator.device)


def _precise(operator: LinearOperator) -> torch.dtype:
    """float64 where the operator takes it and keeps it."""
    x = draw(operator.input_shape, 0, torch.float64, 1, operator.device)
    try:
        return torch.float64 if operator(x).dtype == torch.float64 else torch.float32
    except RuntimeError:  # a backend that only knows float32
        return torch.float32


def _loosened(tolerance: float, dtype: torch.dtype) -> float:
    return tolerance if dtype == torch.float64 else max(tolerance, 1e-5)


def _bits(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _small(operator: LinearOperator) -> bool:
    return (
        max(math.prod(operator.input_shape), math.prod(operator.output_shape)) <= DENSE
        and operator.device.type == "cpu"
    )


def _matrix(operator: LinearOperator) -> Tensor:
    return dense_matrix(operator, _precise(operator)).double()


def _growth(operator: LinearOperator) -> float:
    """The largest |A x| / |x| of random x: a lower bound of the norm."""
    x = draw(operator.input_shape, 6, torch.float32, 8, operator.device)
    return float((operator(x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).max())
