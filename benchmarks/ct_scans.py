"""What `invsolve ct` finds out about a scan: the rotation axis by three ways, and the noise.

    python benchmarks/ct_scans.py

Scans of the example slice and of two phantoms, of 128 x 128 pixels, projected on a grid twice as fine.
"""

from __future__ import annotations

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
SIZE, BINS = 128, 187
VIEWS = (23, 60, 180)
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


def noisy(sinogram: Array, level: float) -> Array:
    return sinogram + level * sinogram.max() * np.random.default_rng(0).standard_normal(sinogram.shape)


def subset(full: Array, geometry: Geometry, views: int) -> tuple[Array, Geometry]:
    return full[even_subset(geometry.views, views)], geometry.subset(views)


def main() -> None:
    scans = {
        name: {shift: Geometry(even_angles(180), BINS, (SIZE, SIZE), center=(BINS - 1) / 2 + shift) for shift in SHIFTS}
        for name in slices()
    }
    full = {
        name: {shift: project_slice(image, scans[name][shift]) for shift in SHIFTS} for name, image in slices().items()
    }
    print(
        "| axis, largest error in bins | views | centre of mass | correlation | entropy |\n| --- | --- | --- | --- | --- |"
    )
    for name, made in full.items():
        for views in VIEWS:
            errors = []
            for shift, sinogram in made.items():
                few, scan = subset(noisy(sinogram, 0.01), scans[name][shift], views)
                found = by_mass(few[None], scan), by_correlation(few[None], scan)
                entropy = by_entropy(few[None], scan, near=found[0].bin)
                errors.append([abs(axis.bin - scan.axis_bin) for axis in (*found, entropy)])
            print(
                f"| {name} | {views} | " + " | ".join(f"{worst:.2f}" for worst in np.max(errors, axis=0)) + " |",
                flush=True,
            )
    print(
        "\n| noise found, of the largest value | views | none |", " | ".join(f"{level:g}" for level in LEVELS[1:]), "|"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, made in full.items():
        for views in VIEWS:
            few, scan = subset(made[0.0], scans[name][0.0], views)
            found_noise = [estimate_noise(noisy(few, level), scan.angles) / few.max() for level in LEVELS]
            print(f"| {name} | {views} | " + " | ".join(f"{level:.4f}" for level in found_noise) + " |", flush=True)


if __name__ == "__main__":
    main()
