"""What happened on the way: misfit and step against the noise level, for the report and for a picture."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from invsolve.forward_models import ForwardModel, GaussianNoise, LinearOperator
from invsolve.samplers.info import StepInfo

Diagnostics = dict[str, list[float]]
"""``sigma``, ``misfit``, ``step``: one number for each step of the sampler."""

RUNAWAY = 1e3
"""A misfit so many times the first one's has diverged, long before it is infinite."""


class Trace:
    """Collects, over all batches of a run, what every step did.

    ``misfit`` is the rms of ``A x0 - y`` for the estimate x0 the step used, in units of y's noise (of y itself where
    the measurement is exact or its noise not Gaussian); ``step`` the rms change of that estimate from the step before,
    in the units of x.
    """

    def __init__(self, forward_model: ForwardModel) -> None:
        operator = forward_model.operator
        noise = forward_model.noise
        self.forward_model, self.noise = forward_model, (isinstance(noise, GaussianNoise) and noise.sigma) or 1.0
        self.values = operator.measured_values if isinstance(operator, LinearOperator) else 0
        self.sigmas: dict[int, float] = {}
        self.misfits: dict[int, list[float]] = {}
        self.changes: dict[int, list[float]] = {}
        self.previous: Tensor | None = None

    def add(self, info: StepInfo, y: Tensor) -> float:
        """Note one step of one batch with measurements ``y``; returns its misfit, infinite or NaN when x is."""
        if info.step <= min(self.sigmas, default=info.step):  # the first step of a batch; an adaptive one may skip 1
            self.previous = None
        residual = self.forward_model.residual(info.denoised, y)
        values = len(info.denoised) * (self.values or residual[0].numel())
        # Where nothing is measured, as in unconditional sampling, there is no misfit.
        misfit = float(torch.linalg.vector_norm(residual)) / math.sqrt(values) / self.noise if values else 0.0
        self.sigmas[info.step] = info.sigma
        self.misfits.setdefault(info.step, []).append(misfit)
        if self.previous is not None:
            change = torch.linalg.vector_norm(info.denoised - self.previous)
            self.changes.setdefault(info.step, []).append(float(change) / math.sqrt(info.denoised.numel()))
        self.previous = info.denoised
        return misfit

    def runaway(self, step: int) -> bool:
        """Whether this batch's misfit is beyond all measure of where it began."""
        return not self.misfits[step][-1] <= RUNAWAY * max(self.misfits[min(self.misfits)][-1], 1.0)

    def diagnostics(self) -> Diagnostics:
        """Means over the batches, in the order of the steps."""

        def mean(values: list[float]) -> float:
            return math.sqrt(sum(v * v for v in values) / len(values)) if values else 0.0

        steps = sorted(self.sigmas)
        return {
            "sigma": [self.sigmas[k] for k in steps],
            "misfit": [mean(self.misfits[k]) for k in steps],
            "step": [mean(self.changes.get(k, [])) for k in steps],
        }


def likely_cause(sigma: float, sigma_min: float, sigma_max: float, misfits: list[float]) -> str:
    """What to try, from where a run broke off: the prior's range of levels, or a misfit that grew step by step."""
    if sigma > 1.001 * sigma_max:
        return f"the prior knows noise levels up to {sigma_max:g} only: start lower"
    if sigma < 0.1 * sigma_min:
        return f"the prior knows noise levels down to {sigma_min:g} only: end higher"
    if len(misfits) > 2 and misfits[-2] > 2 * min(misfits[:-1]):
        return "the misfit grew from step to step, so the data step is too large: use more steps, or rule='moment_matching'"
    return "use more steps, or another rule or sampler"


def trace_picture(diagnostics: Diagnostics, *, width: int = 480, height: int = 320) -> npt.NDArray[np.uint8]:
    """Misfit (blue) and step (orange) against sigma, both axes logarithmic, sigma falling to the right; (H, W, 3)."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    left, right, top, bottom = 60, width - 16, 24, height - 36
    draw.rectangle((left, top, right, bottom), outline=(150, 150, 150))
    sigmas = diagnostics["sigma"]
    curves = {"misfit": (31, 90, 180), "step": (220, 120, 20)}
    shown = [v for name in curves for v in diagnostics[name] if v > 0 and math.isfinite(v)]
    if len(sigmas) < 2 or not shown:
        return np.asarray(image)
    x0, x1 = math.log(max(sigmas)), math.log(min(sigmas))
    y0, y1 = math.log10(min(shown)), math.log10(max(shown))
    y0, y1 = math.floor(y0), max(math.ceil(y1), math.floor(y0) + 1)

    def place(sigma: float, value: float) -> tuple[float, float]:
        across = (math.log(sigma) - x0) / ((x1 - x0) or 1)
        return left + across * (right - left), bottom - (math.log10(value) - y0) / (y1 - y0) * (bottom - top)

    for power in range(y0, y1 + 1):
        y = place(max(sigmas), 10.0**power)[1]
        draw.line((left, y, right, y), fill=(225, 225, 225))
        draw.text((6, y - 6), f"1e{power}", fill="black")
    for name, colour in curves.items():
        pairs = zip(sigmas, diagnostics[name], strict=True)
        points = [place(s, v) for s, v in pairs if v > 0 and math.isfinite(v)]
        if len(points) > 1:
            draw.line(points, fill=colour, width=2)
    draw.text((left, 6), "misfit", fill=curves["misfit"])
    draw.text((left + 120, 6), "step", fill=curves["step"])
    draw.text((left, bottom + 8), f"sigma {max(sigmas):.3g}", fill="black")
    draw.text((right - 80, bottom + 8), f"sigma {min(sigmas):.3g}", fill="black")
    return np.asarray(image)
