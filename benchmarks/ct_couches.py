"""Training slices whose couches and clothes are exchanged, as a prior that sees few of them learns them by heart.

python benchmarks/ct_couches.py ct-train.npz -o ct-couches.npz
python benchmarks/ct_couches.py ct-train.npz -o ct-couches.npz --show ct-couches.png

Patients of single slices are repeated until all of them together count as much as those of volumes. Of every four slices one stays
as it is, one loses what is not body, and two get what is around another patient, moved, turned and scaled a little.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness import save_sheet
from scipy import ndimage

from invsolve.pictures import Pixels

Slice = npt.NDArray[np.uint16]
"""(H, W), HU = value - 1000."""

Mask = npt.NDArray[np.bool_]

BODY = 400
"""What counts as body: above -600 HU."""

THIN = 3
"""Half of the thickness in pixels that shells of couches, tubes and clothes stay below."""

SMALLEST = 300
"""Pixels of an arm."""

COLUMNS = 8

VOLUME = 10
"""Patients with more slices have a volume of neighbours that are nearly alike."""


def body(image: Slice) -> Mask:
    """Trunk and arms with all that they enclose; not the couch, as its shells are thin and its foam is light."""
    tissue = image > BODY
    disc = np.hypot(*np.ogrid[-THIN : THIN + 1, -THIN : THIN + 1]) <= THIN
    thick = ndimage.binary_opening(tissue, disc)
    labels, count = ndimage.label(thick)
    sizes = ndimage.sum_labels(thick, labels, np.arange(count + 1))
    parts = np.isin(labels, np.flatnonzero(sizes >= SMALLEST))
    grown: Mask = ndimage.binary_fill_holes(ndimage.binary_dilation(parts, disc) & tissue)
    return grown


def surroundings(image: Slice, inside: Mask) -> Slice:
    """The slice without its body; two pixels around it go too, which are partly body."""
    return np.where(ndimage.binary_dilation(inside, iterations=2), 0, image).astype(np.uint16)


def moved(image: Slice, rng: np.random.Generator) -> Slice:
    """Mirrored in half of all cases, turned by 4 degrees, scaled by 0.8 to 1.25 and shifted by 25 pixels at most."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    angle, scale = np.deg2rad(rng.uniform(-4, 4)), rng.uniform(0.8, 1.25)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ (centre + rng.uniform(-25, 25, size=2))
    found: npt.NDArray[np.float32] = ndimage.affine_transform(image.astype(np.float32), matrix, offset, order=1)
    return np.clip(np.rint(found), 0, 2000).astype(np.uint16)


def exchanged(image: Slice, inside: Mask, around: Slice) -> Slice:
    """A body with what is around another one; both are seen where they meet."""
    edge = ndimage.binary_dilation(inside)
    return np.where(inside, image, np.where(edge, np.maximum(image, around), around)).astype(np.uint16)


def balanced(patients: npt.NDArray[np.integer]) -> list[int]:
    """Numbers of slices, those of patients without a volume repeated until they count as much as the others."""
    counts = np.bincount(patients)[patients]
    single, volume = np.flatnonzero(counts <= VOLUME), np.flatnonzero(counts > VOLUME)
    return [int(i) for i in np.concatenate([volume, *[single] * max(1, round(len(volume) / max(1, len(single))))])]


def varied(images: npt.NDArray[np.uint16], patients: npt.NDArray[np.integer], seed: int) -> list[Slice]:
    """Four slices for every one of the :func:`balanced` ones."""
    rng = np.random.default_rng(seed)
    inside = [body(image) for image in images]
    around = [surroundings(image, mask) for image, mask in zip(images, inside, strict=True)]
    everyone, found = np.unique(patients), list[Slice]()
    for i in balanced(patients):
        found += [images[i], np.where(inside[i], images[i], 0).astype(np.uint16)]
        for other in rng.choice(everyone, size=2):
            number = int(rng.choice(np.flatnonzero(patients == other)))
            found.append(exchanged(images[i], inside[i], moved(around[number], rng)))
    return found


def bright(one: Slice) -> Pixels:
    """Dark values stretched so that couches are seen."""
    return (np.sqrt(np.clip(one / 1200, 0, 1)) * 255).astype(np.uint8)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="an archive with images (N, H, W) and the patient of each")
    parser.add_argument("-o", "--output", type=Path, required=True, help="archive to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=Path, metavar="FILE", help="a picture of some of them")
    chosen = parser.parse_args(argv)
    with np.load(chosen.data, allow_pickle=False) as archive:
        images, patients = archive["images"], archive["patient"]
    found = varied(images, patients, chosen.seed)
    np.savez(chosen.output, images=np.stack(found))
    print(f"{len(found)} slices of {len(np.unique(patients))} patients")
    if chosen.show:
        some = [bright(one) for one in found[:: max(1, len(found) // 48)]]
        save_sheet(chosen.show, [some[i : i + COLUMNS] for i in range(0, len(some), COLUMNS)])


if __name__ == "__main__":
    main()
