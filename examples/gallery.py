"""A picture of every forward model: the truth, what is measured of it, the best linear guess, a sample, the mean and the spread.

Operators and noises have the names that `invsolve solve` reads (docs/solve.md); docs/gallery.md shows the sheets.
Run from the repository: python examples/gallery.py [--only NAME ...] [--output FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from drawing import INK, OUT
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from invsolve import load_prior
from invsolve.errors import UsageError
from invsolve.evaluation.metrics import psnr
from invsolve.forward_models import (
    ForwardModel,
    Geometry,
    compose,
    even_angles,
    find_operator,
    make_noise,
    output_shape,
    projector,
)
from invsolve.models.score_model import ScoreModel
from invsolve.options import AUTO, SolveOptions
from invsolve.pictures import to_pixels
from invsolve.tasks.measured import Measurement, measured_task

HERE = Path(__file__).parent
SIDE, TILE, GAP, HEAD = 64, 128, 6, 18
OPTIONS = SolveOptions(rule=AUTO, sampler=AUTO, steps=12, samples=4)
GAUSSIAN = ("gaussian", {"sigma": 0.02})
WHITE_STD = 0.25


class Case(NamedTuple):
    """Operators in the order applied, and noise; of several measurements, one pair for each."""

    measurements: list[tuple[list[tuple[str, dict[str, Any]]], tuple[str, dict[str, Any]]]]
    prior: str = "photos"


def one(
    *operators: tuple[str, dict[str, Any]], noise: tuple[str, dict[str, Any]] = GAUSSIAN, prior: str = "photos"
) -> Case:
    return Case([(list(operators), noise)], prior)


def disc(radius: float) -> Tensor:
    """A round PSF."""
    place = torch.arange(-4, 5)
    return ((place[:, None] ** 2 + place**2) <= radius**2).float()


def vignette() -> Tensor:
    """Weights that fall to the corners."""
    place = torch.linspace(-1, 1, SIDE)
    return 1 / (1 + 1.5 * (place[:, None] ** 2 + place**2)) ** 2


def quarters() -> Tensor:
    """The number of each pixel's block of 4 x 4."""
    block = torch.arange(SIDE) // 4
    return (block[:, None] * (SIDE // 4) + block).float()


def strokes() -> Tensor:
    """White where two lines are."""
    drawn = torch.zeros(SIDE, SIDE)
    drawn[30:33, 8:56] = drawn[10:54, 20:23] = 1
    return drawn


def some_rows(count: int) -> Tensor:
    """A random matrix (count, 3 H W)."""
    values = 3 * SIDE**2
    return torch.randn(count, values, generator=torch.Generator().manual_seed(0)) / values**0.5


SCAN = Geometry(even_angles(20), 2 * SIDE, (SIDE, SIDE))


def traces() -> Tensor:
    """The rays of the scan through two discs of metal."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    metal = ((rows - 24) ** 2 + (columns - 22) ** 2 < 7) | ((rows - 36) ** 2 + (columns - 44) ** 2 < 5)
    return (projector(SCAN)(metal[None, None].float())[0] > 0).float()


BLUR = ("blur", {"sigma": 1.5})

CASES: dict[str, Case] = {
    "identity": one(("identity", {}), noise=("gaussian", {"sigma": 0.1})),
    "mask": one(("mask", {"missing": 0.6})),
    "grayscale": one(("grayscale", {})),
    "grayscale and strokes": Case([
        ([("grayscale", {})], ("gaussian", {"sigma": 0.005})),
        ([("mask", {"file": strokes(), "invert": True})], ("gaussian", {"sigma": 0.05})),
    ]),
    "channels": one(("channels", {"matrix": [[0.8, 0.2, 0.0], [0.0, 0.2, 0.8]]})),
    "blur": one(BLUR),
    "blur, a disc": one(("blur", {"file": disc(3.5), "boundary": "circular"})),
    "blur, a motion": one(("blur", {"motion": [9, 30]})),
    "downsample": one(("downsample", {"factor": 4})),
    "blurred_decimation": one(("blurred_decimation", {"factor": 2, "sigma": 1.2})),
    "blur, downsample and mask": one(BLUR, ("downsample", {"factor": 2}), ("mask", {"missing": 0.3})),
    "bayer": one(("bayer", {})),
    "hadamard": one(("hadamard", {"share": 0.25})),
    "matrix": one(("matrix", {"file": some_rows(400)})),
    "fourier": one(("fourier", {"acceleration": 2.0, "centre": 8})),
    "region_means": one(("region_means", {"file": quarters()})),
    "diagonal": one(("diagonal", {"file": vignette()})),
    "scale": one(("scale", {"factor": 100.0}), noise=("gaussian", {"sigma": 5.0})),
    "saturation": one(("saturation", {"high": 0.5})),
    "quantization": one(("quantization", {"bits": 2})),
    "jpeg": one(("jpeg", {"quality": 8})),
    "phase_retrieval": one(("phase_retrieval", {})),
    "poisson": one(BLUR, noise=("poisson", {"gain": 40.0})),
    "poisson_gaussian": one(noise=("poisson_gaussian", {"gain": 20.0, "sigma": 2.0})),
    "laplace": one(noise=("laplace", {"scale": 0.08})),
    "quantization noise": one(noise=("quantization", {"step": 0.2, "low": 0.0, "high": 1.0})),
    "salt_and_pepper": one(noise=("salt_and_pepper", {"share": 0.4, "sigma": 0.02})),
    "projector": one(("projector", {"geometry": SCAN}), noise=("gaussian", {"sigma": 0.05}), prior="ct"),
    "transmission": one(("projector", {"geometry": SCAN}), noise=("transmission", {"i0": 2e3, "scale": 0.06}), prior="ct"),
    "projector, metal left out": one(("projector", {"geometry": SCAN, "missing": traces()}), noise=("gaussian", {"sigma": 0.05}), prior="ct"),
    "phase and nufft": one(("phase", {}), ("nufft", {"spokes": 16}), prior="ct"),
    "phase and mri": one(("phase", {}), ("mri", {"acceleration": 3.0, "centre": 10}), prior="ct"),
}  # fmt: skip


def truth(prior: str) -> Tensor:
    """(1, C, 64, 64) in the prior's units: a face, or a CT slice."""
    if prior == "ct":
        n = (np.load(HERE / "ct-slice.npy").astype(np.float32) + 1000) / 2000
        small = torch.nn.functional.avg_pool2d(torch.from_numpy(n)[None, None], 4)
        return small[..., :SIDE, :SIDE].contiguous()
    picture = Image.open(HERE / "astronaut.png").convert("RGB")
    side = min(picture.size) // 2
    crop = picture.crop((picture.width // 2 - side // 2, 0, picture.width // 2 + side // 2, side)).resize((SIDE, SIDE))
    return torch.from_numpy(np.asarray(crop) / np.float32(255)).permute(2, 0, 1)[None].contiguous()


def measure(case: Case, x: Tensor) -> list[Measurement]:
    """Simulated measurements, all from one seed."""
    generator, found = torch.Generator().manual_seed(0), []
    for number, (operators, (kind, arguments)) in enumerate(case.measurements, 1):
        maps, shape = [], tuple(x.shape[1:])
        for name, given in operators or [("identity", {})]:
            maps.append(find_operator(name, given)(shape))
            shape = output_shape(maps[-1], shape)
        model = ForwardModel(compose(*maps), make_noise(kind, arguments))
        found.append(Measurement(f"measurement {number}", model, model.simulate(x, generator)))
    return found


def shown(y: Tensor) -> Tensor:
    """A measurement (1, ...) as a picture (C, H, W): numbers that are no picture become a square, from black to white."""
    values = y[0]
    picture = values.ndim == 3 and len(values) in (1, 3)
    if not picture:
        values = plane(values)[None]
    top = float(values.abs().max())
    if picture and top < 2:
        return values
    return (values.abs() / max(top, 1e-9)) ** (
        0.25 if top > 10 * float(values.abs().mean()) else 1.0
    )  # spectra are peaks


def plane(values: Tensor) -> Tensor:
    """Numbers of any shape as (rows, columns): the first of several planes, a table as it is, a list as a square."""
    if values.ndim > 2:
        return values.flatten(0, -3)[0]
    if values.ndim == 2 and len(values) > 8:
        return values
    flat = values.flatten()
    side = int(len(flat) ** 0.5)
    return flat[: side**2].reshape(side, side)


def tile(x: Tensor) -> Image.Image:
    """(C, H, W) in [0, 1] as a square tile."""
    pixels = to_pixels(x.permute(1, 2, 0).numpy())
    return Image.fromarray(pixels.squeeze()).convert("RGB").resize((TILE, TILE), Image.Resampling.NEAREST)


def sheet(tiles: dict[str, Tensor]) -> Image.Image:
    """Tiles side by side, each with its name above it."""
    font = ImageFont.load_default(size=11)
    page = Image.new("RGB", (len(tiles) * (TILE + GAP) - GAP, TILE + HEAD), "white")
    for k, (name, x) in enumerate(tiles.items()):
        page.paste(tile(x), (k * (TILE + GAP), HEAD))
        ImageDraw.Draw(page).text((k * (TILE + GAP), 2), name, fill=INK, font=font)
    return page


def solved(case: Case, prior: ScoreModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tiles of a case, and the settings it was solved with."""
    x = truth(case.prior)
    measurements = measure(case, x)
    task = measured_task(measurements, prior, tuple(x.shape[1:]), OPTIONS)
    (name, guess), *_ = task.baselines().items()
    posterior = task.solve(prior)
    deviation = posterior.std[0].square().mean(dim=0, keepdim=True).sqrt() / WHITE_STD
    estimates = {
        name: torch.from_numpy(guess).permute(2, 0, 1), "sample": posterior.samples[0, 0], "mean of 4": posterior.mean[0]
    }  # fmt: skip
    decibels = {
        f"{label}: {psnr(x[0].numpy(), picture.clamp(0, 1).numpy(), data_range=1.0):.1f} dB": picture
        for label, picture in estimates.items()
    }
    seen = measurements[-1].y if len(measurements) == 1 else measurements[0].y + measurements[1].y
    tiles = {"truth": x[0], "measured": shown(seen), **decibels, "deviation": deviation}
    return tiles, posterior.settings


def file_name(case: str) -> str:
    return case.replace(",", "").replace(" ", "-").replace("_", "-") + ".jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME")
    parser.add_argument("--output", type=Path, default=OUT / "gallery")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    priors = {name: load_prior(name, "cpu") for name in {CASES[case].prior for case in given.only}}
    for name in given.only:
        try:
            tiles, settings = solved(CASES[name], priors[CASES[name].prior])
        except UsageError as error:  # what one of them needs is not installed
            print(f"{name} left out: {error}")
            continue
        path = given.output / file_name(name)
        sheet(tiles).save(path, quality=80)
        print(f"{path}: {', '.join(tiles)}; {settings['rule']}, {settings['sampler']}", flush=True)


if __name__ == "__main__":
    main()
