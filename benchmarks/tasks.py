"""Which rule and sampler serve a task best at 50, 100 and 200 network calls a sample, with the shipped priors.

    python benchmarks/tasks.py inpainting --data photos-val.npz
    python benchmarks/tasks.py colorization --data photos-val.npz
    python benchmarks/tasks.py ct --data ct-val.npz

Per row: PSNR of one sample and of the mean of n, the share of unmeasured values between the least and the largest sample
(the ideal is printed first), and the samples' spread over the error of their mean (ideal 1). Unmeasured are the missing
pixels, all pixels of a grey picture, and the inside of the body. Backward passes count as calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from cases import MASKS, centre, centre_crops, colorization_case, inpainting_case
from ct import SCANS, ct_case, one_slice_per_patient
from harness import ONE_SAMPLE, SAMPLES, Case, Report, Table, arguments, mean_of, measure, options_of

from invsolve.errors import SolveError
from invsolve.evaluation.coverage import ideal_coverage
from invsolve.forward_models import projector
from invsolve.options import COLORIZATION, INPAINTING, RECONSTRUCTION, SolveOptions
from invsolve.pretrained import NetworkPrior, load_prior
from invsolve.rules import MomentMatching, Rule
from invsolve.samplers import Sampler, ancestral_corrected, renoising

BUDGETS = (50, 100, 200)
CROP = 128
SOLVING = SolveOptions(samples=4)


class Method(NamedTuple):
    """A rule (None: the task's own), a sampler, and the noise levels that use up each budget."""

    rule: str | Rule | None
    sampler: str | Sampler
    levels: tuple[int, int, int]


METHODS = {
    "proximal, renoising": Method("proximal", "renoising", (50, 100, 200)),
    "proximal, renoising .8": Method("proximal", partial(renoising, eta=0.8), (50, 100, 200)),
    "proximal, renoising .6": Method("proximal", partial(renoising, eta=0.6), (50, 100, 200)),
    "proximal, ancestral": Method("proximal", "ancestral", (50, 100, 200)),
    "proximal, multistep": Method("proximal", "multistep", (50, 100, 200)),
    "proximal, corrected .3": Method("proximal", ancestral_corrected, (25, 50, 100)),
    "proximal, corrected .5": Method("proximal", partial(ancestral_corrected, step=0.5), (25, 50, 100)),
    "moment matching, multistep": Method(
        partial(MomentMatching, tolerance=0.2, steps=6), "multistep", (8, 16, 32)
    ),
    "own rule, renoising": Method(None, "renoising", (50, 100, 200)),
    "own rule, redrawing": Method("wiener", "redrawing", (50, 100, 200)),
    "own rule, langevin": Method(None, "langevin", (10, 20, 40)),
    "own rule, pc": Method(None, "pc", (25, 50, 100)),
    "own rule, reverse SDE": Method(None, "reverse_sde", (50, 100, 200)),
    "own rule, heun SDE": Method(None, "heun_sde", (25, 50, 100)),
    "own rule, ODE": Method(None, "ode", (25, 50, 100)),
}  # fmt: skip
SEEDS = [name for name in METHODS if name.startswith("own")]
"""The samplers of the seeds' papers beside today's defaults, each with the rule the command takes."""


def inpainting(chosen: argparse.Namespace, prior: NetworkPrior) -> list[Case]:
    """Half of the pixels missing, or lines; the middle of the pictures and masks of the other benchmarks."""
    mask = MASKS["lines" if chosen.lines else "pixels"]
    return [
        inpainting_case(f"picture {index}", centre(picture, CROP), centre(mask(index, len(picture)), CROP))
        for index, picture in enumerate(centre_crops(chosen.data, chosen.cases))
    ]


def colorization(chosen: argparse.Namespace, prior: NetworkPrior) -> list[Case]:
    """Grey pictures."""
    pictures = centre_crops(chosen.data, chosen.cases)
    return [colorization_case(f"picture {index}", picture) for index, picture in enumerate(pictures)]


def ct(chosen: argparse.Namespace, prior: NetworkPrior) -> list[Case]:
    """23 views, photon noise."""
    how = SCANS["photons"]
    operator = projector(how.geometry, prior.device)
    slices = one_slice_per_patient(chosen.data)[: chosen.cases]
    return [ct_case(one, how, index, operator) for index, one in enumerate(slices)]


OWN_RULES = {"inpainting": INPAINTING.rule, "colorization": COLORIZATION.rule, "ct": RECONSTRUCTION.rule}
TASKS = {"inpainting": (inpainting, "photos"), "colorization": (colorization, "photos"), "ct": (ct, "ct")}


def line(table: Table, samples: int) -> str:
    """A row in few figures."""
    means = table.means
    calls = sum(table.calls) / len(table.calls) / samples
    seconds = sum(table.seconds) / len(table.seconds)
    return (
        f"one {means[ONE_SAMPLE]['psnr']:.2f}  mean {means[mean_of(samples)]['psnr']:.2f}  "
        f"inside {means[SAMPLES]['coverage']:.3f}  spread {means[SAMPLES]['spread']:.2f}  calls {calls:.0f}  {seconds:.1f} s"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, SOLVING, model=None, cases=6, own=("steps", "sampler", "rule"))
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--independent", action="store_true", help="samples that are not in pairs of opposite noise")
    parser.add_argument("--lines", action="store_true", help="inpainting of lines instead of random pixels")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--seeds", action="store_const", dest="only", const=SEEDS, help="only those of the seeds' papers"
    )
    parser.add_argument("--budgets", type=int, nargs="+", choices=BUDGETS, default=BUDGETS)
    chosen = parser.parse_args(argv)
    if chosen.samples < 2:
        parser.error(f"{chosen.samples} samples: wanted 2 at least, for their mean and spread")
    make, model = TASKS[chosen.task]
    prior = load_prior(chosen.model or model, chosen.device)
    options = replace(options_of(chosen, SOLVING), antithetic=not chosen.independent)
    report = Report(chosen, prior, ideal=ideal_coverage(chosen.samples, antithetic=options.antithetic))
    cases = make(chosen, prior)
    for budget in chosen.budgets:
        for name in chosen.only:
            method = METHODS[name]
            levels = method.levels[BUDGETS.index(budget)]
            rule = OWN_RULES[chosen.task] if method.rule is None else method.rule
            own = replace(options, steps=levels, rule=rule, sampler=method.sampler)
            try:
                table = measure(cases, prior, own, baselines=False, quiet=True)
            except SolveError as error:  # a pair that diverges is a row too
                print(f"{budget:>4} {name:<28} {error}", flush=True)
                continue
            report.tables[f"{budget}, {name}"] = table
            print(f"{budget:>4} {name:<28} {line(table, chosen.samples)}", flush=True)
    report.finish()


if __name__ == "__main__":
    main()
