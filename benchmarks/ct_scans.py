"""What `invsolve ct` finds out about a scan: the rotation axis by three ways, and the noise.

    python benchmarks/ct_scans.py

Scans of the example slice and of two phantoms, of 128 x 128 pixels, projected on a grid twice as fine. The axis is 0, -7.3 and
4.6 bins off the middle of the detector; what is printed is the largest error of the three, at noise of 1 % of the largest value.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

from invsolve.ct.noise import estimate_noise
from invsolve.ct.rotation_axis import by_correlation, by_entropy, by_mass
from invsolve.ct.simulation import project_slice
from invsolve.ct.units import from_hounsfield
from invsolve.forward_models import Geometry, even_angles, even_subset

Array = npt.NDArray[Any]
SIZE, BINS, FULL = 128, 187, 180
SHIFTS = (0.0, -7.3, 4.6)
LEVELS = (0.0, 0.003, 0.01, 0.03)
"""Noise as a share of the sinogram's largest value."""


def slices() -> dict[str, Array]:
    """In the units of n."""
    hu = np.load(Path(__file__).parents[1] / "examples" / "ct-slice.npy").astype(np.float64)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    discs = np.where(((x - 9) / 52) ** 2 + ((y + 4) / 38) ** 2 < 1, 0.5, 0.0)
    discs[(x - 20) ** 2 + (y - 10) ** 2 < 60] += 0.3
    discs[(x + 12) ** 2 + (y + 12) ** 2 < 90] -= 0.2
    return {
        "example slice": from_hounsfield(hu.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3))),
        "Shepp-Logan": resize(shepp_logan_phantom(), (SIZE, SIZE), anti_aliasing=True),
        "discs": discs,
    }


def noisy(sinogram: Array, share: float, seed: int) -> Array:
    return sinogram + share * sinogram.max() * np.random.default_rng(seed).standard_normal(sinogram.shape)


def axis_errors(image: Array, views: int, seed: int) -> list[float]:
    """Largest error in bins of centre of mass, correlation and entropy over the shifts."""
    errors = []
    for shift in SHIFTS:
        full = Geometry(even_angles(FULL), BINS, (SIZE, SIZE), center=(BINS - 1) / 2 + shift)
        scan = full.subset(views)
        y = noisy(project_slice(image, scan), 0.01, seed)[None]
        mass, correlation = by_mass(y, scan), by_correlation(y, scan)
        found = mass, correlation, by_entropy(y, scan, near=mass.bin)
        errors.append([abs(axis.bin - scan.axis_bin) for axis in found])
    return np.max(errors, axis=0).tolist()


def noise_found(image: Array, views: int, seed: int) -> list[float]:
    """The estimates at the ``LEVELS``, as shares of the largest value."""
    chosen = even_subset(FULL, views)
    angles = tuple(even_angles(FULL)[i] for i in chosen)
    y = project_slice(image, Geometry(angles, BINS, (SIZE, SIZE)))
    return [estimate_noise(noisy(y, share, seed), angles) / float(y.max()) for share in LEVELS]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=[23, 60, 180], help="of 180 over half a turn")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    tables = {
        "| axis, error in bins | views | centre of mass | correlation | entropy |": (axis_errors, ".2f"),
        f"| noise found | views | {' | '.join(f'{share:.1%}' for share in LEVELS)} |": (noise_found, ".2%"),
    }
    for head, (measure, form) in tables.items():
        print(f"{head}\n{'| --- ' * (head.count('|') - 1)}|")
        for name, image in slices().items():
            for views in options.views:
                cells = " | ".join(format(value, form) for value in measure(image, views, options.seed))
                print(f"| {name} | {views} | {cells} |", flush=True)
        print()


if __name__ == "__main__":
    main()
