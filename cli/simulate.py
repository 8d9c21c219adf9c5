"""``invsolve simulate``: measurements made from a picture one has, to try the other commands on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from invsolve.atomic import write_files
from invsolve.cli import options
from invsolve.cli.console import Verbosity, clean_stdout, say
from invsolve.cli.ct_files import ENDINGS, LARGEST, Array, npy_bytes, read_array
from invsolve.cli.dejpeg import Sampling
from invsolve.cli.files import (
    check_writable,
    encode_picture,
    luma,
    named_output,
    provenance,
    read_photo,
    read_picture,
)
from invsolve.cli.formats import Encoding, check_format, eight_bits
from invsolve.cli.limits import MOST_PHOTONS, MOST_SIMULATED_VIEWS
from invsolve.cli.psf import PSF, Motion, Sigma, read_spread
from invsolve.cli.superres import Factor, Kernel, Reduction
from invsolve.errors import InputError, UsageError
from invsolve.pictures import full_range, to_pixels, to_unit

simulate = typer.Typer(
    no_args_is_help=True,
    help="Make a measurement from a picture: ct, inpaint, colorize, superres, deblur, denoise, dejpeg, mri or stroke.",
)

Folder = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder of the results; default beside the picture.")
]


@simulate.command("ct")
def simulate_ct(
    picture: Annotated[
        Path, typer.Argument(metavar="SLICE", help="Slice in HU (.npy, .npz, .tif, .dcm), or a grey picture.")
    ],
    views: Annotated[int, typer.Option(min=1, max=MOST_SIMULATED_VIEWS, help="Parallel views over 180 degrees.")] = 23,
    geometry: Annotated[Path | None, typer.Option(metavar="FILE", help="geometry.toml of another scan.")] = None,
    pixel_size: Annotated[
        float | None, typer.Option(metavar="MM", help="Side of a pixel.", show_default="what DICOM says, else 1.5")
    ] = None,
    i0: Annotated[
        float | None, typer.Option(max=MOST_PHOTONS, metavar="N", help="Poisson noise of N photons per ray.")
    ] = None,
    noise: Annotated[float, typer.Option(min=0.0, metavar="STD", help="Gaussian noise, in pixel units.")] = 0.0,
    mu_water: Annotated[float, typer.Option(metavar="PER_MM", help="Attenuation of water.")] = 0.0192,
    same_grid: Annotated[
        bool, typer.Option("--same-grid", help="Project with the matrix that will reconstruct (the inverse crime).")
    ] = False,
    seed: options.Seed = 0,
    output: Folder = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a sinogram of a slice, with its geometry.toml and the slice in HU as truth.

    Example: invsolve simulate ct slice.npy --views 23 --i0 1e5
    """
    Verbosity.level = -1 if quiet else 0
    given = {"--pixel-size": pixel_size, "--mu-water": mu_water, "--i0": i0, "--noise": noise or None}
    for name, value in given.items():
        if value is not None and not 0 < value <= LARGEST:
            raise UsageError(f"{name} {value:g}", hint=f"wanted a positive number, at most {LARGEST:g}")
    if i0 is not None and noise:
        raise UsageError("both --i0 and --noise", hint="give one kind of noise")
    hu, stated = read_slice(picture)
    pixel_size = pixel_size or stated or 1.5
    folder = results_folder(output, picture)
    paths = [folder / f"{picture.stem}.{part}" for part in ("sinogram.npy", "geometry.toml", "truth.npy")]
    check_writable(paths, force=force)
    with clean_stdout():
        from invsolve.ct.simulation import photon_counts, project_slice
        from invsolve.ct.units import attenuation_per_unit, from_hounsfield
        from invsolve.forward_models.geometry import Geometry, even_angles

        if geometry is not None:
            scan = Geometry.read(geometry)
            if scan.shape != hu.shape:
                raise InputError(f"the slice has shape {hu.shape}, {geometry} says {scan.shape}", hint="correct one")
            pixel_size = scan.pixel_size
        else:
            detectors = math.ceil(math.hypot(*hu.shape)) + 4
            scan = Geometry(
                even_angles(views), detectors, (hu.shape[0], hu.shape[1]), detector_spacing=pixel_size,
                pixel_size=pixel_size,
            )  # fmt: skip
        sinogram = project_slice(from_hounsfield(hu), scan, same_grid=same_grid)
        scale = attenuation_per_unit(pixel_size, mu_water)
        if i0 is not None:
            sinogram = photon_counts(sinogram, i0, scale, seed)
            if sinogram.mean() < 1:
                say("warning: fewer than one photon per ray on average")
        elif noise:
            sinogram = sinogram + noise * np.random.default_rng(seed).standard_normal(sinogram.shape)
    write_files({paths[0]: npy_bytes(sinogram), paths[1]: scan.to_toml().encode(), paths[2]: npy_bytes(hu)})
    units = f" --units counts --i0 {i0:g}" if i0 is not None else ""
    units += f" --mu-water {mu_water:g}" if i0 is not None and mu_water != 0.0192 else ""
    say(f"wrote {', '.join(str(path) for path in paths)}")
    say(f"now: invsolve ct {paths[0]} --geometry {paths[1]}{units} --truth {paths[2]}")


def read_slice(path: Path) -> tuple[Array, float | None]:
    """(H, W) in HU: numbers as they are (n, where all lie in -0.5 to 4), grey pictures as n; and the side of a pixel in mm
    where the file says it, which DICOM does."""
    from invsolve.ct.dicom import is_dicom, read_dicom

    if path.suffix.lower() not in ENDINGS and is_dicom(path):
        found = read_dicom(path)
        size = f"pixels of {found.pixel_size:g} mm" if found.pixel_size else "no pixel size"
        say(", ".join((f"{path.name}: CT slice of {found.hu.shape[1]} x {found.hu.shape[0]}, {size}", *found.notes)))
        return found.hu, found.pixel_size
    array, is_picture = read_plane(path)
    if is_picture:
        say(f"{path.name} is a picture: black taken as -1000 HU, white as 1000 HU")
    elif array.min() >= -0.5 and array.max() <= 4:
        say(f"{path.name} looks like n, not HU: taken as HU = 2000 n - 1000")
    else:
        return array, None
    return 2000 * array - 1000, None


def read_plane(path: Path) -> tuple[Array, bool]:
    """One slice (H, W), and whether its file is a picture: an array's numbers as they are, a picture's grey from 0 to 1.

    Raises
    ------
    InputError : no such file, or an array that is not one slice.
    """
    if path.suffix.lower() not in ENDINGS:
        return to_unit(luma(read_picture(path, "slice"))), True
    array = read_array(path, "slice")
    if array.ndim != 2:
        raise InputError(f"{path} has {array.ndim} dimensions, shape {array.shape}", hint="wanted one slice (H, W)")
    return array, False


@simulate.command("inpaint")
def simulate_inpaint(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="PNG or JPEG.")],
    pixels: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, metavar="SHARE", help="Random pixels missing, instead of lines.")
    ] = None,
    lines: Annotated[float, typer.Option(min=0.0, max=0.9, metavar="SHARE", help="Part covered by lines.")] = 0.1,
    noise: Annotated[float, typer.Option(min=0.0, max=1.0, metavar="STD", help="Noise, as a share of white.")] = 0.0,
    seed: options.Seed = 0,
    output: Folder = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Damage a picture: scratches 5 pixels wide, or random missing pixels; writes it and its mask.

    Example: invsolve simulate inpaint photo.png --pixels 0.5
    """
    from invsolve.cli.demo import scratches

    Verbosity.level = -1 if quiet else 0
    photo = read_photo(picture)
    folder = results_folder(output, picture)
    damaged, mask = (folder / f"{picture.stem}.{part}.png" for part in ("damaged", "mask"))
    check_writable([damaged, mask], force=force)
    rng = np.random.default_rng(seed)
    height, width = photo.pixels.shape[:2]
    missing = rng.random((height, width)) < pixels if pixels is not None else scratches(height, width, rng, share=lines)
    unit = photo.pixels / full_range(photo.pixels.dtype) + noise * rng.standard_normal(photo.pixels.shape)
    holes = to_pixels(np.where(missing[..., None] if unit.ndim == 3 else missing, 1.0, unit))
    facts = provenance(task="simulate inpaint", input=str(picture), seed=seed, noise=noise)
    white = missing.astype(np.uint8) * 255
    write_files({damaged: encode_picture(holes, damaged, facts), mask: encode_picture(white, mask, facts)})
    say(f"wrote {damaged}, {mask}: {missing.mean():.1%} missing")
    extra = f" --noise {noise:g}" if noise else ""
    say(f"now: invsolve inpaint {damaged} --mask {mask}{extra} --truth {picture}")


@simulate.command("colorize")
def simulate_colorize(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="Colour PNG or JPEG.")],
    output: Folder = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Take the colours out of a picture.

    Example: invsolve simulate colorize photo.png
    """
    Verbosity.level = -1 if quiet else 0
    photo = read_photo(picture)
    grey = results_folder(output, picture) / f"{picture.stem}.grey.png"
    check_writable([grey], force=force)
    levels = luma(photo.pixels)
    write_files({grey: encode_picture(levels, grey, provenance(task="simulate colorize", input=str(picture)))})
    say(f"wrote {grey}")
    say(f"now: invsolve colorize {grey} --truth {picture}")


@simulate.command("superres")
def simulate_superres(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="PNG or JPEG.")],
    factor: Factor = 4,
    kernel: Reduction = Kernel.bicubic,
    output: Folder = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a picture smaller; also writes the large one, where its sides had to be cut to multiples of the factor.

    Example: invsolve simulate superres photo.png -x 4
    """
    Verbosity.level = -1 if quiet else 0
    pixels = read_photo(picture).pixels
    height, width = (side - side % factor for side in pixels.shape[:2])
    if not (height and width):
        raise InputError(f"{picture} is {pixels.shape[1]} x {pixels.shape[0]} pixels", hint="give a larger picture")
    cut = pixels[:height, :width]
    folder = results_folder(output, picture)
    small, truth = folder / f"{picture.stem}.small.png", folder / f"{picture.stem}.truth.png"
    written = [small] if cut.shape == pixels.shape else [small, truth]
    check_writable(written, force=force)
    with clean_stdout():
        from invsolve.forward_models import Downsample
        from invsolve.tasks.restoration import planes

        x = planes(cut / full_range(cut.dtype))
        reduced = Downsample(tuple(x.shape[1:]), factor, kernel.value)(x)[0].permute(1, 2, 0).numpy()
    facts = provenance(task="simulate superres", input=str(picture), factor=factor, kernel=kernel.value)
    files = {small: encode_picture(to_pixels(reduced), small, facts), truth: encode_picture(cut, truth, facts)}
    write_files({path: files[path] for path in written})
    say(f"wrote {', '.join(map(str, written))}")
    extra = "" if kernel == Kernel.bicubic else f" --kernel {kernel.value}"
    say(f"now: invsolve superres {small} -x {factor}{extra} --truth {picture if len(written) == 1 else truth}")


@simulate.command("deblur")
def simulate_deblur(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="PNG or JPEG.")],
    psf: PSF = None,
    sigma: Sigma = None,
    motion: Motion = None,
    noise: Annotated[float, typer.Option(min=0.0, max=1.0, metavar="STD", help="Noise, as a share of white.")] = 0.01,
    seed: options.Seed = 0,
    output: Folder = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Blur a picture, its mirror image beyond the edges, and add noise.

    Example: invsolve simulate deblur photo.png --sigma 1.6
    """
    Verbosity.level = -1 if quiet else 0
    pixels = read_photo(picture).pixels
    blurred = results_folder(output, picture) / f"{picture.stem}.blurred.png"
    check_writable([blurred], force=force)
    spread = read_spread(psf, sigma, motion)
    with clean_stdout():
        import torch

        from invsolve.forward_models import Blur
        from invsolve.tasks.restoration import check_psf, planes

        taps = torch.from_numpy(check_psf(spread.psf, pixels.shape))
        x = planes(pixels / full_range(pixels.dtype))
        soft = Blur(taps, tuple(x.shape[1:]), "reflect")(x)[0].permute(1, 2, 0).numpy()
    noisy = soft + noise * np.random.default_rng(seed).standard_normal(soft.shape)
    facts = provenance(task="simulate deblur", input=str(picture), blur=spread.name, seed=seed, noise=noise)
    write_files({blurred: encode_picture(to_pixels(noisy), blurred, facts)})
    say(f"wrote {blurred}: {spread.name}, noise {noise:g}")
    say(f"now: invsolve deblur {blurred} {spread.options} --truth {picture}")


@simulate.command("denoise")
def simulate_denoise(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="PNG or JPEG.")],
    sigma: Annotated[float, typer.Option(min=0.0, max=1.0, metavar="STD", help="Noise, as a share of white.")] = 0.1,
    seed: options.Seed = 0,
    output: Folder = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Add white noise to a picture.

    Example: invsolve simulate denoise photo.png --sigma 0.1
    """
    Verbosity.level = -1 if quiet else 0
    pixels = read_photo(picture).pixels
    noisy = results_folder(output, picture) / f"{picture.stem}.noisy.png"
    check_writable([noisy], force=force)
    values = pixels / full_range(pixels.dtype) + sigma * np.random.default_rng(seed).standard_normal(pixels.shape)
    facts = provenance(task="simulate denoise", input=str(picture), seed=seed, noise=sigma)
    write_files({noisy: encode_picture(to_pixels(values), noisy, facts)})
    say(f"wrote {noisy}: noise {sigma:g}, cut off at black and white")
    say(f"now: invsolve denoise {noisy} --sigma {sigma:g} --truth {picture}")


@simulate.command("dejpeg")
def simulate_dejpeg(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="PNG or JPEG.")],
    quality: Annotated[int, typer.Option("--quality", "-Q", min=1, max=100, help="As libjpeg counts it.")] = 20,
    sampling: Annotated[Sampling, typer.Option(help="Share of the resolution at which chroma is stored.")] = (
        Sampling.quarter
    ),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File (.jpg) or folder; default beside the picture.")
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Compress a picture as JPEG.

    Example: invsolve simulate dejpeg photo.png -Q 20 -o small.jpg
    """
    Verbosity.level = -1 if quiet else 0
    photo = read_photo(picture)
    name = f"{picture.stem}.q{quality}.jpg"
    path = picture.with_name(name) if output is None else named_output(output, name, (".jpg", ".jpeg"))
    check_format(path, photo.pixels.shape[1], photo.pixels.shape[0])
    check_writable([path], force=force)
    with clean_stdout():
        from invsolve.tasks.dejpeg import compressed

        facts = provenance(task="simulate dejpeg", input=str(picture), quality=quality, sampling=sampling.value)
        comment = json.dumps(facts).encode()
        data = compressed(
            eight_bits(photo.pixels), quality, sampling.value, comment=comment, icc_profile=photo.icc_profile
        )
    write_files({path: data})
    say(f"wrote {path}: quality {quality}, {len(data)} bytes")
    say(f"now: invsolve dejpeg {path} --truth {picture}")


@simulate.command("stroke")
def simulate_stroke(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="PNG or JPEG.")],
    colours: Annotated[int, typer.Option(min=2, max=256, help="Of the palette.")] = 6,
    brush: Annotated[
        float,
        typer.Option(max=1.0, metavar="SHARE", help="Width of the strokes, of the picture's shorter side."),
    ] = 0.09,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File (.png) or folder; default beside the picture.")
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a picture look painted: broad strokes by a median filter, and few colours.

    Example: invsolve simulate stroke photo.png -o painting.png
    """
    Verbosity.level = -1 if quiet else 0
    photo = read_photo(picture)
    name = f"{picture.stem}.painting.png"
    path = picture.with_name(name) if output is None else named_output(output, name, (".png",))
    check_writable([path], force=force)
    with clean_stdout():
        from invsolve.tasks.stroke import painted

        facts = provenance(task="simulate stroke", input=str(picture), colours=colours, brush=brush)
        data = encode_picture(
            painted(eight_bits(photo.pixels), colours, brush), path, facts, Encoding(photo.icc_profile)
        )
    write_files({path: data})
    say(f"wrote {path}: {colours} colours")
    say(f"now: invsolve stroke {path}")


def results_folder(output: Path | None, picture: Path) -> Path:
    """Where the results go: ``-o``, or beside the picture."""
    return picture.parent if output is None else output
