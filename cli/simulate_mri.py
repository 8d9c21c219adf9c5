"""``invsolve simulate mri``: k-space made from a magnitude picture."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from invsolve.atomic import write_files
from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, say
from invsolve.cli.ct_files import Array, npy_bytes
from invsolve.cli.files import check_writable
from invsolve.cli.simulate import Folder, read_plane, results_folder
from invsolve.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Pattern(StrEnum):
    """Which part of k-space is measured."""

    equispaced = "equispaced"
    random = "random"
    poisson = "poisson"


def simulate_mri(
    picture: Annotated[
        Path,
        typer.Argument(metavar="SLICE", help="Magnitudes (.npy, .npz, .tif), or a grey picture, taken from 0 to 1."),
    ],
    acceleration: Annotated[
        float, typer.Option(min=1.0, max=64.0, metavar="R", help="One in R positions is measured.")
    ] = 4.0,
    pattern: Annotated[
        Pattern, typer.Option(help="equispaced or random columns, or single positions of a Poisson disc.")
    ] = Pattern.equispaced,
    centre: Annotated[
        int,
        typer.Option(min=4, metavar="N", help="Columns (poisson: also rows) in the middle that are measured in full."),
    ] = 24,
    coils: Annotated[int, typer.Option(min=1, max=64, help="Receiver coils around the picture.")] = 8,
    noise: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="STD",
            help="Of the real and of the imaginary part of k-space, as a share of the brightest value.",
        ),
    ] = 0.005,
    seed: options.Seed = 0,
    output: Folder = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Make undersampled k-space of a magnitude slice, with a smooth phase, and write it with its mask and the truth.

    Example: invsolve simulate mri brain.png --acceleration 4 --coils 8
    """
    Verbosity.level = -1 if quiet else 0
    magnitude = read_magnitude(picture)
    deviation = noise * float(magnitude.max())
    folder = results_folder(output, picture)
    kspace, mask, truth = (folder / f"{picture.stem}.{part}.npy" for part in ("kspace", "mask", "truth"))
    with clean_stdout():
        from invsolve.tasks import mri_simulation

        measured = pattern_mask(pattern, magnitude.shape, acceleration, centre, seed)
        check_writable([kspace, mask, truth], force=force)
        scan = mri_simulation.simulate_mri(magnitude, measured, coils=coils, noise=deviation, seed=seed)
    arrays = {kspace: scan.kspace, mask: measured.numpy(), truth: magnitude}
    write_files({path: npy_bytes(array) for path, array in arrays.items()})
    say(
        f"wrote {kspace}, {mask}, {truth}: {1 / float(measured.float().mean()):.1f} times fewer values, {coils} coil{'s' * (coils > 1)}"
    )
    say(f"now: invsolve mri {kspace} --mask {mask} --noise {deviation:.4g} --truth {truth}")


def pattern_mask(pattern: Pattern, shape: tuple[int, ...], acceleration: float, centre: int, seed: int) -> Tensor:
    """The mask (H, W)."""
    import torch

    from invsolve.forward_models import equispaced_mask, poisson_disc_mask, random_mask

    if pattern == Pattern.equispaced:
        return equispaced_mask(shape, acceleration, centre)
    draw = random_mask if pattern == Pattern.random else poisson_disc_mask
    return draw(shape, acceleration, centre, torch.Generator().manual_seed(seed))


def read_magnitude(path: Path) -> Array:
    """(H, W), at least 0: numbers as they are, grey pictures from 0 to 1.

    Raises
    ------
    InputError : not one slice, below 0, or 0 everywhere.
    """
    array = np.asarray(read_plane(path)[0], dtype=np.float32)
    if array.min() < 0 or array.max() <= 0:
        raise InputError(
            f"{path} goes from {array.min():g} to {array.max():g}", hint="wanted magnitudes: from 0, and not all 0"
        )
    return array
