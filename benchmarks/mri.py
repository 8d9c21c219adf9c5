"""MRI from part of k-space beside zero-filled, TV and wavelets, on the same measurements in one run.

    pip install PyWavelets
    python benchmarks/mri.py --data mri-val.npz
    python benchmarks/mri.py --data mri-val.npz --only "8 coils, R 4" --show mri.png

Slices of 256 x 256 get a smooth phase and are measured by coils around them, with noise of 0.005 of the brightest tissue on
both parts of k-space. Phase, sensitivities and noise are estimated from what was measured, as the command does by default.
PSNR and SSIM over 0 to 1; the samples are judged where the truth or a sample is above 0.1, in the head. Wavelets stand beside
the others where PyWavelets is installed; they and TV have weights tuned on training slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from harness import Array, Case, Figures, Report, Result, arguments, measure, options_of, save_sheet

from invsolve.cli.ct_files import labelled_row
from invsolve.evaluation.metrics import psnr, ssim
from invsolve.forward_models import equispaced_mask, poisson_disc_mask, random_mask
from invsolve.options import MRI
from invsolve.pictures import Pixels, to_pixels
from invsolve.posterior import Posterior
from invsolve.pretrained import load_prior
from invsolve.tasks.mri import Scan as MeasuredScan
from invsolve.tasks.mri import mri_task, read_scan
from invsolve.tasks.mri_simulation import simulate_mri

NOISE = 0.005
TISSUE = 0.1
STD_WHITE = 0.1
IN_SHEET = 4


WAVELET, WAVELET_LEVELS, WAVELET_STEPS = "db4", 4, 100
WAVELET_WEIGHT = 0.003
"""Of the coefficients' sum, in the prior's units: better than 0.001 on three training slices of both single-coil scans, and than
0.01 on the first of them."""


class Scan(NamedTuple):
    """How is measured: coils, and the mask of a shape by a random generator."""

    coils: int
    mask: Callable[[tuple[int, int], torch.Generator], torch.Tensor]


SCANS = {
    "8 coils, R 4": Scan(8, lambda shape, generator: equispaced_mask(shape, 4, 24)),
    "8 coils, R 8": Scan(8, lambda shape, generator: random_mask(shape, 8, 24, generator)),
    "1 coil, R 3": Scan(1, lambda shape, generator: random_mask(shape, 3, shape[1] // 8, generator)),
    "1 coil, Poisson disc, R 6": Scan(1, lambda shape, generator: poisson_disc_mask(shape, 6, 32, generator)),
}


def spread_slices(path: str, count: int, size: int | None = None) -> list[Array]:
    """``count`` slices spread evenly over an archive like mri-val.npz, (H, W) float32 from 0 to 1, or their middle."""
    with np.load(path, allow_pickle=False) as archive:
        images = archive["images"]
    chosen = images[np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)]
    edge = 0 if size is None else (images.shape[1] - size) // 2
    inside = slice(edge, images.shape[1] - edge)
    return [image[inside, inside].astype(np.float32) / 255 for image in chosen]


def mri_case(name: str, truth: Array, how: Scan, index: int) -> Case:
    """A slice measured; everything else is estimated."""
    shape = (truth.shape[0], truth.shape[1])
    measured = how.mask(shape, torch.Generator().manual_seed(index))
    scan = simulate_mri(truth, measured, coils=how.coils, noise=NOISE, seed=index)
    return Case(
        name,
        mri_task(scan.kspace, measured),
        truth,
        judge=slice_figures,
        baselines=lambda: wavelets(read_scan(scan.kspace, measured)),
        where=lambda posterior: tissue(truth, posterior),
    )


def wavelets(scan: MeasuredScan, weight: float = WAVELET_WEIGHT) -> dict[str, Array]:
    """Compressed sensing (Lustig, Donoho and Pauly 2007): the magnitude of least ``1/2 |A x - y|^2 + weight |W x|_1`` by its
    name, in the units of k-space; none where PyWavelets is not installed.

    FISTA (Beck and Teboulle 2009) with the wavelet transform moved at random in every step, which blurs the blocks that its
    grid would leave (as in BART, Uecker et al. 2015).
    """
    try:
        import pywt
    except ImportError:
        return {}
    step, generator = 1 / scan.operator.norm**2, np.random.default_rng(0)
    levels = min(WAVELET_LEVELS, pywt.dwtn_max_level(tuple(scan.measured.shape), WAVELET))

    def shrunk(x: Array) -> Array:
        shift = generator.integers(0, 2**WAVELET_LEVELS, 2)
        moved = np.roll(x, shift, (0, 1))
        coarse, *details = pywt.wavedec2(moved, WAVELET, "periodization", levels)
        soft = [tuple(pywt.threshold(d, step * weight, "soft") for d in level) for level in details]
        return np.roll(pywt.waverec2([coarse, *soft], WAVELET, "periodization"), -shift, (0, 1))

    x = z = scan.operator.T(scan.y)
    momentum = 1.0
    for _ in range(WAVELET_STEPS):
        moved = z - step * scan.operator.T(scan.operator(z) - scan.y)
        before, x = x, torch.from_numpy(shrunk(moved[0, 0].numpy()))[None, None]
        further = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        z = x + (momentum - 1) / further * (x - before)
        momentum = further
    return {"wavelets": (scan.scale * x[0, 0]).numpy()}


def tissue(truth: Array, posterior: Posterior) -> torch.Tensor:
    """What is above ``TISSUE``, in truth or in any sample: (1, 1, H, W)."""
    known = torch.from_numpy(np.ascontiguousarray(truth))[None, None]
    return (known > TISSUE) | (posterior.samples.amax(dim=0) > TISSUE)


def slice_figures(truth: Array, estimate: Array) -> Figures:
    return {"psnr": psnr(truth, estimate, data_range=1.0), "ssim": ssim(truth, estimate, data_range=1.0)}


def strip(result: Result) -> list[Pixels]:
    """Truth, every estimate, and the samples' standard deviation."""
    pictures = {"truth": result.case.truth, **result.estimates}
    shown = {name: to_pixels(picture) for name, picture in pictures.items()}
    deviation = result.posterior.samples[:, 0, 0].numpy().std(axis=0)
    return [labelled_row({**shown, f"std, white {STD_WHITE}": to_pixels(deviation / STD_WHITE)})]


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, MRI, model="mri", count="--slices", cases=20)
    parser.add_argument("--only", choices=SCANS, nargs="+", default=list(SCANS))
    parser.add_argument("--size", type=int, help="side of the middle of the slices; default whole slices")
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of the first slices")
    chosen = parser.parse_args(argv)
    prior = load_prior(chosen.model, chosen.device)
    slices = spread_slices(chosen.data, chosen.cases, chosen.size)
    report = Report(chosen, prior)
    for name in chosen.only:
        cases = (mri_case(f"slice {index}", one, SCANS[name], index) for index, one in enumerate(slices))
        report.add(name, measure(cases, prior, options_of(chosen, MRI)))
    report.finish()
    if chosen.show:
        save_sheet(
            chosen.show, [strip(result) for table in report.tables.values() for result in table.shown[:IN_SHEET]]
        )


if __name__ == "__main__":
    main()
