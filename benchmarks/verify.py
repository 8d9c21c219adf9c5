"""Which rule and sampler come nearest to the true posterior at 50, 100 and 200 network calls per sample.

Two tables, both with exact denoisers in closed form (``invsolve.verification.judge``). Gaussian: bias (rms error of the mean in
posterior standard deviations, ideal 0) and ratio (standard deviation over the exact one, ideal 1) for inpainting,
colorization and blur, means over ``--repeats`` problems. Mixture: sliced Wasserstein distance over 20 problems for each
(d, dy), beside that of exact draws. Backward passes count as calls.

    python benchmarks/verify.py gaussian
    python benchmarks/verify.py mixture
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from invsolve.rules import DPS, MomentMatching, Rule
from invsolve.samplers import ancestral_corrected, annealed_langevin, daps, split_gibbs
from invsolve.verification.figures import Figures, average, save_figures
from invsolve.verification.judge import verify
from invsolve.verification.problems import mixture_problem, problems

GAUSSIAN = ("inpainting", "colorization", "blur")
BUDGETS = (50, 100, 200)
LEVELS = (5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 22, 25, 28)


class Method(NamedTuple):
    """A rule and a sampler, and about how many calls a level costs (None: as many as the data ask for)."""

    name: str
    rule: str | Rule
    sampler: Any
    cost: float | None


METHODS = [
    Method("moment matching, multistep", "moment_matching", "multistep", None),
    Method("moment matching to .1, multistep", partial(MomentMatching, tolerance=0.1), "multistep", None),
    Method("moment matching, ancestral", "moment_matching", "ancestral", None),
    Method("moment matching, renoising", "moment_matching", "renoising", None),
    Method("moment matching, corrected", "moment_matching", ancestral_corrected, None),
    Method("pigdm, multistep", "pigdm", "multistep", 2),
    Method("pigdm, ancestral", "pigdm", "ancestral", 2),
    Method("dps annealed, ancestral", "dps", "ancestral", 2),
    Method("dps annealed, multistep", "dps", "multistep", 2),
    Method("dps norm, ancestral", partial(DPS, weight="norm"), "ancestral", 2),
    Method("proximal, renoising", "proximal", "renoising", 1),
    Method("proximal, ancestral", "proximal", "ancestral", 1),
    Method("proximal, corrected", "proximal", ancestral_corrected, 2),
    Method("annealed, renoising", "annealed", "renoising", 1),
    Method("annealed, langevin (4 a level)", "annealed", partial(annealed_langevin, langevin_steps=4), 4),
    Method("replacement, ancestral", "replacement", "ancestral", 1),
    Method("split Gibbs", "proximal", split_gibbs, None),
    Method("daps", "proximal", daps, 4),
]


def within(method: Method, problem: str, seed: int, budget: int, samples: int) -> Figures:
    """The method's figures at the most levels that keep to the budget."""

    def judge(steps: int, count: int) -> Figures:
        case = problems[problem](seed)
        rule = method.rule
        sampler = method.sampler
        if method.sampler is split_gibbs:  # a third of the calls for annealing, the others for sweeps at the end
            sampler = partial(split_gibbs, sweeps=max(0, budget // 4 - steps))
        return verify(case, rule=rule, sampler=sampler, steps=steps, samples=count, label=method.name)

    if method.sampler is split_gibbs:
        return judge(max(2, budget // 12), samples)
    if method.cost is not None:
        return judge(int(budget // method.cost), samples)
    chosen = LEVELS[0]
    for steps in LEVELS:
        if needed(method, problem, seed, steps) > budget * 1.02:
            break
        chosen = steps
    return judge(chosen, samples)


@cache
def needed(method: Method, problem: str, seed: int, steps: int) -> float:
    """Calls per sample, from a few samples."""
    return verify(
        problems[problem](seed), rule=method.rule, sampler=method.sampler, steps=steps, samples=40, exact=False
    ).calls


def gaussian(repeats: int, samples: int, only: str, kind: str, budgets: Sequence[int] = BUDGETS) -> Iterator[Figures]:
    """Every method at every budget."""
    for method in METHODS:
        if only not in method.name:
            continue
        for budget in budgets:
            cells = []
            for problem in [name for name in GAUSSIAN if kind in name]:
                found = average([within(method, problem, seed, budget, samples) for seed in range(repeats)])
                cells.append(f"{found.bias:6.3f} / {found.std_ratio:5.3f} / {found.coverage:.3f} ({found.calls:3.0f})")
                yield found
            print(f"{method.name:<34} {budget:>4}  " + "   ".join(cells), flush=True)


MIXTURES = ((8, 1), (8, 4), (80, 1), (80, 4), (800, 1))
MIXTURE_METHODS = [
    Method("moment matching, twisted particles", "moment_matching", "twisted", None),
    Method("pigdm, twisted particles", "pigdm", "twisted", 2),
    Method("dps annealed, twisted particles", "dps", "twisted", 2),
    Method("moment matching, multistep", "moment_matching", "multistep", None),
    Method("pigdm, ancestral", "pigdm", "ancestral", 2),
    Method("dps annealed, ancestral", "dps", "ancestral", 2),
]


def mixture(repeats: int, samples: int, only: str, problem: str) -> Iterator[Figures]:
    """Every method at 200 calls per sample."""
    for d, dy in MIXTURES:
        if problem not in f"mixture-{d}-{dy}":
            continue
        for method in MIXTURE_METHODS:
            if only not in method.name:
                continue
            cost = 1 + dy if method.cost is None else method.cost
            started = time.perf_counter()
            found = average(
                [
                    verify(
                        mixture_problem(seed, d=d, dy=dy), rule=method.rule, sampler=method.sampler,
                        steps=int(200 // cost), samples=samples, seed=seed, label=method.name,
                    )
                    for seed in range(repeats)
                ]
            )  # fmt: skip
            print(
                f"{d:>4} {dy}  {method.name:<36} SW {found.sliced_wasserstein:6.3f} +-{found.sliced_wasserstein_error:.3f}"
                f"  floor {found.floor:.3f}  calls {found.calls:.0f}  {time.perf_counter() - started:.1f} s",
                flush=True,
            )
            yield found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("gaussian", "mixture"))
    parser.add_argument("--repeats", type=int, help="problems of each kind (default 1, mixture 20)")
    parser.add_argument("--samples", type=int, help="draws per problem (default 2000, mixture 200)")
    parser.add_argument("--only", default="", help="methods whose name contains this")
    parser.add_argument("--problem", default="", help="problems whose name contains this")
    parser.add_argument("--budget", type=int, help="Gaussian: only so many calls (default 50, 100 and 200)")
    parser.add_argument("--save", help="figures as JSON")
    chosen = parser.parse_args(argv)
    if chosen.table == "gaussian":
        budgets = BUDGETS if chosen.budget is None else (chosen.budget,)
        rows = list(gaussian(chosen.repeats or 1, chosen.samples or 2000, chosen.only, chosen.problem, budgets))
    else:
        rows = list(mixture(chosen.repeats or 20, chosen.samples or 200, chosen.only, chosen.problem))
    if chosen.save:
        save_figures(chosen.save, rows)


if __name__ == "__main__":
    main()
