"""Inpainting of photographs: fill missing pixels, leave known ones as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.errors import UsageError
from invsolve.forward_models import ForwardModel, GaussianNoise, Mask
from invsolve.models.score_model import ScoreModel
from invsolve.options import INPAINTING, Changes, SolveOptions
from invsolve.pictures import UnitPicture, check_missing, check_picture
from invsolve.posterior import Posterior
from invsolve.samplers import StepInfo
from invsolve.solver import solve, task_ladder
from invsolve.tasks.baselines import biharmonic
from invsolve.tasks.push_pull import push_pull
from invsolve.tasks.regions import Region, hole_regions, resolutions
from invsolve.tasks.squares import squares
from invsolve.tasks.task import Estimate, Progress, Task, check_colour_prior, in_memory, tell

SIGMA_START = 0.25
"""First noise level on the interpolated guess: above what interpolation gets wrong."""

SIGMA_START_WIDE = 3.0
"""First noise level at the coarsest resolution of a wide hole, where interpolation knows nothing."""

SIGMA_START_REFINING = 0.25
"""First noise level on a guess that comes from half the resolution: keeps its layout, renews its detail."""

SIGMA_END = 0.005

BIHARMONIC_LIMIT = 200_000
"""Missing pixels up to which the baseline's sparse solve stays in seconds."""


Fit = Literal["crop", "resize"]
"""How a prior of one size is given the squares around the holes of a picture of another: at that size, or brought to it."""


@dataclass(frozen=True)
class Part:
    """A box, the number of resolutions it is filled at, and the first noise level at the coarsest one.

    Of a box for some holes only, ``own`` (h, w) says which of its pixels they are; one that is resized for the prior is seen
    with the side ``side``.
    """

    region: Region
    scales: int
    sigma_start: float
    own: npt.NDArray[np.bool_] | None = None
    side: int | None = None

    @property
    def work(self) -> float:
        """Pixels seen at one noise level of every resolution, in all."""
        pixels = self.region.pixels if self.side is None else self.side**2
        return pixels * sum(0.25**k for k in range(self.scales))

    def seen(self, picture: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """What the prior sees of the box (1, C, h, w): means of what is known, and where anything is known."""
        if self.side in (None, picture.shape[-1]):
            return picture, known
        resize = partial(F.interpolate, size=self.side, mode="area" if self.side < picture.shape[-1] else "bilinear")
        weight = resize(known)
        return resize(picture * known) / weight.clamp(min=1e-12), (weight > 0).to(known)

    def put_back(self, samples: Tensor, out: Tensor) -> None:
        """Write what was made of the box into ``out`` (n, C, h, w); only where it is the box's own to fill."""
        if samples.shape[-2:] != out.shape[-2:]:
            samples = F.interpolate(samples, size=tuple(out.shape[-2:]), mode="bicubic")
        own = torch.ones(out.shape[-2:], dtype=torch.bool) if self.own is None else torch.from_numpy(self.own)
        out.copy_(torch.where(own.to(out.device), samples.to(out), out))


def plan(missing: npt.NDArray[np.bool_], noise: float) -> list[Part]:
    """Boxes that cover the holes, for a prior of any size.

    Noisy known pixels are denoised too, so the box is then the whole picture.
    """
    regions = hole_regions(missing) if noise == 0 else [Region(0, 0, *missing.shape)]
    scales = [resolutions(missing[region.slices]) for region in regions]
    return [
        Part(region, scale, SIGMA_START if scale == 1 else SIGMA_START_WIDE)
        for region, scale in zip(regions, scales, strict=True)
    ]


def whole_picture(missing: npt.NDArray[np.bool_], prior: ScoreModel) -> Part:
    """The one part of a prior that knows one size."""
    start = SIGMA_START if resolutions(missing) == 1 else prior.sigma_max
    return Part(Region(0, 0, *missing.shape), 1, start)


def square_parts(missing: npt.NDArray[np.bool_], prior: ScoreModel, size: int, fit: Fit) -> list[Part]:
    """Squares around the holes for a prior of ``size``: of that side, or as large as the picture and brought to it."""
    parts = []
    for region, own in squares(missing, size if fit == "crop" else min(missing.shape)):
        part = Part(region, 1, SIGMA_START, own, size)
        known = torch.from_numpy(~missing[region.slices])[None, None].float()
        narrow = resolutions(part.seen(known, known)[1][0, 0].numpy() == 0) == 1
        parts.append(part if narrow else replace(part, sigma_start=prior.sigma_max))
    return parts


def inpainting_task(picture: Any, missing: Any, *, noise: float = 0.0, fit: Fit | None = None) -> Task:
    """The task of filling the missing pixels of a photograph.

    Parameters
    ----------
    picture : (H, W, 3) RGB or (H, W) grey floats in [0, 1].
    missing : (H, W), True where a pixel is missing; what ``picture`` holds there is ignored.
    noise : standard deviation of the noise on the known pixels; 0 returns them exactly.
    fit : how a prior of one size takes a picture of another, see :func:`inpaint`; None refuses it.

    Raises
    ------
    InputError : shapes or values do not fit, nothing is missing, or nothing is known.
    UsageError : a ``fit`` that is no such thing, or with noise.
    """
    GaussianNoise(noise)  # checks the number
    if fit not in (None, "crop", "resize"):
        raise UsageError(f"fit {fit!r}", hint="wanted crop, resize or None")
    if fit is not None and noise:
        raise UsageError(
            f"fit {fit} with noise",
            hint="noisy pixels are wrong everywhere: use a prior in patches, or one of any size",
        )
    holes = check_missing(missing, np.shape(picture))
    unit = check_picture(picture, where=~holes)
    unit = np.where(holes[..., None] if unit.ndim == 3 else holes, np.float32(0), unit)
    known = torch.from_numpy(~holes)[None]

    parts = plan(holes, noise)

    def baselines() -> dict[str, UnitPicture]:
        few = int(holes.sum()) <= BIHARMONIC_LIMIT
        return {"biharmonic": biharmonic(unit, holes)} if few else {}

    return Task(
        name="inpaint",
        run=partial(fill, unit, holes, noise, parts, fit),
        options=INPAINTING,
        operator=Mask(known.float(), 1 if unit.ndim == 2 else 3),
        determined=lambda: float(1 - holes.mean()),
        open_values=~known,
        problem={"missing": float(holes.mean()), "noise": noise},
        baselines=baselines,
        work=sum(part.work for part in parts),
    )


def inpaint(
    picture: UnitPicture,
    missing: npt.NDArray[np.bool_],
    prior: ScoreModel,
    options: SolveOptions = INPAINTING,
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
    options : how to sample; ``sigma_start`` is the first noise level at the coarsest resolution, in the picture's
        units, None chooses by the holes' width.
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
    missing: npt.NDArray[np.bool_],
    noise: float,
    parts: Sequence[Part],
    fit: Fit | None,
    prior: ScoreModel,
    options: SolveOptions,
    progress: Progress,
) -> Posterior:
    """Fill the holes of a picture that was checked, one part after the other; all at once for a prior of one size, in patches
    or not, unless it has a way to ``fit``."""
    check_colour_prior(prior)
    prior.check_rgb()
    rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    full = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32))[None]
    known = torch.from_numpy(~missing)[None, None].float()
    if fit is not None and prior.size is not None:
        parts = square_parts(missing, prior, prior.size, fit)
    else:
        prior.check_size(full)
        parts = parts if prior.size is None and prior.patch is None else [whole_picture(missing, prior)]
    meter = _meter(parts, progress)

    out = full.repeat(options.samples, 1, 1, 1)
    solved: list[tuple[int, Posterior]] = []
    for number, part in enumerate(parts):
        rows, columns = part.region.slices
        first = part.sigma_start if options.sigma_start is None else options.sigma_start
        keep = known if noise == 0 else None
        watch = partial(_watch, meter, part, out, keep, picture.ndim == 2)
        filling = Filling(prior, replace(options, sigma_start=first), noise, 8 * number, watch)
        box = (full[..., rows, columns].to(prior.device), known[..., rows, columns].to(prior.device))
        inside = filling.coarse_to_fine(*part.seen(*box), part.scales)
        part.put_back(inside.samples[:, 0], out[..., rows, columns])
        solved.append((int(missing[rows, columns].sum()), inside))
    if noise == 0:
        out = torch.where(known > 0, full, out)
    if picture.ndim == 2:
        out = out.mean(dim=1, keepdim=True)
    return _whole(out, parts, solved)


def _whole(samples: Tensor, parts: Sequence[Part], solved: Sequence[tuple[int, Posterior]]) -> Posterior:
    """The posterior of the picture from those of its parts, each with its number of missing pixels."""
    last = solved[-1][1]
    return replace(
        last,
        samples=samples[:, None],
        settings={**last.settings, "regions": len(parts), "resolutions": max(part.scales for part in parts)},
        network_calls=sum(part.network_calls for _, part in solved),
        diagnostics=max(solved, key=lambda part: part[0])[1].diagnostics,
    )


Meter = Callable[[int, StepInfo, Estimate], None]


def _meter(parts: Sequence[Part], progress: Progress) -> Meter:
    """A callback (pixels, info, estimate) that adds up the work done and reports its share."""
    total, done = sum(part.work for part in parts), 0.0

    def report(pixels: int, info: StepInfo, estimate: Estimate) -> None:
        nonlocal done
        done += pixels / info.steps
        tell(progress, min(1.0, done / total), estimate)

    return report


def _watch(meter: Meter, part: Part, out: Tensor, keep: Tensor | None, grey: bool, pixels: int, info: StepInfo) -> None:
    """Report a step of one part; what it makes of the whole picture is ``out`` with its estimate where nothing is known.

    ``keep`` : (1, 1, H, W), above 0 where known pixels stay as they are; None where none do.
    """

    def estimate() -> Tensor:
        rows, columns = part.region.slices
        picture = out[:1].clone()
        box = picture[..., rows, columns]
        clean = info.denoised[:1].to(box)
        part.put_back(F.interpolate(clean, size=box.shape[-2:], mode="bilinear", align_corners=False), box)
        whole = (picture if keep is None else torch.where(keep > 0, out[:1], picture))[0]
        return whole.mean(dim=0, keepdim=True) if grey else whole

    meter(pixels, info, estimate)


@dataclass(frozen=True)
class Filling:
    """How one part is filled: all that stays the same from resolution to resolution."""

    prior: ScoreModel
    options: SolveOptions  # sigma_start is that of the coarsest resolution
    noise: float  # at full resolution
    stream: int
    meter: Callable[[int, StepInfo], None]

    def coarse_to_fine(self, picture: Tensor, precision: Tensor, scales: int, level: int = 0) -> Posterior:
        """Fill at the coarsest resolution first; each finer one starts from the coarser sample plus a little noise.

        Parameters
        ----------
        picture : (1, 3, H, W).
        precision : (1, 1, H, W), what is known of each pixel relative to one without a gap beneath it; 0 where missing.
        scales : resolutions still to come, this one counted.
        level : how often the picture was halved.
        """
        if scales > 1:
            coarse = self.coarse_to_fine(*self.halve(picture, precision), scales - 1, level + 1)
            size = tuple(picture.shape[-2:])
            guess = F.interpolate(coarse.samples[:, 0], size=size, mode="bilinear", align_corners=False).to(picture)
            start = torch.where(precision > 0, picture, guess)[:, None]
            return self.solve(picture, precision, level, start, SIGMA_START_REFINING, coarse.network_calls)
        first = self.options.sigma_start or SIGMA_START
        return self.solve(picture, precision, level, push_pull(picture, precision > 0), first, 0)

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
        options, pixels = self.options, picture.shape[-2] * picture.shape[-1]
        # The mean of 4^level pixels has 1 / 2^level of their noise; of fewer, less precise ones the rows weigh less.
        rows = precision.sqrt()
        solved = solve(
            self.prior,
            ForwardModel(Mask(rows[0], channels=3), GaussianNoise(self.noise / 2**level)),
            rows * picture,
            **in_memory(options, pixels).keywords,
            sigmas=task_ladder(options, SIGMA_END, sigma_start, picture[0].numel()),
            start=start,
            turn=True,
            stream=self.stream + level,
            callback=lambda info: self.meter(pixels, info),
        )
        return replace(solved, network_calls=solved.network_calls + calls)
