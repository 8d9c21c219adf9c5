"""Inpainting of photographs: fill missing pixels, leave known ones as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.errors import InputError, ModelError
from invsolve.forward_models import ForwardModel, GaussianNoise, Mask
from invsolve.models.score_model import ScoreModel
from invsolve.posterior import Posterior
from invsolve.rules import Rule
from invsolve.samplers import Sampler, StepInfo
from invsolve.samplers.sigmas import karras
from invsolve.solver import solve
from invsolve.tasks.push_pull import push_pull
from invsolve.tasks.regions import Region, hole_regions, resolutions

Picture = npt.NDArray[np.floating]
Progress = Callable[[float], None]
"""Called with the share of the network's work that is done, 0 to 1."""


SIGMA_START = 0.2
"""First noise level on the interpolated guess: above what interpolation gets wrong."""

SIGMA_START_WIDE = 3.0
"""First noise level at the coarsest resolution of a wide hole, where interpolation knows nothing."""

SIGMA_START_REFINING = 0.25
"""First noise level on a guess that comes from half the resolution: keeps its layout, renews its detail."""

SIGMA_END = 0.005

STEPS = 100
"""Noise levels. With 50, the mean of eight loses .08 dB in scattered pixels and .04 in lines of 5 pixels."""

PIXELS_AT_ONCE = 2**23
"""Samples of large pictures are drawn in batches of so many pixels at most: about 1 GB of working memory."""


def plan(
    missing: npt.NDArray[np.bool_], prior: ScoreModel, noise: float
) -> tuple[list[Region], list[int], list[float]]:
    """Boxes to fill, and for each the number of resolutions and the first noise level at the coarsest one.

    Noisy known pixels are denoised too, so the box is then the whole picture; so it is where the prior knows one size.
    """
    whole = Region(0, 0, *missing.shape)
    if prior.size is not None:
        return [whole], [1], [SIGMA_START if resolutions(missing) == 1 else prior.sigma_max]
    regions = hole_regions(missing) if noise == 0 else [whole]
    scales = [resolutions(missing[region.slices]) for region in regions]
    return regions, scales, [SIGMA_START if scale == 1 else SIGMA_START_WIDE for scale in scales]


def check_inpainting(picture: Picture, missing: npt.NDArray[np.bool_]) -> None:
    """Raise InputError unless picture and mask fit together."""
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise InputError(f"picture has shape {picture.shape}", hint="wanted (height, width) or (height, width, 3)")
    if missing.shape != picture.shape[:2]:
        got, wanted = missing.shape, picture.shape
        raise InputError(
            f"the mask is {got[1]} x {got[0]} pixels, the picture {wanted[1]} x {wanted[0]}",
            hint="make a mask of the picture's size",
        )
    hint = "white means missing; use --invert-mask if yours is the other way round"
    if not missing.any():
        raise InputError("the mask marks no pixel as missing", hint=hint)
    if missing.all():
        raise InputError("the mask marks every pixel as missing", hint=hint)


def check_colour_prior(prior: ScoreModel) -> None:
    """Raise ModelError unless the prior knows colour pictures."""
    if prior.channels != 3:
        raise ModelError(f"this prior has {prior.channels} channel(s)", hint="use one of RGB pictures, such as photos")


def inpaint(
    picture: Picture,
    missing: npt.NDArray[np.bool_],
    prior: ScoreModel,
    *,
    samples: int = 1,
    seed: int = 0,
    steps: int = STEPS,
    noise: float = 0.0,
    rule: str | Rule = "proximal",
    sampler: str | Sampler = "renoising",
    batch: int = 8,
    antithetic: bool = True,
    sigma_start: float | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> Posterior:
    """Fill the missing pixels of a photograph.

    A prior of any size fills each hole with what surrounds it, wide ones coarse to fine. A prior of one size sees the
    whole picture at that size, and wide holes start from all the noise it knows: they may hold an object.

    Parameters
    ----------
    picture : (H, W, 3) RGB or (H, W) grey in [0, 1].
    missing : (H, W), True where a pixel is missing; what ``picture`` holds there is ignored.
    prior : a prior of RGB photographs in [0, 1].
    samples, seed, rule, sampler, batch, antithetic : see :func:`invsolve.solve`.
    steps : noise levels at each resolution.
    noise : standard deviation of the noise on the known pixels; 0 returns them exactly.
    sigma_start : first noise level, at the coarsest resolution, in the picture's units; None chooses by the holes' width.
    progress : called with the share of the work done.
    device : where the prior lives.

    Returns
    -------
    Posterior with samples (n, 1, C, H, W) of the whole picture; diagnostics are those of the region with most missing
    pixels, at full resolution.

    Raises
    ------
    InputError : shapes do not fit, nothing is missing, or nothing is known; not of the one size the prior knows.
    """
    check_inpainting(picture, missing)
    check_colour_prior(prior)
    prior.check_rgb()
    rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    full = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32))[None]
    known = torch.from_numpy(~missing)[None, None].float()
    prior.check_size(full)
    regions, scales, sigmas = plan(missing, prior, noise)
    meter = _meter(regions, scales, progress)

    out = full.repeat(samples, 1, 1, 1)
    calls, solved, traces = 0, Posterior(full), []
    for number, (region, scale, sigma) in enumerate(zip(regions, scales, sigmas, strict=True)):
        rows, columns = region.slices
        solved = _coarse_to_fine(
            full[..., rows, columns].to(device),
            known[..., rows, columns].to(device),
            scale,
            prior=prior,
            steps=steps,
            noise=noise,
            rule=rule,
            sampler=sampler,
            samples=samples,
            seed=seed,
            batch=batch,
            antithetic=antithetic,
            stream=8 * number,
            coarsest_sigma=sigma if sigma_start is None else sigma_start,
            meter=meter,
        )
        out[..., rows, columns] = solved.samples[:, 0]
        calls += solved.network_calls
        traces.append((int(missing[region.slices].sum()), solved.diagnostics))
    if noise == 0:
        out = torch.where(known > 0, full, out)
    if picture.ndim == 2:
        out = out.mean(dim=1, keepdim=True)
    settings = {**solved.settings, "regions": len(regions), "resolutions": max(scales)}
    largest = max(traces, key=lambda trace: trace[0])[1]
    return replace(solved, samples=out[:, None], settings=settings, network_calls=calls, diagnostics=largest)


def _meter(regions: list[Region], scales: list[int], progress: Progress | None) -> Callable[[int, StepInfo], None]:
    """A callback (pixels, info) that adds up the work done and reports its share."""
    total = sum(r.pixels * sum(0.25**k for k in range(scale)) for r, scale in zip(regions, scales, strict=True))
    done = 0.0

    def report(pixels: int, info: StepInfo) -> None:
        nonlocal done
        done += pixels / info.steps
        if progress is not None:
            progress(min(1.0, done / total))

    return report


def _halve(picture: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Half resolution: the mean of the known pixels in each 2 x 2 block; a block is known if any of its pixels is."""
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    average = F.avg_pool2d(picture * known, 2, ceil_mode=True) / weight.clamp(min=1e-12)
    return average, (weight > 0).to(picture)


def _coarse_to_fine(
    picture: Tensor,
    known: Tensor,
    scales: int,
    *,
    prior: ScoreModel,
    steps: int,
    noise: float,
    rule: str | Rule,
    sampler: str | Sampler,
    samples: int,
    seed: int,
    batch: int,
    antithetic: bool,
    stream: int,
    coarsest_sigma: float,
    meter: Callable[[int, StepInfo], None],
) -> Posterior:
    """Fill at the coarsest resolution first; each finer one starts from the coarser sample plus a little noise."""
    if scales > 1:
        settings = {"prior": prior, "steps": steps, "noise": noise / 2, "rule": rule, "sampler": sampler}
        settings |= {"samples": samples, "seed": seed, "batch": batch, "antithetic": antithetic}
        settings |= {"stream": stream + 1, "coarsest_sigma": coarsest_sigma, "meter": meter}
        coarse = _coarse_to_fine(*_halve(picture, known), scales - 1, **settings)  # type: ignore[arg-type]
        size = tuple(picture.shape[-2:])
        guess = F.interpolate(coarse.samples[:, 0], size=size, mode="bilinear", align_corners=False).to(picture)
        start, sigma_start = torch.where(known > 0, picture, guess)[:, None], SIGMA_START_REFINING
    else:
        coarse, start, sigma_start = None, push_pull(picture, known), coarsest_sigma
    pixels = picture.shape[-2] * picture.shape[-1]
    solved = solve(
        prior,
        ForwardModel(Mask(known[0], channels=3), GaussianNoise(noise)),
        known * picture,
        rule=rule,
        sampler=sampler,
        sigmas=karras(steps, SIGMA_END, sigma_start),
        samples=samples,
        seed=seed,
        start=start,
        batch=max(1, min(batch, PIXELS_AT_ONCE // pixels)),
        turn=True,
        antithetic=antithetic,
        stream=stream,
        callback=lambda info: meter(pixels, info),
    )
    return replace(solved, network_calls=solved.network_calls + (coarse.network_calls if coarse else 0))
