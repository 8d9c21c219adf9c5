"""How a CT scanner looked at the slice: one object that states every convention, and its ``geometry.toml``.

Coordinates: x to the right and y **up**, in millimetres, origin on the rotation axis. The slice's row 0 is at the top.
At angle 0 the rays run from top to bottom and the detector's first bin is on the left; angles count
**counter-clockwise** (the source goes that way round the slice). A sinogram is (views, detectors).
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from invsolve.errors import InputError


@dataclass(frozen=True)
class Geometry:
    """A two-dimensional scan with a flat detector.

    Parameters
    ----------
    angles : one per view, in degrees; see the module for direction and zero.
    detectors : number of detector bins.
    shape : (height, width) of the slice in pixels.
    kind : "parallel", or "fan" with a point source.
    detector_spacing : width of a bin in mm, on the detector.
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
    kind: Literal["parallel", "fan"] = "parallel"
    detector_spacing: float = 1.0
    pixel_size: float = 1.0
    center: float | None = None
    axis_pixel: tuple[float, float] | None = None
    source_distance: float = math.inf
    detector_distance: float = 0.0

    def __post_init__(self) -> None:
        checks = [
            (self.kind in ("parallel", "fan"), f"kind {self.kind!r}", "parallel or fan"),
            (len(self.angles) > 0, "no angles", "at least one, in degrees"),
            (all(map(math.isfinite, self.angles)), "an angle is not a number", "degrees"),
            (self.detectors > 0, f"{self.detectors} detectors", "at least 1"),
            (len(self.shape) == 2 and min(self.shape) > 0, f"shape {self.shape}", "(height, width) in pixels"),
            (0 < self.detector_spacing < math.inf, f"detector_spacing {self.detector_spacing}", "a width in mm"),
            (0 < self.pixel_size < math.inf, f"pixel_size {self.pixel_size}", "a width in mm"),
        ]
        if self.kind == "fan":
            reach = 0.5 * math.hypot(*self.shape) * self.pixel_size
            checks += [
                (
                    reach < self.source_distance < math.inf,
                    f"source_distance {self.source_distance}",
                    f"a distance in mm that keeps the source outside the slice (more than {reach:.4g})",
                ),
                (
                    0 <= self.detector_distance < math.inf,
                    f"detector_distance {self.detector_distance}",
                    "a distance in mm",
                ),
            ]
        for ok, got, wanted in checks:
            if not ok:
                raise InputError(f"CT geometry: {got}", hint=f"wanted {wanted}")

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

    def window(self) -> tuple[float, float, float, float]:
        """(left, right, bottom, top) of the slice in mm."""
        rows, columns = self.shape
        row, column = self.axis_pixel or ((rows - 1) / 2, (columns - 1) / 2)
        left, top = -(column + 0.5) * self.pixel_size, (row + 0.5) * self.pixel_size
        return left, left + columns * self.pixel_size, top - rows * self.pixel_size, top

    def vectors(self) -> npt.NDArray[np.float64]:
        """ASTRA's per-view vectors (views, 6): ray direction or source, detector middle, step from bin to bin."""
        theta = np.deg2rad(np.asarray(self.angles, dtype=float))
        along = np.stack([np.cos(theta), np.sin(theta)], axis=1)  # the detector's axis
        ray = np.stack([np.sin(theta), -np.cos(theta)], axis=1)
        middle = ((self.detectors - 1) / 2 - self.axis_bin) * self.detector_spacing * along
        step = self.detector_spacing * along
        if self.kind == "parallel":
            return np.concatenate([ray, middle, step], axis=1)
        return np.concatenate([-self.source_distance * ray, middle + self.detector_distance * ray, step], axis=1)

    def subset(self, views: int) -> Geometry:
        """The same scan with ``views`` of its angles, evenly spaced in the list (see :func:`even_subset`)."""
        return replace(self, angles=tuple(self.angles[i] for i in even_subset(self.views, views)))

    @property
    def digest(self) -> str:
        """Hash of everything the projector depends on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]

    # -- files ----------------------------------------------------------------------------------------------------
    def to_toml(self) -> str:
        """The text of a ``geometry.toml``."""
        lines = [
            "# CT geometry of invsolve. Lengths in mm, angles in degrees, counter-clockwise; at 0 the rays run from",
            "# top to bottom and the first detector bin is on the left. Sinogram axes: (views, detectors).",
            f'kind = "{self.kind}"',
            f"angles = [{', '.join(f'{a:.10g}' for a in self.angles)}]",
            f"detectors = {self.detectors}",
            f"shape = [{self.shape[0]}, {self.shape[1]}]",
            f"detector_spacing = {self.detector_spacing!r}",
            f"pixel_size = {self.pixel_size!r}",
            f"center = {self.axis_bin!r}  # rotation axis on the detector, in bins from 0",
        ]
        if self.axis_pixel is not None:
            lines.append(f"axis_pixel = [{self.axis_pixel[0]!r}, {self.axis_pixel[1]!r}]  # row, column")
        if self.kind == "fan":
            lines += [f"source_distance = {self.source_distance!r}", f"detector_distance = {self.detector_distance!r}"]
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
        try:
            fields = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"no such file: {path}", hint="check the path of the geometry") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"cannot read the geometry {path}: {error}", hint="wanted a TOML file") from None
        try:
            return cls(**_geometry_fields(fields))
        except InputError as error:
            raise InputError(f"{path}: {error.message}", hint=error.hint) from None
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(f"{path} is not a CT geometry: {error}", hint="see docs/ct.md for its keys") from None


def _geometry_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The keys of a ``geometry.toml`` as arguments of :class:`Geometry`."""
    fields = dict(fields)
    unit, direction = fields.pop("angle_unit", "degrees"), fields.pop("direction", "counter-clockwise")
    if unit not in ("degrees", "radians"):
        raise InputError(f"angle_unit {unit!r}", hint="wanted degrees or radians")
    if direction not in ("counter-clockwise", "clockwise"):
        raise InputError(f"direction {direction!r}", hint="wanted counter-clockwise or clockwise")
    angles = fields.pop("angles", None)
    if angles is None:
        raise InputError("no angles", hint="give a list, or { first, last, count }")
    if isinstance(angles, dict):
        angles = np.linspace(angles["first"], angles["last"], int(angles["count"]), endpoint=False)
    degrees = np.asarray(angles, dtype=float)
    degrees = np.rad2deg(degrees) if unit == "radians" else degrees
    degrees = -degrees if direction == "clockwise" else degrees
    for name in ("shape", "axis_pixel"):
        if name in fields:
            fields[name] = tuple(fields[name])
    return {**fields, "angles": tuple(float(a) for a in degrees)}


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
    """``views`` angles from 0, evenly over ``span`` degrees, the end excluded."""
    return tuple(span * i / views for i in range(views))
