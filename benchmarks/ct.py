"""Sparse-view CT against FBP, SIRT and TV on the same data in one run, per patient.

    python benchmarks/ct.py --data ct-val.npz --case noiseless
    python benchmarks/ct.py --data ct-val.npz --case photons

``noiseless``: the reconstructing matrix made the data (the inverse crime, as Song et al. 2022 commit it). ``photons``: a
grid twice as fine and Poisson noise of I0 = 1e5 at the slice's own pixel size. PSNR and SSIM over -1000 to 1000 HU.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import machine
from PIL import Image

from invsolve import load_prior
from invsolve.cli.ct_files import labelled_row, windowed
from invsolve.ct.classical import classical
from invsolve.ct.reconstruction import reconstruct_ct
from invsolve.ct.simulation import photon_counts, project_slice
from invsolve.ct.units import attenuation_per_unit, to_hounsfield
from invsolve.evaluation.metrics import psnr, ssim
from invsolve.forward_models import Geometry, TransmissionNoise, even_angles, projector

Array = Any


class Case(NamedTuple):
    """What is measured."""

    geometry: Geometry
    photons: float | None


class Slice(NamedTuple):
    """A validation slice."""

    patient: str
    n: Array  # (256, 256), HU = 2000 n - 1000
    pixel_mm: float


def one_slice_per_patient(path: str) -> list[Slice]:
    """The middle slice of each patient of an archive like ct-val.npz."""
    with np.load(path, allow_pickle=False) as archive:
        patients, names = archive["patient"], archive["patient_names"]
        chosen = [np.flatnonzero(patients == p) for p in np.unique(patients)]
        middles = [int(rows[len(rows) // 2]) for rows in chosen]
        return [
            Slice(
                str(names[patients[i]]), archive["images"][i].astype(np.float32) / 2000, float(archive["pixel_mm"][i])
            )
            for i in middles
        ]


def scan(views: int, size: int = 256, span: float = 180.0) -> Geometry:
    detectors = {256: 367, 512: 729}.get(size) or int(np.ceil(size * 2**0.5)) + 4
    return Geometry(even_angles(views, span), detectors, (size, size))


CASES = {
    "noiseless": Case(scan(23), None),
    "photons": Case(scan(23), 1e5),
    "10 views": Case(scan(10), None),
    "45 views": Case(scan(45), None),
    "90 views": Case(scan(90), None),
    "limited angle": Case(scan(45, span=90.0), None),
    "512": Case(scan(23, 512), None),
}


def measure(one: Slice, case: Case, seed: int) -> tuple[Array, Array, float]:
    """(truth n, sinogram or counts, attenuation per unit)."""
    truth = one.n
    if case.geometry.shape[0] != truth.shape[0]:
        factor = case.geometry.shape[0] // truth.shape[0]
        resized = Image.fromarray(truth).resize((truth.shape[1] * factor,) * 2, Image.Resampling.BICUBIC)
        truth = np.clip(np.asarray(resized), 0, None)
    scale = attenuation_per_unit(one.pixel_mm)
    if case.photons is None:
        return truth, project_slice(truth, case.geometry, same_grid=True), scale
    return truth, photon_counts(project_slice(truth, case.geometry), case.photons, scale, seed), scale


def figures(truth: Array, estimate: Array) -> dict[str, float]:
    return {
        "psnr": psnr(truth, estimate, data_range=1.0),
        "ssim": ssim(truth, estimate, data_range=1.0),
        "rmse_hu": float(2000 * np.sqrt(np.mean((truth - estimate) ** 2))),
    }


def baselines(operator: Any, case: Case, data: Array, scale: float) -> dict[str, Array]:
    y, noise = torch.from_numpy(data)[None], 0.0
    if case.photons is not None:
        y, weight = TransmissionNoise(case.photons, scale).line_integrals(y)
        noise = 1 / weight.clamp(min=1e-6)
    return {
        name: classical(name.lower(), operator, case.geometry, y, noise=noise)[0].numpy()
        for name in ("FBP", "SIRT", "CGLS", "TV")
    }


def coverage(truth: Array, samples: Array) -> float:
    """Share of the body's pixels (above -500 HU, or any sample there) that lie between the least and the largest sample."""
    low, high = samples.min(axis=0), samples.max(axis=0)
    body = (truth > 0.25) | (high > 0.25)
    return float(((truth >= low) & (truth <= high))[body].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--case", choices=CASES, default="noiseless")
    parser.add_argument("--model", default="ct")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--slices", type=int, default=11)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sampler", default="renoising")
    parser.add_argument("--rule", default="proximal")
    parser.add_argument("--sigma-start", type=float)
    parser.add_argument("--show", type=Path, help="write a picture of the first four slices here")
    options = parser.parse_args()
    prior = load_prior(options.model, options.device)
    case = CASES[options.case]
    operator = projector(case.geometry, prior.device)
    print(machine(), {k: str(v) for k, v in vars(options).items()}, prior.card.sha256[:12])
    extra = {} if options.sigma_start is None else {"sigma_start": options.sigma_start}
    rows: dict[str, list[dict[str, float]]] = {}
    seconds, covered, strips = [], [], []
    for index, one in enumerate(one_slice_per_patient(options.data)[: options.slices]):
        truth, data, scale = measure(one, case, index)
        found = baselines(operator, case, data, scale)
        started = time.perf_counter()
        posterior = reconstruct_ct(
            data, replace(case.geometry), prior, samples=options.samples, steps=options.steps, i0=case.photons,
            scale=scale, rule=options.rule, sampler=options.sampler, operator=operator, device=prior.device, **extra,
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
        samples = posterior.samples[:, 0, 0].numpy()
        found |= {"one sample": samples[0], f"mean of {options.samples}": samples.mean(axis=0)}
        covered.append(coverage(truth, samples))
        line = []
        for method, estimate in found.items():
            rows.setdefault(method, []).append(figures(truth, estimate))
            line.append(f"{method} {rows[method][-1]['psnr']:.2f}/{rows[method][-1]['ssim']:.3f}")
        print(
            f"{one.patient:>26}: " + "  ".join(line) + f"  coverage {covered[-1]:.3f}  {seconds[-1]:.1f} s", flush=True
        )
        if index < 4:
            pictures = {"truth": truth, **{k: v for k, v in found.items() if k in ("FBP", "TV")}}
            pictures["mean"] = samples.mean(axis=0)
            pictures["std x 10"] = samples.std(axis=0) * 10
            shown = {k: windowed(to_hounsfield(v), (40, 400)) for k, v in pictures.items() if k != "std x 10"}
            shown["std, white 200 HU"] = np.clip(pictures["std x 10"] * 255, 0, 255).astype(np.uint8)
            strips.append(labelled_row(shown))
    means = {m: {k: float(np.mean([f[k] for f in fs])) for k in fs[0]} for m, fs in rows.items()}
    for method, mean in means.items():
        print(f"{method:>14}: PSNR {mean['psnr']:.2f} dB  SSIM {mean['ssim']:.3f}  RMSE {mean['rmse_hu']:.1f} HU")
    print(
        f"median {np.median(seconds):.1f} s a slice; min-max of {options.samples} covers {np.mean(covered):.3f} of the body"
    )
    print(json.dumps({"case": options.case, "means": means, "coverage": covered, "seconds": seconds}))
    if options.show:
        Image.fromarray(np.concatenate(strips)).save(options.show)


if __name__ == "__main__":
    main()
