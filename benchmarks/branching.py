"""Two ways of calling the network less: samples that share their noisy levels, and a run that ends where nothing moves.

    python benchmarks/branching.py inpainting --data photos-val.npz --levels 4 8 12
    python benchmarks/branching.py ct --data ct-val.npz --levels 5 10 20
    python benchmarks/branching.py inpainting --data photos-val.npz --pictures 4 --moves 0.5 1 2 --samples 2

*Shared*: the first so many levels are walked by one pair of opposite noise (without pairs, by one sample); from its clean picture
all samples go on, each with noise of its own. *Until it moves less*: the run ends at the first level where the estimate of the clean
picture changed by less than so many thousandths of its range (root mean square, in the sample that changes most). Calls are
those that are needed; what is shared is computed by all samples here and then replaced, so that all else stays the same.
Per row: PSNR of one sample and of the mean, the share of open values between the least and the largest sample, the samples'
spread over the error of their mean (ideal 1), and calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from calls import DEFAULTS, add_case_options, cases_of, difference, judged_means, model_of
from harness import SAMPLES, Report, Table, arguments, options_of, solve_case
from torch import Tensor

from invsolve.evaluation.coverage import ideal_coverage
from invsolve.models.score_model import Noise, ScoreModel
from invsolve.options import SolveOptions
from invsolve.pretrained import load_prior
from invsolve.samplers import Callback, Sampler, StepInfo, find_sampler, needs

SAMPLES_DRAWN = 8


class Way(NamedTuple):
    """A name, the sampler, and how many calls of all samples it saves: known when it has run."""

    name: str
    sampler: Sampler
    saved: Callable[[], float]


def shared(sampler: Sampler, count: int, trunk: int) -> Sampler:
    """``sampler`` with the first ``count`` levels walked for ``trunk`` samples, whose clean pictures the others take over."""

    @needs(resumes=True)
    def run(model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise, *, callback: Callback | None = None) -> Tensor:
        seen: list[Tensor] = []

        def note(info: StepInfo) -> None:
            seen.append(info.denoised)
            if callback is not None:
                callback(info._replace(steps=len(sigmas) - 1))

        def later(info: StepInfo) -> None:
            if callback is not None:
                callback(info._replace(step=info.step + count, steps=len(sigmas) - 1))

        sampler(model, x, sigmas[: count + 1], noise, callback=note)
        kept = [index % trunk for index in range(len(x))]
        x = seen[-1][kept] + float(sigmas[count]) * noise(x)
        return sampler(model, x, sigmas[count:], noise, callback=later)

    return run


class Stopped:
    """``sampler``, level by level, until its estimate of the clean picture moves less than ``least``; then that estimate."""

    def __init__(self, sampler: Sampler, least: float) -> None:
        self.sampler, self.least = sampler, least
        self.saved = 0.0

    def __call__(
        self, model: ScoreModel, x: Tensor, sigmas: Tensor, noise: Noise, *, callback: Callback | None = None
    ) -> Tensor:
        steps, before = len(sigmas) - 1, None
        for step in range(steps):
            seen: list[StepInfo] = []
            # The estimate, not the draw: a draw moves by its own noise.
            estimate = model.denoise(x, float(sigmas[step]))
            if before is not None and moved(estimate, before) < self.least:
                self.saved += (steps - step - 1) * len(x)
                return estimate
            before = estimate
            x = self.sampler(model, x, sigmas[step : step + 2], noise, callback=seen.append)
            if callback is not None:
                callback(seen[-1]._replace(step=step + 1, steps=steps))
        return x


def moved(x: Tensor, before: Tensor) -> float:
    """Root mean square change of the image that changes most."""
    return float((x - before).square().flatten(1).mean(dim=1).sqrt().max())


def ways_of(sampler: Sampler, levels: Sequence[int], moves: Sequence[float], samples: int, trunk: int) -> list[Way]:
    """As it is first."""
    found = [Way("as it is", sampler, lambda: 0.0)]
    for count in levels:
        saved = float(count * (samples - trunk))
        found.append(Way(f"{count} levels shared", shared(sampler, count, trunk), lambda saved=saved: saved))  # type: ignore[misc]
    for move in moves:
        stopped = Stopped(sampler, move / 1000)
        found.append(Way(f"until it moves less than {move:g}", stopped, lambda stopped=stopped: stopped.saved))  # type: ignore[misc]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(
        __doc__, SolveOptions(samples=SAMPLES_DRAWN), model=None, cases=4, own=("steps", "rule", "sampler")
    )
    add_case_options(parser)
    parser.add_argument("--levels", type=int, nargs="*", default=[], help="that are shared")
    parser.add_argument("--moves", type=float, nargs="*", default=[], help="thousandths below which a run ends")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model or model_of(chosen.task), chosen.device)
    options = replace(options_of(chosen, DEFAULTS[chosen.task]), batch=chosen.samples)
    named = replace(DEFAULTS[chosen.task], samples=chosen.samples).settled.sampler
    sampler = find_sampler(named)
    trunk = 2 if options.antithetic and chosen.samples > 1 else 1
    if max(chosen.levels, default=0) >= options.steps:
        parser.error(f"--levels has more than the {options.steps - 1} that can be shared")
    ways = ways_of(sampler, chosen.levels, chosen.moves, chosen.samples, trunk)
    report = Report(chosen, prior, ideal=ideal_coverage(chosen.samples, antithetic=options.antithetic))
    tables = {way.name: Table() for way in ways}
    cases = cases_of(chosen, prior)
    for case in cases:
        for way in ways:
            result = solve_case(case, prior, replace(options, sampler=way.sampler), baselines=False)
            tables[way.name].add(result, judged_means(result))
    calls = float(np.mean(tables["as it is"].calls))
    for way in ways:
        table = tables[way.name]
        report.tables[way.name] = table
        means = table.means
        quality = "  ".join(f"{name} {figures['psnr']:.3f}" for name, figures in means.items() if name != SAMPLES)
        honesty = means[SAMPLES]
        share = way.saved() / (1 if way.name.endswith("shared") else len(cases)) / calls
        print(
            f"{way.name:<28} {quality}  inside {honesty['coverage']:.3f}  spread {honesty['spread']:.3f}  "
            f"calls {calls * (1 - share):.0f}, {share:.0%} saved"
        )
    differences = {way.name: difference(tables[way.name], tables["as it is"]) for way in ways[1:]}
    for name, figures in differences.items():
        print(f"{name} less as it is: " + "  ".join(f"{what} {value:+.4f}" for what, value in figures.items()))
    report.finish(differences=differences)


if __name__ == "__main__":
    main()
