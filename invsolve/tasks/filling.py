"""Filling a box coarse to fine: the layout first, and each finer resolution given the coarser one.

p(fine, coarse | known) = p(coarse | known) p(fine | coarse, known): the coarsest picture is drawn first, where a hole is narrow
and the prior sees all around it. At twice the resolution it is a measurement more: of every block of 2 x 2 missing pixels the
mean is known, up to noise. So the finer picture need not start from the coarser one, and gets its detail from the prior instead
of from an enlarged blur.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.forward_models import ForwardModel, GaussianNoise, Mask, RegionMeans
from invsolve.forward_models.stacked import stack_measurements
from invsolve.models.score_model import ScoreModel
from invsolve.options import SolveOptions
from invsolve.posterior import Posterior
from invsolve.rules import rule_name
from invsolve.samplers import StepInfo
from invsolve.solver import solve, task_ladder
from invsolve.tasks.push_pull import push_pull
from invsolve.tasks.task import in_memory

SIGMA_START = 0.25
"""First noise level on the interpolated guess: above what interpolation gets wrong."""

SIGMA_START_WIDE = 3.0
"""First noise level of a wide hole at the coarsest resolution, where interpolation knows nothing, and at a finer one whose layout
is measured: all detail is new."""

SIGMA_START_REFINING = 0.25
"""First noise level on a guess that comes from half the resolution: keeps its layout, renews its detail."""

SIGMA_END = 0.005

LAYOUT_NOISE = 0.1
"""Standard deviation of a block's mean around what the coarser picture says."""

KNOWN_NOISE = 0.01
"""Of known pixels beside a layout. They come back exactly all the same, from the picture; if they were exact here, an iterative
solver would see nothing but them."""

STEPS_GIVEN_LAYOUT = 2
"""Noise levels where the layout is measured, in multiples of those of the coarsest resolution."""


@dataclass(frozen=True)
class Filling:
    """How one part is filled: all that stays the same from resolution to resolution."""

    prior: ScoreModel
    options: SolveOptions  # sigma_start is that of the coarsest resolution
    noise: float  # at full resolution
    stream: int
    meter: Callable[[int, StepInfo], None]

    @property
    def draws(self) -> bool:
        """Whether the finer resolutions are drawn given the coarser one, as they are by the default way of drawing."""
        rule = rule_name(self.options.rule).partition("(")[0]
        return not self.noise and (rule, self.options.sampler) == ("wiener", "redrawing")

    def coarse_to_fine(self, picture: Tensor, precision: Tensor, scales: int, level: int = 0) -> Posterior:
        """Fill at the coarsest resolution first; each finer one starts from the coarser sample plus a little noise.

        Parameters
        ----------
        picture : (1, 3, H, W), or (n, 3, H, W) of n samples that see different surroundings.
        precision : (1, 1, H, W), what is known of each pixel relative to one without a gap beneath it; 0 where missing.
        scales : resolutions still to come, this one counted.
        level : how often the picture was halved.
        """
        if scales > 1:
            coarse = self.coarse_to_fine(*self.halve(picture, precision), scales - 1, level + 1)
            size = tuple(picture.shape[-2:])
            guess = F.interpolate(coarse.samples[:, 0], size=size, mode="bilinear", align_corners=False).to(picture)
            start = torch.where(precision > 0, picture, guess)
            if self.draws:
                return self.refine(picture, precision, level, start, coarse)
            return self.solve(picture, precision, level, start, SIGMA_START_REFINING, coarse.network_calls)
        first = self.options.sigma_start or SIGMA_START
        return self.solve(picture, precision, level, push_pull(picture, precision > 0), first, 0)

    def refine(self, picture: Tensor, precision: Tensor, level: int, start: Tensor, coarse: Posterior) -> Posterior:
        """Draw one resolution given the coarser one, by the reverse SDE."""
        blocks, missing = missing_blocks(precision[0, 0] > 0)
        known = ForwardModel(Mask(precision[0], channels=3), GaussianNoise(KNOWN_NOISE))
        parts = [(known, (precision * picture).expand(len(start), -1, -1, -1))]
        if bool(missing.any()):
            layout = ForwardModel(RegionMeans(blocks, 3), GaussianNoise(LAYOUT_NOISE))
            parts.append((layout, coarse.samples[:, 0].to(picture)[..., missing]))
        model, measured = stack_measurements(parts)
        steps = STEPS_GIVEN_LAYOUT * self.options.steps
        options = replace(self.options, rule="proximal", sampler="ancestral", steps=steps)
        drawn = self._solved(options, model, measured, level, start, SIGMA_START_WIDE, coarse.network_calls)
        # How vague they are was chosen, not measured: chi-squared would say nothing of it.
        return replace(drawn, chi2=torch.empty(0), settings={**drawn.settings, "sigma_y": 0.0})

    def halve(self, picture: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Half resolution: the mean of what is known in each 2 x 2 block, and how precise it is.

        Without noise a block is known as soon as any of its pixels is.
        """
        weight = F.avg_pool2d(precision, 2, ceil_mode=True)
        average = F.avg_pool2d(picture * precision, 2, ceil_mode=True) / weight.clamp(min=1e-12)
        return average, weight if self.noise else (weight > 0).to(picture)

    def solve(
        self, picture: Tensor, precision: Tensor, level: int, start: Tensor, sigma_start: float, calls: int
    ) -> Posterior:
        """Sample at one resolution; ``calls`` were made at coarser ones."""
        # The mean of 4^level pixels has 1 / 2^level of their noise; of fewer, less precise ones the rows weigh less.
        rows = precision.sqrt()
        model = ForwardModel(Mask(rows[0], channels=3), GaussianNoise(self.noise / 2**level))
        return self._solved(self.options, model, rows * picture, level, start, sigma_start, calls)

    def _solved(
        self,
        options: SolveOptions,
        model: ForwardModel,
        measured: Tensor,
        level: int,
        start: Tensor,
        sigma_start: float,
        calls: int,
    ) -> Posterior:
        pixels = start.shape[-2] * start.shape[-1]
        solved = solve(
            self.prior,
            model,
            measured,
            **in_memory(options, pixels).keywords,
            sigmas=task_ladder(options, SIGMA_END, sigma_start, start[0].numel()),
            start=start[:, None],
            paired=len(measured) > 1,
            turn=True,
            stream=self.stream + level,
            callback=lambda info: self.meter(pixels, info),
        )
        return replace(solved, network_calls=solved.network_calls + calls)


def missing_blocks(known: Tensor) -> tuple[Tensor, Tensor]:
    """The blocks of 2 x 2 pixels (fewer at an odd edge) that are missing as a whole.

    Parameters
    ----------
    known : (H, W) bool.

    Returns
    -------
    (H, W) integers, the number of each pixel's block and -1 elsewhere; (ceil(H / 2), ceil(W / 2)) bool, which blocks they are, row
    by row in the order of the numbers.
    """
    height, width = known.shape
    missing = F.avg_pool2d(known[None, None].float(), 2, ceil_mode=True)[0, 0] == 0
    numbers = torch.full(missing.shape, -1, dtype=torch.long, device=known.device)
    numbers[missing] = torch.arange(int(missing.sum()), device=known.device)
    return numbers.repeat_interleave(2, 0).repeat_interleave(2, 1)[:height, :width], missing
