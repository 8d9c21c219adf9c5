"""Small valid files of every kind that a command reads, and what reads them: for fuzz.py."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from PIL import Image

Array = npt.NDArray[Any]


class Kind(NamedTuple):
    """A kind of file.

    ``files`` are valid ones, by name; ``read`` takes the path of one that was changed. Of a kind that is a ``folder``, one of
    the files in it is changed at a time, and the folder is read.
    """

    files: dict[str, bytes]
    read: Callable[[Path], object]
    folder: bool = False
    text: bool = False


def pixels(side: int = 24, channels: int = 3) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[:side, : side + 3]
    planes = [128 + 100 * np.sin(x / (5 + c)) * np.cos(y / 7 - c) for c in range(channels)]
    return np.stack(planes, axis=2).astype(np.uint8)


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer, image = io.BytesIO(), Image.fromarray(pixels())
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    exif = Image.Exif()
    exif[274] = 6
    if kind in ("JPEG", "PNG", "WEBP"):
        options = {"exif": exif} | options
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def sinogram() -> Array:
    x = np.linspace(-1, 1, 40)
    return np.tile(np.exp(-4 * x**2), (20, 1)).astype(np.float32)


def photographs() -> dict[str, Kind]:
    """Kinds of pictures, read as every picture command does."""
    from invsolve.cli.files import read_photo

    deep = pixels().astype(np.uint16) * 256
    frames = [Image.fromarray(pixels()).quantize(16) for _ in range(2)]
    animated = io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    found = {
        "PNG": {"a.png": saved("PNG"), "b.png": saved("PNG", "P", transparency=3), "c.png": saved("PNG", "1")},
        "JPEG": {"a.jpg": saved("JPEG"), "b.jpg": saved("JPEG", progressive=True), "c.jpg": saved("JPEG", "CMYK")},
        "TIFF": {
            "a.tif": saved("TIFF"), "b.tif": saved("TIFF", compression="tiff_lzw"), "c.tif": tiff(deep, photometric="rgb"),
            "d.tif": tiff((deep / 65535).astype(np.float32), photometric="rgb", compression="zlib"),
        },
        "WebP": {"a.webp": saved("WEBP"), "b.webp": saved("WEBP", "RGBA", lossless=True)},
        "GIF": {"a.gif": animated.getvalue()},
        "BMP": {"a.bmp": saved("BMP"), "b.bmp": saved("BMP", "P")},
        "JPEG 2000": {"a.jp2": saved("JPEG2000"), "b.j2k": saved("JPEG2000", no_jp2=True)},
        "AVIF": {"a.avif": saved("AVIF")},
        "PPM": {"a.ppm": saved("PPM"), "b.pgm": saved("PPM", "L")},
    }  # fmt: skip
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
        found["HEIC"] = {"a.heic": saved("HEIF")}
    except ImportError:
        pass
    return {name: Kind(files, read_photo) for name, files in found.items()}


def masks() -> dict[str, Kind]:
    from invsolve.cli.masks import MaskSources, read_mask
    from invsolve.tasks.jpeg_file import read_jpeg

    def mask(path: Path) -> object:
        from invsolve.cli.files import read_photo

        read_mask(path, threshold=0.3)
        photo = read_photo(path)
        return MaskSources(mask="alpha").read(photo) if photo.alpha is not None else None

    grey = {"a.png": saved("PNG", "L"), "b.png": saved("PNG", "LA"), "c.tif": tiff(pixels()[..., 0].astype(np.uint16))}
    coefficients = {"a.jpg": saved("JPEG", quality=30), "b.jpg": saved("JPEG", progressive=True, quality=20)}
    return {
        "masks": Kind(grey, mask),
        "JPEG coefficients": Kind(coefficients, lambda path: read_jpeg(path.read_bytes(), path.name)),
    }


def arrays() -> dict[str, Kind]:
    from invsolve.cli.ct_files import read_array
    from invsolve.tasks.kspace_files import read_kspace

    zipped = io.BytesIO()
    np.savez(zipped, sinogram=sinogram(), theta=np.arange(20.0))
    packed = io.BytesIO()
    np.savez_compressed(packed, sinogram=sinogram())
    odd = npy(np.array([{"a": 1}, None], dtype=object))
    kspace = npy((sinogram() + 1j * sinogram()).astype(np.complex64))
    return {
        "NPY": Kind({"a.npy": npy(sinogram()), "b.npy": npy(sinogram().T.astype(">f8")), "c.npy": odd},
                    lambda path: read_array(path, "sinogram")),
        "NPZ": Kind({"a.npz": zipped.getvalue(), "b.npz": packed.getvalue()}, lambda path: read_array(path, "sinogram")),
        "k-space": Kind({"a.npy": kspace}, lambda path: read_kspace(path)),
        "TIFF of numbers": Kind({"a.tif": tiff(np.stack([sinogram()] * 2)), "b.tif": tiff(sinogram(), compression="zlib")},
                                lambda path: read_array(path, "sinogram")),
    }  # fmt: skip


def scans(scratch: Path) -> dict[str, Kind]:
    """HDF5, Zarr, DICOM, where what reads them is installed. NIfTI is written, and read nowhere."""
    from invsolve.ct.scan_files import read_scan
    from invsolve.tasks.kspace_files import read_kspace

    found: dict[str, Kind] = {}
    try:
        import h5py

        lines = sinogram()
        with h5py.File(scratch / "a.h5", "w") as file:
            file["exchange/data"] = np.repeat(1e4 * np.exp(-lines)[:, None], 2, axis=1)
            file["exchange/data_white"], file["exchange/data_dark"] = np.full((2, 2, 40), 1e4), np.zeros((2, 2, 40))
            file["exchange/theta"] = np.linspace(0, 171, 20)
        with h5py.File(scratch / "b.nxs", "w") as file:
            detector = file.create_group("entry/tomo/instrument/detector")
            frames = np.concatenate([np.full((2, 1, 40), 1e4), 1e4 * np.exp(-lines)[:, None]])
            detector.create_dataset("data", data=frames, chunks=(4, 1, 40), compression="gzip")
            detector["image_key"] = [1, 1] + [0] * 20
            file["entry/tomo/sample/rotation_angle"] = np.linspace(0, 171, 22)
        with h5py.File(scratch / "c.h5", "w") as file:
            file["kspace"] = (lines + 1j * lines).astype(np.complex64)[None]
        data = {name: (scratch / name).read_bytes() for name in ("a.h5", "b.nxs", "c.h5")}

        def scan_or_kspace(path: Path) -> object:
            return read_kspace(path) if path.name.startswith("c") else read_scan(path)

        found["HDF5"] = Kind(data, scan_or_kspace)
    except ImportError:
        pass
    try:
        import zarr

        group = zarr.open_group(str(scratch / "scan.zarr"), mode="w")
        group["sinogram"], group["theta"] = np.stack([sinogram()] * 2), np.linspace(0, 171, 20)
        found["Zarr"] = Kind(tree(scratch / "scan.zarr"), lambda path: read_scan(path), folder=True)
    except ImportError:
        pass
    try:
        import pydicom  # noqa: F401

        from invsolve.ct.dicom import dicom_bytes, read_dicom

        content = dicom_bytes(40 * sinogram(), 1.5, series="a", derivation="b")
        found["DICOM"] = Kind({"a.dcm": content}, lambda path: read_dicom(path))
    except ImportError:
        pass
    return found


def texts() -> dict[str, Kind]:
    from invsolve.cli.config import read_toml
    from invsolve.cli.ct_scan import parse_angles
    from invsolve.cli.problem import read_problem
    from invsolve.forward_models import Geometry, even_angles
    from invsolve.manifests import Manifest, Record, record_line, run_line

    problem = (
        b'[prior]\nname = "photos"\n\n[picture]\nsize = [64, 48]\n\n[measurement]\nfile = "y.png"\n\n'
        b'[[operator]]\ntype = "gaussian_blur"\nsigma = 2.0\n\n[[operator]]\ntype = "mask"\nmask = "mask.png"\n\n'
        b'[noise]\ntype = "gaussian"\nsigma = 0.02\n\n[solve]\nsteps = 24\nsamples = 4\n\n[output]\ninterval = true\n'
    )
    geometry = Geometry(even_angles(12), 40, (32, 32)).to_toml().encode()
    record = Record("a.png", "in/a.png", "0" * 64, "1" * 16, "done", outputs=("a.denoise.png",))
    manifest = run_line({"task": "denoise", "seed": 0}, ["a.png", "b.png"]) + record_line(record) * 2
    angles = "\n".join(str(float(a)) for a in even_angles(20)).encode()
    return {
        "TOML problem": Kind({"a.toml": problem}, read_problem, text=True),
        "TOML geometry": Kind({"a.toml": geometry}, lambda path: Geometry.read(path), text=True),
        "TOML configuration": Kind({"a.toml": b"steps = 40\nseed = 3\nmask = \"a.png\"\nbox = [\"1,2,3,4\"]\n"}, read_toml,
                                   text=True),
        "JSON manifest": Kind({"manifest.jsonl": manifest}, lambda path: Manifest.read(path), text=True),
        "angles": Kind({"a.txt": angles}, lambda path: parse_angles(str(path)), text=True),
    }  # fmt: skip


def models(scratch: Path) -> dict[str, Kind]:
    """A prior's folder, its card alone, and a saved posterior and calibration."""
    from invsolve.models.network import EDMDenoiser, NetworkConfig
    from invsolve.posterior import Posterior
    from invsolve.pretrained import Card, load_prior, save_prior
    from invsolve.pretrained.weight_files import read_weights
    from invsolve.tasks.baselines import ColourTable
    from invsolve.training.archives import archive_pictures
    from invsolve.uncertainty.conformal import Calibration, LeftOut

    torch.manual_seed(0)
    config = NetworkConfig(widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1,))
    errors = [(0.005, 2.4e-5), (0.1, 5e-3), (1.0, 5e-2), (20.0, 0.07)]
    card = Card("small", {}, "RGB in [0, 1]", 0.005, 20.0, errors, "")
    save_prior(scratch / "prior", EDMDenoiser(config), card)
    prior = tree(scratch / "prior")
    posterior = Posterior(torch.rand(2, 1, 1, 4, 4), (0, 1), torch.ones(2, 1), {"steps": 2}, 4)
    posterior.save(scratch / "p.npz")
    group = [LeftOut("a", 0.8, 0.9, 1.4)]
    Calibration("inpaint", "0" * 64, "proximal", "renoising", 50, 4, 0.9, 1.45, group).save(scratch / "c.json")
    ColourTable.fit([pixels()], luma_bins=4, height_bins=2).save(scratch / "t.json")
    weights, archive = io.BytesIO(), io.BytesIO()
    torch.save({"a.weight": torch.rand(4, 4), "a.bias": torch.rand(4)}, weights)
    joined = np.frombuffer(saved("JPEG") * 2, dtype=np.uint8)
    np.savez(archive, jpeg=joined, offsets=np.array([0, len(joined) // 2, len(joined)]))
    found = {"calibration": (scratch / "c.json").read_bytes(), "table": (scratch / "t.json").read_bytes()}
    return {
        "calibration": Kind({"c.json": found["calibration"]}, lambda path: Calibration.load(path), text=True),
        "colour table": Kind({"t.json": found["table"]}, lambda path: ColourTable.load(path), text=True),
        "weights of PyTorch": Kind({"a.pt": weights.getvalue()}, lambda path: read_weights(path)),
        "training pictures": Kind({"a.npz": archive.getvalue()}, lambda path: archive_pictures(path, 3)),
        "prior": Kind(prior, lambda path: load_prior(path, "cpu"), folder=True),
        "card": Kind({"card.json": prior["card.json"]}, lambda path: Card.read(path), text=True),
        "safetensors": Kind({"model.safetensors": prior["model.safetensors"]}, lambda path: read_weights(path)),
        "posterior": Kind({"p.npz": (scratch / "p.npz").read_bytes()}, lambda path: Posterior.load(path)),
    }


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def kinds(scratch: Path) -> dict[str, Kind]:
    """All of them; ``scratch`` is an empty folder."""
    return photographs() | masks() | arrays() | scans(scratch) | texts() | models(scratch)


def put(kind: Kind, name: str, content: bytes, folder: Path) -> Path:
    """Write ``content`` in the place of one of a kind's files; the path to read."""
    if not kind.folder:
        path = folder / name
        path.write_bytes(content)
        return path
    whole = folder / "whole"
    for other, original in kind.files.items():
        (whole / other).parent.mkdir(parents=True, exist_ok=True)
        (whole / other).write_bytes(content if other == name else original)
    return whole


def clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
