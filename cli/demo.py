"""``invsolve demo``: the main job on a picture that comes along, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from invsolve.atomic import make_folder, write_files
from invsolve.cli import options
from invsolve.cli.console import Verbosity, say
from invsolve.cli.files import check_writable, encode_picture, provenance


def demo(
    folder: Annotated[Path, typer.Argument(help="Where the pictures go; made if absent.")] = Path("invsolve-demo"),
    force: options.Force = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Repair a damaged photograph and colour a grey one, and say where the pictures are.

    Writes the damaged picture, its mask, the result and the undamaged original into FOLDER.

    Examples:

      invsolve demo

      invsolve demo try-it/
    """
    from invsolve.cli.colorize import colorize
    from invsolve.cli.inpaint import inpaint

    Verbosity.level = -1 if quiet else 0
    names = ["original.png", "damaged.png", "mask.png", "grey.png"]
    original, damaged, mask, grey = (folder / name for name in names)
    results = [folder / "damaged.inpaint.png", folder / "grey.colorize.png", folder / "compare.png"]
    make_folder(folder)
    check_writable([original, damaged, mask, grey, *results], force=force)

    picture = demo_picture()
    missing = scratches(picture.shape[0], picture.shape[1], np.random.default_rng(0))
    facts = provenance(task="demo", source="scikit-image's chelsea.png, public domain (CC0)")
    holes = np.where(missing[..., None], np.uint8(255), picture)
    luma = np.asarray(Image.fromarray(picture).convert("L"))
    arrays = {original: picture, damaged: holes, mask: missing.astype(np.uint8) * 255, grey: luma}
    write_files({path: encode_picture(array, path, facts) for path, array in arrays.items()})

    inpaint(damaged, str(mask), truth=original, force=True, device=device, quiet=quiet)
    colorize(grey, truth=original, force=True, device=device, quiet=quiet)
    shown = [
        holes,
        np.asarray(Image.open(results[0])),
        np.repeat(luma[..., None], 3, axis=2),
        np.asarray(Image.open(results[1])),
    ]
    write_files({results[2]: encode_picture(np.concatenate(shown, axis=1), results[2], facts)})
    say(f"look at {results[2].resolve()}: damaged, repaired, grey, coloured")


def demo_picture(size: int = 256) -> np.ndarray:
    """A cat: (size, size, 3) uint8, cut from scikit-image's public-domain picture."""
    from skimage.data import chelsea

    cut = Image.fromarray(chelsea()[:300, 75:375])
    return np.asarray(cut.resize((size, size), Image.Resampling.LANCZOS))


def scratches(height: int, width: int, rng: np.random.Generator, share: float = 0.1, thickness: int = 5) -> np.ndarray:
    """Random straight lines, ``thickness`` pixels wide, that cover ``share`` of the picture: (H, W) bool."""
    missing = np.zeros((height, width), dtype=bool)
    ys, xs = np.mgrid[:height, :width]
    while missing.mean() < share:
        angle, y, x = rng.uniform(0, np.pi), rng.uniform(0, height), rng.uniform(0, width)
        distance = np.abs((ys - y) * np.cos(angle) - (xs - x) * np.sin(angle))
        along = np.abs((ys - y) * np.sin(angle) + (xs - x) * np.cos(angle))
        missing |= (distance < thickness / 2) & (along < rng.uniform(0.1, 0.4) * max(height, width))
    return missing
