"""Pictures, masks and the measurements made of them, for the benchmarks of photographs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from harness import Array, Case, Figures
from PIL import Image

from invsolve.cli.demo import scratches
from invsolve.evaluation.metrics import ciede2000, mean_chroma, score
from invsolve.forward_models import Blur, Downsample
from invsolve.pictures import Missing, Pixels, channels_last, to_pixels, to_unit
from invsolve.tasks.baselines import ColourTable
from invsolve.tasks.colorization import colorization_task
from invsolve.tasks.deblurring import deblurring_task
from invsolve.tasks.dejpeg import compressed, decode, dejpeg_task
from invsolve.tasks.denoising import denoising_task
from invsolve.tasks.inpainting import inpainting_task
from invsolve.tasks.jpeg_file import read_jpeg
from invsolve.tasks.restoration import planes
from invsolve.tasks.superresolution import superresolution_task
from invsolve.training.sources import load_pictures

SIZE = 256
SKIMAGE = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle", "hubble_deep_field")
"""Colour photographs that come with scikit-image, without a download; no prior here was trained on them."""

HALF_LEVEL = 0.5 / 255
SEEDS_APART = 1000
"""The first seed of one picture less that of the one before, where pictures have seeds of their own."""
OPENCV = {"OpenCV Telea": "INPAINT_TELEA", "OpenCV Navier-Stokes": "INPAINT_NS"}
OPENCV_RADIUS = 5


def centre(picture: Array, size: int) -> Array:
    """The middle ``size`` x ``size`` of (H, W[, C]), or the largest square there is."""
    side = min(size, *picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return picture[top : top + side, left : left + side]


def centre_crops(path: str, count: int, size: int = SIZE) -> list[Pixels]:
    """The middle of the first ``count`` pictures."""
    return [np.asarray(centre(picture, size), np.uint8) for picture in load_pictures(path)[:count]]


def skimage_crops(count: int, size: int = SIZE) -> list[Pixels]:
    """The middle of the first ``count`` of :data:`SKIMAGE`, shrunk to a shorter side of 256 as photos-val was."""
    from skimage import data

    crops = []
    for name in SKIMAGE[:count]:
        loaded = getattr(data, name)()
        picture = Image.fromarray(loaded[0] if isinstance(loaded, tuple) else loaded)  # of a stereo pair the left one
        scale = SIZE / min(picture.size)
        small = picture.resize([round(scale * side) for side in picture.size], Image.Resampling.LANCZOS)
        crops.append(np.asarray(centre(np.asarray(small), size), np.uint8))
    return crops


def every_kth(path: str, count: int) -> list[Pixels]:
    """``count`` pictures spread evenly over the file."""
    pictures = load_pictures(path)
    return [np.asarray(p, np.uint8) for p in pictures[:: max(1, len(pictures) // count)][:count]]


def random_pixels(index: int, size: int = SIZE) -> Missing:
    """Mask (a): half of all pixels, at random."""
    return np.random.default_rng([1, index]).random((size, size)) < 0.5


def random_lines(index: int, size: int = SIZE) -> Missing:
    """Mask (b): lines 5 pixels wide over 10 % of the picture."""
    return scratches(size, size, np.random.default_rng([2, index]), share=0.1, thickness=5)


MASKS: dict[str, Callable[[int, int], Missing]] = {"pixels": random_pixels, "lines": random_lines}


def inpainting_case(
    name: str,
    truth: Pixels,
    missing: Missing,
    *,
    opencv: tuple[str, ...] = (),
    judge: Callable[[Array, Array], Figures] = score,
) -> Case:
    """A picture without its ``missing`` pixels, OpenCV's methods of these names beside the task's own baseline."""
    known = np.where(missing[..., None], 0, truth).astype(np.uint8)
    return Case(
        name,
        inpainting_task(known / np.float32(255), missing),
        truth,
        judge=judge,
        baselines=lambda: {method: opencv_inpaint(method, known, missing) for method in opencv},
    )


def opencv_inpaint(method: str, known: Pixels, missing: Missing) -> Array:
    """OpenCV's filling of (H, W, 3), in [0, 1]."""
    import cv2  # only these baselines need it

    bgr = np.ascontiguousarray(known[..., ::-1])
    return cv2.inpaint(bgr, missing.astype(np.uint8), OPENCV_RADIUS, getattr(cv2, OPENCV[method]))[..., ::-1] / 255


def damaged(case: Case) -> Pixels:
    """The picture of an inpainting case with its missing pixels white."""
    known = case.task.open_values
    assert known is not None
    return np.where(known[0].numpy()[..., None], 255, case.truth).astype(np.uint8)


def grey_of(truth: Pixels) -> Pixels:
    """Rec. 601 luma, (H, W)."""
    return np.asarray(Image.fromarray(truth).convert("L"))


def colour_figures(truth: Pixels, estimate: Pixels) -> Figures:
    """PSNR, SSIM, the colours' distance and how strong they are."""
    return {**score(truth, estimate), **colour_difference(truth, estimate)}


def colour_difference(truth: Pixels, estimate: Pixels) -> Figures:
    """The colours' distance, CIEDE2000, and how strong they are."""
    return {"ciede2000": ciede2000(truth / 255, estimate / 255), "chroma": mean_chroma(estimate / 255)}


def hint_points(truth: Pixels, count: int, index: int, radius: float = 3.0) -> Array:
    """``count`` discs of the truth's colours on a transparent layer, (H, W, 4) float32 in [0, 1]; the positions are drawn
    from (3, index), the first of them whatever the count."""
    height, width = truth.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    opacity = np.zeros((height, width, 1), np.float32)
    for y, x in np.random.default_rng([3, index]).random((count, 2)) * (height, width):
        opacity[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 1
    return np.concatenate([truth / np.float32(255), opacity], axis=2)


def colorization_case(
    name: str,
    truth: Pixels,
    table: ColourTable | None = None,
    *,
    hints: Array | None = None,
    reference: Array | None = None,
    index: int = 0,
) -> Case:
    """A picture without its colours, with ``hints`` or a ``reference`` as :func:`colorization_task` takes them; pictures of
    different ``index`` are drawn from different seeds.

    Truth and grey are rounded, each by itself: samples that all agree, as in black and white, may then miss the truth by
    half a grey level and be right.
    """
    unit = grey_of(truth).astype(np.float32) / 255
    task = colorization_task(unit, table, hints=hints, reference=reference)
    return Case(name, task, truth, judge=colour_figures, rounding=HALF_LEVEL, seed=SEEDS_APART * index)


def noise_of(shape: tuple[int, ...], index: int) -> Array:
    """Standard normal noise of picture ``index``, the same whatever the task."""
    return np.random.default_rng([4, index]).standard_normal(shape)


def reduced(truth: Pixels, factor: int) -> Array:
    """A picture made smaller by bicubic averages and rounded to 8 bits, in [0, 1]."""
    x = planes(truth / 255)
    return to_pixels(channels_last(Downsample(tuple(x.shape[1:]), factor)(x)[0])) / np.float32(255)


def blurred(truth: Pixels, psf: torch.Tensor, noise: float, index: int) -> Array:
    """A picture blurred, its mirror image beyond the edges, under noise that is not cut off at black and white."""
    x = planes(truth / 255)
    soft = channels_last(Blur(psf, tuple(x.shape[1:]), "reflect")(x)[0])
    return (soft + noise * noise_of(soft.shape, index)).astype(np.float32)


def noisy(truth: Pixels, noise: float, index: int) -> Array:
    """A picture under noise that is not cut off at black and white."""
    return (truth / 255 + noise * noise_of(truth.shape, index)).astype(np.float32)


def superresolution_case(name: str, truth: Pixels, factor: int) -> Case:
    """A picture made smaller."""
    return Case(name, superresolution_task(reduced(truth, factor), factor), truth)


def deblurring_case(name: str, truth: Pixels, psf: torch.Tensor, noise: float, index: int) -> Case:
    """A picture blurred."""
    return Case(name, deblurring_task(blurred(truth, psf, noise, index), psf.numpy(), noise=noise), truth)


def denoising_case(name: str, truth: Pixels, noise: float, index: int) -> Case:
    """A picture under noise; BM3D beside it where that is installed."""
    measured = noisy(truth, noise, index)
    return Case(name, denoising_task(measured, noise=noise), truth, baselines=lambda: bm3d(measured, noise))


def dejpeg_case(name: str, truth: Pixels, quality: int) -> Case:
    """A picture compressed as JPEG, 4:2:0."""
    data = compressed(truth, quality)
    return Case(name, dejpeg_task(read_jpeg(data), to_unit(decode(data)[0])), truth)


def bm3d(noisy: Array, noise: float) -> dict[str, Array]:
    """BM3D's estimate by its name; none where the package is not installed."""
    try:
        from bm3d import bm3d_rgb
    except ImportError:
        return {}
    return {"BM3D": np.asarray(bm3d_rgb(noisy, noise))}
