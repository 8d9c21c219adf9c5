"""JPEG restoration: a photograph that fits a file's quantized coefficients, without the blocks and rings of the file's own."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from invsolve.errors import InputError, UsageError, first_line
from invsolve.forward_models import JpegCoefficients, LinearOperator, QuantizationNoise
from invsolve.forward_models.jpeg import BLOCK
from invsolve.models.orientation import turn, turn_back
from invsolve.models.score_model import ScoreModel
from invsolve.options import DEJPEG, Changes, SolveOptions
from invsolve.pictures import Pixels, check_picture, to_unit
from invsolve.posterior import Posterior
from invsolve.tasks.jpeg_file import JpegFile, read_jpeg
from invsolve.tasks.restoration import Measurement, planes
from invsolve.tasks.restoration_baselines import non_local_means
from invsolve.tasks.task import Progress, Task, seen_through

SIGMA_START = 0.25
"""First noise level on the decoded picture: above what strong compression gets wrong."""

EXPECTED_BETWEEN = (0.0, 0.15)
"""Noise levels at which the chains' estimates make the mean of several samples: that gains 0.05 to 0.2 dB, about what momentum costs
(docs/lab/uncertainty-and-calibration.md)."""

BASELINE_SHARE = 0.6
"""Noise that non-local means are told, over the rms error of rounding luma's slowest waves (docs/lab/restoration.md)."""

SLOW = 3
"""Vertical and horizontal frequencies, of 8, that count as slow."""

ORIENTATIONS = {1: 0, 2: 4, 3: 6, 4: 2, 5: 1, 6: 5, 7: 7, 8: 3}
"""EXIF's number of how a picture is to be turned, as a number for :func:`invsolve.models.orientation.turn`."""

ORIENTATION_TAG = 0x0112


class Stored(LinearOperator):
    """What a file says more of a picture than that a coefficient is small: (C, H, W), upright, to its coefficients that are not 0.

    Beyond the picture's edges, in units that it does not fill, there is nothing.

    Parameters
    ----------
    shape : (C, H, W) of the picture, upright.
    operator : of the stored picture, in whole units.
    kept : which coefficients are not 0, of the operator's output shape.
    orientation : from the stored picture to the upright one, for :func:`turn`.
    """

    def __init__(self, shape: tuple[int, ...], operator: JpegCoefficients, kept: Tensor, orientation: int) -> None:
        super().__init__(shape, operator.output_shape)
        self.operator, self.kept, self.orientation = operator, kept, orientation

    @property
    def informative(self) -> Tensor:
        return self.kept

    def _apply(self, x: Tensor) -> Tensor:
        stored = turn_back(x, self.orientation)
        height, width = self.operator.input_shape[1:]
        padded = F.pad(stored, (0, width - stored.shape[-1], 0, height - stored.shape[-2]))
        return self.kept.to(x) * self.operator(padded)

    def _adjoint(self, y: Tensor) -> Tensor:
        height, width = self.input_shape[1:][:: -1 if self.orientation & 1 else 1]
        return turn(self.operator.T(self.kept.to(y) * y)[..., :height, :width], self.orientation)


def dejpeg_task(file: JpegFile, decoded: Any, *, orientation: int = 0) -> Task:
    """The task of restoring what :func:`read_jpeg` found; errors as in :func:`dejpeg`.

    Parameters
    ----------
    file : the coefficients.
    decoded : (H, W[, 3]) in [0, 1], what an ordinary program makes of them, upright: the baseline.
    orientation : from the picture as stored to the upright one, see :data:`ORIENTATIONS`.
    """
    unit = check_picture(decoded)
    operator = coefficients_of(file)
    numbers = [torch.from_numpy(component.coefficients) for component in file.components]
    y = operator.arrange(numbers)
    measured = Measurement(
        y=y,
        operator=operator,
        noise=QuantizationNoise(1.0),
        start=operator.pinv(y).clamp(0, 1),
        sigma_start=SIGMA_START,
        kept=(slice(file.height), slice(file.width)),
        finish=lambda samples: operator.project(samples, y),
        expected=EXPECTED_BETWEEN,
    )
    told = (y[0] - operator.offset).abs() > 0.5
    shape = planes(unit).shape[1:]
    step = float(np.sqrt(np.mean(file.components[0].steps[:SLOW, :SLOW].astype(float) ** 2))) / 255

    def run(prior: ScoreModel, options: SolveOptions, progress: Progress) -> Posterior:
        found = measured.solve(prior, options, seen_through(progress, lambda picture: turn(picture, orientation)))
        estimate = None if found.estimate is None else turn(found.estimate, orientation)
        return replace(found, samples=turn(found.samples, orientation), estimate=estimate)

    return Task(
        name="dejpeg",
        run=run,
        options=DEJPEG,
        operator=Stored(tuple(shape), unweighted(operator), told, orientation),
        determined=lambda: float(told.sum()) / (operator.input_shape[0] * np.prod(operator.input_shape[1:])),
        problem={"step": step},
        baselines=lambda: {
            "decoded": unit,
            "non-local means": non_local_means(unit, BASELINE_SHARE * step / 12**0.5),
        },
        work=float(np.prod(operator.input_shape[1:])),
    )


def coefficients_of(file: JpegFile) -> JpegCoefficients:
    """The operator of a file, on the picture in whole units."""
    rows, columns = file.components[0].coefficients.shape[:2]
    pairs = [component.sampling for component in file.components]
    height = rows * BLOCK * max(v for _, v in pairs) // pairs[0][1]
    width = columns * BLOCK * max(h for h, _ in pairs) // pairs[0][0]
    steps = torch.from_numpy(np.stack([component.steps for component in file.components]))
    return JpegCoefficients((len(pairs), height, width), steps, pairs, rgb=file.rgb)


def unweighted(operator: JpegCoefficients) -> JpegCoefficients:
    """The same coefficients, all in the picture's own units: a better conditioned look at the same subspace."""
    steps = torch.full((operator.input_shape[0], BLOCK, BLOCK), 255)
    return JpegCoefficients(operator.input_shape, steps, operator.sampling, rgb=operator.rgb)


def share_inside(file: JpegFile, picture: Pixels, *, orientation: int = 0) -> float:
    """Share of the file's coefficients that ``picture`` (H, W[, 3]) would be rounded to.

    What rounding pixels to grey levels may do, one level's worth of a coefficient, is granted; units that the picture does
    not fill are left out, unless there are no others.
    """
    operator = coefficients_of(file)
    y = operator.arrange([torch.from_numpy(component.coefficients) for component in file.components])
    stored = turn_back(planes(picture / 255), orientation)
    (height, width), (whole_height, whole_width) = stored.shape[-2:], operator.input_shape[1:]
    padded = F.pad(stored, (0, whole_width - width, 0, whole_height - height), mode="replicate")
    inside = (operator(padded) - y).abs() <= 0.5 + operator.level
    rows, columns = (max(1, side // own) for side, own in zip((height, width), operator.unit, strict=True))
    return float(inside[:, :rows, :columns].float().mean())


def compressed(pixels: Pixels, quality: int, sampling: str = "4:2:0", **metadata: Any) -> bytes:
    """(H, W[, 3]) as a JPEG file, by libjpeg.

    Parameters
    ----------
    quality : 1 to 100.
    sampling : of chroma: "4:4:4", "4:2:2" or "4:2:0".
    metadata : for Pillow, such as ``icc_profile``.

    Raises
    ------
    UsageError : another quality or sampling.
    """
    names = ("4:4:4", "4:2:2", "4:2:0")
    if not 1 <= quality <= 100 or sampling not in names:
        raise UsageError(
            f"quality {quality}, sampling {sampling}", hint=f"wanted 1 to 100, and one of {', '.join(names)}"
        )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=names.index(sampling), **metadata)
    return buffer.getvalue()


def decode(data: bytes) -> tuple[Pixels, int]:
    """A JPEG file's picture (H, W[, 3]), upright, and how it was turned for that.

    Raises
    ------
    InputError : damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            orientation = ORIENTATIONS.get(image.getexif().get(ORIENTATION_TAG, 1), 0)
            return np.asarray(ImageOps.exif_transpose(image)), orientation
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise whatever they stumble over
        raise InputError(f"the file is damaged: {first_line(error)}", hint="copy it again from the original") from None


def recompression_error(pixels: Pixels, data: bytes) -> float:
    """Rms difference in grey levels between a picture's luma and that of the JPEG made of it.

    About 1 where the picture had been a JPEG of that quality, with its blocks where they were; else the error of compression.
    """
    luma = [np.asarray(Image.fromarray(each).convert("L"), float) for each in (pixels, decode(data)[0])]
    return float(np.sqrt(np.mean((luma[0] - luma[1]) ** 2)))


def dejpeg(
    data: bytes,
    prior: ScoreModel,
    options: SolveOptions = DEJPEG,
    *,
    progress: Progress | None = None,
    **changes: Unpack[Changes],
) -> Posterior:
    """Restore a photograph from its JPEG file.

    Compressed again in the same way, every sample is the file, up to the rounding of its pixels.

    Parameters
    ----------
    data : the file's bytes, ``Path("photo.jpg").read_bytes()``; of a picture that was saved in another format after it,
        :func:`compressed` with the same quality makes them again.
    prior : a prior of RGB photographs in [0, 1].
    options : how to sample; ``sigma_start`` is the first noise level, in the picture's units.
    progress : called with the share of the work done.
    changes : fields of ``options`` that differ, such as ``samples=8``.

    Returns
    -------
    Posterior with samples (n, 1, C, H, W), upright, C = 3 or 1 of a grey file.

    Raises
    ------
    InputError : no JPEG file, a damaged one, or one of a kind that is not read (see :func:`read_jpeg`); not of the one size the
        prior knows.
    ModelError : the prior is not one of RGB pictures.
    """
    file = read_jpeg(data)
    pixels, orientation = decode(data)
    task = dejpeg_task(file, to_unit(pixels), orientation=orientation)
    return task.solve(prior, options, progress=progress, **changes)
