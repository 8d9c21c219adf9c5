"""Dropout of whole channels that does not depend on how a batch is shared out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

_place: ContextVar[tuple[int, int] | None] = ContextVar("place_in_batch", default=None)


@contextmanager
def part_of_batch(first: int, count: int) -> Iterator[None]:
    """What networks see inside are rows of a batch of ``count``, from number ``first`` on.

    Each row then loses the channels that it would lose if one call saw the whole batch, with the same seed.
    """
    token = _place.set((first, count))
    try:
        yield
    finally:
        _place.reset(token)


class ChannelDropout(nn.Module):
    """Sets a random ``share`` of a picture's channels to zero while training, and scales up the others; (B, C, H, W).

    Dropout (Srivastava et al. 2014) of feature maps (Tompson et al. 2015, section 3.2), drawn from the global generator of
    the tensor's device just as ``torch.nn.functional.dropout2d`` draws it.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not (self.share and self.training):
            return x
        first, count = _place.get() or (0, len(x))
        kept = x.new_empty(count, x.shape[1], 1, 1).bernoulli_(1 - self.share).div_(1 - self.share)
        return x * kept[first : first + len(x)]
