"""The reverse SDE by a pair of Euler and improved Euler steps that chooses its own step sizes, image by image.

Jolicoeur-Martineau, Li, Piche-Taillefer, Kachman & Mitliagkas 2021, "Gotta go fast when generating data with score-based
models", Algorithm 1. Both steps share their noise; their difference, measured in units of the tolerated error, decides
whether the step is taken and how long the next one is; what is taken is the better of the two (extrapolation).

=============== ================================
code            paper
=============== ================================
u_euler         x', of Euler and Maruyama
u_again         x~, the same step with drift and noise of its end
u_better        x'', of the stochastic improved Euler method
u_last          x'_prev
tolerance       delta(x', x'_prev)
error           E_2, root mean square over an image
atol, rtol      epsilon_abs, epsilon_rel
EXPONENT        r
SAFETY          theta, theirs 0.9
FIRST           h_init, of a time that runs from 1 to 0
=============== ================================

Unlike the paper's, a rejected step does not forget its noise: drawing anew until the error is small would prefer noise
that is kind to the solver. The next, shorter step takes its part of the same Brownian path (Levy's bridge; Rackauckas & Nie
2017, "Adaptive methods for stochastic differential equations via natural embeddings and rejection sampling with memory",
RSwM1). That makes a rejection dearer, so theta is 0.8, which needs fewer calls than 0.9. And steps come in eight lengths an
octave, so that a picture does not depend on the rounding of its batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import SolveError, UsageError
from invsolve.models.score_model import Noise, ScoreModel, per_image
from invsolve.models.sde import SDEName, find_sde
from invsolve.samplers.info import Callback, StepInfo, needs

EXPONENT, SAFETY, FIRST = 0.9, 0.8, 0.01

SHORTEST = 1e-9
"""Share of the whole time below which a step has shrunk to nothing."""

SMALLEST_ERROR = 1e-9
"""An image's error counts as at least this, so that the next step is a number."""

GRID = 8
"""Step lengths in an octave."""

SAME_TIME = 1e-12
"""Rests of a segment shorter than this share of it are rounding."""


@needs(adaptive=300)
def sde_adaptive(
    model: ScoreModel,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    rtol: float = 0.02,
    atol: float = 0.0039,
    sde: SDEName = "vp",
    callback: Callback | None = None,
) -> Tensor:
    """Sample from ``model`` by the reverse SDE with adaptive steps, each image with its own.

    Parameters
    ----------
    model : prior or posterior whose rule does not project.
    x : start (B, C, H, W), at noise level sigmas[0].
    sigmas : falling levels ending in 0: the SDE runs from the first to the last positive one, then x is denoised; the
        callback is told of x as the slowest image passes each. Where they end above 0, so does x.
    noise : source of standard normal noise.
    rtol, atol : a step's error per value stays below the larger of ``atol``, in the units of x, and ``rtol`` times the
        state's size.
    sde : whose state and time are integrated: "vp", "subvp", "ve" or "edm".

    Returns
    -------
    Tensor (B, C, H, W). Costs two network calls per step that an image tries, as many as the slowest of the batch does.

    Raises
    ------
    UsageError : the model projects x between steps, which is no SDE; a tolerance that is not positive.
    SolveError : the steps shrank to nothing.
    """
    if model.projects:
        raise UsageError(
            "sde_adaptive cannot project x between steps", hint="use the sampler reverse_sde, or another rule"
        )
    if not (rtol >= 0 and atol > 0):
        raise UsageError(f"rtol {rtol}, atol {atol}", hint="wanted rtol at least 0 and atol above 0")
    process, levels = find_sde(sde), [float(s) for s in sigmas]
    positive = [s for s in levels if s > 0]
    start, end = process.time_of(positive[0]), process.time_of(positive[-1])
    t, rounding = start.expand(len(x)).clone(), SAME_TIME * (start - end)
    h = FIRST * (t - end)
    u = u_last = process.state(x, t)
    path, ahead = BrownianPath(u), list(enumerate(positive))[1:]
    while bool((t > end).any()):
        wanted, h = h, path.reach(h)
        step, dw = per_image(h, u), path.increment(h, noise(u))
        u_euler = u - step * process.reverse_drift(model, u, t) + per_image(process.diffusion(t), u) * dw
        t_next = torch.where(t - h > end + rounding, t - h, end)
        u_again = (
            u - step * process.reverse_drift(model, u_euler, t_next) + per_image(process.diffusion(t_next), u) * dw
        )
        u_better = 0.5 * (u_euler + u_again)
        tolerance = (rtol * torch.maximum(u_euler.abs(), u_last.abs())).clamp(min=atol / process.unit)
        error = ((u_better - u_euler) / tolerance).flatten(1).square().mean(dim=1).sqrt().double().cpu()
        taken = error <= 1
        path.put_back(h, dw, ~taken)
        here = per_image(taken, u).bool()
        u, u_last = torch.where(here, u_better, u), torch.where(here, u_euler, u_last)
        t = torch.where(taken, t_next, t)
        proposed = _on_grid(SAFETY * h * error.clamp(min=SMALLEST_ERROR) ** -EXPONENT)
        # A step cut short because the path is known so far only says nothing against the length that was wanted.
        h = torch.minimum(t - end, torch.where(taken & (h < wanted), torch.maximum(proposed, wanted), proposed))
        if not bool((h >= SHORTEST * (start - end))[t > end].all()):
            raise SolveError(
                f"the SDE could not be followed beyond sigma {float(process.sigma(t.max())):.3g}: the steps shrank to nothing",
                hint="allow larger errors (rtol, atol), or use the sampler reverse_sde",
            )
        reached = float(process.sigma(t.max()))
        while callback is not None and ahead and ahead[0][1] >= reached * (1 - 1e-9):
            number, _ = ahead.pop(0)
            shown = process.picture(u, t)
            callback(StepInfo(number, len(levels) - 1, positive[number - 1], shown, shown))
    x = process.picture(u, t)
    if levels[-1] == 0:
        x = model.denoise(x, positive[-1])
        if callback is not None:
            callback(StepInfo(len(levels) - 1, len(levels) - 1, positive[-1], x, x))
    return x


def _on_grid(h: Tensor) -> Tensor:
    """The next shorter step of a fixed geometric progression; 0 stays.

    Errors depend on steps and steps on errors, at the edge of stability: in a number with all its digits the rounding of
    another batch would grow from step to step.
    """
    return torch.exp2((h.log2() * GRID).floor() / GRID)


class BrownianPath:
    """What is known of each image's Brownian motion ahead of its time: a stack of segments, the nearest on top.

    Lengths (S, B), increments (S, B, ...), and how many of the S each image has.
    """

    def __init__(self, like: Tensor) -> None:
        self.lengths, self.moves = torch.empty(0, len(like), dtype=torch.float64), like.new_empty(0, *like.shape)
        self.depth, self.images = torch.zeros(len(like), dtype=torch.long), torch.arange(len(like))

    def reach(self, h: Tensor) -> Tensor:
        """Steps (B,) of at most ``h`` that end where the top segment does, or before."""
        if not bool(self.depth.any()):
            return h
        top = self.lengths[self.depth - 1, self.images]
        return torch.where(self.depth > 0, torch.minimum(h, top), h)

    def increment(self, h: Tensor, z: Tensor) -> Tensor:
        """The path's increments (B, ...) over the next ``h`` (B,), taken off the stack; what that leaves open is of ``z``."""
        fresh = per_image(h.sqrt(), z) * z
        if not bool(self.depth.any()):
            return fresh
        top, known = (self.depth - 1, self.images), self.depth > 0  # of an empty stack a row that says nothing
        whole, move = self.lengths[top].clamp(min=h), self.moves[top]
        share = torch.where(whole > 0, h / whole, 1.0)
        rest = whole - h
        bridge = per_image(share, z) * move + per_image((share * rest).sqrt(), z) * z
        taken = torch.where(per_image(known, z).bool(), bridge, fresh)
        self.lengths[top], self.moves[top] = rest, move - taken
        self.depth -= (known & (rest <= SAME_TIME * whole)).long()
        return taken

    def put_back(self, h: Tensor, dw: Tensor, rejected: Tensor) -> None:
        """Remember the increments ``dw`` over ``h`` of the images whose step was ``rejected`` (B,)."""
        self.depth += rejected.long()
        if int(self.depth.max()) > len(self.lengths):
            self.lengths = torch.cat([self.lengths, torch.zeros_like(h)[None]])
            self.moves = torch.cat([self.moves, torch.zeros_like(dw)[None]])
        top = (self.depth[rejected] - 1, self.images[rejected])
        self.lengths[top], self.moves[top] = h[rejected], dw[rejected.to(dw.device)]
