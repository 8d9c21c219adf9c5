"""Linear operators: shapes, exact adjoint, composition, stacking, norm, pseudo-inverse and proximal map.

A subclass writes ``_apply`` and ``_adjoint`` (and, where it has a closed form, ``_prox``, ``_pinv``, ``_norm``);
everything else follows: ``A.T``, ``A.N`` = A'A, ``A @ B``, ``A + B``, ``A - B``, ``-A``, ``2.5 * A``. A physical model is
a *composition* of operators, not a new class.

>>> import torch
>>> from invsolve.forward_models import Grayscale, Mask
>>> masked_grey = Mask(torch.tensor([[[1.0, 0.0]]])) @ Grayscale((3, 1, 2))
>>> masked_grey(torch.ones(1, 3, 1, 2))
tensor([[[[1., 0.]]]])
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward_models.conjugate_gradient import conjugate_gradient, short_conjugate_gradient

Shape = tuple[int, ...]

PINV_STEPS = 200
"""Most iterations of the default ``pinv``."""


class LinearOperator:
    """y = A x for batches: ``x`` (B, *input_shape) -> ``y`` (B, *output_shape), real, any floating dtype.

    Parameters
    ----------
    input_shape, output_shape : shapes without the batch axis.
    """

    device = torch.device("cpu")
    """Where the operator's own tensors live, for those that have any and cannot move them."""

    tolerance = 1e-6
    """Relative residual at which the conjugate gradients of the default ``prox`` stop."""

    row_square: float | None = None
    """c where ``A A' = c`` times the identity: rows orthogonal and of one length. None where that is not so, or not known."""

    def __init__(self, input_shape: Sequence[int], output_shape: Sequence[int]) -> None:
        self.input_shape: Shape = tuple(input_shape)
        self.output_shape: Shape = tuple(output_shape)
        self._cached_norm: float | None = None

    # -- written by subclasses ------------------------------------------------------------------------------------
    def _apply(self, x: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _apply")

    def _adjoint(self, y: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _adjoint")

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        """Default: conjugate gradients for the correction d = x - z, ``(A'A + rho) d = A'(y - A z)``.

        Solved for d, the tolerance is relative to what the data still change, not to the picture. Where y is the shorter, the
        same iterates come from vectors as long as y.
        """
        misfit = y - self._apply(z)
        if math.prod(self.output_shape) < math.prod(self.input_shape):
            weight = rho.reshape(-1, *(1,) * len(self.output_shape))
            return z + self._adjoint(short_conjugate_gradient(self._gram, weight, misfit, tolerance=self.tolerance))
        gradient = self._adjoint(misfit)

        def normal(d: Tensor) -> Tensor:
            return self._adjoint(self._apply(d)) + rho * d

        return z + conjugate_gradient(normal, gradient, torch.zeros_like(z), tolerance=self.tolerance)

    def _gram(self, y: Tensor) -> Tensor:
        """A A' y."""
        return self._apply(self._adjoint(y))

    def _pinv(self, y: Tensor) -> Tensor:
        """Default: conjugate gradients on A'A x = A'y started at 0, which stays in the row space."""
        right = self._adjoint(y)
        return conjugate_gradient(
            lambda x: self._adjoint(self._apply(x)), right, torch.zeros_like(right), steps=PINV_STEPS
        )

    def _norm(self) -> float:
        return power_iteration(self)

    # -- the public interface -------------------------------------------------------------------------------------
    def __call__(self, x: Tensor) -> Tensor:
        """A x. ``x`` (B, *input_shape)."""
        self._check(x, self.input_shape, "input")
        return self._apply(x)

    @property
    def T(self) -> LinearOperator:
        """The adjoint A'."""
        return Adjoint(self)

    @property
    def N(self) -> LinearOperator:
        """The normal operator A'A."""
        return Normal(self)

    @property
    def norm(self) -> float:
        """Largest singular value."""
        if self._cached_norm is None:
            self._cached_norm = self._norm()
        return self._cached_norm

    @property
    def informative(self) -> Tensor:
        """Which values of y depend on x at all, bool of ``output_shape``; a missing pixel's does not."""
        return torch.ones(self.output_shape, dtype=torch.bool)

    @property
    def measured_values(self) -> int:
        """How many values of y carry information: the count that chi-squared is divided by."""
        return int(self.informative.sum())

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """``argmin_x 1/2 |A x - y|^2 + rho/2 |x - z|^2``.

        Parameters
        ----------
        z : (B, *input_shape).
        y : (B, *output_shape).
        rho : positive, a number or one per image (B,).
        """
        self._check(z, self.input_shape, "input")
        self._check(y, self.output_shape, "output")
        weight = torch.as_tensor(rho, dtype=z.dtype, device=z.device)
        return self._prox(z, y, weight.reshape(-1, *(1,) * len(self.input_shape)))

    def pinv(self, y: Tensor) -> Tensor:
        """The least-norm least-squares solution A^+ y. ``y`` (B, *output_shape)."""
        self._check(y, self.output_shape, "output")
        return self._pinv(y)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return Composition(self, other)

    def __rmul__(self, factor: float) -> LinearOperator:
        return Scaled(self, factor)

    def __neg__(self) -> LinearOperator:
        return Scaled(self, -1.0)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, -other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.input_shape} -> {self.output_shape})"

    def _check(self, x: Tensor, shape: Shape, side: str) -> None:
        if tuple(x.shape[1:]) != shape:
            raise InputError(
                f"{self!r}: {side} has shape {tuple(x.shape)}", hint=f"wanted (batch, {', '.join(map(str, shape))})"
            )


class Adjoint(LinearOperator):
    """A' as an operator of its own; ``A.T.T`` behaves as ``A``."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.output_shape, operator.input_shape)
        self.operator = operator
        self.device, self.tolerance = operator.device, operator.tolerance

    def _apply(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._apply(y)

    def _norm(self) -> float:
        return self.operator.norm

    @property
    def T(self) -> LinearOperator:
        return self.operator

    @property
    def informative(self) -> Tensor:
        return self._apply(_probe(self))[0] != 0


class Composition(LinearOperator):
    """(A @ B) x = A (B x)."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if outer.input_shape != inner.output_shape:
            raise InputError(
                f"cannot compose {outer!r} with {inner!r}",
                hint=f"the outer operator takes {outer.input_shape}, the inner one gives {inner.output_shape}",
            )
        super().__init__(inner.input_shape, outer.output_shape)
        self.outer, self.inner = outer, inner
        self.device, self.tolerance = inner.device, max(outer.tolerance, inner.tolerance)

        if outer.row_square is not None and inner.row_square is not None:
            self.row_square = outer.row_square * inner.row_square

    @property
    def informative(self) -> Tensor:
        values = _probe(self.outer) * self.inner.informative.to(self.outer.device)
        return (self.outer._apply(values)[0] != 0) & self.outer.informative.to(self.outer.device)

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer._apply(self.inner._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _gram(self, y: Tensor) -> Tensor:
        return self.outer._apply(self.inner._gram(self.outer._adjoint(y)))

    # With B B' = c the picture splits into B'B x / c and a rest that A B does not see: what is left is A's own problem.
    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        c = self.inner.row_square
        if not c:
            return super()._prox(z, y, rho)
        seen = self.inner._apply(z)
        weight = (rho / c).reshape(-1, *(1,) * len(self.outer.input_shape))
        return z + self.inner._adjoint(self.outer._prox(seen, y, weight) - seen) / c

    def _pinv(self, y: Tensor) -> Tensor:
        c = self.inner.row_square
        return self.inner._adjoint(self.outer._pinv(y)) / c if c else super()._pinv(y)

    def _norm(self) -> float:
        c = self.inner.row_square
        return super()._norm() if c is None else self.outer.norm * math.sqrt(c)


class Scaled(LinearOperator):
    """factor * A, with the closed forms of A where it has them."""

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        super().__init__(operator.input_shape, operator.output_shape)
        self.operator, self.factor = operator, float(factor)
        self.device, self.tolerance = operator.device, operator.tolerance
        if operator.row_square is not None:
            self.row_square = self.factor**2 * operator.row_square

    @property
    def informative(self) -> Tensor:
        return self.operator.informative & (self.factor != 0)

    def _apply(self, x: Tensor) -> Tensor:
        return self.factor * self.operator._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor * self.operator._adjoint(y)

    def _prox(self, z: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        return self.operator._prox(z, y / self.factor, rho / self.factor**2) if self.factor else z

    def _pinv(self, y: Tensor) -> Tensor:
        return self.operator._pinv(y) / self.factor if self.factor else torch.zeros_like(self._adjoint(y))

    def _norm(self) -> float:
        return abs(self.factor) * self.operator.norm


class Sum(LinearOperator):
    """(A + B) x = A x + B x."""

    def __init__(self, *terms: LinearOperator) -> None:
        shapes = {(term.input_shape, term.output_shape) for term in terms}
        if len(shapes) != 1:
            raise InputError(
                f"cannot add operators of different shapes: {', '.join(map(repr, terms))}",
                hint="wanted the same input and the same output for all; Stack measures one picture in several ways",
            )
        super().__init__(*shapes.pop())
        self.terms = terms
        self.device = terms[0].device
        self.tolerance = max(term.tolerance for term in terms)

    @property
    def informative(self) -> Tensor:
        return torch.stack([term.informative.to(self.device) for term in self.terms]).any(dim=0)

    def _apply(self, x: Tensor) -> Tensor:
        return torch.stack([term._apply(x) for term in self.terms]).sum(dim=0)

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.stack([term._adjoint(y) for term in self.terms]).sum(dim=0)


class Normal(LinearOperator):
    """A'A, symmetric and positive semi-definite."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.input_shape, operator.input_shape)
        self.operator = operator
        self.device, self.tolerance = operator.device, operator.tolerance

    @property
    def T(self) -> LinearOperator:
        return self

    @property
    def informative(self) -> Tensor:
        return self.operator.T.informative

    def _apply(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(self.operator._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y)

    def _pinv(self, y: Tensor) -> Tensor:
        """A^+ (A')^+ y: two solves with A's condition number squared, not one with its fourth power."""
        return self.operator._pinv(self.operator.T._pinv(y))

    def _norm(self) -> float:
        return self.operator.norm**2


class Stack(LinearOperator):
    """Several measurements of one x, as one flat vector: y = [A1 x; A2 x; ...], shape (B, m1 + m2 + ...)."""

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise InputError("a stack needs at least one operator")
        shapes = {operator.input_shape for operator in operators}
        if len(shapes) != 1:
            raise InputError(f"cannot stack operators with different inputs: {', '.join(map(repr, operators))}")
        self.operators = operators
        self.sizes = [math.prod(operator.output_shape) for operator in operators]
        super().__init__(shapes.pop(), (sum(self.sizes),))
        self.device = operators[0].device
        self.tolerance = max(operator.tolerance for operator in operators)

    @property
    def informative(self) -> Tensor:
        return torch.cat([operator.informative.flatten().to(self.device) for operator in self.operators])

    def _apply(self, x: Tensor) -> Tensor:
        return torch.cat([operator._apply(x).flatten(1) for operator in self.operators], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        terms = [operator._adjoint(part) for operator, part in zip(self.operators, self.split(y), strict=True)]
        return torch.stack(terms).sum(dim=0)

    def split(self, y: Tensor) -> list[Tensor]:
        """The flat measurement (B, m) as the list of each operator's own measurement."""
        parts = y.split(self.sizes, dim=1)
        return [part.reshape(-1, *operator.output_shape) for part, operator in zip(parts, self.operators, strict=True)]


def _probe(operator: LinearOperator) -> Tensor:
    """Random values for ``operator``: where its output is 0 for them, it is 0 for all."""
    values = torch.rand((1, *operator.input_shape), generator=torch.Generator().manual_seed(0))
    return (1 + values).to(operator.device)


def power_iteration(operator: LinearOperator, steps: int = 200, tolerance: float = 1e-6) -> float:
    """Largest singular value of ``operator`` by power iteration on A'A, in float64 where the operator allows it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, *operator.input_shape), generator=generator, dtype=torch.float64).to(operator.device)
    try:
        operator._apply(x)
    except RuntimeError:  # a backend that only knows float32
        x = x.float()
    value = 0.0
    for _ in range(steps):
        x = x / x.norm()
        x = operator._adjoint(operator._apply(x))
        previous, value = value, float(x.norm())
        if value == 0 or abs(value - previous) <= tolerance * value:
            break
    return math.sqrt(value)
