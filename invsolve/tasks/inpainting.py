"""Inpainting of photographs: fill missing pixels, leave known ones as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import GaussianNoise, Mask
from invsolve.models.score_model import ScoreModel
from invsolve.options import INPAINTING, NOISY_INPAINTING, Changes, SolveOptions
from invsolve.pictures import Missing, Pixels, UnitPicture, check_missing, check_picture, to_unit
from invsolve.posterior import Posterior
from invsolve.samplers import StepInfo
from invsolve.tasks.baselines import biharmonic
from invsolve.tasks.filling import STEPS_GIVEN_LAYOUT, Filling
from invsolve.tasks.missing import MissingPixels
from invsolve.tasks.parts import Fit, Part, hole_parts, square_parts, whole_picture
from invsolve.tasks.regions import Region
from invsolve.tasks.restoration import planes
from invsolve.tasks.task import Estimate, Progress, Task, check_colour_prior, tell

LEAST_NOISE = 1e-6
"""Below it the square of the noise, and all that is divided by it, is lost in single precision."""

BIHARMONIC_LIMIT = 200_000
"""Missing pixels up to which the baseline's sparse solve stays in seconds."""


Read = Callable[[Region], UnitPicture]
"""Gives a part (h, w[, 3]) of a picture in [0, 1]; of missing pixels it may say anything."""


def inpainting_task(picture: Any, missing: Any, *, noise: float = 0.0, fit: Fit | None = None) -> Task:
    """The task of filling the missing pixels of a photograph.

    Parameters
    ----------
    picture : (H, W, 3) RGB or (H, W) grey floats in [0, 1].
    missing : (H, W), True where a pixel is missing; what ``picture`` holds there is ignored.
    noise : standard deviation of the noise on the known pixels; 0, and what single precision cannot tell from it, returns
        them exactly.
    fit : how a prior of one size takes a picture of another, see :func:`inpaint`; None refuses it.

    Raises
    ------
    InputError : shapes or values do not fit, nothing is missing, or nothing is known.
    UsageError : a ``fit`` that is no such thing, or with noise.
    """
    GaussianNoise(noise)  # checks the number
    noise = noise if noise >= LEAST_NOISE else 0.0
    _check_fit(fit, noise)
    holes = check_missing(missing, np.shape(picture))
    unit = check_picture(picture, where=~holes)
    unit = np.where(holes[..., None] if unit.ndim == 3 else holes, np.float32(0), unit)
    known = torch.from_numpy(~holes)[None]
    parts = [whole_picture(holes)] if noise else hole_parts(holes)
    return Task(
        name="inpaint",
        run=partial(fill_noisy, unit, holes, noise, parts[0]) if noise else partial(fill, unit, holes, parts, fit),
        options=NOISY_INPAINTING if noise else INPAINTING,
        operator=Mask(known.float(), 1 if unit.ndim == 2 else 3),
        determined=lambda: float(1 - holes.mean()),
        open_values=~known,
        problem={"missing": float(holes.mean()), "noise": noise},
        baselines=lambda: _baselines(unit, holes),
        **_extent(parts, noise),
    )


def missing_pixels_task(pixels: Pixels, missing: Missing, *, fit: Fit | None = None) -> Task:
    """The task of filling the missing pixels of a photograph, with a posterior of those alone: for large pictures.

    It draws the same samples as :func:`inpainting_task`. Those of the K missing pixels, row by row, lie in a picture one
    pixel high, (n, 1, C, 1, K).

    Parameters
    ----------
    pixels : (H, W, 3) RGB or (H, W) grey as a file holds it: uint8, uint16, or floats in [0, 1].
    missing, fit : as for :func:`inpainting_task`, with the same errors.
    """
    _check_fit(fit, 0.0)
    holes = check_missing(missing, np.shape(pixels))
    if pixels.dtype.kind == "f":
        check_picture(pixels, where=~holes)
    parts, share = hole_parts(holes), float(holes.mean())
    channels, count = (1 if pixels.ndim == 2 else 3), int(holes.sum())
    return Task(
        name="inpaint",
        run=partial(fill_missing, lambda region: to_unit(pixels[region.slices]), holes, channels, parts, fit),
        options=INPAINTING,
        operator=Mask(torch.zeros(1, 1, count), channels),
        determined=lambda: 1 - share,
        problem={"missing": share, "noise": 0.0},
        baselines=lambda: _baselines(to_unit(pixels), holes),
        share=share,
        values=channels * count,
        **_extent(parts),
    )


def _check_fit(fit: Any, noise: float) -> None:
    if fit not in (None, "crop", "resize"):
        raise UsageError(f"fit {fit!r}", hint="wanted crop, resize or None")
    if fit is not None and noise:
        raise UsageError(
            f"fit {fit} with noise",
            hint="noisy pixels are wrong everywhere: use a prior in patches, or one of any size",
        )


def _baselines(unit: UnitPicture, holes: Missing) -> dict[str, UnitPicture]:
    return {"biharmonic": biharmonic(unit, holes)} if int(holes.sum()) <= BIHARMONIC_LIMIT else {}


def _extent(parts: Sequence[Part], noise: float = 0.0) -> dict[str, Any]:
    """How much there is to do, for a task."""
    done = np.cumsum([part.work for part in parts])
    more = 0.0 if noise else (STEPS_GIVEN_LAYOUT - 1) * sum(part.refining for part in parts)
    return {
        "work": float(done[-1]),
        "drawing": float(1 + more / done[-1]),
        "walks": sum(part.scales for part in parts),
        "redrawn": 0 if noise else (STEPS_GIVEN_LAYOUT - 1) * sum(part.scales - 1 for part in parts),
        "ends": tuple(float(share) for share in done / done[-1]),
        "pixels": max(part.pixels for part in parts),
    }


def inpaint(
    picture: UnitPicture,
    missing: Missing,
    prior: ScoreModel,
    options: SolveOptions | None = None,
    *,
    noise: float = 0.0,
    fit: Fit | None = None,
    progress: Progress | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Fill the missing pixels of a photograph.

    A prior of any size fills each hole with what surrounds it, wide ones coarse to fine. A prior of one size sees the
    whole picture at that size, and wide holes start from all the noise it knows: they may hold an object. A picture of
    another size it takes in patches (``load_prior(..., patches=True)``), or with a ``fit``.

    Parameters
    ----------
    picture : (H, W, 3) RGB or (H, W) grey floats in [0, 1].
    missing : (H, W), True where a pixel is missing; what ``picture`` holds there is ignored.
    prior : a prior of RGB photographs in [0, 1].
    options : how to sample, default ``INPAINTING``, with noise ``NOISY_INPAINTING``; ``sigma_start`` is the first noise level at the
        coarsest resolution, in the picture's units, None chooses by the holes' width.
    noise : standard deviation of the noise on the known pixels; 0 returns them exactly.
    fit : for a prior of one size: "crop" gives it the squares of that size around the holes, and "resize" squares around the
        holes as large as the picture's shorter side, brought to that size; what it says is enlarged. Others ignore it.
    progress : called with the share of the work done.
    changes : fields of ``options`` that differ, such as ``samples=8``.

    Returns
    -------
    Posterior with samples (n, 1, C, H, W) of the whole picture; diagnostics are those of the region with most missing
    pixels, at full resolution.

    Raises
    ------
    InputError : shapes or values do not fit, nothing is missing, or nothing is known; not of the one size the prior
        knows.
    ModelError : the prior is not one of RGB pictures.
    UsageError : a ``fit`` that is no such thing, or with noise.
    """
    return inpainting_task(picture, missing, noise=noise, fit=fit).solve(prior, options, progress=progress, **changes)


def fill(
    picture: UnitPicture,
    missing: Missing,
    parts: Sequence[Part],
    fit: Fit | None,
    prior: ScoreModel,
    options: SolveOptions,
    progress: Progress,
) -> Posterior:
    """Fill the holes of a picture that was checked, and put the rest around them."""
    channels = 1 if picture.ndim == 2 else 3
    holes = fill_missing(lambda region: picture[region.slices], missing, channels, parts, fit, prior, options, progress)
    samples = planes(picture).repeat(len(holes.samples), 1, 1, 1)
    samples[..., torch.from_numpy(missing)] = holes.samples[:, 0, :, 0]
    return replace(holes, samples=samples[:, None])


def fill_missing(
    read: Read,
    missing: Missing,
    channels: int,
    parts: Sequence[Part],
    fit: Fit | None,
    prior: ScoreModel,
    options: SolveOptions,
    progress: Progress,
) -> Posterior:
    """The missing pixels (n, 1, channels, 1, K) of a picture that was checked, one part after the other; all at once for a
    prior of one size, in patches or not, unless it has a way to ``fit``.

    What was filled before counts as known, for each sample as it was filled there: so holes that are near each other, and
    the two sides of a cut through one, go together.
    """
    check_colour_prior(prior)
    prior.check_rgb()
    if fit is not None and prior.size is not None:
        parts = square_parts(missing, prior, prior.size, fit)
    else:
        prior.check_size(torch.empty(1, 3, 1, 1).expand(1, 3, *missing.shape))
        parts = parts if prior.size is None and prior.patch is None else [whole_picture(missing, prior)]
    meter, holes = _meter(parts, progress), MissingPixels(missing, options.samples, channels)
    solved: list[tuple[int, Posterior]] = []
    for part in parts:
        region = part.region
        picture, known = surroundings(read(region), region, holes)
        first = part.sigma_start if options.sigma_start is None else options.sigma_start
        watch = partial(_watch, meter, part, read, holes, channels)
        filling = Filling(prior, replace(options, sigma_start=first), 0.0, part.stream, watch)
        inside = filling.coarse_to_fine(*part.seen(picture.to(prior.device), known.to(prior.device)), part.scales)
        samples = part.enlarged(inside.samples[:, 0])
        own = holes.left[region.slices] if part.own is None else part.own
        holes.write(region, own, samples.mean(dim=1, keepdim=True) if channels == 1 else samples)
        solved.append((int(own.sum()), replace(inside, samples=inside.samples[:0])))
    return _together(holes.values[:, None, :, None], parts, solved)


def surroundings(unit: UnitPicture, region: Region, holes: MissingPixels) -> tuple[Tensor, Tensor]:
    """What a region is filled from: the picture (1, 3, h, w), or (n, 3, h, w) where samples hold different pixels already,
    0 where nothing is known; and where something is, (1, 1, h, w)."""
    filled, missing = holes.filled(region), holes.missing[region.slices]
    picture = planes(np.where(missing[..., None] if unit.ndim == 3 else missing, np.float32(0), unit))
    if filled.any():
        picture = picture.repeat(len(holes.values), 1, 1, 1)
        picture[..., torch.from_numpy(filled)] = holes.read(region, filled)
    known = torch.from_numpy(~holes.left[region.slices])[None, None].float()
    return picture.expand(-1, 3, -1, -1).contiguous(), known


def fill_noisy(
    picture: UnitPicture,
    missing: Missing,
    noise: float,
    part: Part,
    prior: ScoreModel,
    options: SolveOptions,
    progress: Progress,
) -> Posterior:
    """Fill the holes of a picture that was checked, and take the noise off the rest, all at once."""
    check_colour_prior(prior)
    prior.check_rgb()
    full = planes(picture).expand(-1, 3, -1, -1).contiguous()
    known = torch.from_numpy(~missing)[None, None].float()
    prior.check_size(full)
    part = part if prior.size is None and prior.patch is None else whole_picture(missing, prior)
    first = part.sigma_start if options.sigma_start is None else options.sigma_start
    watch = partial(_watch_whole, _meter([part], progress), missing.shape, picture.ndim == 2)
    filling = Filling(prior, replace(options, sigma_start=first), noise, 0, watch)
    inside = filling.coarse_to_fine(full.to(prior.device), known.to(prior.device), part.scales)
    samples = inside.samples[:, 0]
    samples = samples.mean(dim=1, keepdim=True) if picture.ndim == 2 else samples
    return _together(samples[:, None], [part], [(int(missing.sum()), inside)])


def _together(samples: Tensor, parts: Sequence[Part], solved: Sequence[tuple[int, Posterior]]) -> Posterior:
    """The posterior of the picture from those of its parts, each with its number of missing pixels."""
    last = solved[-1][1]
    return replace(
        last,
        samples=samples,
        settings={**last.settings, "regions": len(parts), "resolutions": max(part.scales for part in parts)},
        network_calls=sum(part.network_calls for _, part in solved),
        diagnostics=max(solved, key=lambda part: part[0])[1].diagnostics,
    )


Meter = Callable[[int, StepInfo, Estimate], None]


def _meter(parts: Sequence[Part], progress: Progress) -> Meter:
    """A callback (pixels, info, estimate) that adds up the work done and reports its share."""
    total, done, before = sum(part.work for part in parts), 0.0, 0

    def report(pixels: int, info: StepInfo, estimate: Estimate) -> None:
        nonlocal done, before
        before = 0 if before == info.steps else before  # the next resolution or part begins
        done += pixels * max(0, info.step - before) / info.steps
        before = info.step
        tell(progress, min(1.0, done / total), estimate)

    return report


def _watch(
    meter: Meter, part: Part, read: Read, holes: MissingPixels, channels: int, pixels: int, info: StepInfo
) -> None:
    """Report a step of one part; the estimate is the picture as filled so far, with what the part makes of its own pixels."""

    def estimate() -> Tensor:
        whole, region = Region(0, 0, *holes.missing.shape), part.region
        picture = surroundings(read(whole), whole, holes)[0][0, :channels].clone()
        own = torch.from_numpy(holes.left[region.slices] if part.own is None else part.own)
        made = _sized(info.denoised[:1].cpu(), region.shape)[0]
        made = made.mean(dim=0, keepdim=True) if channels == 1 else made
        picture[..., region.slices[0], region.slices[1]][..., own] = made[..., own]
        return picture

    meter(pixels, info, estimate)


def _watch_whole(meter: Meter, shape: tuple[int, int], grey: bool, pixels: int, info: StepInfo) -> None:
    """The same where all pixels are worked on at once."""

    def estimate() -> Tensor:
        made = _sized(info.denoised[:1].cpu(), shape)[0]
        return made.mean(dim=0, keepdim=True) if grey else made

    meter(pixels, info, estimate)


def _sized(picture: Tensor, shape: tuple[int, int]) -> Tensor:
    """At another resolution's size, (n, C, *shape)."""
    return F.interpolate(picture, size=shape, mode="bilinear", align_corners=False)
