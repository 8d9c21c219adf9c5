"""Where the rotation axis falls on the detector: by centre of mass, by opposite views, by the sharpest slice.

Each way gives a score and says how far parts of the data disagree, so that a person sees how sure it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import fftconvolve

from invsolve.ct.fbp import angular_weights, back_project, ramp_filter, usual_step
from invsolve.ct.sinogram import constant_mass, find_center
from invsolve.errors import InputError, UsageError
from invsolve.forward_models import Geometry, even_subset

Array = npt.NDArray[Any]
WAYS = ("auto", "correlation", "entropy")

MOST_PAIRS = 64
"""Of opposite views that are compared."""

SMOOTHING = 1.5
"""Bins by which views are smoothed before they are compared: their edges matter, their noise does not."""

COARSE, FINE = (128, 60), (256, 180)
"""Most bins and views of the sinogram whose slices are compared for sharpness; finer ones are binned, more thinned out."""

GREY_LEVELS = 256
REACH = 8
"""Share of the detector, one part in so many, to either side in which the sharpest slice is looked for."""

WHOLE = 0.02
"""Relative variation of the views' sums up to which the detector saw the object whole."""

AGREE = 1.0
"""Bins within which different ways agree."""


class Axis(NamedTuple):
    """A rotation axis that was found."""

    bin: float
    way: str
    score: float  # see the functions
    spread: float  # bins by which it varies over parts of the data

    def __str__(self) -> str:
        names = {"auto": "centre of mass, off by", "correlation": "correlation", "entropy": "entropy"}
        return f"{self.bin:.2f} +- {self.spread:.2g} ({names[self.way]} {self.score:.4g})"


def find_axis(stack: Array, geometry: Geometry, way: str = "auto") -> tuple[Axis, list[Axis]]:
    """The axis by the ``way`` asked for, and by the other ways that can be had at little cost.

    Parameters
    ----------
    stack : (S, views, detectors), proportional to line integrals.
    geometry : the scan; its centre does not count.
    way : "auto" (:func:`by_mass`), "correlation" (:func:`by_correlation`) or "entropy" (:func:`by_entropy`).

    Raises
    ------
    InputError : the views do not tell it.
    UsageError : a fan's, or an unknown way.
    """
    if way not in WAYS:
        raise UsageError(f"--center {way!r}", hint=f"wanted a bin number, {', '.join(WAYS)}")
    if geometry.kind != "parallel":
        raise UsageError(
            f"--center {way} with a fan beam: it is found for parallel beams only", hint="give --center BIN"
        )
    methods = {"auto": by_mass, "correlation": by_correlation}
    others = []
    for name, method in methods.items():
        if name != way:
            try:
                others.append(method(stack, geometry))
            except InputError:
                continue  # what cannot be compared is not
    if way != "entropy":
        return methods[way](stack, geometry), others
    whole = [axis.bin for axis in others if axis.way == "auto" and constant_mass(stack) < WHOLE]
    return by_entropy(stack, geometry, near=whole[0] if whole else (geometry.detectors - 1) / 2), others


def disagreement(chosen: Axis, others: list[Axis]) -> bool:
    """Whether another way found an axis that lies elsewhere than chance explains."""
    return any(abs(axis.bin - chosen.bin) > AGREE + 2 * max(axis.spread, chosen.spread) for axis in others)


def by_mass(stack: Array, geometry: Geometry) -> Axis:
    """:func:`invsolve.ct.sinogram.find_center`; the score is how many bins its odd and its even views are apart."""
    at = find_center(stack, geometry.angles)
    try:
        halves = [find_center(stack[:, part::2], geometry.angles[part::2]) for part in (0, 1)]
        apart = abs(halves[0] - halves[1])
    except InputError:
        apart = 0.5
    return Axis(at, "auto", apart, max(apart / 2, 0.01))


# -- opposite views -------------------------------------------------------------------------------------------------
def by_correlation(stack: Array, geometry: Geometry) -> Axis:
    """The mirror about which views half a turn apart are alike; the score is their correlation, 1 for equal ones.

    A view and the one half a turn on hold the same rays in reverse, so their convolution is largest at twice the axis's bin
    (Bracewell & Riddle 1967). Where no view stands exactly opposite, its neighbours are interpolated, or continued by up to
    one step, as at the two ends of half a turn.

    Raises
    ------
    InputError : no views are opposite.
    """
    pairs = list(_opposite_pairs(stack, geometry.angles))
    if not pairs:
        raise InputError(
            "no two views are half a turn apart, as --center correlation wants", hint="give --center BIN, or entropy"
        )
    curves = [_mirror_curve(*pair) for pair in pairs]
    overlap = np.sum([curve for curve, _ in curves], axis=0)
    at, score = _peak(overlap / sum(norm for _, norm in curves))
    single = np.array([_peak(curve)[0] for curve, _ in curves]) / 2
    return Axis(at / 2, "correlation", score, max(float(np.median(np.abs(single - at / 2))), 0.01))


def _opposite_pairs(stack: Array, angles: tuple[float, ...]) -> Iterator[tuple[Array, Array]]:
    """Views (S, detectors) with what was, or would have been, measured half a turn on."""
    turned = np.asarray(angles) % 360.0
    order = np.argsort(turned)
    turned, views = turned[order], np.asarray(stack, dtype=np.float64)[:, order]
    if len(turned) < 3 or not np.ptp(turned) > 0:
        return
    step = usual_step(np.diff(turned))
    wanted: list[tuple[int, tuple[tuple[int, float], ...]]] = []
    for index in range(len(turned)):
        # Distances on the circle from the place opposite to the nearest views on both sides.
        ahead = (turned - turned[index] - 180.0) % 360.0
        after, before = int(np.argmin(ahead)), int(np.argmax(ahead))
        after_by, before_by = float(ahead[after]), float(360.0 - ahead[before])
        if after_by < 1e-6:
            wanted.append((index, ((after, 1.0),)))
        elif after_by + before_by <= 1.5 * step:
            share = before_by / (after_by + before_by)
            wanted.append((index, ((after, share), (before, 1 - share))))
        else:  # beyond an end: continue the line of the last two
            near, beyond, by = (before, before - 1, before_by) if before_by < after_by else (after, after + 1, after_by)
            beyond %= len(turned)
            apart = abs((turned[near] - turned[beyond] + 180.0) % 360.0 - 180.0)
            if by <= 1.1 * step and 0 < apart <= 1.5 * step:
                wanted.append((index, ((near, 1 + by / apart), (beyond, -by / apart))))
    for chosen in even_subset(len(wanted), min(len(wanted), MOST_PAIRS)) if wanted else []:
        index, parts = wanted[chosen]
        yield views[:, index], sum(weight * views[:, other] for other, weight in parts)  # type: ignore[misc]


def _mirror_curve(view: Array, opposite: Array) -> tuple[Array, float]:
    """Sum of products of a view's and the reversed opposite one's slopes for each place of the mirror (2 detectors - 1,), in
    half bins; and the largest it can be."""
    a, b = (gaussian_filter1d(one, SMOOTHING, axis=-1, order=1) for one in (view, opposite))
    curve = -fftconvolve(a, b, axes=-1).sum(axis=0)
    return curve, float(np.sqrt((a**2).sum() * (b**2).sum())) or 1.0


def _peak(curve: Array) -> tuple[float, float]:
    """Place and height of the largest value, between the samples by a parabola."""
    top = int(np.argmax(curve))
    if not 0 < top < len(curve) - 1:
        return float(top), float(curve[top])
    left, middle, right = curve[top - 1 : top + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return top + float(shift), float(middle - 0.25 * (left - right) * shift)


# -- the sharpest slice ---------------------------------------------------------------------------------------------
def by_entropy(stack: Array, geometry: Geometry, *, near: float) -> Axis:
    """The axis whose slice has the grey values of least entropy; the score is that entropy, in nats.

    A wrong axis doubles and blurs edges, which spreads the histogram (Donath et al., J. Opt. Soc. Am. A 23, 1048, 2006). The
    middle slice is looked at, from coarse to fine steps around the bin ``near``, of half a turn: views from the other side would
    blur a slice that is off its axis, which looks as if it had less in it. The spread is half of what the slices of the
    even and of the odd views are apart.
    """
    lines, geometry = _half_turn(stack[len(stack) // 2], geometry)
    for limits, reach, step in ((COARSE, geometry.detectors / REACH, 1.0), (FINE, None, 0.5), (FINE, 0.5, 0.125)):
        small, scan, factor = _smaller(lines, geometry, limits)
        start, reach = (near - (factor - 1) / 2) / factor, 1.5 if reach is None else max(reach / factor, 4 * step)
        places = np.arange(start - reach, start + reach + step / 2, step)
        inside = places[(places >= 0) & (places <= scan.detectors - 1)]
        if not len(inside):
            raise InputError(f"no axis near bin {near:.1f} is on the detector", hint="give --center BIN")
        scores = _entropies(small, scan, inside)
        near = float(inside[np.argmin(scores[0])]) * factor + (factor - 1) / 2
    minima = [_peak(-one) for one in scores]
    whole, even, odd = (float(np.interp(top, np.arange(len(inside)), inside)) for top, _ in minima)
    at = whole * factor + (factor - 1) / 2
    return Axis(at, "entropy", -minima[0][1], max(abs(even - odd) / 2 * factor, 0.01))


def _half_turn(lines: Array, geometry: Geometry) -> tuple[Array, Geometry]:
    """The views of the first half turn."""
    turned = (np.asarray(geometry.angles) - geometry.angles[0]) % 360.0
    kept = np.flatnonzero(turned < 180.0 - 1e-6)
    return lines[kept], replace(geometry, angles=tuple(geometry.angles[i] for i in kept))


def _smaller(lines: Array, geometry: Geometry, limits: tuple[int, int]) -> tuple[Array, Geometry, int]:
    """A sinogram (views, detectors) and its scan with no more bins and views than the limits, and how many bins became
    one."""
    factor = -(-geometry.detectors // limits[0])
    bins = geometry.detectors // factor
    kept = even_subset(geometry.views, min(geometry.views, limits[1]))
    small = lines[kept, : bins * factor].reshape(len(kept), bins, factor).mean(axis=2)
    spacing = geometry.detector_spacing * factor
    pixel = spacing
    side = max(1, min(bins, round(max(geometry.shape) * geometry.pixel_size / pixel)))
    angles = tuple(geometry.angles[i] for i in kept)
    scan = replace(
        geometry, angles=angles, detectors=bins, shape=(side, side), detector_spacing=spacing, pixel_size=pixel,
        center=None, axis_pixel=None,
    )  # fmt: skip
    return small, scan, factor


def _entropies(lines: Array, scan: Geometry, places: Array) -> Array:
    """Entropy of the slice of all, of the even and of the odd views with the axis at each of the places (3, places)."""
    middle = _slices(lines, replace(scan, center=float(places[len(places) // 2])))
    limits = np.percentile(middle, [0.1, 99.9], axis=1).T
    limits = limits + 0.25 * np.ptp(limits, axis=1, keepdims=True) * [-1, 1] + [0, 1e-12]
    scores = np.empty((3, len(places)))
    for column, at in enumerate(places):
        slices = _slices(lines, replace(scan, center=float(at)))
        scores[:, column] = [_entropy(one, (low, high)) for one, (low, high) in zip(slices, limits, strict=True)]
    return scores


def _slices(lines: Array, scan: Geometry) -> Array:
    """Filtered back-projections of all, of the even and of the odd views, without a stored matrix: (3, pixels) of those
    within the circle that every view sees."""
    sinogram = torch.from_numpy(np.ascontiguousarray(lines, dtype=np.float32))[None]
    weighted = ramp_filter(sinogram, "hann") * angular_weights(scan).to(sinogram)[:, None]
    halves = []
    for first in (0, 1):
        part = replace(scan, angles=scan.angles[first::2] or scan.angles)
        halves.append(back_project(part, weighted[:, first::2] if scan.views > 1 else weighted)[0, 0].numpy())
    y, x = np.mgrid[: scan.shape[0], : scan.shape[1]] - (scan.shape[0] - 1) / 2
    inside = x**2 + y**2 < (0.49 * scan.shape[0]) ** 2
    return np.stack([halves[0] + halves[1], 2 * halves[0], 2 * halves[1]])[:, inside]


def _entropy(values: Array, grey: tuple[float, float]) -> float:
    """Of the histogram of grey values within fixed limits, in nats."""
    count, _ = np.histogram(np.clip(values, *grey), bins=GREY_LEVELS, range=grey)
    share = count[count > 0] / max(count.sum(), 1)
    return float(-(share * np.log(share)).sum())
