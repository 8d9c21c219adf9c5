"""How a CT scanner looked at the slice: one object that states every convention, and its ``geometry.toml``.

Coordinates: x to the right and y **up**, in millimetres, origin on the rotation axis. The slice's row 0 is at the top.
At angle 0 the rays are vertical and the detector's first bin is on the left; angles count **counter-clockwise**
(detector and source go that way round the slice). A fan's source is **below** the slice at angle 0 and its detector
above, as in ASTRA's ``fanflat``: ``source = R (sin b, -cos b)``. A sinogram is (views, detectors).

Most medical scanners have an arc of a detector about the source instead, whose bins are equal angles: kind ``fan-arc``.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from invsolve.errors import InputError, first_line
from invsolve.files import BOTH, regular_file
from invsolve.typed import brief

MOST_VALUES = 2**28
"""Most pixels of a slice, and most values of a sinogram: 1 GiB each in float32, of which a solver holds several."""

MOST_VIEWS = 100_000

KINDS = ("parallel", "fan", "fan-arc")

LENGTHS = (1e-6, 1e6)
"""Lengths in mm that a scanner may have."""

Check = tuple[bool, str, str]
"""Whether it holds, what was got, what is wanted."""


@dataclass(frozen=True)
class Geometry:
    """A two-dimensional scan, in ASTRA's convention.

    Parameters
    ----------
    angles : one per view, in degrees; see the module for direction and zero.
    detectors : number of detector bins.
    shape : (height, width) of the slice in pixels.
    kind : "parallel", "fan" with a point source (below the slice at angle 0) and a flat detector, or "fan-arc" with a
        detector on a circle about the source (equal angles from bin to bin).
    detector_spacing : width of a bin in mm, on the detector; of an arc along it, so that neighbouring rays are
        ``detector_spacing / (source_distance + detector_distance)`` radians apart.
    pixel_size : side of a pixel in mm.
    center : where the rotation axis falls on the detector, in bins counted from 0 at the first bin's middle; default
        the middle, (detectors - 1) / 2. A shifted detector and a shifted axis are the same thing here.
    axis_pixel : (row, column) of the rotation axis in the slice, in pixels; default the middle of the slice.
    source_distance : source to rotation axis in mm (fan).
    detector_distance : rotation axis to detector in mm (fan).

    Raises
    ------
    InputError : a value that no scanner has.
    """

    angles: tuple[float, ...]
    detectors: int
    shape: tuple[int, int]
    kind: Literal["parallel", "fan", "fan-arc"] = "parallel"
    detector_spacing: float = 1.0
    pixel_size: float = 1.0
    center: float | None = None
    axis_pixel: tuple[float, float] | None = None
    source_distance: float = math.inf
    detector_distance: float = 0.0

    def __post_init__(self) -> None:
        for ok, got, wanted in self._checks():
            if not ok:
                raise InputError(f"CT geometry: {got}", hint=f"wanted {wanted}")

    def _checks(self) -> Iterator[Check]:
        """What must hold, in an order that lets each check rely on those before it."""
        yield self.kind in KINDS, f"kind = {brief(self.kind)}", " or ".join(KINDS)
        yield isinstance(self.angles, tuple | list) and len(self.angles) > 0, "no angles", "at least one, in degrees"
        yield len(self.angles) <= MOST_VIEWS, f"{len(self.angles)} angles", f"at most {MOST_VIEWS}"
        yield all(map(_is_number, self.angles)), "an angle is not a number", "degrees"
        whole = _is_whole(self.detectors) and self.detectors > 0
        yield whole, f"detectors = {brief(self.detectors)}", "a whole number, at least 1"
        pair = isinstance(self.shape, tuple | list) and len(self.shape) == 2
        yield (
            pair and all(_is_whole(n) and n > 0 for n in self.shape),
            f"shape = {brief(self.shape)}",
            "(height, width) in pixels, whole numbers",
        )
        yield _fits("shape", self.shape)
        yield _fits("angles x detectors", self.sinogram_shape)
        for name in ("detector_spacing", "pixel_size"):
            yield _is_length(getattr(self, name)), f"{name} = {brief(getattr(self, name))}", "a width in mm"
        yield from self._axis_checks()
        if self.kind != "parallel":
            yield from self._fan_checks()

    def _axis_checks(self) -> Iterator[Check]:
        """The axis may lie off the detector or the slice, but not by many times their size."""
        if self.center is not None:
            yield (
                _is_number(self.center) and abs(self.center) <= 10 * self.detectors,
                f"center = {brief(self.center)}",
                f"a bin, such as {(self.detectors - 1) / 2:g} for the middle",
            )
        if self.axis_pixel is not None:
            known = isinstance(self.axis_pixel, tuple | list) and len(self.axis_pixel) == 2
            yield (
                known and all(_is_number(v) and abs(v) <= 10 * max(self.shape) for v in self.axis_pixel),
                f"axis_pixel = {brief(self.axis_pixel)}",
                "(row, column) in pixels",
            )

    def _fan_checks(self) -> Iterator[Check]:
        left, right, bottom, top = self.window()
        reach = math.hypot(max(-left, right), max(-bottom, top))
        yield (
            _is_length(self.source_distance) and self.source_distance > reach,
            f"source_distance = {brief(self.source_distance)}",
            f"a distance in mm that keeps the source outside the slice (more than {reach:.4g})",
        )
        yield (
            self.detector_distance == 0 or _is_length(self.detector_distance),
            f"detector_distance = {brief(self.detector_distance)}",
            "a distance in mm",
        )
        if self.kind == "fan-arc":
            widest = self.opening(max(self.axis_bin, self.detectors - 1 - self.axis_bin))
            yield (
                widest < math.pi / 2,
                f"the arc's outermost ray is {math.degrees(widest):.3g} degrees from the axis",
                "less than 90: check detector_spacing and the distances",
            )

    @property
    def views(self) -> int:
        return len(self.angles)

    @property
    def sinogram_shape(self) -> tuple[int, int]:
        """(views, detectors)."""
        return self.views, self.detectors

    @property
    def axis_bin(self) -> float:
        """Where the rotation axis falls on the detector, in bins."""
        return (self.detectors - 1) / 2 if self.center is None else self.center

    @property
    def magnification(self) -> float:
        """Size on the detector of what has size 1 at the rotation axis."""
        return 1.0 if self.kind == "parallel" else 1 + self.detector_distance / self.source_distance

    @property
    def focal_distance(self) -> float:
        """Source to detector in mm (fans)."""
        return self.source_distance + self.detector_distance

    def opening(self, bins: Any) -> Any:
        """Fan angle in radians of rays that are so many ``bins`` from the axis's bin (fans)."""
        along = bins * self.detector_spacing / self.focal_distance
        return along if self.kind == "fan-arc" else np.arctan(along)

    def bins_at(self, fan: Any) -> Any:
        """The inverse of :meth:`opening`: bins from the axis's bin at which a ray of fan angle ``fan`` is detected."""
        along = fan if self.kind == "fan-arc" else np.tan(fan)
        return along * self.focal_distance / self.detector_spacing

    def window(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) of the slice in mm."""
        rows, columns = self.shape
        row, column = self.axis_pixel or ((rows - 1) / 2, (columns - 1) / 2)
        left, top = -(column + 0.5) * self.pixel_size, (row + 0.5) * self.pixel_size
        return left, left + columns * self.pixel_size, top - rows * self.pixel_size, top

    def vectors(self) -> npt.NDArray[np.float64]:
        """ASTRA's per-view vectors (views, 6): ray direction or source, detector middle, step from bin to bin.

        Of an arc, which ASTRA has not, they are per ray (views * detectors, 6): parallel beams of one bin each.
        """
        theta = np.deg2rad(np.asarray(self.angles, dtype=float))
        along = np.stack([np.cos(theta), np.sin(theta)], axis=1)  # the detector's axis
        ray = np.stack([np.sin(theta), -np.cos(theta)], axis=1)  # of parallel beams; the way to a fan's source
        middle = ((self.detectors - 1) / 2 - self.axis_bin) * self.detector_spacing * along
        step = self.detector_spacing * along
        if self.kind == "fan-arc":
            return self._arc_vectors(theta, ray)
        if self.kind == "parallel":
            return np.concatenate([ray, middle, step], axis=1)
        return np.concatenate([self.source_distance * ray, middle - self.detector_distance * ray, step], axis=1)

    def _arc_vectors(self, theta: npt.NDArray[np.float64], source: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """A ray of fan angle g leaves the source of angle b in the direction of a parallel beam of angle b - g."""
        fan = self.opening(np.arange(self.detectors) - self.axis_bin)
        angle = (theta[:, None] - fan).ravel()
        ray = np.stack([np.sin(angle), -np.cos(angle)], axis=1)
        start = self.source_distance * np.repeat(source, self.detectors, axis=0)
        middle = start - self.focal_distance * ray
        width = self.detector_spacing * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return np.concatenate([ray, middle, width], axis=1)

    def subset(self, views: int) -> Geometry:
        """The same scan with ``views`` of its angles, evenly spaced in the list (see :func:`even_subset`)."""
        return replace(self, angles=tuple(self.angles[i] for i in even_subset(self.views, views)))

    @property
    def digest(self) -> str:
        """Hash of everything the projector depends on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, default=float).encode()).hexdigest()[:24]

    # -- files ----------------------------------------------------------------------------------------------------
    def to_toml(self) -> str:
        """The text of a ``geometry.toml``."""
        lines = [
            "# CT geometry of invsolve, in ASTRA's convention. Lengths in mm, angles in degrees, counter-clockwise.",
            "# At 0 the rays are vertical, the first detector bin is on the left, and a fan's source is below the slice.",
            "# Sinogram axes: (views, detectors).",
            f'kind = "{self.kind}"',
            f"angles = [{', '.join(f'{a:.10g}' for a in self.angles)}]",
            f"detectors = {self.detectors}",
            f"shape = [{self.shape[0]}, {self.shape[1]}]",
            f"detector_spacing = {float(self.detector_spacing)!r}",
            f"pixel_size = {float(self.pixel_size)!r}",
            f"center = {float(self.axis_bin)!r}  # rotation axis on the detector, in bins from 0",
        ]
        if self.axis_pixel is not None:
            lines.append(f"axis_pixel = [{float(self.axis_pixel[0])!r}, {float(self.axis_pixel[1])!r}]  # row, column")
        if self.kind != "parallel":
            lines += [
                f"source_distance = {float(self.source_distance)!r}",
                f"detector_distance = {float(self.detector_distance)!r}",
            ]
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> Geometry:
        """Read a ``geometry.toml``.

        Beside the fields of this class it may say ``angle_unit = "radians"``, ``direction = "clockwise"``, and give the
        angles as ``{ first = 0, last = 180, count = 23 }`` (``last`` excluded).

        Raises
        ------
        InputError : no such file, not TOML, an unknown or missing key, a wrong type.
        """
        table = _read_toml(Path(path))
        try:
            return cls(**_arguments(table))
        except InputError as error:
            raise InputError(f"{path}: {error.message}", hint=error.hint) from None


def _read_toml(path: Path) -> dict[str, Any]:
    regular_file(path, "geometry")
    try:
        return tomllib.loads(path.read_text(encoding=BOTH))
    except RecursionError:
        raise InputError(
            f"cannot read the geometry {path}: nested too deeply", hint="see docs/ct.md for its keys"
        ) from None
    except (OSError, ValueError) as error:  # not text, not TOML, or a number of thousands of digits
        raise InputError(f"cannot read the geometry {path}: {first_line(error)}", hint="wanted a TOML file") from None


def _arguments(table: dict[str, Any]) -> dict[str, Any]:
    """The keys of a ``geometry.toml`` as arguments of :class:`Geometry`, which checks their values."""
    given = dict(table)
    unit = _one_of("angle_unit", given.pop("angle_unit", "degrees"), ("degrees", "radians"))
    direction = _one_of("direction", given.pop("direction", "counter-clockwise"), ("counter-clockwise", "clockwise"))
    if given.get("kind") == "cone":  # before its other keys are called unknown
        raise InputError("kind = 'cone' is not supported yet", hint=f"wanted {' or '.join(KINDS)}")
    if unknown := sorted(set(given) - {field.name for field in fields(Geometry)}):
        raise InputError(f"unknown key {unknown[0]!r}", hint="see docs/ct.md for the keys of a geometry")
    for name in ("angles", "detectors", "shape"):
        if name not in given:
            raise InputError(f"no {name}", hint=_EXAMPLES[name])
    degrees = np.asarray(_angle_list(given.pop("angles")))
    degrees = np.rad2deg(degrees) if unit == "radians" else degrees
    degrees = -degrees if direction == "clockwise" else degrees
    pairs = {name: tuple(given[name]) for name in ("shape", "axis_pixel") if isinstance(given.get(name), list)}
    return {**given, **pairs, "angles": tuple(degrees.tolist())}


_EXAMPLES = {
    "angles": "give a list of numbers, or { first = 0, last = 180, count = 23 }",
    "detectors": "give the number of detector bins, such as detectors = 367",
    "shape": "give rows and columns, such as shape = [256, 256]",
}


def _angle_list(value: Any) -> list[float]:
    """Angles as a ``geometry.toml`` has them, a list or a range without its end."""
    if isinstance(value, list) and all(map(_is_number, value)):
        return [float(angle) for angle in value]
    if not isinstance(value, dict) or set(value) != {"first", "last", "count"}:
        raise InputError(f"angles = {brief(value)}", hint=_EXAMPLES["angles"])
    for name in ("first", "last"):
        if not _is_number(value[name]):
            raise InputError(f"angles: {name} = {brief(value[name])}", hint="wanted a number")
    if not (_is_whole(value["count"]) and 1 <= value["count"] <= MOST_VIEWS):
        raise InputError(f"angles: count = {brief(value['count'])}", hint=f"wanted a whole number, 1 to {MOST_VIEWS}")
    return np.linspace(float(value["first"]), float(value["last"]), value["count"], endpoint=False).tolist()


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InputError(f"{name} = {brief(value)}", hint=f"wanted {' or '.join(known)}")
    return str(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """A real number that a float can hold; True and False are none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_length(value: Any) -> bool:
    return _is_number(value) and LENGTHS[0] <= value <= LENGTHS[1]


def _fits(name: str, shape: tuple[int, int]) -> Check:
    """That an array of this shape can be held in memory."""
    size = int(shape[0]) * int(shape[1])
    got = f"{name} = {brief(shape)} would take {_bytes(4 * size)}"
    return size <= MOST_VALUES, got, f"at most {_bytes(4 * MOST_VALUES)}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count < 2**80 else "more memory than there is"


def even_subset(available: int, wanted: int) -> list[int]:
    """``wanted`` of ``available`` indices, as evenly spaced as integers allow, starting at 0.

    >>> even_subset(180, 4)
    [0, 45, 90, 135]

    Raises
    ------
    InputError : more wanted than there are.
    """
    if not 1 <= wanted <= available:
        raise InputError(f"{wanted} views wanted of a sinogram with {available}", hint=f"give 1 to {available}")
    return [round(i * available / wanted) for i in range(wanted)]


def even_angles(views: int, span: float = 180.0) -> tuple[float, ...]:
    """``views`` angles from 0, evenly over ``span`` degrees, the end excluded.

    Raises
    ------
    InputError : more views than any scan has, which are not even made.
    """
    if views > MOST_VIEWS:
        raise InputError(f"CT geometry: {views} angles", hint=f"wanted at most {MOST_VIEWS}")
    return tuple(span * i / views for i in range(views))
