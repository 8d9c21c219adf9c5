"""Few grey levels: a picture rounded to bits, with the gradient passed straight through."""

from __future__ import annotations

from torch import Tensor

from invsolve.errors import InputError


class Quantization:
    """y = round(n clip(x, 0, 1)) / n with n = 2^bits - 1, value by value; shapes are those of x, in [0, 1].

    Not linear, and its derivative is 0 nearly everywhere. The gradient passes straight through instead, as if J were 1 (Bengio,
    Leonard & Courville 2013): ``J' (y - A(x))`` is then 0 for every x in the cell of y, and leads back into it from outside.
    The likelihood without that surrogate is :class:`invsolve.forward_models.QuantizationNoise` on an identity.

    Parameters
    ----------
    bits : 1 to 16.
    """

    def __init__(self, bits: int) -> None:
        if not 1 <= bits <= 16:
            raise InputError(f"{bits} bits", hint="wanted 1 to 16")
        self.levels = 2**bits - 1

    def __call__(self, x: Tensor) -> Tensor:
        rounded = (self.levels * x.clamp(0, 1)).round() / self.levels
        return straight_through(x, rounded)


def straight_through(x: Tensor, y: Tensor) -> Tensor:
    """``y``, with the derivative by ``x`` taken to be 1."""
    return y.detach() + (x - x.detach())
