"""Does a budget hold? Seconds that tasks take over those that they were given, and what these bought.

    python benchmarks/budget.py inpainting colorization --data photos-val.npz --budgets 10 18
    python benchmarks/budget.py ct --data ct-val.npz --budgets 50 80

The first picture or slice, 128 x 128 (slices 256 x 256, 23 views), by the task's Python function: loading is not counted. On a
machine that is busy the time is kept by spacing the levels anew: *walked* is how many there were for each that was planned.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from cases import centre_crops, colorization_case, inpainting_case, random_pixels
from ct import SCANS, ct_case, one_slice_per_patient
from harness import Case, machine

from invsolve.atomic import write_files
from invsolve.errors import UsageError
from invsolve.forward_models import projector
from invsolve.pretrained import load_prior

MODELS = {"inpainting": "photos", "colorization": "thumbnails", "ct": "ct"}
CROP = 128


def case_of(task: str, data: str, size: int) -> Case:
    """The first measurement of a file."""
    if task == "ct":
        how = SCANS["noiseless"]
        return ct_case(one_slice_per_patient(data)[0], how, 0, projector(how.geometry))
    picture = centre_crops(data, 1, size)[0]
    if task == "colorization":
        return colorization_case("first", picture)
    return inpainting_case("first", picture, random_pixels(0, len(picture)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=MODELS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default=None, help="default: the command's own")
    parser.add_argument("--size", type=int, default=CROP, help="side of the pictures")
    parser.add_argument("--budgets", type=float, nargs="+", default=[20.0, 40.0], help="seconds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(argv)
    print(machine())
    rows = []
    for task in chosen.tasks:
        case, prior = case_of(task, chosen.data, chosen.size), load_prior(chosen.model or MODELS[task], "cpu")
        for budget in chosen.budgets:
            started = time.perf_counter()
            try:
                posterior = case.task.solve(prior, budget=budget)
            except UsageError as error:
                print(f"{task}: {error.message}")
                continue
            seconds = time.perf_counter() - started
            found = {"steps": posterior.settings["steps"], "samples": len(posterior.samples)}
            row = {"task": task, "budget": budget, "seconds": seconds, "share": seconds / budget, **found}
            rows.append(row | {"walked": posterior.settings["walked"]})
            print(
                "  ".join(
                    f"{what} {value:.3g}" if isinstance(value, float) else f"{what} {value}"
                    for what, value in rows[-1].items()
                ),
                flush=True,
            )
    if chosen.json:
        write_files({chosen.json: json.dumps({"machine": machine(), "rows": rows}, indent=1).encode()})


if __name__ == "__main__":
    main()
