"""Random numbers that belong to an image, not to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class SeededNoise:
    """One generator per image: image k's noise does not depend on what else is in the batch, nor on the device.

    Parameters
    ----------
    seeds : one entry per image of the batch, an integer or a tuple of integers such as (seed, image number).
    signs : +1 or -1 for each image, to multiply its noise by: the same seed with the other sign is the antithetic draw
        (Hammersley & Morton 1956), as normal as the first. Default +1.
    """

    def __init__(self, seeds: Sequence[int | tuple[int, ...]], signs: Sequence[int] | None = None) -> None:
        # SeedSequence spreads neighbouring seeds far apart; generators live on the CPU so that devices agree.
        states = [int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1)) for seed in seeds]
        self.generators = [torch.Generator().manual_seed(state) for state in states]
        self.signs = [1] * len(states) if signs is None else list(signs)

    def __call__(self, x: Tensor) -> Tensor:
        """Standard normal noise shaped as ``x`` (B, ...), B the number of seeds."""
        if len(x) != len(self.generators):
            raise ValueError(f"batch of {len(x)} for {len(self.generators)} seeds")
        draws = [torch.randn(x.shape[1:], generator=g, dtype=x.dtype) for g in self.generators]
        for draw, sign in zip(draws, self.signs, strict=True):
            if sign < 0:
                draw.neg_()
        return (torch.stack(draws) if len(draws) > 1 else draws[0][None]).to(x.device)
