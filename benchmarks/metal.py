"""CT through metal: rays that pass through it left out, beside leaving them in and LI-MAR, on the same measurements in one run.

    python benchmarks/metal.py --data ct-val.npz --show metal.jpg

Each slice gets two discs of steel, 11 and 8 mm wide, in a spectrum of three energies with Poisson noise of 1e5 photons a ray, on a
grid twice as fine as the one that reconstructs. The metal is found from the data, as ``invsolve ct`` does by default. PSNR and SSIM
over -1000 to 1000 HU and RMSE, all outside the true metal and the two pixels around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ct import SCANS, Slice, one_slice_per_patient, scan, slice_figures
from harness import Array, Figures, Report, Rows, Table, arguments, options_of, save_sheet, solve_case
from harness import Case as Judged
from scipy.ndimage import binary_dilation

from invsolve.cli.ct_files import labelled_row, windowed
from invsolve.ct.classical import classical
from invsolve.ct.description import Description
from invsolve.ct.metal import about, li_mar, put_back, without_metal
from invsolve.ct.reconstruction import reconstruction_task
from invsolve.ct.scan import Scan, interpret
from invsolve.ct.simulation import counts_through_metal
from invsolve.ct.units import to_hounsfield
from invsolve.forward_models import Geometry, LinearOperator, projector
from invsolve.options import RECONSTRUCTION
from invsolve.pictures import Pixels
from invsolve.pretrained import load_prior

DISCS = ((0.07, -0.12, 5.5), (0.05, 0.15, 4.0))
"""Centre, rows and columns from the middle as shares of the side, and radius in mm."""

PHOTONS = 1e5
AROUND = 2
SOFT_TISSUE = (40, 600)
IN_SHEET = 4


def discs(one: Slice) -> Array:
    """Where the metal is, (H, W)."""
    side = one.n.shape[0]
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    inside = [np.hypot(rows - y * side, columns - x * side) <= mm / one.pixel_mm for y, x, mm in DISCS]
    return np.asarray(np.any(inside, axis=0))


def measured(one: Slice, geometry: Geometry, seed: int) -> Scan:
    """The scan as the command takes it."""
    counts = counts_through_metal(one.n, discs(one), geometry, one.pixel_mm, PHOTONS, seed)
    known = Description(
        geometry=geometry, units="counts", i0=PHOTONS, pixel_size=one.pixel_mm, axis="views,detectors", bad_bins="none"
    )
    return interpret(counts, known)


def rows_of(one: Slice, estimates: dict[str, Array]) -> Rows:
    """Figures outside the metal."""
    counted = ~binary_dilation(discs(one), iterations=AROUND)

    def judge(estimate: Array) -> Figures:
        return slice_figures(np.where(counted, one.n, 0), np.where(counted, estimate, 0))

    return {name: judge(estimate) for name, estimate in estimates.items()}


def classical_estimates(full: Scan, left_out: Scan, operator: LinearOperator) -> dict[str, Array]:
    """FBP, LI-MAR and TV, the metal in and out."""
    found: dict[str, Array] = {}
    _, metal = without_metal(full, operator)
    y = {name: torch.from_numpy(one.sinogram) for name, one in (("in", full), ("out", left_out))}
    noise = {name: torch.from_numpy(np.asarray(one.noise)) for name, one in (("in", full), ("out", left_out))}

    def by(method: str, which: str) -> Array:
        image = classical(method, operator, full.geometry, y[which], noise=noise[which])
        return np.asarray(put_back(image, metal if which == "out" else None)[0].numpy())

    found["FBP"] = by("fbp", "in")
    found["LI-MAR"] = li_mar(operator, full.geometry, y["in"], metal)[0].numpy()
    found["TV, all rays"] = by("tv", "in")
    found["TV, metal left out"] = by("tv", "out")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, RECONSTRUCTION, model="ct", count="--slices", cases=4)
    parser.set_defaults(samples=4)
    parser.add_argument("--views", type=int, default=90)
    parser.add_argument("--size", type=int, help="side of the middle of the slices; default whole slices")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first slices")
    chosen = parser.parse_args(argv)
    prior, options = load_prior(chosen.model, chosen.device), options_of(chosen, RECONSTRUCTION)
    geometry = scan(chosen.views, chosen.size or SCANS["90 views"].geometry.shape[0])
    operator, table, sheet = projector(geometry, prior.device), Table(), list[list[Pixels]]()
    report = Report(chosen, prior)
    for index, one in enumerate(one_slice_per_patient(chosen.data, chosen.size)[: chosen.cases]):
        full = measured(one, geometry, index)
        left_out, metal = without_metal(full, operator)
        print(f"{one.patient:>26}: {about(metal)}; truly {int(discs(one).sum())} pixels")
        estimates = classical_estimates(full, left_out, operator)
        for name, how, kept in (("all rays", full, None), ("metal left out", left_out, metal)):
            task = reconstruction_task(how.sinogram, geometry, noise=how.noise, operator=operator, metal=kept)
            result = solve_case(Judged(one.patient, task, one.n), prior, options, baselines=False)
            samples = result.posterior.samples[:, 0, 0].numpy()
            estimates[f"invsolve, {name}, one sample"] = samples[0]
            estimates[f"invsolve, {name}, mean of {len(samples)}"] = samples.mean(axis=0)
        rows = rows_of(one, estimates)
        table.add(result, rows)
        print(f"{one.patient:>26}: " + "  ".join(f"{name} {row['psnr']:.2f}" for name, row in rows.items()), flush=True)
        shown = {
            "truth": np.where(discs(one), 4, one.n),
            **{k: v for k, v in estimates.items() if "one sample" not in k},
        }
        sheet.append([labelled_row({name: windowed(to_hounsfield(n), SOFT_TISSUE) for name, n in shown.items()})])
    report.add("metal", table)
    report.finish()
    if chosen.show:
        save_sheet(chosen.show, sheet[:IN_SHEET])


if __name__ == "__main__":
    main()
