"""A task is data: a measurement with all that solving, judging and reporting it takes.

Each kind of problem has a function that makes its task from what was measured; commands, benchmarks and the Python
functions run it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Unpack, runtime_checkable

from torch import Tensor

from invsolve.errors import InputError, ModelError
from invsolve.forward_models import LinearOperator
from invsolve.models.score_model import ScoreModel
from invsolve.options import Changes, SolveOptions
from invsolve.posterior import Posterior
from invsolve.samplers.pace import Pace
from invsolve.solver import enough_levels

PIXELS_AT_ONCE = 2**23
"""Samples of large pictures are drawn in batches of so many pixels at most: about 1 GB of working memory."""

Progress = Callable[[float], None]
"""Called with the share of the work that is done, 0 to 1."""

Run = Callable[[ScoreModel, SolveOptions, Progress], Posterior]
"""Draws the samples."""

Estimate = Callable[[], Tensor]
"""Makes (C, H, W), the estimate of the first sample's clean picture so far, in the units and the size of a result."""


@runtime_checkable
class Viewer(Protocol):
    """A :data:`Progress` that looks at the estimate as well; making it is some work, so it is asked for."""

    def __call__(self, done: float, /) -> None: ...

    def look(self, estimate: Estimate) -> None:
        """Called after every step with what makes the picture."""


def tell(progress: Progress, done: float, estimate: Estimate) -> None:
    """Report the share of the work, and to a :class:`Viewer` the estimate too."""
    progress(done)
    if isinstance(progress, Viewer):
        progress.look(estimate)


def noting(progress: Progress, pace: Pace) -> Progress:
    """``progress``, after the ``pace`` was told how much is done."""

    def note(done: float) -> None:
        pace.note(done)
        progress(done)

    return _Noting(note, progress.look) if isinstance(progress, Viewer) else note


@dataclass(frozen=True)
class _Noting:
    note: Progress
    look: Callable[[Estimate], None]

    def __call__(self, done: float, /) -> None:
        self.note(done)


def seen_through(progress: Progress, change: Callable[[Tensor], Tensor]) -> Progress:
    """``progress``, shown every estimate as ``change`` makes it."""
    if not isinstance(progress, Viewer):
        return progress
    return _Changed(progress, change)


@dataclass(frozen=True)
class _Changed:
    viewer: Viewer
    change: Callable[[Tensor], Tensor]

    def __call__(self, done: float, /) -> None:
        self.viewer(done)

    def look(self, estimate: Estimate) -> None:
        self.viewer.look(lambda: self.change(estimate()))


@dataclass(frozen=True)
class Task:
    """What was measured, and how it is solved.

    Parameters
    ----------
    name : of the kind of problem, as reports and calibrations call it.
    run : draws the samples.
    options : how it is solved unless told otherwise.
    operator : what the data see of a sample (C, H, W); None where that is not linear.
    determined : gives the share of a sample's values that the data determine, NaN where that has no meaning; some work, for
        a scan.
    open_values : where they leave something open, broadcast to a sample; None everywhere.
    problem : figures by which measurements of this kind are alike or not, such as the noise.
    baselines : classical estimates by name, as slow as they are: made only when asked for.
    work : pixels that one sample's network calls see at one noise level.
    drawing : how many times as many where it is a draw by the task's own rule; see :meth:`work_of`.
    walks : how often one sample goes down the noise levels: once for each part and each resolution of it.
    redrawn : how many times more it does where it is such a draw; see :meth:`walks_of`.
    pixels : of a sample those that are worked on together; 0 where that is not known.
    ends : of one that is done part by part, the share of the work that is done as each of them is.
    share : of the picture, what the samples hold.
    values : numbers that a sample holds; 0 where that is not known.
    white : the brightest value that a PSNR counts from, in the units of a sample.
    """

    name: str
    run: Run
    options: SolveOptions
    operator: LinearOperator | None
    determined: Callable[[], float]
    open_values: Tensor | None = None
    problem: Mapping[str, float] = field(default_factory=dict)
    baselines: Callable[[], dict[str, Any]] = dict
    work: float = 0.0
    drawing: float = 1.0
    walks: int = 1
    redrawn: int = 0
    pixels: int = 0
    ends: tuple[float, ...] = ()
    share: float = 1.0
    values: int = 0
    white: float = 1.0

    def work_of(self, options: SolveOptions) -> float:
        """``work`` in a way of solving."""
        return self.work * (self.drawing if self._draws(options) else 1.0)

    def walks_of(self, options: SolveOptions) -> int:
        """``walks`` in a way of solving."""
        return self.walks + (self.redrawn if self._draws(options) else 0)

    def _draws(self, options: SolveOptions) -> bool:
        settled = options.settled
        return (settled.rule, settled.sampler) == (self.options.rule, "redrawing")

    def solve(
        self,
        prior: ScoreModel,
        options: SolveOptions | None = None,
        *,
        progress: Progress | None = None,
        **changes: Unpack[Changes],
    ) -> Posterior:
        """Sample the posterior, by ``options`` (default the task's own) with ``changes``.

        A sampler among the changes gets as many noise levels as it wants at least, unless their number is changed too.

        With a ``budget``, levels and samples that are not among the changes are chosen, and the settings say which they were.

        Raises
        ------
        UsageError : the budget is too short for the least.
        """
        wanted, report = replace(options or self.options, **changes), progress or (lambda done: None)
        if "sampler" in changes and "steps" not in changes:
            wanted = enough_levels(wanted)
        if wanted.budget is not None and wanted.pace is None:
            from invsolve.tasks.budget import within_budget  # which runs tasks

            wanted = within_budget(self, prior, wanted, levels=changes.get("steps"), samples=changes.get("samples"))
        if wanted.pace is None:
            return self.run(prior, wanted.settled, report)
        posterior = self.run(prior, wanted.settled, noting(report, wanted.pace))
        return replace(posterior, settings={**posterior.settings, **wanted.pace.facts(wanted.budget)})


def in_memory(options: SolveOptions, pixels: int) -> SolveOptions:
    """With batches of at most :data:`PIXELS_AT_ONCE`, for samples of so many pixels each."""
    return replace(options, batch=max(1, min(options.batch, PIXELS_AT_ONCE // pixels)))


def check_prior(prior: Any, channels: int, hint: str) -> None:
    """Raise unless ``prior`` is a score model of pictures with so many channels.

    Raises
    ------
    InputError : it is something else, such as a name.
    ModelError : it knows pictures of another kind.
    """
    if not isinstance(prior, ScoreModel):
        named = f"load_prior({prior!r})" if isinstance(prior, str) else "load_prior() or a ScoreModel of your own"
        raise InputError(f"the prior is a {type(prior).__name__}", hint=f"wanted {named}")
    if prior.channels != channels:
        raise ModelError(f"this prior has {prior.channels} channel{'s'[: prior.channels != 1]}", hint=hint)


def check_colour_prior(prior: Any) -> None:
    """:func:`check_prior` for colour pictures."""
    check_prior(prior, 3, "use one of RGB pictures, such as photos")
