"""Sparse-view CT: a slice from few views, with its uncertainty.

Units: the prior's n, with HU = 2000 n - 1000, so the attenuation is mu = 2 n mu_water and air is 0: a pure scaling.
Sinograms inside are line integrals of n in pixel lengths; :func:`attenuation_per_unit` is the factor to a physical one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsolve.ct.determined import determined_share
from invsolve.ct.iterative import cgls
from invsolve.ct.metal import Metal, closed_over, put_back
from invsolve.ct.sinogram import from_counts
from invsolve.ct.units import attenuation_per_unit
from invsolve.errors import InputError, ModelError, UsageError
from invsolve.forward_models import Diagonal, ForwardModel, GaussianNoise, Geometry, LinearOperator
from invsolve.forward_models.projector import check_sinogram, projector
from invsolve.models.score_model import ScoreModel
from invsolve.options import AUTO, EXACT_RECONSTRUCTION, RECONSTRUCTION, Changes, SolveOptions
from invsolve.posterior import Posterior
from invsolve.rules import Rule, find_rule, rule_name
from invsolve.samplers import Callback, StepInfo, find_sampler
from invsolve.solver import options_needs, solve, task_ladder
from invsolve.tasks.task import Progress, Task, check_prior, tell

Array = npt.NDArray[Any]


PROBE = 0.1
"""Noise level at which the prior is asked how wrong the first guess looks."""

START_FACTOR = 1.6
"""First noise level over what the prior takes out of the guess; tuned at 10, 23 views and a quarter turn."""

START_RANGE = (0.05, 0.35)
"""First noise levels in use: below, nothing is renewed; above, what the guess knows is thrown away."""

DROWNS = 1.0
"""First noise level of samplers that never forget their start: it hides all that a guess has wrong (docs/lab/ct.md)."""

SIGMA_END = 0.005

PRIOR_WEIGHT = {"wiener": 0.33, "proximal": 0.25}
"""lam of these rules: with noise, what served best on a few validation slices; without, it does not matter."""

MOMENTUM_WEIGHT = 0.5
"""lam of ``proximal`` for samplers with momentum, which smooth less: likewise (docs/lab/ct.md)."""

THROUGH_PLANE = (AUTO, "off")
"""Whether slices of a volume share their noise; see :func:`noise_streams`."""

START_ITERATIONS = 10
"""CGLS iterations of the first guess: the streaks are still small, the shapes are there."""


def check_ct_prior(prior: Any) -> None:
    """:func:`invsolve.tasks.task.check_prior` for single-channel slices; a ModelError for a prior of greys that are no CT
    numbers."""
    check_prior(prior, 1, "a CT slice has 1: use --model ct")
    if prior.hounsfield is False:
        raise ModelError(
            "this prior knows greys, and no Hounsfield units",
            hint="if it knows CT slices, import it again with --window LOW,HIGH: the Hounsfield units at -1 and at 1",
        )


@torch.no_grad()
def starting_level(prior: ScoreModel, guess: Tensor) -> float:
    """The first noise level for a guess (1, 1, H, W): somewhat above its error.

    The error is not known, but its visible part is: what the prior at level ``PROBE`` takes out of the guess. Starting
    there keeps what the data say already, which gains up to .4 dB over a fixed safe level.
    """
    visible = float((guess - prior.denoise(guess, PROBE)).square().mean().sqrt())
    return min(max(START_FACTOR * visible, START_RANGE[0]), START_RANGE[1])


def first_level(prior: ScoreModel, guess: Tensor, options: SolveOptions) -> tuple[float, int]:
    """The first noise level for a guess (1, 1, H, W) and a way of solving, and the network calls made to find it.

    A guess of few views is wrong in ways that no noise level below its own size hides: streaks that look like structure. A
    sampler that forgets its start mends them level by level; any other hands them on to all of its samples alike.
    """
    if options.sigma_start is not None:
        return options.sigma_start, 0
    if not options_needs(options).forgets:
        return min(DROWNS, prior.sigma_max), 0
    return starting_level(prior, guess), 1


def reconstruction_task(
    sinogram: Any,
    geometry: Geometry,
    *,
    noise: float | Array = 0.0,
    i0: float | None = None,
    scale: float | None = None,
    operator: LinearOperator | None = None,
    through_plane: str = AUTO,
    first: int = 0,
    metal: Metal | None = None,
) -> Task:
    """The task of reconstructing slices; parameters and errors as of :func:`reconstruct_ct`.

    Without an ``operator`` the projector is made on the CPU, and again where the prior lives if that is elsewhere.
    ``metal`` is put in its place in every sample; that its rays count for nothing is said by their infinite noise
    (:func:`invsolve.ct.metal.without_metal`).
    """
    stack = np.asarray(sinogram, dtype=np.float32)
    check_sinogram(stack, geometry)
    stack = np.ascontiguousarray(stack.reshape(-1, *geometry.sinogram_shape))
    if i0 is not None:
        stack, noise = from_counts(stack, i0, scale or attenuation_per_unit(geometry.pixel_size))
    level = _noise_level(noise, stack)
    matrix = projector(geometry) if operator is None else operator
    streams = noise_streams(through_plane, first, len(stack))
    return Task(
        name="ct",
        run=partial(reconstruct, stack, geometry, level, matrix, operator is None, streams, metal),
        options=usual_options(level),
        operator=matrix,
        determined=partial(determined_share, matrix),
        problem={
            "views": float(geometry.views),
            "noise": level if isinstance(level, float) else 0.0,
            "photons": i0 or 0.0,
        },
        work=float(len(stack) * geometry.shape[0] * geometry.shape[1]),
    )


def reconstruct_ct(
    sinogram: Array,
    geometry: Geometry,
    prior: ScoreModel,
    options: SolveOptions | None = None,
    *,
    noise: float | Array = 0.0,
    i0: float | None = None,
    scale: float | None = None,
    operator: LinearOperator | None = None,
    through_plane: str = AUTO,
    first: int = 0,
    progress: Progress | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Sample the slices that fit a sinogram. The estimate of least error is ``posterior.mean``.

    Parameters
    ----------
    sinogram : (views, detectors), or (slices, views, detectors): line integrals of n in pixel lengths; with ``i0``
        photon counts.
    geometry : the scan.
    prior : a prior of CT slices in the units of n.
    options : how to sample, default :func:`usual_options`; ``sigma_start`` None chooses by :func:`first_level`.
    noise : standard deviation of Gaussian noise on the line integrals, in their units: a number, or one for each ray
        in the sinogram's shape, infinite where nothing was measured.
    i0 : photons per ray without an object: ``sinogram`` then holds counts, and each ray is weighted by what it let
        through (see :class:`invsolve.forward_models.TransmissionNoise`).
    scale : with ``i0``: attenuation per unit of the inner sinogram; default that of water 0.0192 / mm and the geometry's
        pixel size.
    operator : the projector, where the caller has it already.
    through_plane : "auto" draws the same noise for all slices, so that neighbours err alike and views across the slices
        do not flicker; "off" draws it anew for each. See :func:`noise_streams`.
    first : number of the stack's first slice in its volume: a volume in parts comes out as in one piece.
    progress : called with the share of the work done.
    changes : fields of ``options`` that differ, such as ``samples=4``.

    Returns
    -------
    Posterior with samples (n, slices, 1, H, W) in the units of n; of a stack, diagnostics are the middle slice's.

    Raises
    ------
    InputError : shapes do not fit, values are not finite, counts are negative.
    ModelError : the prior is not one of slices, or does not know their Hounsfield units.
    """
    task = reconstruction_task(
        sinogram, geometry, noise=noise, i0=i0, scale=scale, operator=operator, through_plane=through_plane, first=first
    )
    return task.solve(prior, options, progress=progress, **changes)


def usual_options(noise: float | Array) -> SolveOptions:
    """How a scan is solved where nobody says otherwise, by the noise of its line integrals."""
    return EXACT_RECONSTRUCTION if isinstance(noise, float) and noise == 0 else RECONSTRUCTION


def reconstruct(
    stack: Array,
    geometry: Geometry,
    noise: float | Array,
    operator: LinearOperator,
    own: bool,
    streams: Sequence[int],
    metal: Metal | None,
    prior: ScoreModel,
    options: SolveOptions,
    progress: Progress,
) -> Posterior:
    """Sample slice after slice of a stack (slices, views, detectors) that was checked.

    An ``operator`` of our ``own`` is made again where the prior lives, if that is not where it is. ``streams`` are the
    slices' own sources of noise, as from :func:`noise_streams`. ``metal`` is put in its place in every sample.
    """
    check_ct_prior(prior)
    matrix = projector(geometry, prior.device) if own and operator.device != prior.device else operator
    y = torch.from_numpy(stack).to(prior.device)
    parts = []
    for index in range(len(y)):

        def report(info: StepInfo, index: int = index) -> None:
            tell(progress, (index + info.step / info.steps) / len(y), lambda: info.denoised[0])

        level = noise if isinstance(noise, float) else torch.from_numpy(noise[index]).to(y)
        model, one = _measurement(matrix, y[index : index + 1], level)
        guess = cgls(model.linear, one, START_ITERATIONS)
        if metal is not None:
            guess = closed_over(guess, metal.pixels[index])
        parts.append(_one_slice(model, one, guess, prior, options, streams[index], report))
    found = _stacked(parts, options)
    return replace(found, samples=put_back(found.samples[:, :, 0], metal)[:, :, None])


def noise_streams(through_plane: str, first: int, count: int) -> list[int]:
    """What each of ``count`` slices from number ``first`` on mixes into its seeds.

    A sample's errors are functions of the noise it was drawn with. Slices that share it err alike where they look alike:
    the difference of neighbours keeps what the data say, and loses what the draws did (docs/lab/ct.md). Each slice is a
    draw of its own posterior either way; what is gained costs no communication.

    Raises
    ------
    UsageError : unknown ``through_plane``.
    """
    if through_plane not in THROUGH_PLANE:
        raise UsageError(f"through_plane {through_plane!r}", hint=f"wanted {' or '.join(THROUGH_PLANE)}")
    return [0] * count if through_plane == AUTO else list(range(first, first + count))


def _noise_level(noise: Any, stack: Array) -> float | Array:
    """A number, or the standard deviation of every ray of the stack.

    Raises
    ------
    InputError : negative, not a number, or of another shape.
    """
    if np.ndim(noise) == 0:
        return GaussianNoise(float(noise)).sigma
    level = np.asarray(noise, dtype=np.float32)
    if level.size != stack.size or level.shape[-2:] != stack.shape[-2:]:
        raise InputError(f"the noise has shape {level.shape}, the sinogram {stack.shape}", hint="give one for each ray")
    if not (level > 0).all():
        raise InputError(f"{int((~(level > 0)).sum())} rays have a noise that is not positive", hint="wanted above 0")
    return level.reshape(stack.shape)


def _measurement(matrix: LinearOperator, y: Tensor, noise: float | Tensor) -> tuple[ForwardModel, Tensor]:
    """The forward model of one slice and its measurement (1, ...), whitened where each ray has noise of its own."""
    if isinstance(noise, float):
        return ForwardModel(matrix, GaussianNoise(noise)), y
    return ForwardModel(Diagonal(1 / noise) @ matrix, GaussianNoise(1.0)), y / noise


def _one_slice(
    model: ForwardModel,
    y: Tensor,
    guess: Tensor,
    prior: ScoreModel,
    options: SolveOptions,
    stream: int,
    callback: Callback,
) -> Posterior:
    """Sample one slice from its first guess on; ``y`` (1, ...)."""
    first, calls = first_level(prior, guess, options)
    solved = solve(
        prior,
        model,
        y,
        **replace(options, rule=_weighted(options)).keywords,
        sigmas=task_ladder(options, SIGMA_END, first, guess[0].numel()),
        start=guess,
        turn=True,
        stream=stream,
        callback=callback,
    )
    return replace(solved, network_calls=solved.network_calls + calls)


def _weighted(options: SolveOptions) -> str | Rule:
    """The rule, with the prior's weight where it takes one and nobody gave it."""
    rule = options.rule
    if not (isinstance(rule, str) and rule in PRIOR_WEIGHT):
        return rule
    sampler = find_sampler(options.sampler)
    lively = rule == "proximal" and getattr(sampler, "keywords", {}).get("momentum", 0) > 0
    return partial(find_rule(rule), lam=MOMENTUM_WEIGHT if lively else PRIOR_WEIGHT[rule])  # type: ignore[call-arg]


def _stacked(parts: list[Posterior], options: SolveOptions) -> Posterior:
    """The posterior of a stack from those of its slices."""
    return replace(
        parts[0],
        settings={**parts[0].settings, "rule": rule_name(options.rule)},
        diagnostics=parts[len(parts) // 2].diagnostics,  # of the slice that the pictures show
        samples=torch.cat([part.samples for part in parts], dim=1),
        chi2=torch.cat([part.chi2 for part in parts], dim=1) if parts[0].chi2.numel() else parts[0].chi2,
        network_calls=sum(part.network_calls for part in parts),
    )
