"""``invsolve likelihood``: how likely a picture is under a prior, in bits per dimension."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, progress_bar, say
from invsolve.cli.files import open_picture, provenance
from invsolve.cli.limits import check_memory

LARGEST_SEED = 10**12
"""Each picture's generator takes the seed times a million, which must have 63 bits."""

MOST_PROBES = MOST_DRAWS = 10_000
"""The error falls as their root: a hundredth of one probe's is enough for everything."""

BYTES_PER_PIXEL, BYTES_PER_PROBE = 3_000, 32
"""What the network keeps of a pixel for its gradient, and what a probe holds of each value."""


def likelihood(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURES", help="PNG or JPEG files.", show_default=False)],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A prior; give several to rank them.  [default: cifar10]", rich_help_panel="Problem"
        ),
    ] = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit", help="Cut the middle square and scale it to the prior's size.", rich_help_panel="Problem"
        ),
    ] = False,
    probes: Annotated[
        int, typer.Option(min=1, max=MOST_PROBES, help="Trace probes per draw.", rich_help_panel="Sampler")
    ] = 4,
    draws: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_DRAWS, help="Draws of the noise that fills the grey levels.", rich_help_panel="Sampler"
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of probes and noise.", rich_help_panel="Sampler")
    ] = 0,
    as_json: options.Json = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """How likely pictures are under a prior: bits per dimension, with their Monte Carlo error.

    Fewer bits are likelier. All of a picture's bits, what a lossless coder with this prior would need, stand beside those
    of the same pixels as PNG and lossless WebP. Pictures far from the validation pictures' bits are flagged; several priors are ranked.
    Bits compare pictures, and priors, at one size only.

    Examples:

      invsolve likelihood bird.png --fit

      invsolve likelihood photo.jpg --model photos --model my-prior --draws 4
    """  # fmt: skip
    Verbosity.level = -1 if quiet else verbose
    images = {path: open_picture(path) for path in pictures}
    reports = []
    with clean_stdout():
        import torch

        from invsolve.evaluation.compression import stored_bits
        from invsolve.ode.density import likelihood as measure
        from invsolve.ode.density import rank, unusual
        from invsolve.pretrained.loading import load_prior

        priors = {name: load_prior(name, device) for name in models or ["cifar10"]}
        size = next((prior.size for prior in priors.values() if prior.size is not None), None)
        with progress_bar() as bar:
            task = bar.add_task("integrating", total=len(images) * len(priors))
            for path, image in images.items():
                found: dict[str, Any] = {}
                for name, prior in priors.items():
                    pixels = as_known(image, prior.channels, size, fit=fit)
                    check_memory(
                        pixels[0].size * (BYTES_PER_PIXEL + BYTES_PER_PROBE * prior.channels * probes),
                        f"the likelihood of {image.width} x {image.height} pixels with {probes} probes",
                        hint="crop the picture or scale it down (--fit), or use fewer --probes",
                    )
                    x = torch.from_numpy(pixels)[None].to(prior.device)
                    result = measure(prior, x, probes=probes, draws=draws, seed=seed)
                    bits, error = float(result.bits_per_dimension[0]), float(result.standard_error[0])
                    flag = unusual(bits, prior.card.bits_per_dimension)
                    stored = stored_bits(bytes_of(pixels))
                    found[name] = {
                        "bits_per_dimension": bits,
                        "standard_error": None if math.isnan(error) else error,
                        "bits_per_picture": bits * pixels.size,
                        "png_bits": stored.png,
                        "webp_bits": stored.webp,
                        "network_calls": result.network_calls,
                        "out_of_distribution": flag,
                    }
                    bar.advance(task)
                    wrong = f"; out of distribution: {flag}" if flag else ""
                    spread = "" if math.isnan(error) else f" +- {error:.3f}"
                    webp = "" if stored.webp is None else f", WebP {stored.webp}"
                    say(
                        f"{path.name}, {name}: {bits:.3f}{spread} bits per dimension{wrong}; "
                        f"{bits * pixels.size:.0f} bits a picture (PNG {stored.png}{webp})"
                    )
                order = rank(
                    {name: r["bits_per_dimension"] for name, r in found.items()},
                    {name: r["standard_error"] or math.nan for name, r in found.items()},
                )
                if len(order) > 1:
                    ties = [name for name, _, close in order[1:] if close]
                    also = f", not told apart from {', '.join(ties)}" if ties else ""
                    say(f"{path.name}: likeliest under {order[0][0]}{also}")
                facts = provenance(task="likelihood", input=str(path), seed=seed, probes=probes, draws=draws)
                reports.append({**facts, "priors": found, "ranking": [name for name, _, _ in order]})
    for report in reports if as_json else []:
        sys.stdout.write(json.dumps(report) + "\n")


def as_known(image: Any, channels: int, size: int | None, *, fit: bool) -> npt.NDArray[np.floating]:
    """A picture as a prior of ``channels`` channels takes it: (channels, H, W) in [0, 1], fitted if asked for."""
    chosen = (fitted(image, size) if fit else opaque(image)).convert("L" if channels == 1 else "RGB")
    array = np.asarray(chosen, np.float32) / 255
    return array.reshape(*array.shape[:2], channels).transpose(2, 0, 1)


def bytes_of(pixels: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """The 8-bit picture (H, W, 3) or (H, W) that ``pixels`` (C, H, W), values k / 255, were made of."""
    levels = np.rint(255 * pixels).astype(np.uint8).transpose(1, 2, 0)
    return levels[..., 0] if levels.shape[2] == 1 else levels


def fitted(image: Any, size: int | None) -> Any:
    """The middle square of a picture, scaled to ``size`` pixels by averaging."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = opaque(image).crop((left, top, left + side, top + side))
    return square if size is None else square.resize((size, size), Image.Resampling.BOX)


def opaque(image: Any) -> Any:
    """A picture as RGB, without its transparency."""
    return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")
