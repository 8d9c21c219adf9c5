"""What detector bins that measure too much or too little cost a reconstruction with the prior, and what `--rings` gets back.

    python benchmarks/ct_rings_prior.py --data ct-val.npz

Slices of 256 x 256 pixels, one of each of three patients, 60 views on a grid twice as fine, noise of 0.3 % of the largest value.
Every bin is off by a random amount of 1 %, one in 25 by four times as much, as in ct_rings.py. The scan without rings, the one
with them as it is, and that corrected by each way are read as `invsolve ct` reads them, which finds the noise itself, and
reconstructed by filtered back-projection, total variation and the prior. PSNR in dB over -1000 to 1000 HU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ct import SCANS, Slice, one_slice_per_patient, scan, slice_figures
from harness import Array, Case, Report, Result, Rows, Table, arguments, mean_of, options_of, save_sheet, solve_case

from invsolve.cli.ct_files import labelled_row, windowed
from invsolve.ct.classical import classical
from invsolve.ct.description import Description
from invsolve.ct.reconstruction import reconstruction_task
from invsolve.ct.scan import Scan, interpret
from invsolve.ct.simulation import project_slice
from invsolve.ct.units import to_hounsfield
from invsolve.forward_models import Geometry, LinearOperator, projector
from invsolve.options import RECONSTRUCTION, SolveOptions
from invsolve.pretrained import load_prior
from invsolve.pretrained.network_prior import NetworkPrior

NOISE = 0.003
WAYS = {"no rings": "off", "rings": "off", "auto": "auto", "median": "median"}
"""Scans by name, and how they are corrected."""

SOFT_TISSUE = (40, 600)


def bins_off(count: int, seed: int) -> Array:
    """By how much each bin errs, (detectors,), with a standard deviation of 1 but for a few."""
    random = np.random.default_rng(seed)
    off = random.standard_normal(count)
    off[random.choice(count, count // 25, replace=False)] *= 4
    return off


def measured(one: Slice, geometry: Geometry, share: float, seed: int) -> dict[str, Scan]:
    """The scans of :data:`WAYS`."""
    clean = project_slice(one.n, geometry)
    clean = clean + NOISE * clean.max() * np.random.default_rng(seed).standard_normal(clean.shape)
    ringed = clean + share * clean.max() * bins_off(geometry.detectors, seed)
    return {
        name: interpret(
            (clean if name == "no rings" else ringed).astype(np.float32),
            Description(geometry=geometry, bad_bins="none", rings=way),
        )
        for name, way in WAYS.items()
    }


def estimates_of(
    how: Scan, one: Slice, operator: LinearOperator, prior: NetworkPrior, options: SolveOptions
) -> tuple[Result, dict[str, Array]]:
    """The samples as they came, and all estimates in the units of n."""
    y = torch.from_numpy(how.sinogram)
    noise = how.noise if isinstance(how.noise, float) else torch.from_numpy(how.noise)
    found = {name.upper(): classical(name, operator, how.geometry, y, noise=noise)[0].numpy() for name in ("fbp", "tv")}
    task = reconstruction_task(how.sinogram, how.geometry, noise=how.noise, operator=operator)
    result = solve_case(Case(one.patient, task, one.n), prior, options, baselines=False)
    samples = result.posterior.samples[:, 0, 0].numpy()
    return result, found | {"one sample": samples[0], mean_of(len(samples)): samples.mean(axis=0)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, RECONSTRUCTION, model="ct", count="--slices", cases=3)
    parser.set_defaults(samples=4)
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--size", type=int, help="side of the middle of the slices; default whole slices")
    parser.add_argument(
        "--off", type=float, default=0.01, help="standard deviation of the bins' errors, of the largest"
    )
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first slice")
    chosen = parser.parse_args(argv)
    prior, options = load_prior(chosen.model, chosen.device), options_of(chosen, RECONSTRUCTION)
    geometry = scan(chosen.views, chosen.size or SCANS["90 views"].geometry.shape[0])
    operator, table, report = projector(geometry, prior.device), Table(), Report(chosen, prior)
    for index, one in enumerate(one_slice_per_patient(chosen.data, chosen.size)[: chosen.cases]):
        rows: Rows = {}
        shown = {"truth": one.n}
        for name, how in measured(one, geometry, chosen.off, index).items():
            result, estimates = estimates_of(how, one, operator, prior, options)
            rows |= {f"{name}, {method}": slice_figures(one.n, n) for method, n in estimates.items()}
            shown |= {
                f"{name}, {method}": n for method, n in estimates.items() if method in ("FBP", mean_of(options.samples))
            }
        table.add(result, rows)
        print(f"{one.patient:>26}: " + "  ".join(f"{name} {row['psnr']:.2f}" for name, row in rows.items()), flush=True)
        if index == 0 and chosen.show:
            save_sheet(
                chosen.show,
                [[labelled_row({name: windowed(to_hounsfield(n), SOFT_TISSUE) for name, n in shown.items()})]],
            )
    report.add("rings", table)
    report.finish()


if __name__ == "__main__":
    main()
