"""Results of ``invsolve ct``: what the methods found, the files it becomes, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from invsolve.cli.console import say
from invsolve.cli.ct_files import labelled_row, npy_bytes, residual_picture, tif_bytes, windowed
from invsolve.cli.files import encode_picture, output_path
from invsolve.errors import UsageError
from invsolve.pictures import to_pixels

if TYPE_CHECKING:
    from torch import Tensor

    from invsolve.cli.ct_methods import Rays
    from invsolve.cli.pipeline import Solved
    from invsolve.ct.metal import Metal
    from invsolve.ct.scan import Scan

Array = npt.NDArray[Any]
STD_WHITE_HU = 200.0
HU_PER_UNIT = 2000.0
DICOM = (".dcm", ".dicom")
BASELINES = ("fbp", "tv")


def parse_window(text: str) -> tuple[float, float]:
    """``40,400`` -> (40.0, 400.0)."""
    try:
        centre, width = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--window {text!r}", hint="wanted CENTRE,WIDTH in HU, such as 40,400") from None
    if not (width > 0 and math.isfinite(width) and math.isfinite(centre)):
        raise UsageError(f"--window {text!r}", hint="wanted two numbers, the width above 0")
    return centre, width


def plan_paths(
    output: Path | None, source: Path, method: str, samples: int, interval: bool = False, *, baselines: bool = False
) -> dict[str, Path]:
    """Names of everything the run writes."""
    kind = asked_for(output)
    if output is not None and output.name.lower().endswith(".nii.gz"):
        output = output.with_suffix("")
    endings = (".npy", ".tif", ".tiff", ".png", *DICOM, ".nii")
    base = output_path(output, source, "ct", endings).with_suffix("")

    def beside(ending: str) -> Path:
        return base.with_name(base.name + ending)

    tif = ".tiff" if output is not None and output.suffix.lower() == ".tiff" else ".tif"
    paths = {"npy": beside(".npy"), "tif": beside(tif), "picture": beside(".png")}
    paths |= {"compare": beside(".compare.png"), "residual": beside(".residual.png"), "report": beside(".json")}
    if kind == "dcm" and output is not None:
        paths["dcm"] = beside(output.suffix)
    elif kind in ("nii", "nii.gz"):
        paths[kind] = beside(f".{kind}")
    if baselines:
        paths |= {name: beside(f".{name}.npy") for name in BASELINES}
    if method == "score" and samples > 1:
        paths |= {"std": beside(".std.npy"), "std_picture": beside(".std.png"), "samples": beside(".samples.npy")}
        if interval:
            paths |= {"low": beside(".low.npy"), "high": beside(".high.npy")}
            paths |= {"prior_std": beside(".std-prior.npy"), "prior_std_picture": beside(".std-prior.png")}
    return paths


def asked_for(output: Path | None) -> str:
    """Which of :func:`plan_paths` the output names; the numbers, if it names none."""
    if output is None or output.is_dir():
        return "npy"
    if output.name.lower().endswith(".nii.gz"):
        return "nii.gz"
    kinds = {".tif": "tif", ".tiff": "tif", ".png": "picture", ".nii": "nii"} | dict.fromkeys(DICOM, "dcm")
    return kinds.get(output.suffix.lower(), "npy")


def check_kind(kind: str, *, pixel_known: bool) -> None:
    """Before hours of work: that a medical format can be written, and that what it must say is known.

    Raises
    ------
    UsageError : a package is missing, or the pixel size, which would have to be invented.
    """
    if kind == "dcm":
        from invsolve.ct.dicom import import_pydicom

        import_pydicom("writing DICOM")
    elif kind in ("nii", "nii.gz"):
        from invsolve.ct.nifti import import_nibabel

        import_nibabel()
    if kind in ("dcm", "nii", "nii.gz") and not pixel_known:
        raise UsageError(
            f"a .{kind} file says how large its pixels are, which is not known", hint="give --pixel-size MM"
        )


class Result(NamedTuple):
    """What the methods found; images in the units of n."""

    images: dict[str, Array]  # name -> (slices, H, W), the asked-for one last
    residual: Array  # (slices, views, detectors), of the asked-for method
    residual_limit: float
    chi2: float | None
    facts: dict[str, Any]
    seconds: float
    solved: Solved | None  # where samples were drawn
    warning: str | None  # where the image does not explain the sinogram
    metal: npt.NDArray[np.bool_] | None = None  # (slices, H, W), where no ray that counts has been

    @classmethod
    def of(
        cls, images: Mapping[str, Tensor], rays: Rays, solved: Solved | None, facts: dict[str, Any], seconds: float,
        metal: Metal | None = None,
    ) -> Result:  # fmt: skip
        """With the misfit of the last image."""
        from invsolve.ct.misfit import chi_squared, usual_noise

        residual = rays.residual(list(images.values())[-1])
        chi2 = chi_squared(residual, rays.sigma)
        limit = float(residual.abs().max()) if chi2 is None else 3 * usual_noise(rays.sigma)
        judged = solved is not None and chi2 is not None  # the samples have a warning of their own
        warning = None if judged else rays.explained(str(facts["method"]), residual)
        arrays = {name: image.cpu().numpy() for name, image in images.items()}
        pixels = None if metal is None else metal.pixels
        return cls(arrays, residual.cpu().numpy(), limit, chi2, facts, seconds, solved, warning, pixels)

    @property
    def in_hounsfield(self) -> dict[str, Array]:
        """The images in Hounsfield units."""
        from invsolve.ct.units import to_hounsfield

        return {name: to_hounsfield(image) for name, image in self.images.items()}

    @property
    def calls(self) -> int:
        return self.solved.posterior.network_calls if self.solved else 0


def encode_slices(
    paths: Mapping[str, Path], scan: Scan, result: Result, grey_range: tuple[float, float]
) -> dict[Path, bytes]:
    """Everything to write but the report: stacks as stacks, pictures of the middle slice."""
    hu, facts, middle = result.in_hounsfield, result.facts, len(scan.sinogram) // 2
    main = next(reversed(hu))

    def shaped(stack: Array) -> Array:
        return stack if scan.stacked else stack[..., 0, :, :]

    def picture(name: str, grey: npt.NDArray[np.uint8], **about: Any) -> None:
        files[paths[name]] = encode_picture(grey, paths[name], {**facts, **about})

    files = {paths["npy"]: npy_bytes(shaped(hu[main])), paths["tif"]: tif_bytes(shaped(hu[main]), facts)}
    files |= encode_medical(paths, scan, hu[main], grey_range, main, facts)
    pictures = {name: windowed(image[middle], grey_range) for name, image in hu.items()}
    picture("picture", pictures[main], window=grey_range)
    beside = {name: hu[name.upper()] for name in BASELINES if name in paths}
    for name, stack in {**spread(paths, result), **beside}.items():
        files[paths[name]] = npy_bytes(shaped(stack))
    if "std" in paths and result.solved:
        std = to_pixels(HU_PER_UNIT * result.solved.posterior.std[middle, 0].numpy() / STD_WHITE_HU)
        pictures["standard deviation"] = std
        picture("std_picture", std, white=STD_WHITE_HU)
    if "prior_std" in paths and result.solved and result.solved.summary.prior_std is not None:
        blind = to_pixels(HU_PER_UNIT * result.solved.summary.prior_std[middle, 0].numpy() / STD_WHITE_HU)
        content = "standard deviation of what the scan is blind to"
        picture("prior_std_picture", blind, white=STD_WHITE_HU, content=content)
    picture("compare", labelled_row(pictures), window=grey_range)
    misfit = residual_picture(result.residual[middle], result.residual_limit)
    picture("residual", misfit, white=result.residual_limit)
    return files


def encode_medical(
    paths: Mapping[str, Path], scan: Scan, hu: Array, grey_range: tuple[float, float], what: str, facts: dict[str, Any]
) -> dict[Path, bytes]:
    """Slices (slices, H, W) in HU as DICOM or NIfTI, where one of them was asked for."""
    views, learned = scan.geometry.views, facts["method"] == "score"
    how = f"a learned prior ({facts.get('model', '')})" if learned else what
    files = {}
    if "dcm" in paths:
        from invsolve.ct.dicom import dicom_bytes

        files[paths["dcm"]] = dicom_bytes(
            hu[0],
            scan.geometry.pixel_size,
            series="Reconstruction by a learned prior (invsolve)" if learned else f"{what} reconstruction (invsolve)",
            derivation=f"Reconstructed from {views} views of a CT sinogram by {how}"
            + (f", {what} from the posterior: detail may be the prior's" if learned else "")
            + ". Not for diagnosis.",
            window=grey_range,
        )
    for kind in ("nii", "nii.gz"):
        if kind in paths:
            from invsolve.ct.nifti import nifti_bytes

            about = f"HU, {views} views, {'learned prior' if learned else what}, invsolve, not for diagnosis"
            files[paths[kind]] = nifti_bytes(hu, scan.geometry, description=about, packed=kind == "nii.gz")
    return files


def spread(paths: Mapping[str, Path], result: Result) -> dict[str, Array]:
    """Samples, their standard deviation and bounds in HU, (..., slices, H, W), those of them that have a path."""
    from invsolve.ct.units import to_hounsfield

    if result.solved is None:
        return {}
    posterior, summary = result.solved.posterior, result.solved.summary
    stacks = {
        "std": HU_PER_UNIT * posterior.std[:, 0],
        "samples": to_hounsfield(posterior.samples[:, :, 0]),
    }
    if summary.interval is not None and summary.prior_std is not None:
        stacks |= {"low": to_hounsfield(summary.interval.low[:, 0]), "high": to_hounsfield(summary.interval.high[:, 0])}
        stacks["prior_std"] = HU_PER_UNIT * summary.prior_std[:, 0]
    return {name: stack.numpy() for name, stack in stacks.items() if name in paths}


def say_slices(paths: Mapping[str, Path], result: Result, samples: int, asked: str = "npy") -> None:
    """Where the results are, the one ``asked`` for first, and what they are."""
    method = str(result.facts["method"])
    drawn = "one sample" if samples == 1 else f"the mean of {samples} samples"
    what = drawn if method == "score" else method.upper()
    chi2 = "unknown (no noise)" if result.chi2 is None else f"{result.chi2:.2f}"
    say(f"wrote {paths[asked]} in HU, {what} ({result.seconds:.1f} s, {result.calls} network calls)")
    unfitted = (
        " (of FBP, which fits no data, mostly far above 1)" if method == "fbp" and result.chi2 is not None else ""
    )
    say(f"look at {paths['compare']}; misfit {paths['residual'].name}, chi-squared per ray {chi2}{unfitted}")
    if result.warning:
        say(f"warning: {result.warning}")
    if "std" in paths:
        say(f"uncertainty: {paths['std'].name} (HU), {paths['std_picture'].name} (white: {STD_WHITE_HU:g} HU)")
    if "low" in paths:
        say(
            f"{paths['low'].name} and {paths['high'].name}: bounds of each pixel in HU; "
            f"{paths['prior_std'].name}: the part of the standard deviation the scan is blind to"
        )


def score_slices(
    reference: Array, hu: dict[str, Array], metal: npt.NDArray[np.bool_] | None = None
) -> dict[str, dict[str, float]]:
    """PSNR and SSIM over -1000 to 1000 HU, RMSE in HU; means over the slices. Metal (slices, H, W) counts as known."""
    from invsolve.ct.units import from_hounsfield
    from invsolve.evaluation.metrics import psnr, ssim

    truth = from_hounsfield(reference)
    scores = {}
    for name, found in hu.items():
        stack = found if metal is None else np.where(metal, reference, found)
        pairs = list(zip(truth, from_hounsfield(stack), strict=True))
        scores[name] = {
            "psnr": float(np.mean([psnr(t, e, data_range=1.0) for t, e in pairs])),
            "ssim": float(np.mean([ssim(t, e, data_range=1.0) for t, e in pairs])),
            "rmse_hu": float(np.sqrt(np.mean((reference - stack) ** 2))),
        }
    return scores
