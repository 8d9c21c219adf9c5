"""A CT slice from 23 noisy views: filtered back-projection, total variation, the score prior, and how sure it is.

Run from the repository: python examples/ct.py

``ct-slice.npy`` is a slice of patient CMB-CRC-MSB-01068 of the Cancer Moonshot Biobank's colorectal collection (CMB-CRC,
The Cancer Imaging Archive, CC BY 4.0), resampled to 256 x 256. The prior was trained on this patient, so the result
flatters; docs/benchmarks.md has patients it never saw. ``sinogram.npy`` is 60 views of it, without noise.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from invsolve import load_prior
from invsolve.cli.ct_files import labelled_row, windowed
from invsolve.ct.classical import classical
from invsolve.ct.reconstruction import reconstruct_ct
from invsolve.ct.simulation import photon_counts, project_slice
from invsolve.ct.units import attenuation_per_unit, from_hounsfield, to_hounsfield
from invsolve.evaluation.metrics import psnr
from invsolve.forward_models import Geometry, TransmissionNoise, even_angles, projector

HERE = Path(__file__).parent
OUT = Path("invsolve-examples")
OUT.mkdir(exist_ok=True)
PIXEL_MM, I0 = 1.797, 1e5

truth = from_hounsfield(np.load(HERE / "ct-slice.npy").astype(np.float32))  # (256, 256), air 0, water 0.5
geometry = Geometry(even_angles(23), 367, (256, 256), detector_spacing=PIXEL_MM, pixel_size=PIXEL_MM)
counts = photon_counts(project_slice(truth, geometry), I0, attenuation_per_unit(PIXEL_MM))  # (23, 367) photons

prior = load_prior("ct")
operator = projector(geometry, prior.device)
posterior = reconstruct_ct(counts, geometry, prior, samples=4, steps=25, i0=I0, operator=operator)

photons = TransmissionNoise(I0, attenuation_per_unit(PIXEL_MM))
y, weight = photons.line_integrals(torch.from_numpy(counts)[None].to(prior.device))
found = {name: classical(name.lower(), operator, geometry, y, noise=1 / weight)[0].numpy() for name in ("FBP", "TV")}
found["mean of 4"] = posterior.mean[0, 0].numpy()
for name, estimate in found.items():
    print(f"{name:>10}: {psnr(truth, estimate, data_range=1.0):.2f} dB")

pictures = {name: windowed(to_hounsfield(n), (40, 400)) for name, n in {"truth": truth, **found}.items()}
pictures["std, white 200 HU"] = np.clip(posterior.std[0, 0].numpy() * 2550, 0, 255).astype(np.uint8)
Image.fromarray(labelled_row(pictures)).save(OUT / "ct.png")
print(f"wrote {OUT / 'ct.png'}: truth, FBP, TV, mean of 4, standard deviation")
