"""Sparse-view CT against FBP, SIRT, CGLS and TV on the same data in one run, per patient.

    python benchmarks/ct.py --data ct-val.npz --case noiseless
    python benchmarks/ct.py --data ct-val.npz --case photons

``noiseless``: the reconstructing matrix made the data (the inverse crime, as Song et al. 2022 commit it). ``photons``: a
grid twice as fine and Poisson noise of I0 = 1e5 at the slice's own pixel size. ``372`` and ``512``: as ``noiseless``, of slices
enlarged to so many pixels a side, which makes pixels of 1.3 mm 0.9 and 0.65 mm. PSNR and SSIM over -1000 to 1000 HU; the
samples are judged inside the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from harness import Array, Case, Figures, Report, Result, arguments, measure, options_of, save_sheet
from PIL import Image

from invsolve.cli.ct_files import labelled_row, windowed
from invsolve.ct.classical import classical
from invsolve.ct.reconstruction import reconstruction_task, usual_options
from invsolve.ct.simulation import photon_counts, project_slice
from invsolve.ct.units import attenuation_per_unit, to_hounsfield
from invsolve.evaluation.metrics import psnr, ssim
from invsolve.forward_models import Geometry, LinearOperator, TransmissionNoise, even_angles, projector
from invsolve.options import RECONSTRUCTION, SolveOptions
from invsolve.pictures import Pixels
from invsolve.posterior import Posterior
from invsolve.pretrained import load_prior

BODY = 0.25
"""n of the body's edge: -500 HU."""

BASELINES = ("FBP", "SIRT", "CGLS", "TV")
SOFT_TISSUE = (40, 400)
IN_SHEET = 4


class Scan(NamedTuple):
    """How is measured: the geometry, and photons per ray, None without noise."""

    geometry: Geometry
    photons: float | None


class Slice(NamedTuple):
    """A validation slice."""

    patient: str
    n: Array  # (H, W) float32, HU = 2000 n - 1000
    pixel_mm: float


def one_slice_per_patient(path: str, size: int | None = None) -> list[Slice]:
    """The middle slice of each patient of an archive like ct-val.npz, or the middle ``size`` x ``size`` of it."""
    with np.load(path, allow_pickle=False) as archive:
        patients, names = archive["patient"], archive["patient_names"]
        chosen = [np.flatnonzero(patients == p) for p in np.unique(patients)]
        middles = [int(rows[len(rows) // 2]) for rows in chosen]
        images, pixels = archive["images"], archive["pixel_mm"]
    edge = 0 if size is None else (images.shape[1] - size) // 2
    inside = slice(edge, images.shape[1] - edge)
    return [
        Slice(str(names[patients[i]]), images[i, inside, inside].astype(np.float32) / 2000, float(pixels[i]))
        for i in middles
    ]


def scan(views: int, size: int = 256, span: float = 180.0) -> Geometry:
    detectors = {256: 367, 512: 729}.get(size) or int(np.ceil(size * 2**0.5)) + 4
    return Geometry(even_angles(views, span), detectors, (size, size))


SCANS = {
    "noiseless": Scan(scan(23), None),
    "photons": Scan(scan(23), 1e5),
    "10 views": Scan(scan(10), None),
    "45 views": Scan(scan(45), None),
    "90 views": Scan(scan(90), None),
    "limited angle": Scan(scan(45, span=90.0), None),
    "372": Scan(scan(23, 372), None),
    "512": Scan(scan(23, 512), None),
}


def scan_of(name: str, size: int | None) -> Scan:
    """A scan by name, of crops of another size if wanted."""
    chosen = SCANS[name]
    return chosen if size is None else chosen._replace(geometry=scan(chosen.geometry.views, size))


def usual(name: str) -> SolveOptions:
    """How the command solves a scan of this name."""
    return usual_options(0.0 if SCANS[name].photons is None else 1.0)


def simulate(one: Slice, how: Scan, seed: int) -> tuple[Array, Array, float]:
    """(truth n, sinogram or counts, attenuation per unit)."""
    truth = one.n
    if how.geometry.shape != truth.shape:
        resized = Image.fromarray(truth).resize(how.geometry.shape[::-1], Image.Resampling.BICUBIC)
        truth = np.clip(np.asarray(resized), 0, None)
    scale = attenuation_per_unit(one.pixel_mm)
    if how.photons is None:
        return truth, project_slice(truth, how.geometry, same_grid=True), scale
    return truth, photon_counts(project_slice(truth, how.geometry), how.photons, scale, seed), scale


def ct_case(one: Slice, how: Scan, seed: int, operator: LinearOperator) -> Case:
    """A slice measured, with the classical methods beside it."""
    truth, data, scale = simulate(one, how, seed)

    def baselines() -> dict[str, Any]:
        y, noise = line_integrals(data, how, scale, operator.device)
        return {name: classical(name.lower(), operator, how.geometry, y, noise=noise)[0].numpy() for name in BASELINES}

    return Case(
        one.patient,
        reconstruction_task(data, how.geometry, i0=how.photons, scale=scale, operator=operator),
        truth,
        judge=slice_figures,
        baselines=baselines,
        where=lambda posterior: body(truth, posterior),
    )


def line_integrals(
    data: Array, how: Scan, scale: float, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, float | torch.Tensor]:
    """(1, views, detectors) and the standard deviation of its noise, 0 or one per ray."""
    y = torch.from_numpy(data)[None].to(device)
    if how.photons is None:
        return y, 0.0
    y, weight = TransmissionNoise(how.photons, scale).line_integrals(y)
    return y, 1 / weight.clamp(min=1e-6)


def body(truth: Array, posterior: Posterior) -> torch.Tensor:
    """What is above -500 HU, in truth or in any sample: (1, 1, H, W)."""
    known = torch.from_numpy(np.ascontiguousarray(truth))[None, None]
    return (known > BODY) | (posterior.samples.amax(dim=0) > BODY)


def slice_figures(truth: Array, estimate: Array) -> Figures:
    return {
        "psnr": psnr(truth, estimate, data_range=1.0),
        "ssim": ssim(truth, estimate, data_range=1.0),
        "rmse_hu": float(2000 * np.sqrt(np.mean((truth - estimate) ** 2))),
    }


def strip(result: Result) -> list[Pixels]:
    """Truth, FBP, TV, mean, and the samples' standard deviation."""
    samples = result.posterior.samples[:, 0, 0].numpy()
    pictures = {"truth": result.case.truth, **{name: result.estimates[name] for name in ("FBP", "TV")}}
    shown = {k: windowed(to_hounsfield(v), SOFT_TISSUE) for k, v in {**pictures, "mean": samples.mean(axis=0)}.items()}
    shown["std, white 200 HU"] = np.clip(samples.std(axis=0) * 10 * 255, 0, 255).astype(np.uint8)
    return [labelled_row(shown)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, RECONSTRUCTION, model="ct", count="--slices", cases=11)
    parser.add_argument("--case", choices=SCANS, default="noiseless")
    parser.add_argument("--size", type=int, help="side of the middle of the slices; default whole slices")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first slices")
    parser.set_defaults(steps=usual(parser.parse_known_args(argv)[0].case).steps)
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    how = scan_of(chosen.case, chosen.size)
    operator = projector(how.geometry, prior.device)
    slices = one_slice_per_patient(chosen.data, chosen.size)[: chosen.cases]
    report = Report(chosen, prior)
    cases = (ct_case(one, how, index, operator) for index, one in enumerate(slices))
    report.add(chosen.case, measure(cases, prior, options_of(chosen, usual(chosen.case))))
    report.finish()
    if chosen.show:
        save_sheet(chosen.show, map(strip, report.tables[chosen.case].shown[:IN_SHEET]))


if __name__ == "__main__":
    main()
