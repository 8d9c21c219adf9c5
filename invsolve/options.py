"""How a problem is solved: one record that solve, every task and every command take."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypedDict

from invsolve.errors import UsageError

if TYPE_CHECKING:  # importing this must not import torch: commands show these defaults in their help
    from invsolve.rules import Rule
    from invsolve.samplers import Sampler
    from invsolve.samplers.pace import Pace

LARGEST_SEED = 2**63 - 1

AUTO = "auto"

SCHEDULES = ("karras", "geometric", "ncsnv2")
"""Spacings of noise levels; see :func:`invsolve.samplers.sigmas.ladder`."""


@dataclass(frozen=True)
class SolveOptions:
    """How a posterior is sampled.

    Parameters
    ----------
    samples : number of samples.
    seed : of the first sample; see :func:`invsolve.solve`.
    steps : noise levels, at each resolution where there are several; the schedule "ncsnv2" has a number of its own.
    schedule : how the noise levels are spaced: "karras", "geometric", or "ncsnv2", the geometric one with as many levels as
        NCSNv2's Technique 2 asks for; "auto" is what the sampler works best on.
    rule : how the measurement enters the score: a name, with arguments where any follow, or a function; see
        :mod:`invsolve.rules`.
    sampler : likewise; see :mod:`invsolve.samplers`. In a task's options also "auto": ``single`` for one sample and
        ``several`` for several.
    single, several : the samplers that "auto" stands for: the one with the best single estimate, and the one whose samples are
        most like draws of the posterior at no loss of the mean that a task makes of them.
    budget : seconds in which a task is to be done; it then chooses its levels and samples, see :mod:`invsolve.tasks.budget`.
    pace : what keeps a run in time once they are chosen.
    sigma_start : first noise level, in the units of x; None lets the task choose.
    batch : pictures denoised at once; bounds the memory.
    antithetic : draw the samples in pairs of opposite noise.

    Raises
    ------
    UsageError : a number that makes no sense.
    """

    samples: int = 1
    seed: int = 0
    steps: int = 50
    schedule: str = AUTO
    rule: str | Rule = "proximal"
    sampler: str | Sampler = "renoising"
    sigma_start: float | None = None
    batch: int = 8
    antithetic: bool = True
    single: str = "renoising"
    several: str = "redrawing"
    budget: float | None = None
    pace: Pace | None = None

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("steps", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST_SEED:
                raise UsageError(f"{name} {value!r}", hint=f"wanted a whole number from {least} on, below 2**63")
        if self.schedule not in (AUTO, *SCHEDULES):
            raise UsageError(f"schedule {self.schedule!r}", hint=f"wanted {AUTO}, {', '.join(SCHEDULES)}")
        if self.budget is not None and not 0 < self.budget < float("inf"):
            raise UsageError(f"budget {self.budget!r}", hint="wanted a positive number of seconds, or None")
        if self.sigma_start is not None and not 0 < self.sigma_start < float("inf"):
            raise UsageError(f"sigma_start {self.sigma_start!r}", hint="wanted a positive noise level, or None")

    @property
    def settled(self) -> SolveOptions:
        """With the sampler that "auto" stands for."""
        if self.sampler != AUTO:
            return self
        return replace(self, sampler=self.single if self.samples == 1 else self.several)

    @property
    def keywords(self) -> dict[str, Any]:
        """What :func:`invsolve.solve` is told, all but the ladder: that a task makes from ``steps``, ``schedule`` and ``sigma_start``."""
        other = ("steps", "schedule", "sigma_start", "single", "several", "budget")
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in other}


class Changes(TypedDict, total=False):
    """The fields of :class:`SolveOptions` as keywords, those that differ from a task's own."""

    samples: int
    seed: int
    steps: int
    schedule: str
    rule: str | Rule
    sampler: str | Sampler
    sigma_start: float | None
    batch: int
    antithetic: bool
    single: str
    several: str
    budget: float | None
    pace: Pace | None


ESTIMATE = "renoising(averaging=0.5)"
"""The sampler of one sample that is to be the best estimate, not a draw (docs/lab/inpainting.md)."""

INPAINTING = SolveOptions(steps=24, rule="wiener", sampler=AUTO, single="renoising(averaging=0.5,temperature=0.8)")
"""Twice as many levels gain 0.05 dB for the mean of four; for one sample averaging gains 0.3 dB, and less noise than the levels
say 0.1 dB more (docs/lab/inpainting.md)."""

NOISY_INPAINTING = replace(INPAINTING, rule="wiener(lam=0.5)", single=ESTIMATE)
"""Where known pixels are noisy, trusting them more gains 0.6 dB for one sample at noise 0.05, and less noise loses as much
(docs/lab/inpainting.md)."""

SUPERRESOLUTION = replace(INPAINTING, single=ESTIMATE, several="renoising(momentum=0.7)")
"""Samples spread nearly as they err, where those of ``redrawing`` spread by half of that (docs/lab/restoration.md)."""

WIDE_SUPERRESOLUTION = replace(SUPERRESOLUTION, several="renoising(momentum=0.78)")
"""The same where a picture becomes three times as large or more (docs/lab/uncertainty-and-calibration.md)."""

DEBLURRING = replace(SUPERRESOLUTION, rule="wiener(lam=0.5)")
"""With the data trusted more than the error's spectrum has it one sample gains 0.7 dB under motion blur and 0.3 dB under a
Gaussian one, and the mean of eight 0.6 dB (docs/lab/restoration.md)."""

DEJPEG = replace(SUPERRESOLUTION, rule="wiener(lam=0.25)", several="renoising(momentum=0.68)")
"""With the data trusted more one sample gains 0.2 dB, the mean of eight 0.1 dB (docs/lab/restoration.md). With the momentum samples
of quality 20 spread as they err; more would spread those of better quality too far (docs/lab/uncertainty-and-calibration.md)."""

DENOISING = SolveOptions(steps=8, rule="merged", sampler=AUTO, single="posterior_mean")
"""The rule is exact; 16 levels measured no better than 8 (docs/lab/restoration.md)."""

COLORIZATION = SolveOptions(steps=100, sampler="heun_sde")
"""Two network calls a level. With them the spread of the samples is that of their error (docs/lab/colorization.md), and
at the working size a call is cheap."""

HINTED_COLORIZATION = SolveOptions(steps=30, rule="moment_matching(steps=1)", sampler="multistep")
"""What a stroke says of the rest of the picture passes through the network's Jacobian; the rule proximal changes the
strokes alone at every level (docs/lab/colorization.md). One step: more of them measured worse."""

RECONSTRUCTION = SolveOptions(samples=8, sampler=AUTO, several="renoising(momentum=0.7)")
"""With the momentum samples spread as much as they err, and their mean is nearer to the truth (docs/lab/ct.md)."""

EXACT_RECONSTRUCTION = replace(RECONSTRUCTION, steps=100, several="renoising(momentum=0.65)")
"""Of a scan without noise twice as many levels gain 0.4 to 0.6 dB; with noise a quarter of that (docs/lab/ct.md)."""

SAMPLING = SolveOptions(samples=16, sampler="heun_sde", batch=16, antithetic=False)

MRI = replace(RECONSTRUCTION, several="renoising(momentum=0.6)")
"""As for a CT slice, with the momentum whose spread is the errors' here (docs/lab/uncertainty-and-calibration.md)."""
