"""What the page of a run shows: of a picture command, of a CT slice, of an MRI slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from invsolve.cli.report import Page, Shown, sample_row
from invsolve.cli.results import STD_WHITE
from invsolve.cli.uncertainty import interval_text, uncertainty_lines
from invsolve.pictures import Pixels, to_pixels

if TYPE_CHECKING:
    from invsolve.cli.ct_results import Result
    from invsolve.cli.files import Photo
    from invsolve.cli.pipeline import Solved
    from invsolve.summary import Summary

NOT_FOR_DIAGNOSIS = "Not for diagnosis: what the data leave open, the model filled in."

Array = npt.NDArray[Any]
Scores = Mapping[str, Mapping[str, float]]


def picture_page(
    title: str,
    photo: Photo,
    about: str,
    solved: Solved,
    pictures: Sequence[Pixels],
    mean: Pixels | None,
    std: Pixels | None,
    bounds: Sequence[Pixels],
    compared: Mapping[str, Pixels],
    scores: Scores,
    truth: Pixels | None = None,
) -> Page:
    """Of a picture command.

    Parameters
    ----------
    title, about : the run in a few words, and in a line.
    photo : the input, of the result's size.
    pictures, mean, std, bounds : the samples and what they say together, as they are written.
    compared : what was or could be scored: the classical methods among them are shown.
    """
    count = len(pictures)
    classical = {name: picture for name, picture in compared.items() if not _is_ours(name, count)}
    others = []
    if mean is not None and std is not None:
        others = [
            Shown(f"mean of {count}", mean, "closest to the truth, but smoother"),
            Shown("standard deviation", std, f"white: {STD_WHITE:g} of the range or more"),
            *(Shown(f"{side} bound", pixels) for side, pixels in zip(("lower", "upper"), bounds, strict=False)),
        ]
    others += [Shown(name, picture, "a classical method") for name, picture in classical.items()]
    others += [] if truth is None else [Shown("truth", truth)]
    return Page(
        title=f"invsolve {title}",
        compared=(Shown("input", photo.pixels), Shown("result", pictures[0])),
        samples=sample_row(pictures),
        drawn=count,
        others=[*others, *trace_shown(solved.summary)],
        meaning=[sentence(about), *explanation(solved, unit="of the range")],
        warning=solved.summary.warning,
        scores=scores,
        facts=facts_of(solved),
        card=card_of(solved),
    )


def _is_ours(name: str, count: int) -> bool:
    return name in ("invsolve sample", f"mean of {count}")


def slice_page(title: str, result: Result, window: tuple[float, float], scores: Scores) -> Page:
    """Of a CT slice, the middle one of a stack, drawn in a window of HU (centre, width)."""
    from invsolve.cli.ct_files import residual_picture, windowed
    from invsolve.cli.ct_results import HU_PER_UNIT, STD_WHITE_HU
    from invsolve.ct.units import to_hounsfield

    middle = len(result.residual) // 2
    drawn = {name: windowed(stack[middle], window) for name, stack in result.in_hounsfield.items()}
    *classical, last = drawn
    first = classical[0] if classical else last
    others = [Shown(name, drawn[name], "a classical method") for name in classical[1:]]
    chi2 = "" if result.chi2 is None else f" Chi-squared per ray is {result.chi2:.2f}; 1 is as far off as the noise."
    meaning = [f"Black is {window[0] - window[1] / 2:g} HU, white {window[0] + window[1] / 2:g} HU.{chi2}"]
    solved, samples = result.solved, []
    if solved is not None:
        meaning += explanation(solved, unit="HU", factor=HU_PER_UNIT)
    if solved is not None and len(solved.posterior.samples) > 1:
        draws = to_hounsfield(solved.posterior.samples[:, middle, 0]).numpy()
        samples = sample_row(draws, lambda one: windowed(one, window))
        std = to_pixels(HU_PER_UNIT * solved.posterior.std[middle, 0].numpy() / STD_WHITE_HU)
        others.append(Shown("standard deviation", std, f"white: {STD_WHITE_HU:g} HU or more"))
    misfit = residual_picture(result.residual[middle], result.residual_limit)
    others.append(Shown("misfit", misfit, "what the result does not explain of the sinogram; grey is nothing"))
    return Page(
        title=f"invsolve {title}",
        compared=(Shown(first, drawn[first]), Shown(f"result: {last}", drawn[last])),
        samples=samples,
        drawn=len(solved.posterior.samples) if solved else 0,
        others=[*others, *(trace_shown(solved.summary) if solved else [])],
        meaning=[*meaning, NOT_FOR_DIAGNOSIS],
        warning=(solved.summary.warning if solved else None) or result.warning,
        scores=scores,
        facts={**result.facts, "seconds": f"{result.seconds:.1f}", "network calls": result.calls},
        card=card_of(solved) if solved else {},
    )


def magnitude_page(title: str, images: Mapping[str, Array], solved: Solved, white: float, scores: Scores) -> Page:
    """Of an MRI slice: magnitudes (H, W) by method, ours last; ``white`` is drawn white."""
    from invsolve.cli.mri import STD_WHITE as STD_SHARE

    drawn = {name: to_pixels(image / white) for name, image in images.items()}
    first, *between, last = drawn
    others = [Shown(name, drawn[name], "a classical method") for name in between]
    samples = solved.posterior.samples[:, 0, 0].numpy()
    if len(samples) > 1:
        std = to_pixels(solved.posterior.std[0, 0].numpy() / (STD_SHARE * white))
        others.append(Shown("standard deviation", std, f"white: {STD_SHARE * white:.3g}, a tenth of the brightest"))
    return Page(
        title=f"invsolve {title}",
        compared=(Shown(first, drawn[first]), Shown(f"result: {last}", drawn[last])),
        samples=sample_row(list(samples), lambda one: to_pixels(one / white)),
        drawn=len(samples),
        others=[*others, *trace_shown(solved.summary)],
        meaning=[
            f"White is {white:.3g}, in the units of k-space.",
            *explanation(solved, unit="in the units of k-space"),
            NOT_FOR_DIAGNOSIS,
        ],
        warning=solved.summary.warning,
        scores=scores,
        facts=facts_of(solved),
        card=card_of(solved),
    )


def explanation(solved: Solved, *, unit: str, factor: float = 1.0) -> list[str]:
    """What samples, spread and interval of a run mean, in paragraphs."""
    summary, count, sampler = solved.summary, solved.summary.samples, str(solved.posterior.settings.get("sampler"))
    if count > 1:
        spread = (
            f"Each of the {count} samples is one answer that fits the data and that the model finds likely. Where they "
            "differ, the data leave it open, and what a sample shows there may be wrong; where they agree, the data or the "
            "model are sure."
        )
        found = [
            spread,
            "The mean of the samples is closer to the truth than any of them, and smoother than the truth.",
        ]
    elif sampler == "posterior_mean":
        found = ["The result is the mean of all answers that fit the data: closest to the truth, and smoother than it."]
    elif sampler == "renoising" or "averaging" in sampler:  # what single results are made by, no draws
        found = ["The result is a best estimate, smoother than the truth. One result does not say how sure it is."]
    else:
        found = ["The result is one answer of many that fit the data. One sample does not say how sure it is."]
    if summary.interval is not None:
        found.append(
            f"Each pixel's interval is {interval_text(summary)}; its mean width is {factor * summary.width:.3g} {unit}. The "
            "probability is that of one pixel at a time, not of the whole picture. It holds for data like those the model "
            "was trained on; of other data it may be much less."
        )
    if summary.chi2 is not None:
        text = f"Chi-squared per value of the samples is {summary.chi2:.3g}; 1 is as far from the data as the noise is."
        found.append(text)
    return [*found, *(sentence(line) for line in uncertainty_lines(summary, unit=unit, factor=factor))]


def sentence(line: str) -> str:
    """A line with a capital and a full stop."""
    return f"{line[:1].upper()}{line[1:]}."


def facts_of(solved: Solved) -> dict[str, Any]:
    """The settings, and what they cost."""
    calls = solved.posterior.network_calls
    return {**solved.facts, "seconds": f"{solved.seconds:.1f}", "network calls": calls}


def card_of(solved: Solved) -> dict[str, Any]:
    """The part of the model's card that a reader needs."""
    card = solved.prior.card
    return {
        "name": card.name, "knows": card.knows, "does not know": card.does_not_know, "units": card.units,
        "trained on": card.data, "licence": card.licence, "noise levels": f"{card.sigma_min:g} to {card.sigma_max:g}",
        "sha256": card.sha256,
    }  # fmt: skip


def trace_shown(summary: Summary) -> list[Shown]:
    """The course of the run, where it has one."""
    from invsolve.uncertainty.trace import trace_picture

    if len(summary.diagnostics.get("sigma", ())) < 2:
        return []
    text = (
        "misfit, in units of the noise where there is some, and change of the estimate, from high noise levels to low"
    )
    return [Shown("course of the run", trace_picture(summary.diagnostics), text)]
